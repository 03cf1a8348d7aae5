"""transcripts: the output of a speech recognizer, with scores for filtering."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import CATEGORY, KEY, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import (
    field_of,
    one_of_rule,
    outside,
    range_rule,
    rows_with,
    spans_beyond,
    spans_disordered,
)

SEGMENT = pa.struct(
    [
        column("start_sample", pa.int64()),
        column("end_sample", pa.int64()),
        column("text", pa.string()),
        column("avg_logprob", pa.float32()),
        column("no_speech_prob", pa.float32()),
        column("compression_ratio", pa.float32()),
    ]
)


TRANSCRIPTS = Table(
    name="transcripts",
    version="2.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("text", pa.string()),
            column("text_normalized", pa.string()),
            column("language", CATEGORY),
            column("language_prob", pa.float32(), nullable=True),
            column("segments", list_of(SEGMENT)),
            column("speech_covered", pa.float32(), nullable=True),
            column("wer_vs_reference", pa.float32(), nullable=True),
            column("wer_unit", CATEGORY, nullable=True),
            column("chars_per_s", pa.float32()),
            column("flags", list_of(pa.string())),
        ]
    ),
    means={
        KEY: "the utterance that was transcribed",
        "text": "the recognizer's transcript, unchanged",
        "text_normalized": "the transcript, normalized for the error rate, before it is split into words or characters",
        "language": "language that was detected, or that the recognizer was given",
        "language_prob": "probability of the detected language; null if the language was given",
        "segments": "stretches of text between two timestamps, in samples at 16 kHz, with the scores of the window in "
        "which the segment was decoded: mean natural log-probability of its tokens, probability of no speech, and "
        "bytes of its text divided by bytes of the zlib-compressed text",
        "speech_covered": "share of the speech found by a voice activity detector that lies inside segments; null if "
        "it finds none",
        "wer_vs_reference": "substitutions, deletions and insertions divided by the reference's length, in words or "
        "characters (see wer_unit); null without a reference",
        "wer_unit": "what the error rate counts, depending on the reference's script: word; character, for scripts "
        "without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese); or mixed, if a text has such characters and "
        "words of other scripts, each counted once; null if there is no error rate",
        "chars_per_s": "characters of the text per second of audio",
        "flags": "possible problems of the row or of a window: empty, fallback (decoded at a higher temperature), "
        "low_logprob, no_speech, other_language (than Whisper was given), repetition, uncovered_speech (over a "
        "second of speech outside all segments, or little text for it)",
    },
    rules=(
        range_rule("language_prob", 0, 1),
        range_rule("speech_covered", 0, 1),
        range_rule("wer_vs_reference", 0, 1e4),
        one_of_rule("wer_unit", ("word", "character", "mixed")),
        Rule(
            "wer_unit_paired",
            "wer_unit and wer_vs_reference are both present or both null",
            lambda rows: pc.xor(pc.is_null(rows["wer_unit"]), pc.is_null(rows["wer_vs_reference"])),
        ),
        range_rule("chars_per_s", 0, 1e5),
        Rule(
            "segments_monotone",
            "segments start in order and do not overlap",
            lambda rows: spans_disordered(rows["segments"], "start_sample", "end_sample"),
        ),
        Rule(
            "segments_not_empty",
            "segments have text and end after they start",
            lambda rows: rows_with(
                rows["segments"],
                pc.or_(
                    pc.greater_equal(
                        field_of(rows["segments"], "start_sample"), field_of(rows["segments"], "end_sample")
                    ),
                    pc.equal(field_of(rows["segments"], "text"), ""),
                ),
            ),
        ),
        Rule(
            "no_speech_prob_range",
            "no_speech_prob is in [0, 1]",
            lambda rows: rows_with(rows["segments"], outside(field_of(rows["segments"], "no_speech_prob"), 0, 1.0001)),
        ),
        Rule(
            "avg_logprob_range",
            "avg_logprob is in [-10000, 0]",
            lambda rows: rows_with(rows["segments"], outside(field_of(rows["segments"], "avg_logprob"), -1e4, 0.0001)),
        ),
        Rule(
            "compression_ratio_range",
            "compression_ratio is in [0, 10000]",
            lambda rows: rows_with(
                rows["segments"], outside(field_of(rows["segments"], "compression_ratio"), 0, 10_001)
            ),
        ),
    ),
    cross_rules=(
        Rule(
            "segments_inside_audio",
            "segments end inside the audio",
            lambda rows: spans_beyond(rows["segments"], "end_sample", rows["utterances.num_samples"]),
        ),
    ),
)
