"""Show a job's progress: live bars in a terminal, plain lines elsewhere, and a funnel table at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable
from rich.text import Text

from echo_targets.jobs.escapes import lines, markup, one_line
from echo_targets.pipeline.job import JobEvent, StageReport, StageStarted, Waiting
from echo_targets.pipeline.runners.base import Done, Event, Worked
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.versions import Recipe

LINE_EVERY = 10.0
PLAIN_WIDTH = 160

SHOWN_UNITS = 10


def open_console() -> Console:
    """Return a console for the terminal or, without one, for plain lines that are wide enough not to wrap."""
    console = EscapingConsole(emoji=False)
    return console if console.is_terminal else EscapingConsole(width=PLAIN_WIDTH, emoji=False)


class EscapingConsole(Console):
    """A console that shows escape sequences and workflow commands in any printed text instead of passing them on.

    Line feeds are kept: a caller escapes data with `one_line` or, in markup, with `markup`.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(lines(text), **options)


@dataclass
class _Stage:
    """Progress of a stage; `samples`, `shards` and `rejects` count this run only."""

    recipe: Recipe
    of: int
    total: int
    committed: int
    bar: TaskID
    started: float | None = None
    samples: int = 0
    shards: int = 0
    rejects: int = 0

    def progress(self) -> str:
        elapsed = time.monotonic() - (self.started or time.monotonic())
        factor = f", real-time factor {elapsed * SAMPLE_RATE / self.samples:.3f}" if self.samples else ""
        return (
            f"{self.samples / SAMPLE_RATE / 3600:.2f} of {self.total / SAMPLE_RATE / 3600:.2f} h{factor}, "
            f"{self.committed + self.shards} of {self.of} shards, {self.rejects} rejects"
        )

    def time_left(self) -> str:
        if self.started is None or not 0 < self.samples < self.total:
            return ""
        seconds = (time.monotonic() - self.started) * (self.total - self.samples) / self.samples
        return f", {seconds:.0f} s left"


class Screen:
    """Context manager that shows a job's events. Stages overlap, so each has its own bar."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.reports: list[StageReport] = []
        self._stages: dict[str, _Stage] = {}
        self._last_event = self._last_line = time.monotonic()
        self._live = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[progress]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: JobEvent) -> None:
        """Show one event."""
        if isinstance(event, Waiting):
            self.console.print(f"waiting for another driver to finish: {one_line(event.driver)}", markup=False)
        elif isinstance(event, StageStarted):
            bar = self._live.add_task(event.recipe.stage, total=max(event.samples, 1), progress="", visible=False)
            stage = _Stage(event.recipe, event.shards, event.samples, event.committed, bar)
            self._stages[event.recipe.stage] = stage
        elif isinstance(event, StageReport):
            self._finish(event)
        else:
            self._follow(event)
        self._last_event = time.monotonic()

    def _follow(self, event: Event) -> None:
        stage = self._stages[event.stage]
        if stage.started is None:
            stage.started = self._last_event  # the stage's first shard became ready with the previous event
        if isinstance(event, Worked):
            stage.samples += event.samples
        elif isinstance(event, Done):
            stage.shards += 1
            stage.rejects += sum(event.manifest.reasons.values())
        else:
            again = "" if event.final else ", retrying"
            reason = one_line(event.reason)
            self.console.print(f"{event.stage}: shard {event.shard} failed{again}: {reason}", markup=False)
        done = min(stage.samples, stage.total)
        self._live.update(stage.bar, completed=done, progress=stage.progress(), visible=True)
        if not self.console.is_terminal and time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            self.console.print(f"{event.stage}: {stage.progress()}{stage.time_left()}")

    def _finish(self, report: StageReport) -> None:
        stage = self._stages[report.recipe.stage]
        self._live.remove_task(stage.bar)
        self.reports.append(report)
        if stage.committed == stage.of:
            summary = "nothing to do, all shards are committed"
        else:
            hours = report.samples / SAMPLE_RATE / 3600
            elapsed = time.monotonic() - (stage.started or time.monotonic())
            summary = f"{report.rows} rows, {sum(report.reasons.values())} rejected, {hours:.2f} h in {elapsed:.1f} s"
            if report.shards < report.of:
                summary += f", {report.of - report.shards} of {report.of} shards are missing"
        self.console.print(f"[bold]{report.recipe.stage}[/]: {summary}")
        if report.shards == report.of and not report.rows_in:
            what = (
                f"{report.recipe.table} is empty, because no row of {', '.join(report.recipe.upstream)} belongs to it"
            )
            self.console.print(what, style="bold", markup=False)


def funnel(reports: list[StageReport]) -> RichTable:
    """Return a table of the rows into and out of each stage, with the reject reasons."""
    table = RichTable("stage", "table", "rows in", "rows", "rejected", "why", title="Funnel")
    for report in reports:
        table.add_row(
            report.recipe.stage,
            f"{report.recipe.table}/{report.recipe.fingerprint}",
            str(report.rows_in),
            str(report.rows),
            str(sum(report.reasons.values())),
            markup(report.why),
        )
    return table


def print_unused_units(console: Console, unused: list[int], size: int, what: str) -> None:
    """Print which units of a codebook are unused, if any; `what` completes the sentence."""
    if unused:
        shown = ", ".join(map(str, unused[:SHOWN_UNITS])) + (", …" if len(unused) > SHOWN_UNITS else "")
        console.print(f"{len(unused)} of {size} units ({shown}) {what}", soft_wrap=True)
