"""`echo-targets rerun --only rejects`: tries refused rows again; a model's work on the others is taken over.

A shard is made anew as `run` makes it: the same windows, checks and commit, in the plan's order, so its bytes are those
of a full run. Only where a model would work on a row that it has worked on before, the row that it wrote is taken.
Ingest, measure and publish have no model on the device and do their shards whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.jobs.commands.run import job_of, run_job, say_plan
from echo_targets.jobs.config import load
from echo_targets.jobs.screen import open_console
from echo_targets.jobs.versions.difference import differing
from echo_targets.jobs.versions.parts import plain_strings
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.lease import Lease, WhenBusy
from echo_targets.pipeline.stage import StageSpec, changes
from echo_targets.schemas import ENTRIES, KEY, UTTERANCES
from echo_targets.schemas.dataset.layout import ASIDE, Dataset, Manifest, StageInfo, shard_name
from echo_targets.schemas.dataset.storage import Storage
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import FILTERED, Output, Parameters, Transform

SAME = "has_outcome"
BLOCK = 1 << 24


class RerunError(UserError):
    """More has changed than a rerun of refused rows can take in."""


def rerun_command(config: str, overrides: list[str]) -> int:
    """Tries refused rows again; gives the exit code."""
    console = open_console()
    settings = load(config, overrides)
    job = job_of(settings)
    dataset = Dataset(job.root)
    reusing = reusing_job(job)
    unfinished = any(table.committed < table.info.shards for table in job.foresee())
    for info, shards in set_aside(job, settings.when_busy):
        console.print(f"{info.stage}: {shards} of {info.shards} shards hold rows to try again", markup=False)
    say_plan(job, console)
    if unfinished:
        console.print("Shards that are missing are made first; the command after that tries what they refuse again.")
    code = run_job(settings, reusing, console)
    if code == 0:
        _forget_aside(dataset)
    return code


def reusing_job(job: Job) -> Job:
    """The job, its models spared the rows whose input is what it was when the current version was made.

    Raises:
        LayoutError: nothing was finished yet.
        RerunError: a model, or what it is told, is another than that of the current version.
    """
    dataset = Dataset(job.root)
    current, stages = dataset.tables(), list[StageSpec]()
    for spec, info in job.describe():
        if spec.transform_class().on_device and info.table in current:
            before = dataset.stage(info.table, current[info.table])
            if other := [line for line in changes(before, info) if not line.startswith("upstream.")]:
                raise RerunError(
                    f"{info.stage}: {'; '.join(other)}. A model that is another, or is told something else, gives "
                    "other rows, not the refused ones alone: use `echo-targets run`."
                )
            known = Reuse(
                transform=spec.transform, parameters=spec.parameters, root=job.root, before=before.fingerprint
            )
            spec = replace(spec, transform=f"{__name__}:Reusing", parameters=known.model_dump(mode="json"))
        stages.append(spec)
    return replace(job, stages=stages)


# -- rows that were refused, in versions that stay --------------------------------------------------------------------


def set_aside(job: Job, when_busy: WhenBusy) -> list[tuple[StageInfo, int]]:
    """Takes back the shards that hold rows to try again, in that stage and in those after it.

    Copies of them are set aside first, for `Reusing`. Their manifests go last stage first: whenever this is stopped,
    no shard counts that was made from one that does not. While shards of the job are missing nothing is taken back:
    they may be those of a rerun that was stopped, and are to be made first.

    Returns:
        The stages with such rows, and in how many shards.

    Raises:
        RerunError: a version that the job does not make was made from one of the shards.
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
    """Whether a shard holds rejects that another attempt can change: not those of a threshold or of the plan."""
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
    """A version must not stay committed when what it was made from is no longer what it was."""
    mine = {info.fingerprint for info in infos}
    for table, fingerprints in dataset.versions().items():
        for fingerprint in set(fingerprints) - mine:
            other = dataset.stage(table, fingerprint)
            if changed.fingerprint in other.upstream.values() and dataset.manifest(
                table, fingerprint, shard, other.shards
            ):
                raise RerunError(
                    f"{dataset.where(table, fingerprint)} was made from {changed.table}/{changed.fingerprint} too, and "
                    "not by this configuration; it would no longer match. Delete it with `echo-targets gc`, or use "
                    "`echo-targets run` with another root."
                )


def _take_back(storage: Storage, manifests: list[Manifest]) -> None:
    paths = [f"{one.table}/{one.fingerprint}/{shard_name(one.shard, one.shards)}.json" for one in manifests]
    for one, path in zip(manifests, paths, strict=True):
        _copy(storage, one.output.path)
        _copy(storage, path)
    for one, path in zip(reversed(manifests), reversed(paths), strict=True):
        storage.delete(path)
        if one.rejects:  # there may be none to put in its place
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


# -- rows that were not refused ---------------------------------------------------------------------------------------


class Reuse(Parameters):
    """What is taken over.

    Attributes:
        transform, parameters: the stage, as `StageSpec` has them.
        root: the dataset's.
        before: fingerprint of the version whose rows are taken.
    """

    transform: str
    parameters: dict[str, Any]
    root: str
    before: str


class Reusing(Transform):
    """A stage with a model, of which a row is asked only if it, or its dialogue, is not what it was, or was refused.

    To be compared, the tables that the earlier version was made from are read beside the new ones: a row is what it was
    where all of its dialogue is equal in all of them. The model is loaded when the first row needs it.
    """

    on_device: ClassVar[bool] = True
    Parameters = Reuse
    parameters: Reuse

    def __init__(self, parameters: Reuse, device: str = "cpu") -> None:
        super().__init__(parameters, device)
        self.inner = StageSpec(parameters.transform, parameters.parameters, device).build()
        for name in ("name", "version", "reads", "writes", "wants_audio", "equal_costs", "window_rows", "together"):
            setattr(self, name, getattr(self.inner, name))
        self._is_set_up = False
        self._seen: tuple[Mapping[str, pa.Table], pa.Array] | None = None
        self._earlier: dict[str, _Earlier] = {}

    def meaning(self) -> dict[str, Any]:
        return self.inner.meaning()

    def weights(self) -> dict[str, str]:
        return self.inner.weights()

    def wanted(self, rows: pa.Table) -> pa.BooleanArray | None:
        return self.inner.wanted(rows)

    def costs(self, rows: pa.Table) -> list[int]:
        return self.inner.costs(rows)

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        rows = self.inner.rows(window, shard)
        seen = self._seen
        if seen is None or seen[0] is not shard:  # once for all of its windows
            seen = self._seen = shard, self._with_outcome(shard)
        return rows.append_column(SAME, pc.is_in(rows[KEY], value_set=seen[1]))

    def __call__(self, batch: pa.Table) -> Output:
        old = self._outcomes(batch.filter(batch[SAME])[KEY])
        fresh = batch.filter(pc.invert(batch[SAME])).drop_columns(SAME).combine_chunks()
        if not len(fresh):
            return Output(old)
        if not self._is_set_up:
            self.inner.setup()
            self._is_set_up = True
        made = self.inner(self.inner.prepare(fresh))
        return Output(pa.concat_tables([old, made.rows]), made.rejects)

    def _with_outcome(self, shard: Mapping[str, pa.Table]) -> pa.Array:
        """Keys of the shard's rows that need not be made again."""
        made_from = self._version(self.writes.name).info.upstream
        people, touched = dict[str, str | None](), set[str]()
        for table in self.reads:
            now = shard.get(table.name)
            if (now is None) != (table.name not in made_from):
                return pa.array([], pa.string())
            if now is not None:
                then = self._version(table.name).beside(now)
                touched |= _touched(then, now)
                for rows in (then, now) if table is UTTERANCES else ():
                    people.update(zip(rows[KEY].to_pylist(), rows["dialogue_id"].to_pylist(), strict=True))
        dialogues = {people.get(key) for key in touched} - {None}
        same = [key for key, dialogue in people.items() if key not in touched and dialogue not in dialogues]
        return self._version(self.writes.name).known(pa.array(same, pa.string()))

    def _outcomes(self, keys: pa.ChunkedArray) -> pa.Table:
        earlier, wanted = self._version(self.writes.name), keys.combine_chunks()
        parts = [earlier.read(shard, self.writes.columns) for shard in earlier.shards_of(wanted)]
        taken = [part.filter(pc.is_in(part[KEY], value_set=wanted)).cast(self.writes.schema) for part in parts]
        return pa.concat_tables([self.writes.schema.empty_table(), *taken])

    def _version(self, table: str) -> _Earlier:
        if table not in self._earlier:
            root, before = self.parameters.root, self.parameters.before
            made = table == self.writes.name
            fingerprint = before if made else self._version(self.writes.name).info.upstream[table]
            self._earlier[table] = _Earlier(root, table, fingerprint)
        return self._earlier[table]


def _touched(then: pa.Table, now: pa.Table) -> set[str]:
    """Keys of rows that are in one of two tables alone, or differ in any column."""
    then, now = plain_strings(then), plain_strings(now)
    old, new = (rows[KEY].combine_chunks() for rows in (then, now))
    only = [
        old.filter(pc.is_null(pc.index_in(old, value_set=new))),
        new.filter(pc.is_null(pc.index_in(new, value_set=old))),
    ]
    place = pc.index_in(new, value_set=old)
    before, after = then.take(pc.drop_null(place)), now.filter(pc.is_valid(place))
    differs = np.zeros(len(after), bool)
    for name in now.column_names:
        differs |= differing(before, after, name)
    return {key for keys in (*only, after[KEY].filter(pa.array(differs))) for key in keys.to_pylist()}


class _Earlier:
    """An earlier version of a table: its rows by key. What was set aside goes before what is there now."""

    def __init__(self, root: str, table: str, fingerprint: str) -> None:
        here, aside = Dataset(root), Dataset(f"{root.rstrip('/')}/{ASIDE}")
        self.info = here.stage(table, fingerprint)
        self._files: dict[int, tuple[Dataset, str]] = {}
        for dataset in (here, aside):
            for shard, manifest in dataset.committed(table, fingerprint, self.info.shards).items():
                self._files[shard] = dataset, manifest.output.path
        keys = {shard: self.read(shard, [KEY])[KEY].combine_chunks() for shard in self._files}
        self._keys = pa.concat_arrays([pa.array([], pa.string()), *keys.values()])
        self._shard_of = np.repeat(list(keys), [len(of_shard) for of_shard in keys.values()])

    def read(self, shard: int, columns: list[str]) -> pa.Table:
        dataset, path = self._files[shard]
        with dataset.open(path) as file:
            return file.read(columns).unify_dictionaries().combine_chunks()

    def known(self, keys: pa.Array) -> pa.Array:
        """Those of the keys that have a row."""
        return keys.filter(pc.is_in(keys, value_set=self._keys))

    def shards_of(self, keys: pa.Array) -> list[int]:
        """The shards that hold rows of the keys."""
        places = pc.drop_null(pc.index_in(keys, value_set=self._keys)).to_numpy()
        return sorted({int(shard) for shard in self._shard_of[places]})

    def beside(self, rows: pa.Table) -> pa.Table:
        """The rows of all shards that hold some of the given rows' keys, in the same columns."""
        parts = [self.read(shard, rows.column_names) for shard in self.shards_of(rows[KEY].combine_chunks())]
        alike = [part for part in parts if part.schema.equals(rows.schema)]  # of another schema, no row is what it was
        return pa.concat_tables([rows.schema.empty_table(), *alike]).unify_dictionaries().combine_chunks()
