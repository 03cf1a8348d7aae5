"""alignments: the position of each word of the text in the audio."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import CATEGORY, KEY, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import (
    cuts_differ,
    field_of,
    lengths,
    one_of_rule,
    outside,
    range_rule,
    rows_with,
    spans_beyond,
    spans_disordered,
    spans_empty,
)

ITEM = pa.struct(
    [
        column("symbol", pa.string()),
        column("char_start", pa.int32()),
        column("char_end", pa.int32()),
        column("start_sample", pa.int64(), nullable=True),
        column("end_sample", pa.int64(), nullable=True),
        column("score", pa.float32(), nullable=True),
        column("interpolated", pa.bool_()),
    ]
)


def _half_timed(rows: pa.RecordBatch) -> pa.BooleanArray:
    starts, ends = field_of(rows["items"], "start_sample"), field_of(rows["items"], "end_sample")
    return rows_with(rows["items"], pc.xor(pc.is_null(starts), pc.is_null(ends)))


def _misjudged(rows: pa.RecordBatch) -> pa.BooleanArray:
    status, items, coverage = rows["status"].cast(pa.string()), rows["items"], rows["coverage"]
    is_failed, is_ok = pc.equal(status, "failed"), pc.equal(status, "ok")
    left_out = pc.or_(field_of(items, "interpolated"), pc.is_null(field_of(items, "start_sample")))
    incomplete = pc.or_(pc.less(coverage, 1), rows_with(items, left_out))
    is_empty = pc.and_(pc.equal(lengths(items), 0), pc.equal(coverage, 0))
    wrongly_failed = pc.or_(pc.xor(is_failed, is_empty), pc.xor(is_failed, pc.is_valid(rows["reason"])))
    return pc.or_(wrongly_failed, pc.and_(is_ok, incomplete))


def _other_words(rows: pa.RecordBatch) -> pa.BooleanArray:
    of_reference = pc.and_(pc.equal(rows["text_source"], "reference"), pc.equal(rows["tier"], "word"))
    has_utterance = pc.is_valid(rows["utterances.num_samples"])
    differs = cuts_differ(rows["items"], rows["utterances.reference_text"])
    return pc.and_(pc.and_(of_reference, has_utterance), differs)


ALIGNMENTS = Table(
    name="alignments",
    version="2.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("tier", CATEGORY),
            column("text_source", CATEGORY),
            column("items", list_of(ITEM)),
            column("coverage", pa.float32()),
            column("status", CATEGORY),
            column("reason", pa.string(), nullable=True),
        ]
    ),
    means={
        KEY: "the utterance whose text was aligned",
        "tier": "kind of item: word or phone; in scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, "
        "Burmese), each character with its marks counts as a word",
        "text_source": "which text was aligned: the reference or the transcript",
        "items": "symbols in order: text[char_start:char_end] in characters; start_sample and end_sample at 16 kHz, "
        "null if the item was not located; score is a probability; interpolated is true if the times were derived from "
        "adjacent items",
        "coverage": "share of the items that were aligned rather than interpolated",
        "status": "ok (every item was aligned to its own audio), partial, or failed (no items)",
        "reason": "why the alignment failed; null if it did not fail",
    },
    rules=(
        one_of_rule("tier", ("word", "phone")),
        one_of_rule("text_source", ("reference", "transcript")),
        one_of_rule("status", ("ok", "partial", "failed")),
        range_rule("coverage", 0, 1),
        Rule(
            "times_monotone",
            "items start in order and do not overlap",
            lambda rows: spans_disordered(rows["items"], "start_sample", "end_sample"),
        ),
        Rule(
            "characters_monotone",
            "items cover the text in order",
            lambda rows: spans_disordered(rows["items"], "char_start", "char_end"),
        ),
        Rule(
            "times_present",
            "an item with times is at least one sample long",
            lambda rows: spans_empty(rows["items"], "start_sample", "end_sample"),
        ),
        Rule(
            "characters_present",
            "an item has at least one character",
            lambda rows: spans_empty(rows["items"], "char_start", "char_end"),
        ),
        Rule(
            "status_fits",
            "status is ok only if every item has times and none is interpolated; it is failed, with a reason, if and "
            "only if there are no items and coverage is 0",
            _misjudged,
        ),
        Rule("times_paired", "an item has both a start and an end, or neither", _half_timed),
        Rule(
            "score_range",
            "scores are probabilities",
            lambda rows: rows_with(rows["items"], outside(field_of(rows["items"], "score"), 0, 1.0001)),
        ),
    ),
    cross_rules=(
        Rule(
            "times_inside_audio",
            "items end inside the audio",
            lambda rows: spans_beyond(rows["items"], "end_sample", rows["utterances.num_samples"]),
        ),
        Rule("words_of_the_reference", "char_start and char_end delimit the words of reference_text", _other_words),
    ),
)
