"""A job: a chain of stages for each shard. Committed shards are skipped."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from echo_targets.pipeline.attempt import forget_stopped
from echo_targets.pipeline.commit import open_recipe, set_current, sweep
from echo_targets.pipeline.failures import blames_the_data, examples_of
from echo_targets.pipeline.lease import Driver, Lease, WhenBusy
from echo_targets.pipeline.plan import RECIPE, Committed, Plan
from echo_targets.pipeline.reuse import Donors, find_donors
from echo_targets.pipeline.runners.base import Done, Event, Failed, Runner
from echo_targets.pipeline.shard import ShardTask, run_shard
from echo_targets.pipeline.stage import StageSpec, changes, recipe_of
from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset, Index, LayoutError, Manifest
from echo_targets.schemas.dataset.versions import Recipe, Version
from echo_targets.transforms.base import FILTERED, NO_FAILURES, Reject

SICK = 5
"""A stage of which this many shards have failed, and more than were committed, is stopped."""


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
    """A stage may start.

    Attributes:
        recipe: recipe of the stage.
        shards: number of its shards, of which `committed` are there.
        samples: estimated samples to process.
    """

    recipe: Recipe
    shards: int
    committed: int
    samples: int


@dataclass(frozen=True)
class StagePreview:
    """What a run would do to a table.

    Attributes:
        recipe: recipe of the stage.
        shards: number of its shards, of which `committed` are there.
        hours: estimated hours of audio in the others.
        rows, unchanged: number of entries in the others, and how many of them have an outcome that is taken over.
        why: why there is work.
    """

    recipe: Recipe
    shards: int
    committed: int
    hours: float
    rows: int
    unchanged: int
    why: list[str]


@dataclass
class StageReport:
    """Sums over a stage's committed shards, including those of earlier runs; `shards_run` counts only this run's."""

    recipe: Recipe
    of: int
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

    @property
    def why(self) -> str:
        """The reject reasons with their counts, most frequent first."""
        return ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())


JobEvent = Waiting | StageStarted | Event | StageReport


@dataclass(frozen=True)
class Job:
    """A job to run.

    Attributes:
        root: folder or URL that the tables are written to.
        plan: shards of the sources' entries, or the committed tables that the stages start from.
        stages: stages in order; each reads tables of earlier ones.
        max_reject_fraction: a shard fails if a stage rejects more than this fraction of its rows.
        when_busy: what to do if another driver is running on the root: wait for it or refuse to start.
        allow_empty: True if a table may become current though filters dropped all of its rows.
    """

    root: str
    plan: Plan | Committed
    stages: list[StageSpec]
    max_reject_fraction: float
    when_busy: WhenBusy = "refuse"
    allow_empty: bool = False

    def describe(self) -> Iterator[tuple[StageSpec, Recipe]]:
        """Yield each stage with its recipe; runs nothing.

        Raises:
            UserError: a stage's model is missing or damaged, or unsuitable for the corpus.
        """
        upstream = dict(self.plan.recipes)
        for spec in self.stages:
            transform = spec.build()
            if isinstance(self.plan, Plan):
                transform.check_entries(self.plan.shards())
            recipe = recipe_of(
                transform, {each.name: upstream[each.name] for each in transform.reads if each.name in upstream}
            )
            upstream[recipe.table] = recipe.fingerprint
            yield spec, recipe

    def preview(self) -> Iterator[StagePreview]:
        """Yield what `run` would do to each table, starting with that of the plan; writes nothing."""
        dataset, snapshot = Dataset(self.root), self.plan.snapshot
        current = (dataset.index() or Index()).tables
        donors = find_donors(dataset, self.plan) if isinstance(self.plan, Plan) else {}
        planned = [RECIPE] if isinstance(self.plan, Plan) else []
        for recipe in [*planned, *(recipe for _, recipe in self.describe())]:
            there = dataset.there(recipe.table, recipe.fingerprint)
            left = [shard for shard in snapshot.shards if shard.id not in there]
            rows = sum(shard.rows for shard in left)
            unchanged = sum(_taken_over(donors.get(shard.id, Donors()), there) for shard in left)
            version = Version(recipe.fingerprint, snapshot.id)
            yield StagePreview(
                recipe,
                len(snapshot.shards),
                len(snapshot.shards) - len(left),
                sum(shard.samples for shard in left) / SAMPLE_RATE / 3600,
                rows,
                unchanged,
                _why(dataset, version, recipe, rows, unchanged, current.get(recipe.table)),
            )

    def run(self, runner: Runner) -> Iterator[JobEvent]:
        """Run all stages and yield events.

        Raises:
            JobFailed: a shard failed in all of its attempts, or rejected too many rows; or a table lost all of its rows
                to filters.
        """
        dataset = Dataset(self.root)
        stages = list(self.describe())
        with Lease(dataset) as lease:
            for driver in lease.take(self.when_busy):
                yield Waiting(driver)
            yield from self._run(dataset, stages, runner, lease)

    def _run(
        self, dataset: Dataset, stages: list[tuple[StageSpec, Recipe]], runner: Runner, lease: Lease
    ) -> Iterator[JobEvent]:
        donors = find_donors(dataset, self.plan) if isinstance(self.plan, Plan) else {}
        self.plan.commit(dataset)
        shards = self.plan.snapshot.ids
        chains: list[list[ShardTask]] = [[] for _ in shards]
        reports = list[StageReport]()
        known = {name: dataset.committed(name, made, shards) for name, made in self.plan.recipes.items()}
        for spec, recipe in stages:
            open_recipe(dataset, recipe)
            report, samples = StageReport(recipe, len(shards)), 0
            done = known[recipe.table] = dataset.committed(recipe.table, recipe.fingerprint, shards)
            for position, shard in enumerate(shards):
                if shard in done:
                    report.add(done[shard])
                else:
                    givers = donors.get(shard, Donors()).shards
                    task = ShardTask(self.root, spec, recipe, shard, position, givers, self.max_reject_fraction)
                    chains[position].append(task)
                    samples += _samples_upstream(known, [*recipe.upstream, *self.plan.recipes], shard)
            reports.append(report)
            yield StageStarted(recipe, len(shards), report.shards, samples)
        unfinished, emptied = deque(reports), list[StageReport]()
        yield from self._finish(dataset, unfinished, emptied)
        by_stage = {report.recipe.stage: report for report in reports}
        failed: list[Failed] = []
        try:
            with closing(runner.map(chains, run_shard)) as events:
                for event in events:
                    lease.check()
                    yield event
                    if isinstance(event, Done):
                        report = by_stage[event.stage]
                        report.add(event.manifest)
                        report.shards_run += 1
                        self._check_rejects(dataset, report, sum(shard.rows for shard in self.plan.snapshot.shards))
                        yield from self._finish(dataset, unfinished, emptied)
                    elif isinstance(event, Failed) and event.final:
                        failed.append(event)
                        if _is_sick(by_stage[event.stage], failed):
                            raise self._failure(failed, list(by_stage))
        except (GeneratorExit, KeyboardInterrupt, JobFailed):  # workers may have been killed before they cleaned up
            for report in unfinished:
                sweep(dataset, report.recipe)
                forget_stopped(dataset, report.recipe)
            raise
        for report in unfinished:
            sweep(dataset, report.recipe)
            yield report
        if failed:
            raise self._failure(failed, list(by_stage))
        if emptied:
            raise JobFailed(
                "; ".join(map(_said_of_emptied, emptied))
                + ". Correct the filters or the corpus, or set allow_empty=true.",
                1,
            )

    def _failure(self, failed: list[Failed], stages: list[str]) -> JobFailed:
        first = min(failed, key=lambda event: stages.index(event.stage))
        rejects = all(blames_the_data(event.reason) for event in failed)
        remedy = (
            "Correct the data or the stage's settings, or raise max_reject_fraction, and run the same command again"
            if rejects
            else "Run the same command again to retry"
        )
        return JobFailed(
            f"{first.stage}: {len(failed)} of {len(self.plan.snapshot.shards)} shards failed and were not committed, "
            f"for example {first.shard}: {first.reason}. {remedy}; shards that are committed are kept.",
            1 if rejects else 3,
        )

    def _finish(
        self, dataset: Dataset, unfinished: deque[StageReport], emptied: list[StageReport]
    ) -> Iterator[StageReport]:
        """Finish the stages whose shards are all committed, in order; add those to `emptied` that have no row left."""
        while unfinished and unfinished[0].shards == unfinished[0].of:
            report = unfinished.popleft()
            recipe = report.recipe
            sweep(dataset, recipe)
            yield report
            self._check_rejects(dataset, report, report.rows_in)
            if not self.allow_empty and _is_emptied(dataset, report):
                emptied.append(report)
                continue
            set_current(dataset, {recipe.table: Version(recipe.fingerprint, self.plan.snapshot.id)})

    def _check_rejects(self, dataset: Dataset, report: StageReport, rows: int) -> None:
        """Raise JobFailed if more rejects were committed than a stage may have in all, of so many rows."""
        recipe = report.recipe
        if report.rejects > self.max_reject_fraction * rows:
            raise JobFailed(
                f"{recipe.stage}: {report.rejects} of {report.rows_in} rows were rejected ({report.why}), more than "
                f"max_reject_fraction={self.max_reject_fraction:g} allows. Examples: "
                f"{examples_of(self._rejects(dataset, recipe))}. All of them are in "
                f"{dataset.where(f'rejects/{recipe.stage}/{recipe.fingerprint}')}. Correct the data and run "
                "again (`echo-targets retry` where no file size changed), or raise max_reject_fraction.",
                1,
            )

    def _rejects(self, dataset: Dataset, recipe: Recipe) -> list[Reject]:
        committed = dataset.committed(recipe.table, recipe.fingerprint, self.plan.snapshot.ids).values()
        files = [dataset.open(manifest.rejects.path) for manifest in committed if manifest.rejects]
        rows = [row for file in files for row in file.read([KEY, "error_class", "message"]).to_pylist()]
        return [Reject(*row.values()) for row in rows]


def _is_emptied(dataset: Dataset, report: StageReport) -> bool:
    """Return True if filters dropped all rows of a table, or if it has lost all the rows of its current version."""
    if report.rows:
        return False
    if any(reason.startswith(FILTERED) for reason in report.reasons):
        return True
    index = dataset.index()
    before = index.tables.get(report.recipe.table) if index else None
    return before is not None and any(
        manifest.output.rows
        for manifest in dataset.committed(
            report.recipe.table, before.recipe, dataset.snapshot(before.snapshot).ids
        ).values()
    )


def _said_of_emptied(report: StageReport) -> str:
    why = (
        f"all {report.rows_in} rows were dropped ({report.why})" if report.rows_in else "no row belongs to it any more"
    )
    return f"{report.recipe.stage}: {why}, so {report.recipe.table} is empty and did not become current"


def _is_sick(report: StageReport, failed: list[Failed]) -> bool:
    """Return True if so many shards of a stage failed that the others would probably fail, too."""
    mine = sum(event.stage == report.recipe.stage for event in failed)
    return mine >= SICK and mine > report.shards_run


def _taken_over(donors: Donors, there: set[str]) -> int:
    return donors.rows if there.intersection(donors.shards) else 0


def _why(
    dataset: Dataset, version: Version, recipe: Recipe, rows: int, unchanged: int, current: Version | None
) -> list[str]:
    """Return why there is work.

    Args:
        rows, unchanged: number of entries in the shards to run, and how many of them are as in an earlier shard.
    """
    if current is None:
        return ["the table has no finished version yet"]
    if current.recipe != version.recipe:
        try:
            return changes(dataset.recipe(recipe.table, current.recipe), recipe)
        except LayoutError as error:
            return [f"the current version can't be read: {error}"]
    if not rows:
        return []
    if current == version:
        return ["the current version is missing shards"]
    if rows == unchanged:
        return ["the same items are in other shards"]
    return [f"{rows - unchanged} items are new, changed or retried"]


def _samples_upstream(known: dict[str, dict[str, Manifest]], tables: list[str], shard: str) -> int:
    """Return the samples of a shard in the first of `tables` in which it is committed; 0 if there is none."""
    return next((known[table][shard].samples for table in tables if shard in known[table]), 0)
