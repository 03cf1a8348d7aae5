"""A job: a chain of stages for each shard. Committed shards are skipped."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from echo_targets.pipeline.attempt import forget_stopped
from echo_targets.pipeline.commit import open_stage, set_current, sweep
from echo_targets.pipeline.lease import Driver, Lease, WhenBusy
from echo_targets.pipeline.plan import Committed, Plan
from echo_targets.pipeline.runners.base import Done, Event, Failed, Runner
from echo_targets.pipeline.shard import ShardTask, run_shard
from echo_targets.pipeline.stage import StageSpec, changes, stage_info
from echo_targets.schemas.dataset.layout import INDEX, Dataset, LayoutError, Manifest, StageInfo
from echo_targets.transforms.base import NO_FAILURES


class JobFailed(Exception):
    """The job can't continue. `exit_code` is 1 for too many rejects, 3 for failed shards."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, exit_code)  # both are needed to unpickle it
        self.message, self.exit_code = message, exit_code

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class Waiting:
    """Another driver is running on the root; this one waits for it."""

    driver: Driver


@dataclass(frozen=True)
class StageStarted:
    """A stage may start: its description, its number of committed shards, and the estimated samples to process."""

    info: StageInfo
    committed: int
    samples: int


@dataclass(frozen=True)
class StagePreview:
    """What a run would do to a table: the version it makes, its number of committed shards, and why there is work."""

    info: StageInfo
    committed: int
    why: list[str]


@dataclass
class StageReport:
    """Sums over a stage's committed shards, including those of earlier runs; `shards_run` counts only this run's."""

    info: StageInfo
    shards: int = 0
    shards_run: int = 0
    rows_in: int = 0
    rows: int = 0
    samples: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, manifest: Manifest) -> None:
        self.shards += 1
        self.rows_in += manifest.rows_in
        self.rows += manifest.output.rows
        self.samples += manifest.samples
        self.reasons.update(manifest.reasons)

    @property
    def rejects(self) -> int:
        """Number of rejected rows, without those that a filter dropped and turns without a reply."""
        return sum(count for reason, count in self.reasons.items() if not reason.startswith(NO_FAILURES))


JobEvent = Waiting | StageStarted | Event | StageReport


@dataclass(frozen=True)
class Job:
    """A job to run.

    Attributes:
        root: folder or URL that the tables are written to.
        plan: shards of the sources' entries, or the committed tables that the stages start from.
        stages: stages in order; each reads tables of earlier ones.
        max_reject_fraction: the job fails if a stage rejects more than this fraction of its rows.
        when_busy: what to do if another driver is running on the root: wait for it or refuse to start.
    """

    root: str
    plan: Plan | Committed
    stages: list[StageSpec]
    max_reject_fraction: float
    when_busy: WhenBusy = "refuse"

    def describe(self) -> Iterator[tuple[StageSpec, StageInfo]]:
        """Yield each stage with the description of its future table, including the fingerprint; runs nothing.

        Raises:
            UserError: a stage's model is missing or damaged, or unsuitable for the corpus.
        """
        upstream = dict(self.plan.tables)
        for spec in self.stages:
            transform = spec.build()
            if isinstance(self.plan, Plan):
                transform.check_entries(self.plan.shards())
            read = {table.name: upstream[table.name] for table in transform.reads if table.name in upstream}
            info = stage_info(transform, read, self.plan.num_shards)
            upstream[info.table] = info.fingerprint
            yield spec, info

    def preview(self) -> Iterator[StagePreview]:
        """Yield what `run` would do to each table, starting with that of the plan; writes nothing."""
        dataset = Dataset(self.root)
        current = (dataset.read_json(INDEX) or {}).get("tables", {})
        planned = [self.plan.info] if isinstance(self.plan, Plan) else []
        for info in [*planned, *(info for _, info in self.describe())]:
            committed = len(dataset.committed(info.table, info.fingerprint, info.shards))
            yield StagePreview(info, committed, _why(dataset, info, committed, current.get(info.table)))

    def run(self, runner: Runner) -> Iterator[JobEvent]:
        """Run all stages and yield events.

        Raises:
            JobFailed: a shard failed in all of its attempts, or too many rows were rejected.
        """
        dataset = Dataset(self.root)
        stages = list(self.describe())
        with Lease(dataset) as lease:
            for driver in lease.take(self.when_busy):
                yield Waiting(driver)
            yield from self._run(dataset, stages, runner, lease)

    def _run(
        self, dataset: Dataset, stages: list[tuple[StageSpec, StageInfo]], runner: Runner, lease: Lease
    ) -> Iterator[JobEvent]:
        self.plan.commit(dataset)
        chains: list[list[ShardTask]] = [[] for _ in range(self.plan.num_shards)]
        reports = list[StageReport]()
        known = {name: dataset.committed(name, version, len(chains)) for name, version in self.plan.tables.items()}
        for spec, info in stages:
            open_stage(dataset, info)
            report, samples = StageReport(info), 0
            done = known[info.table] = dataset.committed(info.table, info.fingerprint, info.shards)
            for shard, chain in enumerate(chains):
                if shard in done:
                    report.add(done[shard])
                else:
                    chain.append(ShardTask(self.root, spec, info, shard))
                    samples += _samples_upstream(known, [*info.upstream, *self.plan.tables], shard)
            reports.append(report)
            yield StageStarted(info, report.shards, samples)
        unfinished = deque(reports)
        yield from self._finish(dataset, unfinished)
        by_stage = {report.info.stage: report for report in reports}
        failed: list[Failed] = []
        try:
            with closing(runner.map(chains, run_shard)) as events:
                for event in events:
                    lease.check()
                    yield event
                    if isinstance(event, Done):
                        by_stage[event.stage].add(event.manifest)
                        by_stage[event.stage].shards_run += 1
                        yield from self._finish(dataset, unfinished)
                    elif isinstance(event, Failed) and event.final:
                        failed.append(event)
        except (GeneratorExit, KeyboardInterrupt):  # the engine may have killed its workers before they cleaned up
            for report in unfinished:
                sweep(dataset, report.info)
                forget_stopped(dataset, report.info)
            raise
        for report in unfinished:
            sweep(dataset, report.info)
            yield report
        if failed:
            first = min(failed, key=lambda event: list(by_stage).index(event.stage))
            raise JobFailed(
                f"{first.stage}: {len(failed)} of {self.plan.num_shards} shards failed, for example shard "
                f"{first.shard}: {first.reason}. The others are committed. Run the same command again to retry the "
                "failed ones.",
                3,
            )

    def _finish(self, dataset: Dataset, unfinished: deque[StageReport]) -> Iterator[StageReport]:
        """Finish the stages whose shards are all committed, in order."""
        while unfinished and unfinished[0].shards == unfinished[0].info.shards:
            report = unfinished.popleft()
            sweep(dataset, report.info)
            yield report
            if report.rows_in and report.rejects / report.rows_in > self.max_reject_fraction:
                reasons = ", ".join(f"{count} {reason}" for reason, count in report.reasons.most_common())
                rejects = dataset.where(f"rejects/{report.info.stage}/{report.info.fingerprint}")
                raise JobFailed(
                    f"{report.info.stage}: {report.rejects} of {report.rows_in} rows were rejected ({reasons}), more "
                    f"than max_reject_fraction={self.max_reject_fraction:g} allows. They are in {rejects}.",
                    1,
                )
            set_current(dataset, report.info)


def _why(dataset: Dataset, info: StageInfo, committed: int, current: str | None) -> list[str]:
    if current == info.fingerprint:
        return [] if committed == info.shards else ["the current version is missing shards"]
    if current is None:
        return ["the table has no finished version yet"]
    try:
        return changes(dataset.stage(info.table, current), info)
    except LayoutError as error:
        return [f"the current version can't be read: {error}"]


def _samples_upstream(known: dict[str, dict[int, Manifest]], tables: list[str], shard: int) -> int:
    """Return the samples of a shard in the first of `tables` in which it is committed; 0 if there is none."""
    return next((known[table][shard].samples for table in tables if shard in known[table]), 0)
