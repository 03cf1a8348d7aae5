"""echo_targets: for each user turn, the reply's text and its target speech units, in segments."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import CATEGORY, KEY, LARGEST_CODEBOOK, TURN, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import (
    equal_neighbors,
    lengths,
    lengths_rule,
    list_range_rule,
    not_empty_rule,
    not_increasing,
    one_of_rule,
    outside,
    range_rule,
    rows_with,
    sums,
)

STOP_REASONS = ("end", "length", "repetition")


def _last(lists: pa.ListArray) -> pa.Array:
    """Return the last element of each row's list; null for an empty list."""
    ends = pc.cumulative_sum(lengths(lists))
    positions = pc.if_else(pc.equal(lengths(lists), 0), None, pc.subtract(ends, 1))
    return pc.take(pc.list_flatten(lists), positions)


def _segments_broken(name: str) -> Rule:
    def broken(rows: pa.RecordBatch) -> pa.BooleanArray:
        segments = pc.list_flatten(rows[name])
        units = pc.list_flatten(segments)
        wrong = pc.or_(rows_with(segments, outside(units, 0, LARGEST_CODEBOOK)), equal_neighbors(segments))
        return rows_with(rows[name], wrong)

    return Rule(f"{name}_raw", f"{name} holds collapsed units, numbered from 0, without the trainer's offset", broken)


def _words_broken(rows: pa.RecordBatch) -> pa.BooleanArray:
    words = pc.list_flatten(rows["unit_target_words"])
    return rows_with(rows["unit_target_words"], rows_with(words, outside(pc.list_flatten(words), 0, 2**31)))


ECHO_TARGETS = Table(
    name="echo_targets",
    version="2.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("dialogue_id", pa.string()),
            column("turn", pa.int16()),
            column("user_audio_ids", list_of(pa.string())),
            column("prompt_template_id", CATEGORY),
            column("tokenizer_id", CATEGORY),
            column("asr_target_ids", list_of(pa.int32())),
            column("assistant_after_audio_shift", pa.int32()),
            column("response_text", pa.string()),
            column("response_source", CATEGORY),
            column("response_token_ids", list_of(pa.int32())),
            column("sub_lengths", list_of(pa.int32())),
            column("segment_char_ends", list_of(pa.int32())),
            column("unit_targets", list_of(list_of(pa.int32()))),
            column("unit_target_words", list_of(list_of(pa.int32())), nullable=True),
            column("recorded_units", list_of(list_of(pa.int32())), nullable=True),
            column("echo_model_id", CATEGORY),
            column("decode_id", CATEGORY),
            column("codebook_id", CATEGORY),
            column("seed", pa.int64()),
            column("mean_logprob", list_of(pa.float32())),
            column("hidden_text_agreement", pa.float32(), nullable=True),
            column("denoising_cosine", list_of(pa.float32()), nullable=True),
            column("unit_error_rate", pa.float32(), nullable=True),
            column("target_cer", pa.float32(), nullable=True),
            column("stop_reason", list_of(pa.string())),
        ]
    ),
    means={
        **TURN,
        KEY: "the user turn that the row replies to",
        "user_audio_ids": "the user turns whose audio the model receives, in order; this one is last",
        "prompt_template_id": "the prompt template",
        "tokenizer_id": "the text tokenizer: its digest",
        "asr_target_ids": "tokens of the user's words",
        "assistant_after_audio_shift": "positions from the audio placeholder to the state that predicts the reply",
        "response_text": "text of the reply",
        "response_source": "origin of the reply: reference (from the corpus) or generated (by the model)",
        "response_token_ids": "tokens of the reply",
        "sub_lengths": "number of tokens of each segment of the reply",
        "segment_char_ends": "end of each segment in response_text, in characters",
        "unit_targets": "collapsed units of each segment, 0 to K - 1, without the trainer's offset",
        "unit_target_words": "unit_targets as words of the unit language",
        "recorded_units": "units of the recorded reply, cut into the same segments",
        "echo_model_id": "the model that made the targets: its digest",
        "decode_id": "how units were decoded",
        "codebook_id": "the codebook: its encoder, layer, size and digest",
        "seed": "seed of sampling, combined with the key",
        "mean_logprob": "mean natural log-probability of each segment's units",
        "hidden_text_agreement": "share of reply tokens that the hidden states predict",
        "denoising_cosine": "mean cosine similarity of each segment's denoised states and its text's embeddings",
        "unit_error_rate": "edit distance of unit_targets and recorded_units divided by the length of recorded_units",
        "target_cer": "character error rate of unit_targets, read back as text, against response_text",
        "stop_reason": "why decoding of each segment stopped",
    },
    rules=(
        one_of_rule("response_source", ("reference", "generated")),
        one_of_rule("stop_reason", STOP_REASONS),
        not_empty_rule("response_text"),
        not_empty_rule("prompt_template_id"),
        not_empty_rule("tokenizer_id"),
        not_empty_rule("echo_model_id"),
        not_empty_rule("decode_id"),
        not_empty_rule("codebook_id"),
        range_rule("turn", 0, 32_767),
        range_rule("assistant_after_audio_shift", 0, 1_000_000),
        list_range_rule("response_token_ids", 0, 2**31 - 1),
        list_range_rule("asr_target_ids", 0, 2**31 - 1),
        list_range_rule("sub_lengths", 1, 2**31 - 1),
        Rule(
            "sub_lengths_sum",
            "sub_lengths sum to the number of response_token_ids",
            lambda rows: pc.not_equal(sums(rows["sub_lengths"]), lengths(rows["response_token_ids"])),
        ),
        lengths_rule(
            "sub_lengths",
            "segment_char_ends",
            "unit_targets",
            "unit_target_words",
            "recorded_units",
            "mean_logprob",
            "denoising_cosine",
            "stop_reason",
        ),
        Rule("segments_advance", "segment_char_ends increase", lambda rows: not_increasing(rows["segment_char_ends"])),
        Rule(
            "segments_cover_text",
            "the last segment ends at the end of response_text",
            lambda rows: pc.fill_null(
                pc.not_equal(_last(rows["segment_char_ends"]), pc.utf8_length(rows["response_text"])), True
            ),
        ),
        _segments_broken("unit_targets"),
        _segments_broken("recorded_units"),
        Rule("unit_target_words_range", "each of unit_target_words is a word id, from 0", _words_broken),
        range_rule("unit_error_rate", 0, 1e4),
        range_rule("target_cer", 0, 1e4),
        range_rule("hidden_text_agreement", 0, 1),
        list_range_rule("mean_logprob", -1e4, 0),
        list_range_rule("denoising_cosine", -1.0001, 1.0001),
    ),
)
