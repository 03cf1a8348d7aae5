"""alignments: where each word of the text lies in the audio."""

import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import CATEGORY, KEY, Rule, Table, column, list_of
from schemas.rules import (
    cuts_differ,
    field_of,
    one_of_rule,
    outside,
    range_rule,
    rows_with,
    spans_beyond,
    spans_disordered,
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
        ]
    ),
    means={
        KEY: "the utterance whose text was aligned",
        "tier": "what an item is: a word or a phone",
        "text_source": "which text was aligned: the reference or the transcript",
        "items": "symbols in order: characters of the text from char_start to before char_end; samples at 16 kHz, null "
        "without a place; score is a probability; interpolated says that its neighbours gave the times",
        "coverage": "share of the items that were aligned and not interpolated",
        "status": "ok, partial or failed",
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
        Rule("words_of_the_reference", "char_start and char_end cut reference_text into the words", _other_words),
    ),
)
