"""Reuse rows of an earlier version if their input is unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.pipeline.compare import differing, plain_strings
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import KEY, UTTERANCES
from echo_targets.schemas.dataset.layout import ASIDE, Dataset
from echo_targets.transforms.base import Output, Parameters, Transform

SAME = "has_outcome"


class Reuse(Parameters):
    """The stage to run, and the version whose rows are reused.

    Attributes:
        transform, parameters: the stage, as in `StageSpec`.
        root: root of the dataset.
        before: fingerprint of the version whose rows are reused.
    """

    transform: str
    parameters: dict[str, Any]
    root: str
    before: str


class Reusing(Transform):
    """Runs a stage's model only on rows that are new, changed or were rejected, and on their dialogues.

    The input tables of the earlier version are compared with the new ones: a row is unchanged if its whole dialogue is
    equal in all of them. The model is loaded when the first row needs it.
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

    def fingerprint_parameters(self) -> dict[str, Any]:
        return self.inner.fingerprint_parameters()

    def weight_digests(self) -> dict[str, str]:
        return self.inner.weight_digests()

    def wanted(self, rows: pa.Table) -> pa.BooleanArray | None:
        return self.inner.wanted(rows)

    def costs(self, rows: pa.Table) -> list[int]:
        return self.inner.costs(rows)

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        rows = self.inner.rows(window, shard)
        seen = self._seen
        if seen is None or seen[0] is not shard:  # once per shard, for all of its windows
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
        """Return the keys of the shard's rows that need not be recomputed."""
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
    """Return the keys of rows that only one of two tables has, or that differ in any column."""
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
    """Rows of an earlier version of a table, by key. Shards that were set aside take precedence over current ones."""

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
        """Return the keys that have a row."""
        return keys.filter(pc.is_in(keys, value_set=self._keys))

    def shards_of(self, keys: pa.Array) -> list[int]:
        """Return the shards that hold rows with the given keys."""
        places = pc.drop_null(pc.index_in(keys, value_set=self._keys)).to_numpy()
        return sorted({int(shard) for shard in self._shard_of[places]})

    def beside(self, rows: pa.Table) -> pa.Table:
        """Return all rows of the shards that hold keys of the given rows, with the same columns."""
        parts = [self.read(shard, rows.column_names) for shard in self.shards_of(rows[KEY].combine_chunks())]
        alike = [part for part in parts if part.schema.equals(rows.schema)]  # rows of another schema count as changed
        return pa.concat_tables([rows.schema.empty_table(), *alike]).unify_dictionaries().combine_chunks()
