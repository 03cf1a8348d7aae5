"""Counts of unit words, as Arrow tables that can be added up anywhere.

A table has the columns `word` (binary: the units as big-endian 16-bit integers, so that bytes sort like units) and
`count` (int64). Each word occurs once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import LARGEST_CODEBOOK

Word: TypeAlias = tuple[int, ...]
Sequences: TypeAlias = pa.ListArray | pa.ChunkedArray | Iterable[Sequence[int]]
"""Collapsed unit sequences: an Arrow column of lists, or any sequences of integers."""

UNIT = np.dtype(">u2")
COUNTS = pa.schema([pa.field("word", pa.binary()), pa.field("count", pa.int64())])


def count_ngrams(sequences: Sequences, max_word_units: int) -> pa.Table:
    """Count every run of 1 to `max_word_units` units, including overlapping ones.

    Raises:
        ValueError: a unit outside [0, 65536).
    """
    units, lengths = flat(sequences)
    if len(units) and not 0 <= units.min() <= units.max() < LARGEST_CODEBOOK:
        raise ValueError(f"units {units.min()} to {units.max()} are not all in [0, {LARGEST_CODEBOOK})")
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(units))  # units from here to the sequence's end
    words, runs = np.zeros((1, 0), UNIT), np.zeros(len(units), np.int64)
    tables = [COUNTS.empty_table()]
    for length in range(1, max_word_units + 1):
        starts = np.flatnonzero(left >= length)
        keys = runs[starts] << 16 | units[starts + length - 1]  # a run one shorter, and the unit after it
        found, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
        words = np.column_stack([words[found >> 16], found & 0xFFFF]).astype(UNIT)
        runs[starts] = which
        tables.append(_table(words, counts))
    return pa.concat_tables(tables)


def likeliest(counts: pa.Table, longer: int) -> pa.Table:
    """Return all single units, and the `longer` most frequent of the longer words; ties go to the smaller units.

    For tables without common words, likeliest(concat(likeliest(a), likeliest(b))) == likeliest(concat(a, b)).
    """
    single = pc.equal(pc.binary_length(counts["word"]), UNIT.itemsize)
    others = counts.filter(pc.invert(single))
    order = pc.sort_indices(others, [("count", "descending"), ("word", "ascending")])
    return pa.concat_tables([counts.filter(single), others.take(order[:longer])]).combine_chunks()


def table_of_words(counts: dict[Word, int]) -> pa.Table:
    """Return counts by word as a table."""
    words = [np.array(word, UNIT).tobytes() for word in counts]
    return pa.table([words, list(counts.values())], schema=COUNTS)


def words_of(counts: pa.Table) -> dict[Word, int]:
    """Return a table as counts by word, in its order."""
    words = [tuple(np.frombuffer(word, UNIT).tolist()) for word in counts["word"].to_pylist()]
    return dict(zip(words, counts["count"].to_pylist(), strict=True))


def flat(sequences: Sequences) -> tuple[np.ndarray, np.ndarray]:
    """Return all units in a row, (N,) int64, and the length of each sequence, (S,) int64."""
    if isinstance(sequences, pa.Array | pa.ChunkedArray):
        lengths = pc.list_value_length(sequences).to_numpy()
        return pc.list_flatten(sequences).to_numpy().astype(np.int64), lengths.astype(np.int64)
    gathered = list(sequences)
    sizes = np.fromiter(map(len, gathered), np.int64, len(gathered))
    return np.concatenate([np.zeros(0, np.int64), *(np.asarray(units, np.int64) for units in gathered)]), sizes


def _table(words: np.ndarray, counts: np.ndarray) -> pa.Table:
    """Return a table of (W, length) words of one length, each given once, and their counts."""
    offsets = np.arange(len(words) + 1, dtype=np.int32) * (words.shape[1] * UNIT.itemsize)
    column = pa.Array.from_buffers(
        pa.binary(), len(words), [None, pa.py_buffer(offsets), pa.py_buffer(words.tobytes())]
    )
    return pa.table([column, counts.astype(np.int64)], schema=COUNTS)
