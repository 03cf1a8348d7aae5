"""`echo-targets run`: a configuration becomes a job."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from echo_targets.jobs.config import ExecutionConfig, JobConfig, load
from echo_targets.jobs.expected import say_differences
from echo_targets.jobs.screen import Screen, funnel, open_console
from echo_targets.jobs.versions.card import write_card
from echo_targets.pipeline.job import Job, JobFailed
from echo_targets.pipeline.plan import Plan, plan
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.sources.base import Expected, Source, SourceError
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.stages.ingest import IngestParameters

FAILED = 3
STOPPED = 130


def run_command(config: str, overrides: list[str], dry_run: bool) -> int:
    """Runs, or with `dry_run` says what would run; gives the exit code."""
    console = open_console()
    settings = load(config, overrides)
    if dry_run:
        dry_run_command(settings, console)
        return 0
    sources = sources_of(settings)
    job = _job(settings, sources)
    say_ignored(sources, console)
    if code := run_job(settings, job, console):
        return code
    return int(say_differences(sources, Dataset(job.root), console))


def sources_of(settings: JobConfig) -> list[Source]:
    """The sources that a configuration names."""
    return list(IngestParameters.model_validate(settings.stages["ingest"]).sources)


def job_of(settings: JobConfig) -> Job:
    """The job that a configuration asks for; lists its sources.

    Raises:
        SourceError: a source can't be listed.
    """
    return _job(settings, sources_of(settings))


def _job(settings: JobConfig, sources: list[Source]) -> Job:
    planned = plan(entries(sources), settings.shard_hours)
    return Job(settings.root, planned, settings.specs(), settings.max_reject_fraction, settings.when_busy)


def say_ignored(sources: list[Source], console: Console) -> None:
    """Prints the keys of each source that was listed and that mean nothing: some may be misspelled."""
    for source in sources:
        if found := [f"{name} ({count:,} line{'s' * (count > 1)})" for name, count in source.ignored.items()]:
            are = "these keys are" if len(found) > 1 else "this key is"
            said = f"{source.place}: {are} ignored: {', '.join(found)}; docs/MANIFESTS.md lists those that are not"
            console.print(said, markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Missing:
    """A source that can't be listed, what it should come to, and why it can't."""

    corpus: str
    expected: Expected
    why: str


@dataclass(frozen=True)
class Survey:
    """What is there of a configuration's sources.

    Attributes:
        job: over those that can be listed.
        found: them, in the configuration's order.
        missing: the others.
    """

    job: Job
    found: list[Source]
    missing: list[Missing]

    @property
    def plan(self) -> Plan:
        """The job's."""
        assert isinstance(self.job.plan, Plan)
        return self.job.plan


def survey(settings: JobConfig) -> Survey:
    """Lists the sources that are there; of the others, those that say what is expected of them can be told of.

    Raises:
        SourceError: a source of which nothing is expected can't be listed, or one is damaged further on.
    """
    found: list[Source] = []
    missing: list[Missing] = []
    for source in sources_of(settings):
        try:
            next(source.items(), None)
        except SourceError as error:
            if source.expected is None:
                raise
            missing.append(Missing(source.corpus, source.expected, str(error)))
        else:
            found.append(source)
    return Survey(_job(settings, found), found, missing)


def run_job(execution: ExecutionConfig, job: Job, console: Console) -> int:
    """Runs a job to its end, or to its failure, and prints the funnel."""
    code = 0
    with Screen(console) as screen:
        try:
            with execution.open_runner() as runner:
                for event in job.run(runner):
                    screen.show(event)
        except JobFailed as failure:
            console.print(str(failure), style="red", markup=False)
            code = failure.exit_code
        except OSError as error:  # of the driver's own files; those of shards are theirs
            console.print(
                f"{job.root}: {error}; what is committed stays, run the same command again", style="red", markup=False
            )
            code = FAILED
        except KeyboardInterrupt:
            console.print("stopped; the same command goes on from here")
            code = STOPPED
    console.print(funnel(screen.reports))
    if code == 0:
        console.print(f"Shards are in {job.root}, described by {write_card(job.root)}", markup=False)
    return code


def dry_run_command(settings: JobConfig, console: Console) -> None:
    """Prints what a run would do, and why; where sources are missing, which, and the stages that wait for them."""
    seen = survey(settings)
    for source, (items, hours) in zip(seen.found, _listed(seen), strict=True):
        if wanted := source.expected:
            what = f"{items:,} items and {hours:,.2f} hours are listed, {wanted}"
            console.print(f"{source.corpus}: {what}", markup=False)
    say_ignored(seen.found, console)
    if not seen.missing:
        say_plan(seen.job, console)
        return
    for lost in seen.missing:
        said = f"{lost.corpus}: missing, {lost.expected}: {lost.why}"
        console.print(said, style="red", markup=False, soft_wrap=True)
    console.print(f"A run wants every source; what they list decides the versions. To {settings.root} it would write:")
    for spec in settings.specs():
        kind = spec.transform_class()
        console.print(f"{kind.name} v{kind.version}: {kind.writes.name} {kind.writes.version}", markup=False)
        try:
            spec.build().weight_digests()
        except UserError as error:
            console.print(f"  missing: {error}", style="red", markup=False, soft_wrap=True)


def _listed(seen: Survey) -> list[tuple[int, float]]:
    """Items and hours of each source that was found."""
    counts = [(0, 0.0)] * len(seen.found)
    for shard in seen.plan.shards():
        sums = shard.group_by("source").aggregate([("seconds", "count"), ("seconds", "sum")])
        for row in sums.to_pylist():
            items, hours = counts[row["source"]]
            counts[row["source"]] = items + row["seconds_count"], hours + row["seconds_sum"] / 3600
    return counts


def say_plan(job: Job, console: Console) -> None:
    """Prints what a run would do, and why."""
    planned = job.plan
    assert isinstance(planned, Plan)
    console.print(
        f"{planned.num_entries} items ({planned.num_bad} of them unreadable lines), "
        f"about {planned.seconds / 3600:.2f} hours, "
        f"in {planned.info.shards} shards, to {job.root}",
        markup=False,
    )
    for table in job.preview():
        info, left = table.info, table.info.shards - table.committed
        what = f"{left} of {info.shards} shards to run" if left else "nothing to do"
        console.print(f"{info.stage}: {info.table}/{info.fingerprint}: {what}", markup=False)
        for reason in table.why:
            console.print(f"  {reason}", markup=False)
