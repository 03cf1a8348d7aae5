"""A reader's share of an epoch, in batches of similar lengths, from any position on. Does not import torch.

An epoch is one sequence of rows: the shards in a seeded order, and their row groups in a seeded order. Each reader
takes an equal stretch of it, to within a row, in windows of whole row groups. The rows of a window are sorted by
length and cut into batches, and the batches are shuffled. All of this follows from manifests, footers and the seed, so
two numbers describe a position.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from itertools import pairwise
from operator import and_
from typing import Any, NamedTuple, TypeAlias, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from echo_targets.schemas import SAMPLE_RATE, TABLES
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, must_be_readable
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.loading.filters import Filter, expressions_of

Row: TypeAlias = dict[str, Any]

LENGTHS = {
    "training/echo": ("response_token_ids", "unit_targets"),
    "echo_targets": ("response_token_ids",),
    "training/t2c": ("units",),
    "units": ("units",),
    "features": ("frames",),
    "training/s2t": ("num_samples",),
    "utterances": ("num_samples",),
}
"""Columns whose tokens make up a row's length, by table. A row of any other table is one token."""
TOKEN_SAMPLES = SAMPLE_RATE // 50
"""Samples of `num_samples` that count as one token: 20 ms, a frame of Whisper's encoder."""
MOSTLY_TOO_LONG = 0.9
"""Share of a window's rows that may be longer than a batch without a warning."""
FEW_ROWS = 4
"""Number of such rows that never gives a warning: the last window of an epoch may be small."""
SHARDS, ROW_GROUPS, ROWS, BATCHES = range(4)
"""What is shuffled; part of the seed."""
PARQUET = pads.ParquetFileFormat()


class Place(NamedTuple):
    """Position of a reader.

    Attributes:
        rows: rows of its stretch before the current window, including those that a filter removes.
        batches: batches of that window that were returned.
    """

    rows: int = 0
    batches: int = 0


START = Place()
NONE = pa.table({})
Item = TypeVar("Item")


class TargetStream:
    """Reads one version of a table, even if another becomes current meanwhile.

    Page checksums are not verified, which would take as long as loading the audio; `echo-targets check` verifies them.

    Args:
        root: a dataset's folder or URL.
        table: such as `training/echo`.
        version: a label, `recipe@snapshot` or a recipe, as `echo-targets status` shows them; None for the current one.
            Label the version that a long training reads, so that `gc` keeps it.
        columns: columns of the rows; None for all. Audio is most of a row's bytes.
        filters: conditions on the rows, joined by "and": `[("unit_error_rate", "<=", 0.3)]` (see `expressions_of`). A
            null passes none. Row groups that the statistics exclude are not loaded.
        lengths: columns that make up a row's length in tokens: for a list, the number of its innermost elements; for
            `num_samples`, one per 20 ms; for another integer, its value. None uses the table's `LENGTHS`, or else 1 per
            row.
        batch_tokens: maximum of longest x count of a batch, in tokens; a longer row is a batch of its own. A warning
            says so if nearly every row is longer.
        window_rows: a window is closed at this many rows, including those that a filter removes. The rows of a window
            are shuffled together and held in memory.
        seed: seed of the order. None reads the shards in stored order, and each window's longest rows first.

    Raises:
        LayoutError: there is no such table or version, it is not whole, or another version of the code wrote it.
        UserError: it has no such column, or a filter or a parameter is invalid.
    """

    def __init__(
        self,
        root: str,
        table: str = "training/echo",
        *,
        version: str | None = None,
        columns: Sequence[str] | None = None,
        filters: Sequence[Filter] | None = None,
        lengths: Sequence[str] | None = None,
        batch_tokens: int = 20_000,
        window_rows: int = 1000,
        seed: int | None = 0,
    ) -> None:
        dataset = Dataset(root)
        made = dataset.named(table, version) if version else dataset.current(table)
        must_be_readable(dataset, table, made)
        committed = dataset.manifests(table, made)
        self._root, self._table = root, table
        self._files = [(manifest.output.path, manifest.output.rows) for manifest in committed]
        self._lengths = tuple(LENGTHS.get(table, ()) if lengths is None else lengths)
        self._batch_tokens, self._window_rows, self._seed = batch_tokens, window_rows, seed
        schema = dataset.open(self._files[0][0]).schema_arrow if self._files else TABLES[table].schema
        self._filters = expressions_of(filters or (), schema, f"{root}: {table}")
        self._filter = reduce(and_, self._filters.values()) if self._filters else None
        self._filtered_by = list(dict.fromkeys(name for name, _, _ in filters or ()))
        self._columns = list(schema.names if columns is None else columns)
        self._read = list(dict.fromkeys([*self._columns, *self._lengths, *self._filtered_by]))
        if missing := [name for name in self._read if name not in schema.names]:
            raise UserError(f"{root}: {table} has no column {', '.join(missing)}; it has {', '.join(schema.names)}")
        for name in self._lengths:
            if not (pa.types.is_list(kind := schema.field(name).type) or pa.types.is_integer(kind)):
                raise UserError(f"lengths: {name} of {table} is {kind}; name a column of lists or integers")
        for name, value in (("batch_tokens", batch_tokens), ("window_rows", window_rows)):
            if value < 1:
                raise UserError(f"{name} is {value}; pass at least 1")
        self._warned = False
        self.rows = sum(rows for _, rows in self._files)
        self.stream = {
            "table": table,
            "version": str(made),
            "shards": len(self._files),
            "rows": self.rows,
            "filters": str(self._filter),
            "lengths": list(self._lengths),
            "batch_tokens": batch_tokens,
            "window_rows": window_rows,
            "seed": seed,
        }
        """Everything that determines the batches of an epoch, apart from its number and the number of readers."""

    def batches(
        self, epoch: int = 0, reader: int = 0, readers: int = 1, start: Place = START
    ) -> Iterator[tuple[Place, list[Row]]]:
        """Yield a reader's batches from a position on, each with the position after it.

        Lists of numbers are read-only NumPy views; lists of lists are lists of these; all else is plain Python.

        Raises:
            LayoutError: a shard's number of rows differs from its manifest's.
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
            del rows  # free them before loading the next window

    def must_have_rows(self) -> None:
        """Check that at least one row of the table passes the filters.

        Raises:
            UserError: none does; the message says how many rows each filter drops.
        """
        if not self.rows:
            raise UserError(
                f"{self._root}: {self._table} has no rows, so an epoch has no batches. `echo-targets status "
                f"{self._root}` shows what was rejected and why."
            )
        if self._filter is None:
            return
        dataset = Dataset(self._root)
        dropped = dict.fromkeys(self._filters, 0)
        for path, _ in self._files:
            rows = dataset.open(path).read(self._filtered_by)
            if rows.filter(self._filter).num_rows:
                return
            for name, expression in self._filters.items():
                dropped[name] += rows.num_rows - rows.filter(expression).num_rows
        by = ", ".join(f"{name} drops {count}" for name, count in dropped.items())
        raise UserError(
            f"{self._root}: no row of {self._table} passes the filters. Of {self.rows} rows, {by}. Relax or remove a "
            "filter."
        )

    def _pieces(self, dataset: Dataset, epoch: int, first: int, last: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield rows `first` to `last` of the epoch by row group: their number, and the rows that pass the filter.

        Opens only the shards that hold them.
        """
        start = 0
        for shard in self._order(len(self._files), SHARDS, epoch).tolist():
            path, rows = self._files[shard]
            if start < last and first < start + rows:
                file = pq.ParquetFile(dataset.storage.open(path), pre_buffer=dataset.storage.remote)
                sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
                if sum(sizes) != rows:
                    raise LayoutError(
                        f"{dataset.where(path)}: has {sum(sizes)} rows, but its manifest says {rows}: restore the file"
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
        """Return the row groups that may hold rows that pass the filter, according to the statistics."""
        if self._filter is None:
            return set(range(row_groups))
        fragment = PARQUET.make_fragment(dataset.path(path), dataset.filesystem)
        return {group.id for part in fragment.split_by_row_group(self._filter) for group in part.row_groups}

    def _window(self, pieces: Iterator[tuple[int, pa.Table]]) -> tuple[int, list[Row], np.ndarray]:
        """Load the next window: its number of rows, the rows that pass the filter, and their lengths."""
        count = 0
        rows: list[Row] = []
        lengths = [np.zeros(0, np.int64)]
        for size, table in pieces:
            count += size
            for batch in table.to_batches():
                values = (values_of(batch[name]) for name in self._columns)
                rows += [dict(zip(self._columns, row, strict=True)) for row in zip(*values, strict=True)]
                each = (tokens_of(name, batch[name]) for name in self._lengths)
                lengths.append(sum(each, np.zeros(len(batch), np.int64)))
            if count >= self._window_rows:
                break
        tokens = np.concatenate(lengths)
        self._warn_of_single_rows(tokens)
        return count, rows, tokens

    def _warn_of_single_rows(self, tokens: np.ndarray) -> None:
        longer = int((tokens > self._batch_tokens).sum())
        if longer > max(FEW_ROWS, MOSTLY_TOO_LONG * len(tokens)) and not self._warned:
            self._warned = True
            warnings.warn(
                f"batch_tokens={self._batch_tokens} makes batches of one row: {longer} of {len(tokens)} rows of "
                f"{self._table} are longer (median {int(np.median(tokens))} tokens). Pass a larger batch_tokens; "
                "docs/TRAINING.md lists what a token is in each table.",
                stacklevel=2,
            )

    def _batches(self, lengths: np.ndarray, epoch: int, at: int) -> list[np.ndarray]:
        """Return row positions in a window, by batch."""
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
        drawn = np.random.Philox(key=[self._seed, what], counter=[0, 0, number, epoch])  # cheap independent streams
        return np.random.Generator(drawn).permutation(count)


def prefetch(items: Iterator[Item]) -> Iterator[Item]:
    """Yield the same items, while a thread computes the next one."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def lengths_of(array: pa.Array) -> np.ndarray:
    """Return each row's length, int64: for a list, its innermost elements; for an integer, its value; for null, 0."""
    if not pa.types.is_list(array.type):
        return array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    ends = array.offsets.to_numpy()
    while pa.types.is_list(array.type.value_type):
        array = array.values
        ends = array.offsets.to_numpy()[ends]
    return (ends[1:] - ends[:-1]).astype(np.int64)


def tokens_of(name: str, array: pa.Array) -> np.ndarray:
    """Return each row's length in tokens, int64: as `lengths_of`, but 20 ms of `num_samples` are one token."""
    lengths = lengths_of(array)
    return -(-lengths // TOKEN_SAMPLES) if name == "num_samples" else lengths


def values_of(array: pa.Array) -> list[Any]:
    """Return each row's value: lists of numbers as NumPy views, lists of lists as lists of these, others as Python."""
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
