"""cuts: where recordings are cut into utterances, and what lies between the cuts. One row is one recording."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import KEY, Mask, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import (
    field_of,
    outside,
    range_rule,
    rows_with,
    spans_empty,
    untrimmed,
)

ROLES = ("user", "assistant", "narrator")
BORDERS = ("pause", "quietest", "turn", "end", "phrase", "long_phrase", "overlap")
"""Why a cut ends: at a pause, where it is quietest (without a pause), with a turn, or with the recording. With a timed
text also: with a phrase, with a phrase that is longer than wanted, or where the next speaker begins before."""
GAPS = ("no_speech", "cross_talk")

CUT = pa.struct(
    [
        column("channel", pa.int8()),
        column("start_sample", pa.int64()),
        column("end_sample", pa.int64()),
        column("speaker_id", pa.string(), nullable=True),
        column("role", pa.string()),
        column("turn", pa.int16(), nullable=True),
        column("overlap", pa.float32()),
        column("level_dbfs", pa.float32()),
        column("border", pa.string()),
        column("text", pa.string(), nullable=True),
    ]
)
GAP = pa.struct(
    [
        column("channel", pa.int8()),
        column("start_sample", pa.int64()),
        column("end_sample", pa.int64()),
        column("why", pa.string()),
    ]
)
CHANNELS = 1 << 8
"""Values of an int8, so that no channel's key is that of another row."""


def _not_tiled(rows: pa.RecordBatch) -> Mask:
    """Mark rows in which the cuts and gaps of a channel do not cover the recording exactly once."""
    numbers = pa.array(range(len(rows["cuts"])), pa.int64())
    spans = pa.table(
        {"key": pa.array([], pa.int64()), "start": pa.array([], pa.int64()), "end": pa.array([], pa.int64())}
    )
    for name in ("cuts", "gaps"):
        lists = rows[name]
        row = pc.list_parent_indices(lists).cast(pa.int64())
        key = pc.add(pc.multiply(row, CHANNELS), pc.add(field_of(lists, "channel").cast(pa.int64()), 128))
        found = {"key": key, "start": field_of(lists, "start_sample"), "end": field_of(lists, "end_sample")}
        spans = pa.concat_tables([spans, pa.table(found)])
    spans = spans.sort_by([(name, "ascending") for name in ("key", "start", "end")]).combine_chunks()
    key, start, end = (_only_chunk(spans[name]) for name in ("key", "start", "end"))
    before = pa.concat_arrays([pa.array([None], pa.int64()), key])[: len(key)]
    is_first = pc.invert(pc.fill_null(pc.equal(before, key), False))
    expected = pc.if_else(is_first, 0, pa.concat_arrays([pa.array([0], pa.int64()), end])[: len(end)])
    is_last = pa.concat_arrays([is_first[1:], pa.array([True])]) if len(key) else is_first
    of_row = pc.divide(key, CHANNELS)
    wrong = pc.or_(pc.not_equal(start, expected), pc.and_(is_last, pc.not_equal(end, rows["num_samples"].take(of_row))))
    covered = pc.is_in(numbers, value_set=pc.unique(of_row))
    return pc.or_(pc.invert(covered), pc.is_in(numbers, value_set=pc.unique(of_row.filter(wrong))))


def _turns_disordered(cuts: pa.ListArray) -> Mask:
    """Mark rows in which a turn's number is not above that of the turn before it. Cuts without a turn are ignored."""
    turned = pc.is_valid(field_of(cuts, "turn"))
    rows, turns = pc.list_parent_indices(cuts).filter(turned), field_of(cuts, "turn").filter(turned)
    late = pc.and_(pc.equal(rows[1:], rows[:-1]), pc.less_equal(turns[1:], turns[:-1]))
    numbers = pa.array(range(len(cuts)), rows.type)
    return pc.is_in(numbers, value_set=pc.unique(rows[1:].filter(late)))


def _only_chunk(values: pa.ChunkedArray) -> pa.Array:
    return values.chunk(0) if values.num_chunks else pa.array([], values.type)


def _field_unknown(lists: str, field: str, allowed: tuple[str, ...]) -> Rule:
    def broken(rows: pa.RecordBatch) -> Mask:
        known = pc.is_in(field_of(rows[lists], field), value_set=pa.array(allowed, pa.string()))
        return rows_with(rows[lists], pc.invert(known))

    return Rule(f"{lists}_{field}_known", f"{field} of {lists} is one of {', '.join(allowed)}", broken)


CUTS = Table(
    name="cuts",
    version="1.1.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("sampling_rate", pa.int32()),
            column("num_channels", pa.int16()),
            column("num_samples", pa.int64()),
            column("cuts", list_of(CUT)),
            column("gaps", list_of(GAP)),
        ]
    ),
    means={
        KEY: "the recording's key",
        "sampling_rate": "sampling rate of the recording in Hz",
        "num_channels": "channels of the recording",
        "num_samples": "length of the recording in samples at 16 kHz, as are all positions",
        "cuts": "utterances in order of their start: channel (-1 is the mean of all), place, speaker, role; turn, if "
        "it is one; overlap, the share in which another speaks; power; border, why it ends; text of a file with times",
        "gaps": "all other stretches, by channel: no_speech, or cross_talk, the sound of another channel's speaker",
    },
    rules=(
        range_rule("sampling_rate", 1, 1_000_000),
        range_rule("num_channels", 1, 128),
        range_rule("num_samples", 1, 2**40),
        Rule("tiled", "the cuts and gaps of each channel cover the recording exactly once", _not_tiled),
        Rule(
            "cuts_not_empty",
            "cuts end after they start",
            lambda rows: spans_empty(rows["cuts"], "start_sample", "end_sample"),
        ),
        Rule(
            "gaps_not_empty",
            "gaps end after they start",
            lambda rows: spans_empty(rows["gaps"], "start_sample", "end_sample"),
        ),
        Rule("turns_increase", "turns are in order", lambda rows: _turns_disordered(rows["cuts"])),
        Rule(
            "overlap_range",
            "overlap is in [0, 1]",
            lambda rows: rows_with(rows["cuts"], outside(field_of(rows["cuts"], "overlap"), 0, 1.0001)),
        ),
        Rule(
            "level_dbfs_range",
            "level_dbfs is in [-200, 10]",
            lambda rows: rows_with(rows["cuts"], outside(field_of(rows["cuts"], "level_dbfs"), -200, 10.0001)),
        ),
        Rule(
            "cuts_text_trimmed",
            "text of cuts is not empty, and neither begins nor ends with white space",
            lambda rows: rows_with(rows["cuts"], pc.fill_null(untrimmed(field_of(rows["cuts"], "text")), False)),
        ),
        _field_unknown("cuts", "role", ROLES),
        _field_unknown("cuts", "border", BORDERS),
        _field_unknown("gaps", "why", GAPS),
    ),
)
