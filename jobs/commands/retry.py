"""`echo-targets retry`: retry rejected rows, and reuse what models computed for the others.

A shard is recomputed as `run` would: with the same windows, checks and commit, in the plan's order, so its bytes are
those of a full run. Only rows whose input is unchanged keep the output that the model wrote before. Ingest, measure and
publish run no model on the device and recompute their shards completely.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

import pyarrow.compute as pc

from echo_targets.jobs.commands.run import job_of, print_plan, run_job
from echo_targets.jobs.config import load
from echo_targets.jobs.screen import open_console
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.lease import Lease, WhenBusy
from echo_targets.pipeline.reuse import Reuse
from echo_targets.pipeline.stage import StageSpec, changes
from echo_targets.schemas import ENTRIES, KEY
from echo_targets.schemas.dataset.layout import ASIDE, Dataset, Manifest, StageInfo, shard_name
from echo_targets.schemas.dataset.storage import Storage
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import FILTERED

BLOCK = 1 << 24
REUSING = "echo_targets.pipeline.reuse:Reusing"


class RetryError(UserError):
    """The job changed in a way that requires a full run instead of a retry."""


def retry_command(config: str, overrides: list[str]) -> int:
    """Retry rejected rows, and return the exit code."""
    console = open_console()
    settings = load(config, overrides)
    job = job_of(settings)
    dataset = Dataset(job.root)
    reusing = reusing_job(job)
    unfinished = any(table.committed < table.info.shards for table in job.preview())
    for info, shards in set_aside(job, settings.when_busy):
        console.print(f"{info.stage}: {shards} of {info.shards} shards have rows to retry", markup=False)
    print_plan(job, console)
    if unfinished:
        console.print("Missing shards are computed first. Run the command again afterwards to retry their rejects.")
    code = run_job(settings, reusing, console)
    if code == 0:
        _forget_aside(dataset)
    return code


def reusing_job(job: Job) -> Job:
    """Return the job with stages that reuse the output of rows whose input has not changed since the current version.

    Raises:
        LayoutError: no run has finished yet.
        RetryError: a model or its parameters differ from those of the current version.
    """
    dataset = Dataset(job.root)
    current, stages = dataset.tables(), list[StageSpec]()
    for spec, info in job.describe():
        if spec.transform_class().on_device and info.table in current:
            before = dataset.stage(info.table, current[info.table])
            if other := [line for line in changes(before, info) if not line.startswith("upstream.")]:
                raise RetryError(
                    f"{info.stage}: {'; '.join(other)}. A different model or parameter changes all rows, not only "
                    "rejected ones. Use `echo-targets run`."
                )
            known = Reuse(
                transform=spec.transform, parameters=spec.parameters, root=job.root, before=before.fingerprint
            )
            spec = replace(spec, transform=REUSING, parameters=known.model_dump(mode="json"))
        stages.append(spec)
    return replace(job, stages=stages)


# -- rejected rows, in versions that stay current ---------------------------------------------------------------------


def set_aside(job: Job, when_busy: WhenBusy) -> list[tuple[StageInfo, int]]:
    """Uncommit the shards that have rows to retry, in the stage that rejected them and in all later stages.

    Copies are set aside first, for `Reusing`. Manifests are deleted from the last stage to the first, so that after an
    interruption no committed shard depends on an uncommitted one. If shards of the job are missing, nothing is
    uncommitted: they may be those of an interrupted retry, and must be computed first.

    Returns:
        The stages with rows to retry, and the number of their shards.

    Raises:
        RetryError: a version that is not part of the job was made from one of the shards.
    """
    dataset, counts = Dataset(job.root), dict[str, tuple[StageInfo, int]]()
    infos = [info for _, info in job.describe()]
    with Lease(dataset) as lease:
        for _ in lease.take(when_busy):
            pass
        done = {info.table: dataset.committed(info.table, info.fingerprint, info.shards) for info in infos}
        if any(len(done[info.table]) < info.shards for info in infos):
            return []
        _forget_aside(dataset)
        for shard in range(job.plan.num_shards):
            for place, info in enumerate(infos):
                if _can_change(dataset, info, done[info.table][shard]):
                    counts[info.stage] = info, counts.get(info.stage, (info, 0))[1] + 1
                    again = [done[later.table][shard] for later in infos[place:]]
                    lease.check()
                    _refuse_others(dataset, infos, info, shard)
                    _take_back(dataset.storage, again)
                    break
    return list(counts.values())


def _forget_aside(dataset: Dataset) -> None:
    for path in dataset.storage.find(ASIDE):
        dataset.storage.delete(path)
    if not dataset.storage.remote:  # a bucket has no folders
        shutil.rmtree(dataset.path(ASIDE), ignore_errors=True)


def _can_change(dataset: Dataset, info: StageInfo, manifest: Manifest) -> bool:
    """Return True if a shard has rejects that a retry can change, other than dropped rows and unreadable entries."""
    if manifest.rejects is None or all(reason.startswith(FILTERED) for reason in manifest.reasons):
        return False
    if ENTRIES.name not in info.upstream:
        return True
    plan = dataset.manifest(ENTRIES.name, info.upstream[ENTRIES.name], manifest.shard, manifest.shards)
    if plan is None:
        return True
    with dataset.open(plan.output.path) as file, dataset.open(manifest.rejects.path) as refused:
        entries = file.read([KEY, "error"])
        readable = entries[KEY].filter(pc.is_null(entries["error"]))
        return bool(pc.any(pc.is_in(refused.read([KEY])[KEY], value_set=readable.combine_chunks())).as_py())


def _refuse_others(dataset: Dataset, infos: list[StageInfo], changed: StageInfo, shard: int) -> None:
    """Raise RetryError if a version outside the job was made from a shard that will change."""
    mine = {info.fingerprint for info in infos}
    for table, fingerprints in dataset.versions().items():
        for fingerprint in set(fingerprints) - mine:
            other = dataset.stage(table, fingerprint)
            if changed.fingerprint in other.upstream.values() and dataset.manifest(
                table, fingerprint, shard, other.shards
            ):
                raise RetryError(
                    f"{dataset.where(table, fingerprint)} was made from {changed.table}/{changed.fingerprint} by "
                    "another configuration, and would no longer match it. Delete it with `echo-targets gc`, or use "
                    "`echo-targets run` with another root."
                )


def _take_back(storage: Storage, manifests: list[Manifest]) -> None:
    paths = [f"{one.table}/{one.fingerprint}/{shard_name(one.shard, one.shards)}.json" for one in manifests]
    for one, path in zip(manifests, paths, strict=True):
        _copy(storage, one.output.path)
        _copy(storage, path)
    for one, path in zip(reversed(manifests), reversed(paths), strict=True):
        storage.delete(path)
        if one.rejects:  # the recomputed shard may have no rejects that would replace the file
            storage.delete(one.rejects.path)


def _copy(storage: Storage, path: str) -> None:
    writing = storage.writing(f"{ASIDE}/{path}")
    try:
        with storage.open(path) as source, writing.sink() as sink:
            while block := source.read(BLOCK):
                sink.write(block)
        writing.put()
    finally:
        writing.discard()
