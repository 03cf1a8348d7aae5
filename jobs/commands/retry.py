"""`echo-targets retry`: compute rejected rows again, and rows that are named.

The number of attempts is part of a row's entry, so a shard with rows to retry gets another id. It is computed as `run`
would, and takes over the outcomes of all other rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.console import Console

from echo_targets.jobs.arguments import Overrides
from echo_targets.jobs.commands.run import job_of, print_plan, run_job, say_cuts
from echo_targets.jobs.config import JobConfig, load
from echo_targets.jobs.screen import open_console
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import Plan, plan
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import NO_FAILURES


def retry_command(
    config: Annotated[str, typer.Argument(help="YAML file or the name of a shipped configuration, as for `run`.")],
    overrides: Overrides = None,
    named: Annotated[
        list[str] | None,
        typer.Option("--id", help="Compute this row again, rejected or not; repeat for more. Others are left."),
    ] = None,
) -> int:
    """Compute rejected rows again, or the rows that are named.

    A changed file of the same size and duration looks the same to `run`. If its row was rejected, retry takes it up; if
    not, name its id. Only the shards that hold such rows are computed, and in them only these rows and their dialogues.
    Rows that a filter dropped are not retried: change the filter and use `run`.

    Example: echo-targets retry folder manifest=calls/manifest.jsonl root=out/calls
    """
    console = open_console()
    settings = load(config, overrides or [])
    named = named or []
    rows = list(named) or None
    if settings.recordings:
        there = keys_of(job_of(settings.recordings))
        recordings = [key for key in named if key in there]
        if recordings or not named:
            if code := _retry(settings.recordings, recordings or None, console):
                return code
            say_cuts(settings.recordings, console)
        if rows is not None:  # a changed recording may be cut in the same places: its cuts are the same entries
            rows = [key for key in rows if key not in there] + cuts_of(job_of(settings), recordings)
    return _retry(settings, rows, console)


def _retry(settings: JobConfig, named: Sequence[str] | None, console: Console) -> int:
    """Retry rows of one job, all rejected ones if None are named, and return the exit code."""
    job = job_of(settings)
    assert isinstance(job.plan, Plan)
    attempts = dict(job.plan.attempts)
    wanted = dict[str, None]()
    for stage, keys in rejected_rows(job) if named is None else [("named", known(job, named))]:
        console.print(f"{stage}: {len(keys)} rows to retry", markup=False)
        wanted.update(dict.fromkeys(keys))
    if not wanted:
        console.print("No row to retry. Items that are new or changed are computed by any run.")
    attempts.update({key: attempts.get(key, 0) + 1 for key in wanted})
    job = replace(job, plan=plan(job.plan.items(), settings.shard_hours, attempts))
    print_plan(job, console)
    return run_job(settings, job, console)


def keys_of(job: Job) -> set[str]:
    """Return the keys of a job's items."""
    assert isinstance(job.plan, Plan)
    return {key for shard in job.plan.shards() for key in shard[KEY].to_pylist()}


def cuts_of(job: Job, recordings: Sequence[str]) -> list[str]:
    """Return the keys of a job's items that are cuts of these recordings."""
    assert isinstance(job.plan, Plan)
    wanted = pa.array(recordings, pa.string())
    shards = [shard.filter(pc.is_in(shard["recording_id"], value_set=wanted)) for shard in job.plan.shards()]
    return [key for shard in shards for key in shard[KEY].to_pylist()]


def known(job: Job, named: Sequence[str]) -> list[str]:
    """Return named rows that are among the job's items.

    Raises:
        UserError: one is not.
    """
    there = keys_of(job)
    if missing := [key for key in named if key not in there]:
        raise UserError(f"--id {missing[0]}: no item of this job has this id")
    return list(named)


def rejected_rows(job: Job) -> Iterator[tuple[str, list[str]]]:
    """Yield each stage that rejected rows in the job's committed shards, and the keys of those that can be retried.

    Rows that a filter dropped, turns without a reply and items that can't be read would end in the same way again.
    """
    dataset, planned = Dataset(job.root), job.plan
    assert isinstance(planned, Plan)
    for _, recipe in job.describe():
        keys = list[str]()
        for shard, manifest in dataset.committed(recipe.table, recipe.fingerprint, planned.snapshot.ids).items():
            if manifest.rejects and not all(reason.startswith(NO_FAILURES) for reason in manifest.reasons):
                with dataset.open(manifest.rejects.path) as file:
                    rejects = file.read([KEY, "error_class"]).to_pylist()
                entries = planned.entries(planned.snapshot.ids.index(shard))
                readable = set(entries.filter(pc.is_null(entries["error"]))[KEY].to_pylist())
                keys += [
                    row[KEY]
                    for row in rejects
                    if row[KEY] in readable and not row["error_class"].startswith(NO_FAILURES)
                ]
        if keys:
            yield recipe.stage, keys
