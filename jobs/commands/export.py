"""`echo-targets export`: write a version of a dataset in the format of another trainer or library."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from echo_targets.jobs.arguments import Root
from echo_targets.jobs.escapes import one_line
from echo_targets.jobs.screen import LINE_EVERY, open_console
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.urls import without_secrets

if TYPE_CHECKING:
    from echo_targets.jobs.export.resume import Report


class ExportFormat(StrEnum):
    """Format to export to."""

    HUB = "hub"
    SLAM_OMNI = "slam-omni"
    VOCALNET = "vocalnet"
    MOSHI_FINETUNE = "moshi-finetune"
    LHOTSE = "lhotse"
    WEBDATASET = "webdataset"


def export_command(
    root: Root,
    format: Annotated[
        ExportFormat,
        typer.Argument(
            help="hub: training sets for `datasets`; slam-omni, vocalnet: training/echo as frames; moshi-finetune: "
            "stereo dialogues; lhotse, webdataset: utterances with all tables."
        ),
    ],
    out: Annotated[str, typer.Argument(help="New or empty folder or URL; running the command again resumes.")],
    version: Annotated[
        str | None,
        typer.Option(
            help="A label, RECIPE@SNAPSHOT or a recipe, as `status` shows them. Default: the current version."
        ),
    ] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(
            help="Condition `COLUMN OPERATOR VALUE`, with ==, !=, <, <=, >, >=, in or not in; repeat for more. A "
            "column of a joined table is TABLE.COLUMN. A null passes none."
        ),
    ] = None,
) -> int:
    """Write a version of a dataset in the format of another trainer or library.

    What a format can't express is an error before anything is written, or is counted by reason at the end.

    Example: echo-targets export out/calls hub out/hub

    Example: echo-targets export out/calls slam-omni s3://bucket/slam --version 2026-12 --filter 'target_cer <= 0.1'
    """
    from echo_targets.jobs.export.registry import FORMATS  # imports pyarrow.dataset, which `--help` does not need
    from echo_targets.jobs.export.resume import export

    console, filters = open_console(), filter or []
    chosen = FORMATS[format](Dataset(root), version, filters)
    for source in chosen.sources:
        made = ", ".join(f"{table} {version}" for table, version in source.versions.items())
        console.print(f"{source.rows:,} rows of {made}", markup=False, soft_wrap=True)
        if source.left_out:
            console.print(
                f"Not joined, because they do not exist for these utterances: {', '.join(source.left_out)}",
                markup=False,
                soft_wrap=True,
            )
    with _Progress(console) as progress:
        report = export(chosen, filters, out, progress)
    _show(console, report, without_secrets(out))
    return 0 if report.total else 1


def _show(console: Console, report: Report, out: str) -> None:
    from echo_targets.jobs.export.base import OUT

    for reason, count in report.left_out.items():
        console.print(f"{count:,} rows not exported: {one_line(reason)}", markup=False, soft_wrap=True)
    if not report.total:
        console.print(
            f"NOTHING WAS WRITTEN to {one_line(out)}: no row can be exported.", style="bold red", markup=False
        )
        return
    for table, splits in report.rows.items():
        each = ", ".join(f"{split or '(no split)'} {count:,}" for split, count in splits.items())
        console.print(f"{sum(splits.values()):,} rows of {table}: {one_line(each)}", markup=False, soft_wrap=True)
    for line in report.lines:
        console.print(one_line(line.replace(OUT, out)), markup=False, soft_wrap=True)
    done = "is finished" if report.is_new else "was finished before; nothing to do"
    console.print(f"{one_line(out)} {done}", markup=False, soft_wrap=True)


class _Progress:
    """Shows how many rows are done: a bar in a terminal, else a line every ten seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        columns = (TextColumn("export"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
        self._live = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bar = self._live.add_task("export", total=None)
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> _Progress:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def __call__(self, done: int, of: int) -> None:
        self._live.update(self._bar, completed=done, total=of)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= LINE_EVERY:
            self._last_line = now
            speed = done / (now - self._started)
            self._console.print(f"export: {done:,} of {of:,} rows, {speed:,.0f} rows/s")
