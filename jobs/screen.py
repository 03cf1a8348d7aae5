"""What a job shows while it runs: a live bar in a terminal, plain lines elsewhere; a table at the end."""

from __future__ import annotations

import time
from collections import Counter

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from pipeline.job import JobEvent, StageReport, StageStarted
from pipeline.runners.base import Done, Failed, Worked
from schemas import SAMPLE_RATE

LINE_EVERY = 10.0
PLAIN_WIDTH = 160


def open_console() -> Console:
    """The terminal; or plain lines wide enough not to break, where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=PLAIN_WIDTH)


class Screen:
    """Follows a job's events."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.reports: list[tuple[StageReport, float]] = []
        self._live = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
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
        """Takes in one event."""
        if isinstance(event, StageStarted):
            self._start(event)
        elif isinstance(event, Worked):
            self._samples += event.samples
        elif isinstance(event, Done):
            self._shards += 1
            self._rejects.update(event.manifest.reasons)
        elif isinstance(event, Failed):
            again = "" if event.final else ", trying again"
            self.console.print(f"{self._stage}: shard {event.shard} failed{again}: {event.reason}", markup=False)
        else:
            self._finish(event)
            return
        self._update()

    def _start(self, event: StageStarted) -> None:
        self._stage, self._total = event.info.stage, event.samples
        self._began = self._said = time.monotonic()
        self._samples = 0
        self._shards = self._committed = event.committed
        self._all = event.info.shards
        self._rejects: Counter[str] = Counter()
        self._task: TaskID = self._live.add_task(self._stage, total=max(self._total, 1), said="")

    def _update(self) -> None:
        self._live.update(self._task, completed=min(self._samples, self._total), said=self._progress())
        if not self.console.is_terminal and time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            left = ""
            if 0 < self._samples < self._total:
                seconds = (self._said - self._began) * (self._total - self._samples) / self._samples
                left = f", {seconds:.0f} s left"
            self.console.print(f"{self._stage}: {self._progress()}{left}")

    def _progress(self) -> str:
        elapsed = time.monotonic() - self._began
        factor = f", real-time factor {elapsed * SAMPLE_RATE / self._samples:.3f}" if self._samples else ""
        return (
            f"{self._samples / SAMPLE_RATE / 3600:.2f} of {self._total / SAMPLE_RATE / 3600:.2f} h{factor}, "
            f"{self._shards} of {self._all} shards, {sum(self._rejects.values())} rejects"
        )

    def _finish(self, report: StageReport) -> None:
        elapsed = time.monotonic() - self._began
        self._live.remove_task(self._task)
        self.reports.append((report, elapsed))
        if self._committed == self._all:
            said = "nothing to do, all shards are committed"
        else:
            hours = report.samples / SAMPLE_RATE / 3600
            said = f"{report.rows} rows, {sum(report.reasons.values())} refused, {hours:.2f} h in {elapsed:.1f} s"
        self.console.print(f"[bold]{report.info.stage}[/]: {said}")


def funnel(reports: list[StageReport]) -> RichTable:
    """Rows in and out of each stage, and why the others went."""
    table = RichTable("stage", "table", "rows in", "rows", "refused", "why", title="Funnel")
    for report in reports:
        why = ", ".join(f"{count} {reason}" for reason, count in report.reasons.most_common())
        table.add_row(
            report.info.stage,
            f"{report.info.table}/{report.info.fingerprint}",
            str(report.rows_in),
            str(report.rows),
            str(sum(report.reasons.values())),
            why,
        )
    return table
