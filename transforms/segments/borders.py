"""Borders of recordings, computed on whole columns: `rule.borders_of` for Arrow arrays."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas import ALIGNMENTS, SAMPLE_RATE, T2C, UNITS
from echo_targets.schemas.tables.rules import field_of
from echo_targets.transforms.segments.rule import NO_TIME, word_borders

BORDERS: pa.ListType = T2C.schema.field("borders").type


def borders(rows: pa.RecordBatch) -> pa.ListArray:
    """Return the places where the text and the units of each row can be cut together.

    Args:
        rows: utterances with their transcripts, units and alignments as structs, and their `text`. An alignment that
            failed, or that aligned another text, gives no borders.
    """
    row, left, right, frame = _between_words(rows)
    counts = np.bincount(row, minlength=len(rows))
    fields = [pa.array(values, pa.int32()) for values in (left, right, frame)]
    places = pa.StructArray.from_arrays(fields, fields=list(BORDERS.value_type))
    return pa.ListArray.from_arrays(_offsets(counts), places, type=BORDERS)


def longest_stretch(rows: pa.RecordBatch) -> pa.DoubleArray:
    """Return the seconds of each recording's longest stretch without a border; null without units."""
    row, _, _, frame = _between_words(rows)
    ends = _numbers(_unit(rows, "num_frames"))
    longest = np.zeros(len(rows), np.int64)
    marks = np.concatenate([frame, np.zeros(len(rows), np.int64), ends])
    of = np.concatenate([row, np.arange(len(rows)), np.arange(len(rows))])
    order = np.lexsort([marks, of])
    marks, of = marks[order], of[order]
    same = of[1:] == of[:-1]
    np.maximum.at(longest, of[1:][same], np.diff(marks)[same])
    seconds = longest * _frame_samples(rows) / SAMPLE_RATE
    return pc.if_else(pc.is_null(rows[UNITS.name]), None, pa.array(seconds))


def _between_words(rows: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    items = pc.if_else(_of_this_text(rows), pc.struct_field(rows[ALIGNMENTS.name], "items"), None)
    names = ("char_start", "char_end", "start_sample", "end_sample", "interpolated")
    char_starts, char_ends, starts, ends, interpolated = (_numbers(field_of(items, name), NO_TIME) for name in names)
    row = pc.list_parent_indices(items).to_numpy()
    hop, count = _frame_samples(rows), _numbers(_unit(rows, "num_frames"))
    return word_borders(row, char_starts, char_ends, starts, ends, interpolated, hop, count)


def _of_this_text(rows: pa.RecordBatch) -> pa.BooleanArray:
    alignment = rows[ALIGNMENTS.name]
    reference = pc.fill_null(rows["reference_text"], "")
    source = pc.if_else(pc.not_equal(reference, ""), "reference", "transcript")
    usable = pc.and_(
        pc.equal(pc.struct_field(alignment, "text_source").cast(pa.string()), source),
        pc.not_equal(pc.struct_field(alignment, "status").cast(pa.string()), "failed"),
    )
    words = pc.equal(pc.struct_field(alignment, "tier").cast(pa.string()), "word")
    return pc.fill_null(pc.and_(pc.and_(usable, words), pc.is_valid(rows[UNITS.name])), False)


def _frame_samples(rows: pa.RecordBatch) -> np.ndarray:
    """Return 16 kHz samples per frame, (rows,) float64."""
    rates = np.maximum(_numbers(_unit(rows, "sampling_rate")), 1)
    return np.maximum(_numbers(_unit(rows, "hop_samples")), 1) * SAMPLE_RATE / rates


def _unit(rows: pa.RecordBatch, name: str) -> pa.Array:
    return pc.struct_field(rows[UNITS.name], name)


def _numbers(values: pa.Array, null: int = 0) -> np.ndarray:
    """Return values as (n,) int64, with nulls replaced by `null`."""
    return np.asarray(pc.fill_null(values.cast(pa.int64()), null).to_numpy(zero_copy_only=False))


def _offsets(counts: np.ndarray) -> pa.Int32Array:
    return pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
