"""A reader's share of an epoch, in batches of like lengths, from any place on. Needs no torch.

An epoch is one sequence of rows: the shards in a seeded order, and in each its row groups in a seeded order. A reader
takes an equal stretch of it, to within a row, in windows of whole row groups; the rows of a window are sorted by
length, cut into batches, and the batches shuffled. All of it follows from manifests, footers and the seed, so a place
in it is two numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from echo_targets.schemas.dataset.layout import Dataset, LayoutError, must_be_readable
from echo_targets.schemas.errors import UserError

Row: TypeAlias = dict[str, Any]
Filter: TypeAlias = tuple[str, str, Any]

LENGTHS = {
    "training/echo": ("response_token_ids", "unit_targets"),
    "echo_targets": ("response_token_ids", "unit_targets"),
    "training/t2c": ("units",),
    "units": ("units",),
    "training/s2t": ("num_samples",),
    "utterances": ("num_samples",),
}
"""What a row's length is counted in, by table."""
SHARDS, ROW_GROUPS, ROWS, BATCHES = range(4)
"""What is shuffled: a part of the seed."""
PARQUET = pads.ParquetFileFormat()


class Place(NamedTuple):
    """How far a reader is.

    Attributes:
        rows: rows of its stretch before the window it is in, also those that a filter leaves out.
        batches: batches of that window that were given.
    """

    rows: int = 0
    batches: int = 0


START = Place()
NONE = pa.table({})
Item = TypeVar("Item")


class TargetStream:
    """Reads a table's current version, as it is when this is made.

    Page checksums are not verified, which would take as long as reading audio does: `echo-targets check` is for that.

    Args:
        root: a dataset's folder or URL.
        table: such as `training/echo`.
        columns: those that rows have; all where None. Audio is most of a row's bytes.
        filters: what all rows given hold, as `pyarrow.parquet.read_table` takes it: `[("unit_error_rate", "<=", 0.3)]`.
            A null holds nothing. Row groups that the statistics rule out are not read.
        lengths: columns that make a row's length: of a list, the number of its innermost elements; of an integer, its
            value. None is the table's own of `LENGTHS`, or else 1 a row.
        batch_tokens: the most that a batch has of longest x count; a longer row is a batch of its own.
        window_rows: a window is closed when it has as many rows, also those that a filter leaves out. A window is what
            is shuffled together, and what is in memory.
        seed: of the order; None reads the shards as they lie, and of each window the longest rows first.

    Raises:
        LayoutError: there is no such table, or another version of the code wrote it.
        UserError: it has no such column.
    """

    def __init__(
        self,
        root: str,
        table: str = "training/echo",
        *,
        columns: Sequence[str] | None = None,
        filters: Sequence[Filter] = (),
        lengths: Sequence[str] | None = None,
        batch_tokens: int = 20_000,
        window_rows: int = 1000,
        seed: int | None = 0,
    ) -> None:
        dataset = Dataset(root)
        must_be_readable(dataset, table)
        info = dataset.current(table)
        committed = dataset.committed(table, info.fingerprint, info.shards).values()
        self._root = root
        self._files = [(manifest.output.path, manifest.output.rows) for manifest in committed]
        self._lengths = tuple(LENGTHS.get(table, ()) if lengths is None else lengths)
        self._batch_tokens, self._window_rows, self._seed = batch_tokens, window_rows, seed
        schema = dataset.open(self._files[0][0]).schema_arrow if self._files else pa.schema([])
        self._columns = list(schema.names if columns is None else columns)
        self._read = list(dict.fromkeys([*self._columns, *self._lengths, *(name for name, _, _ in filters)]))
        if missing := [name for name in self._read if self._files and name not in schema.names]:
            raise UserError(f"{root}: {table} has no column {', '.join(missing)}; it has {', '.join(schema.names)}")
        typed = [(name, how, _as_stored(value, schema.field(name).type)) for name, how, value in filters if self._files]
        self._filter = pq.filters_to_expression(typed) if typed else None
        self.rows = sum(rows for _, rows in self._files)
        self.stream = {
            "table": table,
            "fingerprint": info.fingerprint,
            "shards": len(self._files),
            "rows": self.rows,
            "filters": str(self._filter),
            "lengths": list(self._lengths),
            "batch_tokens": batch_tokens,
            "window_rows": window_rows,
            "seed": seed,
        }
        """All that the batches of an epoch follow from, beside its number and that of readers."""

    def batches(
        self, epoch: int = 0, reader: int = 0, readers: int = 1, start: Place = START
    ) -> Iterator[tuple[Place, list[Row]]]:
        """A reader's batches from a place on, each with the place after it.

        Lists of numbers are NumPy views, not to be written to; lists of lists are lists of such; all else is Python's.

        Raises:
            LayoutError: a shard does not have the rows that its manifest says.
        """
        first, last = (self.rows * number // readers for number in (reader, reader + 1))
        at, given = first + start.rows, start.batches
        dataset = Dataset(self._root)
        pieces = self._pieces(dataset, epoch, at, last)
        if dataset.storage.remote:
            pieces = prefetch(pieces)
        while at < last:
            count, rows, lengths = self._window(pieces)
            batches = self._batches(lengths, epoch, at)
            at += count
            for number, batch in enumerate(batches[given:], given + 1):
                place = Place(at - count - first, number) if number < len(batches) else Place(at - first)
                yield place, [rows[position] for position in batch.tolist()]
            given = 0
            del rows  # before the next window is read

    def _pieces(self, dataset: Dataset, epoch: int, first: int, last: int) -> Iterator[tuple[int, pa.Table]]:
        """Rows `first` to `last` of the epoch's sequence by row group: how many, and those that pass the filter.

        Opens only the shards that they are in.
        """
        start = 0
        for shard in self._order(len(self._files), SHARDS, epoch).tolist():
            path, rows = self._files[shard]
            if start < last and first < start + rows:
                file = pq.ParquetFile(dataset.storage.open(path), pre_buffer=dataset.storage.remote)
                sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
                if sum(sizes) != rows:
                    raise LayoutError(
                        f"{dataset.where(path)}: has {sum(sizes)} rows, its manifest says {rows}: restore the file"
                    )
                wanted = self._wanted(dataset, path, len(sizes))
                at = start
                for number in self._order(len(sizes), ROW_GROUPS, epoch, shard).tolist():
                    begin, end = max(at, first), min(at + sizes[number], last)
                    if begin < end:
                        yield end - begin, self._rows(file, number, begin - at, end - at) if number in wanted else NONE
                    at += sizes[number]
            start += rows

    def _rows(self, file: pq.ParquetFile, row_group: int, first: int, end: int) -> pa.Table:
        rows = file.read_row_group(row_group, self._read, use_threads=False)  # a piece is too small for threads
        rows = rows.slice(first, end - first)
        return rows if self._filter is None else rows.filter(self._filter)

    def _wanted(self, dataset: Dataset, path: str, row_groups: int) -> set[int]:
        """Row groups in which the statistics allow a row that passes the filter."""
        if self._filter is None:
            return set(range(row_groups))
        fragment = PARQUET.make_fragment(dataset.path(path), dataset.filesystem)
        return {group.id for part in fragment.split_by_row_group(self._filter) for group in part.row_groups}

    def _window(self, pieces: Iterator[tuple[int, pa.Table]]) -> tuple[int, list[Row], np.ndarray]:
        """The next pieces: how many rows they have, and those that pass the filter, with their lengths."""
        count = 0
        rows: list[Row] = []
        lengths = [np.zeros(0, np.int64)]
        for size, table in pieces:
            count += size
            for batch in table.to_batches():
                values = (values_of(batch[name]) for name in self._columns)
                rows += [dict(zip(self._columns, row, strict=True)) for row in zip(*values, strict=True)]
                lengths += [sum(lengths_of(batch[name]) for name in self._lengths) + np.zeros(len(batch), np.int64)]
            if count >= self._window_rows:
                break
        return count, rows, np.concatenate(lengths)

    def _batches(self, lengths: np.ndarray, epoch: int, at: int) -> list[np.ndarray]:
        """Positions in a window, by batch."""
        order = self._order(len(lengths), ROWS, epoch, at)
        order = order[np.argsort(-lengths[order], kind="stable")]
        cuts = [0]
        while cuts[-1] < len(order):
            cuts.append(cuts[-1] + max(1, self._batch_tokens // max(1, int(lengths[order[cuts[-1]]]))))
        batches = [order[start:end] for start, end in pairwise(cuts)]
        return [batches[number] for number in self._order(len(batches), BATCHES, epoch, at)]

    def _order(self, count: int, what: int, epoch: int, number: int = 0) -> np.ndarray:
        if self._seed is None:
            return np.arange(count)
        drawn = np.random.Philox(key=[self._seed, what], counter=[0, 0, number, epoch])  # a stream for each, cheaply
        return np.random.Generator(drawn).permutation(count)


def _as_stored(value: Any, kind: pa.DataType) -> Any:
    """A filter's value in a column's precision: the float32 nearest to 0.3 is above 0.3."""
    if value is None or not pa.types.is_float32(kind):
        return value
    return np.float32(value).item() if isinstance(value, int | float) else [np.float32(each).item() for each in value]


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, the next one made in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def lengths_of(array: pa.Array) -> np.ndarray:
    """Each row's length, int64: of a list, its innermost elements; of an integer, its value; of null, 0."""
    if not pa.types.is_list(array.type):
        return array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = array.offsets.to_numpy()
    while pa.types.is_list(array.type.value_type):
        array = array.values
        ends = array.offsets.to_numpy()[ends]
    return (ends[1:] - ends[:-1]).astype(np.int64)


def values_of(array: pa.Array) -> list[Any]:
    """Each row's value: a list of numbers as a NumPy view, a list of lists as a list of them, all else as Python's."""
    kind = array.type
    rows: list[Any]
    if pa.types.is_dictionary(kind):
        words = array.dictionary.to_pylist()
        return [None if place is None else words[place] for place in array.indices.to_pylist()]
    if pa.types.is_list(kind):
        values = array.values
        numbers = pa.types.is_integer(values.type) or pa.types.is_floating(values.type)
        inner = values.to_numpy() if numbers and not values.null_count else values_of(values)
        rows = [inner[start:end] for start, end in pairwise(array.offsets.to_numpy().tolist())]
    elif pa.types.is_struct(kind):
        names = [field.name for field in kind]
        fields = map(values_of, array.flatten())
        rows = [dict(zip(names, row, strict=True)) for row in zip(*fields, strict=True)]
    elif array.null_count and not (pa.types.is_string(kind) or pa.types.is_binary(kind)):
        return list(array.to_pylist())
    else:
        return list(array.to_numpy(zero_copy_only=False).tolist())
    if array.null_count:
        rows = [row if valid else None for row, valid in zip(rows, array.is_valid().to_pylist(), strict=True)]
    return rows
