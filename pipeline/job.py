"""A job: its stages in order, each over all shards; what is committed is not done again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipeline.commit import open_stage, set_current, sweep
from pipeline.plan import Plan
from pipeline.runners.base import Done, Event, Failed, Runner
from pipeline.shard import ShardTask, run_shard
from pipeline.stage import StageSpec, describe
from schemas import ENTRIES
from schemas.layout import Dataset, Manifest, StageInfo
from transforms.base import FILTERED


class JobFailed(Exception):
    """The job can't go on. `exit_code` is 1 for too many rejects, 3 for shards that failed."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class StageStarted:
    """A stage begins: its description, its shards that are already committed, the samples still to do (0: unknown)."""

    info: StageInfo
    committed: int
    samples: int


@dataclass
class StageReport:
    """What a stage did: sums over all its shards, those of earlier runs too."""

    info: StageInfo
    shards_run: int = 0
    rows_in: int = 0
    rows: int = 0
    samples: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, manifest: Manifest) -> None:
        self.rows_in += manifest.rows_in
        self.rows += manifest.output.rows
        self.samples += manifest.samples
        self.reasons.update(manifest.reasons)

    @property
    def rejects(self) -> int:
        """Refused rows, without those that a threshold held back."""
        return sum(count for reason, count in self.reasons.items() if not reason.startswith(FILTERED))


JobEvent = StageStarted | Event | StageReport


@dataclass(frozen=True)
class Job:
    """What `run` is asked to do.

    Attributes:
        root: where the tables go.
        plan: the shards of the sources' entries.
        stages: in order; each reads tables that one before it makes.
        max_reject_fraction: more refused rows of a stage than this share fail the job.
    """

    root: str
    plan: Plan
    stages: list[StageSpec]
    max_reject_fraction: float

    def describe(self) -> Iterator[tuple[StageSpec, StageInfo]]:
        """Each stage with what its table will be, fingerprint included, before anything runs."""
        upstream = {ENTRIES.name: self.plan.info.fingerprint}
        for spec in self.stages:
            transform = spec.build()
            read = {table.name: upstream[table.name] for table in transform.reads if table.name in upstream}
            info = describe(transform, read, self.plan.info.shards)
            upstream[info.table] = info.fingerprint
            yield spec, info

    def run(self, runner: Runner) -> Iterator[JobEvent]:
        """Runs stage after stage, telling what happens.

        Raises:
            JobFailed: a shard failed for good, or too many rows were refused.
        """
        dataset = Dataset(self.root)
        stages = list(self.describe())
        self.plan.commit(dataset)
        for spec, info in stages:
            yield from self._run_stage(dataset, spec, info, runner)

    def _run_stage(self, dataset: Dataset, spec: StageSpec, info: StageInfo, runner: Runner) -> Iterator[JobEvent]:
        open_stage(dataset, info)
        report = StageReport(info)
        tasks = []
        samples = 0
        for shard in range(info.shards):
            if manifest := dataset.manifest(info.table, info.fingerprint, shard, info.shards):
                report.add(manifest)
            else:
                tasks.append(ShardTask(self.root, spec, info, shard))
                samples += _samples_upstream(dataset, info, shard)
        yield StageStarted(info, info.shards - len(tasks), samples)
        failed: list[Failed] = []
        for event in runner.map(tasks, run_shard):
            if isinstance(event, Done):
                report.add(event.manifest)
                report.shards_run += 1
            elif isinstance(event, Failed) and event.final:
                failed.append(event)
            yield event
        sweep(dataset, info)
        yield report
        if failed:
            first = failed[0]
            raise JobFailed(
                f"{info.stage}: {len(failed)} of {info.shards} shards failed, for example shard {first.shard}: "
                f"{first.reason}. The others are committed; run the same command again to retry these.",
                3,
            )
        if report.rows_in and report.rejects / report.rows_in > self.max_reject_fraction:
            reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons.most_common())
            raise JobFailed(
                f"{info.stage}: {report.rejects} of {report.rows_in} rows were rejected ({reasons}), more than "
                f"max_reject_fraction={self.max_reject_fraction:g} allows. `echo-targets status` lists them.",
                1,
            )
        set_current(dataset, info)


def _samples_upstream(dataset: Dataset, info: StageInfo, shard: int) -> int:
    for table, fingerprint in info.upstream.items():
        if manifest := dataset.manifest(table, fingerprint, shard, info.shards):
            return manifest.samples
    return 0
