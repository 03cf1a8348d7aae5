"""Run the whole corpus without audio, 1,500,184 rows and 1.1 billion frames, through plan, write, publish, check, read.

python -m benchmarks.rehearsal [--fraction 0.01] [--workers 2] [--root DIR]

Stages that need audio or a model are stand-ins (`benchmarks.rehearsal_stages`); everything else is the code of a job.
Each step runs in its own process with its own workers, so that peak memory can be attributed to a step.
"""

from __future__ import annotations

import argparse
import io
import resource
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.rehearsal_stages import HOP, entries
from echo_targets.jobs.commands.status import status_command
from echo_targets.pipeline.job import Job, StageReport
from echo_targets.pipeline.plan import Committed, plan
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import ENTRIES
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.stages.publish.stage import (
    EchoSetParameters,
    PublishEcho,
    PublishS2T,
    PublishT2C,
    S2TParameters,
    T2CParameters,
)

SHARD_HOURS = 30.0
APPENDED = 1_000
WINDOW_SECONDS = 1e9
"""Batch budget of a stand-in: a whole window, because nothing is padded."""
PUBLISH = {PublishS2T: S2TParameters, PublishT2C: T2CParameters, PublishEcho: EchoSetParameters}
STAND_INS = ("Ingest", "Transcribe", "Tokenize", "Echo")
TRAINS_ON = {
    "training/t2c": ("text", "units", "durations"),
    "training/echo": ("response_token_ids", "unit_targets"),
}
READ_ROWS = 64
MAX_REJECT_FRACTION = 0.5


@dataclass(frozen=True)
class Figures:
    """Figures of a step: rows and frames processed, bytes written, time and memory used."""

    step: str
    rows: int
    frames: int
    bytes: int
    seconds: float
    cpu_seconds: float
    drawing: float
    driver_gb: float
    workers_gb: float
    note: str = ""

    def line(self) -> str:
        drawn = f"{self.drawing:.0f}" if self.drawing else ""
        workers = f"{self.workers_gb:.2f}" if self.workers_gb else ""
        cells = (
            self.step,
            f"{self.rows:,}",
            f"{self.seconds:.1f}",
            f"{self.cpu_seconds:.1f}",
            drawn,
            f"{self.rows / self.seconds:,.0f}",
            f"{self.frames / self.seconds / 1e6:.1f}",
            f"{self.bytes / 1e6:,.1f}",
            f"{self.driver_gb:.2f}",
            workers,
            self.note,
        )
        return f"| {' | '.join(cells)} |"


HEAD = (
    "| step | rows | seconds | CPU seconds | of them drawing | rows/s | million frames/s | MB on disk | "
    "peak GB, driver | peak GB, worker | |\n" + "| --- " * 11 + "|"
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--fraction", type=float, default=0.01)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--root")
    chosen = arguments.parse_args()
    root = chosen.root or tempfile.mkdtemp(prefix="rehearsal-")
    try:
        print(HEAD)
        for figures in rehearse(root, chosen.fraction, chosen.workers):
            print(figures.line(), flush=True)
    finally:
        if not chosen.root:
            shutil.rmtree(root)


def rehearse(root: str, fraction: float, workers: int) -> Iterator[Figures]:
    """Run all steps, each in its own process."""
    stages = len(STAND_INS) + len(PUBLISH)
    steps: list[tuple[Callable[..., Figures], tuple[object, ...]]] = [
        (plan_step, (root, fraction)),
        *((stage_step, (root, position, workers)) for position in range(stages)),
        (check_step, (root,)),
        (metadata_step, (root,)),
        (status_step, (root,)),
        (append_step, (root, fraction, workers)),
        *((read_step, (root, table)) for table in TRAINS_ON),
    ]
    for step, arguments in steps:
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            yield process.submit(step, *arguments).result()


def plan_step(root: str, fraction: float) -> Figures:
    """List the entries, cut them into shards, and write the shards."""
    started = time.perf_counter()
    planned = plan(entries(fraction), SHARD_HOURS)
    planned.commit(Dataset(root))
    return _figures("plan", root, ENTRIES.name, started, note=f"{planned.num_shards} shards")


def stage_step(root: str, position: int, workers: int) -> Figures:
    """Run one stage, as a job of all stages up to it; the earlier ones are committed already."""
    dataset, notes = Dataset(root), Path(root, "notes")
    notes.mkdir(exist_ok=True)
    stages = _stages(notes)
    started = time.perf_counter()
    with LocalRunner(workers) as runner:
        events = Job(root, Committed.of(dataset, ENTRIES.name), stages[: position + 1], MAX_REJECT_FRACTION).run(runner)
        report = [event for event in events if isinstance(event, StageReport)][-1]
    took = sum(float(line) for note in notes.glob(f"{report.recipe.stage}.*") for line in note.read_text().split())
    held = f"{report.rows_in - report.rows:,} rejected or dropped" if report.rows_in != report.rows else ""
    return _figures(report.recipe.stage, root, report.recipe.table, started, took, held)


def append_step(root: str, fraction: float, workers: int) -> Figures:
    """Append 1,000 items to the last corpus, and run all stages again, as a job does."""
    started = time.perf_counter()
    planned = plan(entries(fraction, APPENDED), SHARD_HOURS)
    job = Job(root, planned, _stages(Path(root, "notes")), MAX_REJECT_FRACTION)
    with LocalRunner(workers) as runner:
        reports = [event for event in job.run(runner) if isinstance(event, StageReport)]
    ran = sum(report.shards_run for report in reports)
    note = f"{APPENDED:,} items appended: {ran} of {len(reports) * planned.num_shards:,} shards computed"
    return _figures("append", root, ENTRIES.name, started, note=note)


def metadata_step(root: str) -> Figures:
    """Check manifests, files and footers alone."""
    started = time.perf_counter()
    findings = sum(1 for _ in check_dataset(root, rows=False))
    return _figures("check metadata", root, "", started, note=f"{findings} findings")


def status_step(root: str) -> Figures:
    """Print the status, to nowhere."""
    started = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        status_command(root)
    return _figures("status", root, "", started)


def _stages(notes: Path) -> list[StageSpec]:
    return [
        *(
            StageSpec(f"benchmarks.rehearsal_stages:{name}", {"notes": str(notes)}, batch_seconds=WINDOW_SECONDS)
            for name in STAND_INS
        ),
        *(
            StageSpec(
                f"echo_targets.transforms.stages.publish.stage:{kind.__name__}", parameters().model_dump(mode="json")
            )
            for kind, parameters in PUBLISH.items()
        ),
    ]


def check_step(root: str) -> Figures:
    """Check every rule on every row."""
    started = time.perf_counter()
    findings = sum(1 for _ in check_dataset(root))
    return _figures("check", root, "", started, note=f"{findings} findings")


def read_step(root: str, table: str) -> Figures:
    """Read one epoch of a training set in batches, and count its tokens."""
    started = time.perf_counter()
    dataset = Dataset(root)
    tokens = 0
    for manifest in dataset.manifests(table):
        with dataset.open(manifest.output.path) as file:
            for batch in file.iter_batches(READ_ROWS, columns=TRAINS_ON[table]):
                for column in batch.columns:
                    while pa.types.is_list(column.type):
                        column = pc.list_flatten(column)
                    tokens += len(column)
    return _figures(f"read {table}", root, table, started, note=f"{tokens:,} values")


def _figures(step: str, root: str, table: str, started: float, drawing: float = 0, note: str = "") -> Figures:
    seconds = time.perf_counter() - started
    dataset = Dataset(root)
    rows = samples = size = 0
    for name in [table] if table else dataset.tables():
        for manifest in dataset.manifests(name):
            rows += manifest.rows_in
            samples += manifest.samples
            size += manifest.output.size + (manifest.rejects.size if manifest.rejects else 0)
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_seconds = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    workers = usages[1].ru_maxrss / 2**20
    return Figures(step, rows, samples // HOP, size, seconds, cpu_seconds, drawing, _peak_gb(), workers, note)


def _peak_gb() -> float:
    """Return this process's peak memory in GB; `ru_maxrss` may be that of its parent process."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 2**20


if __name__ == "__main__":
    main()
