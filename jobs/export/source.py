"""The rows to export: one version of a table, joined with other tables of the same utterances, shard by shard.

Memory holds two row groups of the table and, of the other tables, one shard; none of these has audio.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.jobs.export.conditions import parse
from echo_targets.pipeline.compare import plain_strings
from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.dataset.layout import Dataset, Index, LayoutError, must_be_readable
from echo_targets.schemas.dataset.versions import Version
from echo_targets.transforms.base import joined
from echo_targets.transforms.loading.filters import expressions_of
from echo_targets.transforms.loading.stream import prefetch

SPLIT = "split"
ROW = "row"
"""Name of a column that numbers the rows of a shard."""


@dataclass(frozen=True)
class Piece:
    """The rows of one split in one shard. They are written, and resumed, as a whole.

    Attributes:
        source: the source of the rows.
        split: their split, as the table has it.
        number, of: index among the pieces of this split, and how many these are.
        shard: id of the shard.
        rows: number of rows that pass the filters.
    """

    source: Source
    split: str
    number: int
    of: int
    shard: str
    rows: int


class Source:
    """Rows of a version of a table.

    Args:
        dataset: the dataset.
        table: name of the table; it has the columns `utterance_id` and `split`.
        version: a label, a recipe or `recipe@snapshot`, of this table or of one of `joins`; None for the current one.
        joins: tables of which each row gets its own row as a struct, null if it has none.
        filters: conditions on columns of the table, or on `joined_table.column`. A null fulfills none.

    Attributes:
        versions: versions of the table and of the tables that are joined, by name.
        left_out: tables of `joins` that do not exist for this version of the table.

    Raises:
        UserError: there is no such table or version, it is not whole, or a filter is invalid.
    """

    def __init__(
        self,
        dataset: Dataset,
        table: str,
        version: str | None = None,
        joins: Sequence[str] = (),
        filters: Sequence[str] = (),
    ) -> None:
        self.dataset, self.table = dataset, table
        self.versions = _versions(dataset, table, version, joins)
        self.left_out = [name for name in joins if name not in self.versions]
        for name, made in self.versions.items():
            must_be_readable(dataset, name, made)
        manifests = {name: dataset.manifests(name, made) for name, made in self.versions.items()}
        self._files = {name: {one.shard: one.output.path for one in found} for name, found in manifests.items()}
        self.rows = sum(manifest.output.rows for manifest in manifests[table])
        self.schemas = {name: self._schema(name) for name in self.versions}
        schema = _flat(self.schemas, table)
        self._filters = expressions_of([parse(text, schema) for text in filters], schema, f"{dataset.root}: {table}")
        self._filtered_by = sorted({parse(text, schema)[0] for text in filters})

    @property
    def shards(self) -> list[str]:
        """Ids of the shards, in the snapshot's order."""
        return list(self._files[self.table])

    def pieces(self) -> list[Piece]:
        """Return what there is to export, in order; empty if no row passes the filters."""
        counts = {shard: Counter(self._kept(shard)[SPLIT].to_pylist()) for shard in self.shards}
        found = [(shard, split, rows) for shard, splits in counts.items() for split, rows in sorted(splits.items())]
        of = Counter(split for _, split, _ in found)
        numbers: Counter[str] = Counter()
        pieces = []
        for shard, split, rows in found:
            pieces.append(Piece(self, split, numbers[split], of[split], shard, rows))
            numbers[split] += 1
        return pieces

    def why_nothing(self) -> str:
        """Explain why there are no pieces: how many rows each filter drops."""
        if not self.rows:
            return f"{self.table} of {self.dataset.root} has no rows; `echo-targets status` shows what was rejected."
        dropped = dict.fromkeys(self._filters, 0)
        for shard in self.shards:
            rows = self._filterable(shard)
            for text, condition in self._filters.items():
                dropped[text] += rows.num_rows - rows.filter(condition).num_rows
        by = ", ".join(f"{text} drops {count}" for text, count in dropped.items())
        return f"no row of {self.table} passes the filters. Of {self.rows} rows, {by}. Relax or remove a filter."

    def values(self, columns: Sequence[str]) -> set[tuple[Any, ...]]:
        """Return the distinct values of columns, over all rows that pass the filters."""
        found = set[tuple[Any, ...]]()
        for shard in self.shards:
            rows = self.read(shard, self.table, columns).take(self._kept(shard)[ROW])
            found.update(zip(*(rows[name].to_pylist() for name in columns), strict=True))
        return found

    def read(self, shard: str, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of a shard of a table, with categories as strings. The filters do not apply."""
        with self.dataset.open(self._files[table][shard]) as file:
            return plain_strings(file.read(columns))

    def batches(
        self, piece: Piece, columns: Sequence[str], joins: Mapping[str, Sequence[str]] | None = None
    ) -> Iterator[pa.Table]:
        """Yield the rows of a piece, a row group at a time, while a thread reads the next one.

        Args:
            columns: columns of the table.
            joins: columns of the tables to join, by name. Those that are left out are not joined.
        """
        return prefetch(self._batches(piece, columns, joins or {}))

    def _batches(self, piece: Piece, columns: Sequence[str], joins: Mapping[str, Sequence[str]]) -> Iterator[pa.Table]:
        wanted = {name: [KEY, *others] for name, others in joins.items() if name in self.versions}
        others = {name: self.read(piece.shard, name, list(dict.fromkeys(these))) for name, these in wanted.items()}
        kept = self._kept(piece.shard)
        rows = kept.filter(pc.equal(kept[SPLIT], piece.split))[ROW].to_numpy()
        start = 0
        with self.dataset.open(self._files[self.table][piece.shard]) as file:
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                here = rows[(rows >= start) & (rows < end)] - start
                start = end
                if len(here):
                    batch = plain_strings(file.read_row_group(group, list(columns)).take(pa.array(here)))
                    for name, other in others.items():
                        batch = joined(batch, TABLES[name], other)
                    yield batch

    def _kept(self, shard: str) -> pa.Table:
        """Return the number and the split of each row of a shard that passes the filters."""
        rows = self._filterable(shard)
        if self._filters:
            rows = rows.filter(reduce(and_, self._filters.values()))
        return rows.select([ROW, SPLIT])

    def _filterable(self, shard: str) -> pa.Table:
        """Return the columns that the filters use, and SPLIT and ROW, of all rows of a shard."""
        own = [name for name in self._filtered_by if "." not in name]
        rows = self.read(shard, self.table, list(dict.fromkeys([KEY, SPLIT, *own])))
        for table in sorted({name.rpartition(".")[0] for name in self._filtered_by if "." in name}):
            names = [name.rpartition(".")[2] for name in self._filtered_by if name.startswith(f"{table}.")]
            rows = joined(rows, TABLES[table], self.read(shard, table, [KEY, *names]))
            for name in names:
                rows = rows.append_column(f"{table}.{name}", pc.struct_field(rows[table], name))
            rows = rows.drop_columns([table])
        return rows.append_column(ROW, pa.array(range(len(rows)), pa.int64()))

    def _schema(self, table: str) -> pa.Schema:
        with self.dataset.open(next(iter(self._files[table].values()))) as file:
            return plain_strings(file.schema_arrow.empty_table()).schema


def _versions(dataset: Dataset, table: str, name: str | None, joins: Sequence[str]) -> dict[str, Version]:
    """Return the versions of a table, and of those of `joins` that it was made from or that were made from it.

    `joins` names a table before those that it is made from, except for those that `table` is made from.
    """
    index = dataset.tables()
    named = _named(dataset, [table, *joins], name) if name else {}
    labels = (dataset.index() or Index()).labels
    if table in named:
        main = named[table]
    elif named:
        other, chosen = next(iter(named.items()))
        main = Version(dataset.recipe(other, chosen.recipe).upstream[table], chosen.snapshot)
    else:
        main = dataset.current(table)
    ids = set(dataset.snapshot(main.snapshot).ids)
    found, upstream = {table: main}, dataset.recipe(table, main.recipe).upstream
    above = set(upstream)
    for other in joins:
        current = index.get(other) if name not in labels else None
        made = named.get(other, current)
        recipe = upstream.get(other) or (made and made.recipe)  # what a joined table was made from goes with it
        if not recipe or not ids <= dataset.there(other, recipe):
            continue
        if other in above or dataset.recipe(other, recipe).upstream.get(table) == main.recipe:
            found[other] = Version(recipe, main.snapshot)
            upstream = dataset.recipe(other, recipe).upstream | upstream
    return found


def _named(dataset: Dataset, tables: Sequence[str], name: str) -> dict[str, Version]:
    """Return the versions of tables that a name stands for.

    Raises:
        LayoutError: it stands for none; the message is about the first table.
    """
    found, errors = dict[str, Version](), list[LayoutError]()
    for table in tables:
        try:
            found[table] = dataset.named(table, name)
        except LayoutError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _flat(schemas: Mapping[str, pa.Schema], table: str) -> pa.Schema:
    """Return the columns that a filter may name."""
    others = [
        field.with_name(f"{name}.{field.name}") for name, schema in schemas.items() if name != table for field in schema
    ]
    return pa.schema([*schemas[table], *others])
