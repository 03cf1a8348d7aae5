"""Counts by word that are more than one process should hold: spilled to disk in partitions, and summed one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

COUNTS = pa.schema([pa.field("word", pa.binary()), pa.field("count", pa.int64())])
PARTITIONS = 64


def added(tables: Iterable[pa.Table]) -> pa.Table:
    """The sums of several tables of counts, by word."""
    together = pa.concat_tables([COUNTS.empty_table(), *tables])
    return together.group_by("word", use_threads=False).aggregate([("count", "sum")]).rename_columns(COUNTS.names)


def spill(counts: pa.Table, path: Path) -> None:
    """Writes a table of counts as an Arrow file of `PARTITIONS` batches; equal words are in batches of one number.

    Args:
        counts: words of two bytes or more.
    """
    counts = counts.combine_chunks()
    partition = _partition(_whole(counts["word"]))
    with pa.ipc.new_file(str(path), COUNTS) as file:
        for number in range(PARTITIONS):
            rows = counts.take(np.flatnonzero(partition == number)).combine_chunks()
            file.write_batch(pa.record_batch([_whole(column) for column in rows.columns], schema=COUNTS))


def partition_sums(paths: list[Path], number: int) -> pa.Table:
    """The sums of one partition over all spilled tables."""
    return added(pa.Table.from_batches([batch]) for batch in _read(paths, number))


def _read(paths: list[Path], number: int) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with pa.memory_map(str(path)) as source:
            yield pa.ipc.open_file(source).get_batch(number)


def _partition(words: pa.BinaryArray) -> np.ndarray:
    """(W,) the partition of each word, from its last byte and its second: those that tell most of two-byte units."""
    if not len(words):
        return np.zeros(0, np.int64)
    _, offsets, data = words.buffers()
    bounds = np.frombuffer(offsets, np.int32)[words.offset : words.offset + len(words) + 1]
    letters = np.frombuffer(data, np.uint8).astype(np.int64)
    return (letters[bounds[:-1] + 1] + 7 * letters[bounds[1:] - 1]) % PARTITIONS


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
