"""`echo-targets retry`: try rejected rows again.

The number of attempts is part of a row's entry, so a shard with rows to retry gets another id. It is computed as `run`
would, and takes over the outcomes of all other rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pyarrow.compute as pc

from echo_targets.jobs.commands.run import job_of, print_plan, run_job
from echo_targets.jobs.config import load
from echo_targets.jobs.screen import open_console
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import Plan, plan
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import NO_FAILURES


def retry_command(config: str, overrides: list[str]) -> int:
    """Retry rejected rows, and return the exit code."""
    console = open_console()
    settings = load(config, overrides)
    job = job_of(settings)
    assert isinstance(job.plan, Plan)
    attempts = dict(job.plan.snapshot.attempts)
    rejected = dict[str, None]()
    for stage, keys in rejected_rows(job):
        console.print(f"{stage}: {len(keys)} rows to retry", markup=False)
        rejected.update(dict.fromkeys(keys))
    if not rejected:
        console.print("No row of this job was rejected for a reason that a retry could change.")
    attempts.update({key: attempts.get(key, 0) + 1 for key in rejected})
    job = replace(job, plan=plan(job.plan.items(), settings.shard_hours, attempts))
    print_plan(job, console)
    return run_job(settings, job, console)


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
