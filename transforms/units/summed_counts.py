"""Sums of word counts that may not fit into memory: spilled to disk in partitions, which are summed one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from echo_targets.transforms.units.ngram_counts import COUNTS

PARTITIONS = 64


def added(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the sums of several tables of counts, by word."""
    together = pa.concat_tables([COUNTS.empty_table(), *tables])
    return together.group_by("word", use_threads=False).aggregate([("count", "sum")]).rename_columns(COUNTS.names)


def sum_counts(tables: Iterable[pa.Table], keep: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """Add up counts by word. Memory holds one table and one partition.

    Args:
        tables: columns `word` (binary, two bytes or more, each once) and `count` (int64).
        keep: selects the sums to return, such as the most frequent. For tables without common words it must satisfy
            keep(concat(keep(a), keep(b))) == keep(concat(a, b)).
    """
    with TemporaryDirectory(prefix="echo-targets-") as folder:
        paths = []
        for number, table in enumerate(tables):
            paths.append(Path(folder, f"{number}.arrow"))
            _spill(table, paths[-1])
        kept = [keep(added(_partition(paths, number))) for number in range(PARTITIONS)]
    return keep(pa.concat_tables(kept))


def _spill(counts: pa.Table, path: Path) -> None:
    """Write a table as an Arrow file of `PARTITIONS` batches; a word's partition depends on the word only."""
    counts = counts.combine_chunks()
    partitions = _partitions(_whole(counts["word"]))
    with pa.ipc.new_file(str(path), COUNTS) as file:
        for number in range(PARTITIONS):
            rows = counts.take(np.flatnonzero(partitions == number)).combine_chunks()
            file.write_batch(pa.record_batch([_whole(column) for column in rows.columns], schema=COUNTS))


def _partition(paths: list[Path], number: int) -> Iterator[pa.Table]:
    for path in paths:
        with pa.memory_map(str(path)) as source:
            yield pa.Table.from_batches([pa.ipc.open_file(source).get_batch(number)])


def _partitions(words: pa.BinaryArray) -> np.ndarray:
    """Return each word's partition, (W,) int64. Uses its second and last byte, which vary most in 2-byte units."""
    if not len(words):
        return np.zeros(0, np.int64)
    _, offsets, data = words.buffers()
    bounds = np.frombuffer(offsets, np.int32)[words.offset : words.offset + len(words) + 1]
    letters = np.frombuffer(data, np.uint8).astype(np.int64)
    return (letters[bounds[:-1] + 1] + 7 * letters[bounds[1:] - 1]) % PARTITIONS


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)
