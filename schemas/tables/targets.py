"""Targets: the units of a reply, by segment and codebook, as one origin says them.

`echo_targets` has a struct for each origin, so that they can be compared; `training/echo` has the fields of one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import Mask, Rule, column, list_of
from echo_targets.schemas.tables.rules import (
    lengths,
    lengths_rule,
    list_range_rule,
    not_empty_rule,
    one_of_rule,
    per_element,
    range_rule,
    rows_with,
)
from echo_targets.schemas.tables.units import UNITS

ORIGINS = {
    "t2c": "what a text-to-codec model decodes from the reply's text",
    "echo": "what EchoX's echo decoder decodes from its hidden states",
    "recorded": "the reply's own recording, cut where its text is cut",
    "voice": "a voice's speech of each segment's text",
}
"""Who says the units of a reply."""

STOP_REASONS = ("end", "length", "repetition")

OF_CODEBOOK = ("codebook_size", "num_codebooks", "sampling_rate", "hop_samples")
_OF_SEGMENTS = list_of(list_of(pa.int32()))

TARGET = pa.struct(
    [
        column("model_id", pa.string(), nullable=True),
        column("decode_id", pa.string(), nullable=True),
        column("codebook_id", pa.string()),
        *(UNITS.schema.field(name) for name in OF_CODEBOOK),
        column("units", list_of(_OF_SEGMENTS)),
        column("durations", _OF_SEGMENTS, nullable=True),
        column("unit_words", _OF_SEGMENTS, nullable=True),
        column("spoken_text", list_of(pa.string()), nullable=True),
        column("mean_logprob", list_of(pa.float32()), nullable=True),
        column("stop_reason", list_of(pa.string()), nullable=True),
        column("unit_error_rate", pa.float32(), nullable=True),
        column("target_cer", pa.float32(), nullable=True),
    ]
)

MEANS = {
    "model_id": "the model or voice that said the units: its digest; null for a recording",
    "decode_id": "how the units were decoded or spoken; null for a recording",
    **{name: UNITS.means[name] for name in ("codebook_id", *OF_CODEBOOK)},
    "units": "collapsed units by segment and codebook: consecutive frames equal in all codebooks are merged",
    "durations": "number of frames of each collapsed unit, by segment; null if the model does not predict them",
    "unit_words": "units of each segment as words of the unit language",
    "spoken_text": "text of each segment as a voice spoke it, with digits and abbreviations as words",
    "mean_logprob": "mean natural log-probability of each segment's units; null if no model decoded them",
    "stop_reason": "why decoding of each segment stopped; null if no model decoded them",
    "unit_error_rate": "edits that turn the units into the recorded ones, per recorded unit; null if these are missing "
    "or of another codebook",
    "target_cer": "character error rate of the units, read back as text, against response_text",
}

Columns: TypeAlias = dict[str, str]
"""Names of the columns that hold a target's fields, by field."""


def _segments_of(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Return one row for each segment, like a row of `units`. Durations that are not known are null."""
    units, durations = rows["units"], rows["durations"]
    places = pc.subtract(pa.array(range(len(pc.list_flatten(units))), pa.int64()), per_element(_starts(units), units))
    known = pc.less(places, per_element(lengths(durations), units))
    places = pc.if_else(known, pc.add(places, per_element(_starts(durations), units)), None)
    each = {name: per_element(rows[name], units) for name in ("codebook_size", "num_codebooks")}
    return pa.record_batch(
        {"units": pc.list_flatten(units), "durations": pc.list_flatten(durations).take(places), **each}
    )


def _starts(lists: pa.ListArray) -> pa.Int64Array:
    """Return where each row's list starts in the concatenated lists."""
    return pc.subtract(pc.cumulative_sum(lengths(lists)), lengths(lists))


def _of_segments(rule: Rule, when: str | None = None) -> Rule:
    """Return a rule of `units` for the segments of targets; those whose list `when` is null fulfill it."""

    def broken(rows: pa.RecordBatch) -> Mask:
        segments = _segments_of(rows)
        mask = rule.broken(segments)
        return rows_with(rows["units"], pc.and_(mask, pc.is_valid(segments[when])) if when else mask)

    return Rule(rule.name, f"{rule.says}, in each segment", broken)


def _words_outside(rows: pa.RecordBatch) -> Mask:
    segments = pc.list_flatten(rows["unit_words"])
    return rows_with(rows["unit_words"], rows_with(segments, pc.less(pc.list_flatten(segments), 0)))


_RULES = {rule.name: rule for rule in UNITS.rules}

RULES = (
    not_empty_rule("codebook_id"),
    *(_RULES[f"{name}_range"] for name in OF_CODEBOOK),
    lengths_rule("sub_lengths", "units", "durations", "unit_words", "spoken_text", "mean_logprob", "stop_reason"),
    _of_segments(_RULES["units_codebooks"]),
    _of_segments(_RULES["units_lengths"], when="durations"),
    _of_segments(_RULES["units_in_codebook"]),
    _of_segments(_RULES["units_collapsed"]),
    _of_segments(_RULES["durations_range"]),
    _RULES["unit_words_codebook"],
    Rule("unit_words_range", "each of unit_words is a word id, from 0", _words_outside),
    list_range_rule("mean_logprob", -1e4, 0),
    one_of_rule("stop_reason", STOP_REASONS),
    range_rule("unit_error_rate", 0, 1e4),
    range_rule("target_cer", 0, 1e4),
)
"""Rules of a target's fields and of the reply's `sub_lengths`."""


def rules_of_struct(name: str) -> Iterable[Rule]:
    """Return the rules of a struct column of targets; a null target breaks none."""

    def of_struct(rule: Rule) -> Rule:
        def broken(rows: pa.RecordBatch) -> Mask:
            known = pc.indices_nonzero(pc.is_valid(rows[name]))
            targets = rows[name].take(known)
            fields = dict(zip((field.name for field in TARGET), targets.flatten(), strict=True))
            batch = pa.record_batch({**fields, "sub_lengths": rows["sub_lengths"].take(known)})
            marked = known.filter(pc.fill_null(rule.broken(batch), False))
            return pc.is_in(pa.array(range(len(rows[name])), pa.uint64()), value_set=marked)

        return Rule(f"{name}_{rule.name}", f"{name}: {rule.says}", broken)

    return map(of_struct, RULES)


class _Renamed:
    """The columns of rows under other names."""

    def __init__(self, rows: pa.RecordBatch, names: Columns) -> None:
        self._rows, self._names = rows, names

    def __getitem__(self, name: str) -> pa.Array:
        return self._rows[self._names.get(name, name)]


def rules_of_columns(names: Columns) -> Iterable[Rule]:
    """Return the rules of a target whose fields are columns of these names."""

    def of_columns(rule: Rule) -> Rule:
        def broken(rows: pa.RecordBatch) -> Mask:
            return rule.broken(cast(pa.RecordBatch, _Renamed(rows, names)))

        return Rule(f"target_{rule.name}", rule.says, broken)

    return map(of_columns, RULES)
