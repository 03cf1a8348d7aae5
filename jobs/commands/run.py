"""`echo-targets run`: build a job from a configuration and run it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.console import Console

from echo_targets.jobs.arguments import Overrides
from echo_targets.jobs.config import ExecutionConfig, JobConfig, load
from echo_targets.jobs.escapes import markup, one_line
from echo_targets.jobs.expected import print_differences
from echo_targets.jobs.recordings import remarks
from echo_targets.jobs.screen import Screen, funnel, open_console
from echo_targets.jobs.stages import SEGMENT
from echo_targets.jobs.versions.card import write_card
from echo_targets.pipeline.job import Job, JobFailed
from echo_targets.pipeline.plan import Plan, plan
from echo_targets.schemas import CUTS, KEY, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset, Index
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.sources.base import Expected, Source, SourceError
from echo_targets.transforms.sources.registry import entries, named
from echo_targets.transforms.stages.ingest import IngestParameters
from echo_targets.transforms.stages.segment.stage import SegmentParameters

FAILED = 3
STOPPED = 130


def run_command(
    config: Annotated[
        str, typer.Argument(help="YAML file or the name of a shipped configuration: folder, corpora/mls, echox-6k.")
    ],
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would run and why, and what is missing; change nothing.")
    ] = False,
) -> int:
    """Run a job: ingest, transcribe, measure, align, tokenize, echo, publish.

    Committed shards are skipped, so running the same command again resumes a stopped job. If a source has an `expected`
    section and ingest stored something else, the difference is printed at the end and the exit code is 1.

    Example: echo-targets run folder manifest=calls/manifest.jsonl root=out/calls workers=2
    """
    console = open_console()
    settings = load(config, overrides or [])
    if dry_run:
        dry_run_command(settings, console)
        return 0
    settings.gpus()  # a missing device is reported before the sources are listed, which may take long
    if settings.recordings and (code := _run_recordings(settings.recordings, console)):
        return code
    sources = sources_of(settings)
    job = _job(settings, sources)
    say_remarks(sources, console)
    _say_system_texts(_plan(job), console)
    if code := run_job(settings, job, console):
        return code
    return int(print_differences(sources_of(settings), Dataset(job.root), console))


def _run_recordings(settings: JobConfig, console: Console) -> int:
    """Cut the recordings, and return the exit code."""
    sources = sources_of(settings)
    job = _job(settings, sources)
    say_remarks(sources, console)
    by_channel = SegmentParameters.model_validate(settings.stages[SEGMENT]).speakers == "channels"
    if by_channel and (texts := sum(len(shard) - shard["reference_text"].null_count for shard in _plan(job).shards())):
        console.print(
            f"recordings with a text without times: {texts:,}. With speakers: channels it is used only where there is "
            "one channel, since it does not say who speaks; transcribe writes new ones",
            soft_wrap=True,
        )
    code = run_job(settings, job, console)
    if code == 0:
        say_cuts(settings, console)
    return code


def say_cuts(settings: JobConfig, console: Console) -> None:
    """Print which recordings gave less than one expects."""
    roles = SegmentParameters.model_validate(settings.stages[SEGMENT]).roles.values()
    wanted = [role for role in ("user", "assistant") if set(roles) & {"user", "assistant"}]
    for remark in remarks(Dataset(settings.root).read(CUTS.name, [KEY, "cuts"]), wanted):
        console.print(one_line(remark), markup=False, soft_wrap=True)


def _plan(job: Job) -> Plan:
    assert isinstance(job.plan, Plan)
    return job.plan


def sources_of(settings: JobConfig) -> list[Source]:
    """Return the sources of a configuration: those of ingest, or of segment if that is its only stage."""
    if "ingest" in settings.stages:
        return list(IngestParameters.model_validate(settings.stages["ingest"]).sources)
    return list(SegmentParameters.model_validate(settings.stages[SEGMENT]).sources)


def job_of(settings: JobConfig) -> Job:
    """Build the job of a configuration, which lists its sources.

    Raises:
        SourceError: a source can't be listed.
    """
    return _job(settings, sources_of(settings))


def _job(settings: JobConfig, sources: list[Source]) -> Job:
    attempts = (Dataset(settings.root).index() or Index()).attempts
    planned = plan(entries(sources), settings.shard_hours, attempts)
    return Job(
        settings.root,
        planned,
        settings.specs(),
        settings.max_reject_fraction,
        settings.when_busy,
        settings.allow_empty,
    )


def say_remarks(sources: list[Source], console: Console) -> None:
    """Print what each listed source left out."""
    for source in sources:
        for remark in source.remarks:
            console.print(one_line(f"{source.place}: {remark}"), markup=False, soft_wrap=True)


@dataclass(frozen=True)
class Missing:
    """A source that can't be listed: what is expected of it, and why listing failed."""

    corpus: str
    expected: Expected
    why: str


@dataclass(frozen=True)
class Survey:
    """Which of a configuration's sources are available.

    Attributes:
        job: job over the sources that can be listed.
        found: the sources that can be listed, in the configuration's order.
        missing: the sources that can't.
    """

    job: Job
    found: list[Source]
    missing: list[Missing]

    @property
    def plan(self) -> Plan:
        """The job's plan."""
        return _plan(self.job)


def survey(settings: JobConfig) -> Survey:
    """List the available sources, and collect the missing ones that declare what is expected of them.

    Raises:
        SourceError: a source without `expected` can't be listed, or a source is damaged after its first item.
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


@contextmanager
def _stop_like_ctrl_c() -> Iterator[None]:
    """Make SIGTERM, by which schedulers stop a job, stop it like Ctrl-C, so that the lease is given back."""
    if threading.current_thread() is not threading.main_thread():  # the only one that may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_job(execution: ExecutionConfig, job: Job, console: Console) -> int:
    """Run a job until it completes or fails, print the funnel, and return the exit code."""
    code = 0
    with _stop_like_ctrl_c(), Screen(console) as screen:
        try:
            with execution.open_runner() as runner:
                for event in job.run(runner):
                    screen.show(event)
        except JobFailed as failure:
            console.print(str(failure), style="red", markup=False)
            code = failure.exit_code
        except OSError as error:  # from the driver's own files; errors of shards are handled per shard
            console.print(
                f"{job.root}: {error}. Committed shards are kept; run the same command again to resume.",
                style="red",
                markup=False,
            )
            code = FAILED
        except KeyboardInterrupt:
            console.print("Stopped. Run the same command again to resume.")
            code = STOPPED
    console.print(funnel(screen.reports))
    if code == 0:
        where = f"Shards are in {job.root}"
        if UTTERANCES.name in Dataset(job.root).tables():
            where += f", described by {write_card(job.root)}"
        console.print(where, markup=False)
    return code


def dry_run_command(settings: JobConfig, console: Console) -> None:
    """Print what a run would do and why, or, if sources are missing, which ones and the stages that need them."""
    if settings.recordings:
        dry_run_command(settings.recordings, console)
        if any(table.committed < table.shards for table in job_of(settings.recordings).preview()):
            console.print("The other stages can be planned when the recordings have been cut.")
            return
    seen = survey(settings)
    listed = _listed(seen)
    for name, source in named(seen.found).items():
        items, hours = listed.get(name, (0, 0.0))
        if wanted := source.expected:
            what = f"{items:,} items and {hours:,.2f} hours listed, {wanted}"
            console.print(one_line(f"{source.corpus}: {what}"), markup=False)
    say_remarks(seen.found, console)
    if not seen.missing:
        print_plan(seen.job, console)
        return
    for lost in seen.missing:
        line = f"{lost.corpus}: missing, {lost.expected}: {lost.why}"
        console.print(one_line(line), style="red", markup=False, soft_wrap=True)
    console.print(
        "A run needs every source, because their items determine the versions. It would write to "
        f"{markup(settings.root)}:"
    )
    for spec in settings.specs():
        kind = spec.transform_class()
        console.print(f"{kind.name} v{kind.version}: {kind.writes.name} {kind.writes.version}", markup=False)
        try:
            spec.build().weight_digests()
        except UserError as error:
            console.print(f"  missing: {error}", style="red", markup=False, soft_wrap=True)


def _listed(seen: Survey) -> dict[str, tuple[int, float]]:
    """Return the items and hours of each source that was found, by its name."""
    counts = dict[str, tuple[int, float]]()
    for shard in seen.plan.shards():
        sums = shard.group_by("source").aggregate([("seconds", "count"), ("seconds", "sum")])
        for row in sums.to_pylist():
            items, hours = counts.get(row["source"], (0, 0.0))
            counts[row["source"]] = items + row["seconds_count"], hours + row["seconds_sum"] / 3600
    return counts


def print_plan(job: Job, console: Console) -> None:
    """Print what a run would do and why."""
    planned = _plan(job)
    console.print(
        f"{planned.num_entries} items ({planned.num_bad} of them unreadable lines), "
        f"about {planned.seconds / 3600:.2f} hours, "
        f"in {planned.num_shards} shards, to {job.root}",
        markup=False,
    )
    _say_system_texts(planned, console)
    for table in job.preview():
        recipe, left = table.recipe, table.shards - table.committed
        what = f"{left} of {table.shards} shards to run, about {table.hours:.2f} hours" if left else "nothing to do"
        if table.unchanged:
            what += f"; {table.unchanged} of their {table.rows} items are unchanged and are not computed again"
        console.print(f"{recipe.stage}: {recipe.table}/{recipe.fingerprint}: {what}", markup=False)
        for reason in table.why:
            console.print(f"  {one_line(reason)}", markup=False)
    for stage, limit, count in _too_long(job, planned):
        console.print(f"{stage}: {count} items are longer than max_seconds={limit:g} and will be dropped", markup=False)


def _say_system_texts(planned: Plan, console: Console) -> None:
    """Print how many dialogues have a system text of their own, and how many texts these are."""
    texts, of = set[str](), set[str]()
    for shard in planned.shards():
        stated = shard.filter(pc.and_(pc.is_null(shard["error"]), pc.is_valid(shard["system_text"])))
        texts.update(pc.unique(stated["system_text"]).to_pylist())
        of.update(pc.coalesce(stated["dialogue_id"], stated[KEY]).to_pylist())
    if texts:
        console.print(f"dialogues with a system text of their own: {len(of):,} ({len(texts):,} different texts)")


def _too_long(job: Job, planned: Plan) -> list[tuple[str, float, int]]:
    """Return the stages with an upper limit of the duration, the limit, and how many readable items exceed it."""
    limits = [
        (spec.transform_class().name, spec.parameters["max_seconds"], spec.parameters.get("roles"))
        for spec in job.stages
        if spec.parameters.get("max_seconds") is not None and spec.transform_class().name != SEGMENT
    ]
    counts = [0] * len(limits)
    for shard in planned.shards() if limits else ():
        entries = shard.filter(pc.is_null(shard["error"]))
        for place, (_, limit, roles) in enumerate(limits):
            longer = pc.greater(entries["seconds"], limit)
            if roles is not None:
                longer = pc.and_(longer, pc.is_in(entries["role"].cast(pa.string()), value_set=pa.array(roles)))
            counts[place] += pc.sum(longer).as_py() or 0
    return [(stage, limit, count) for (stage, limit, _), count in zip(limits, counts, strict=True) if count]
