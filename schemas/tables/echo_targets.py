"""echo_targets: for a user's turn, the reply's text and the speech units it should be spoken with, in segments."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import CATEGORY, KEY, LARGEST_CODEBOOK, TURN, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import (
    equal_neighbours,
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
    """The last element of each row's list; null for an empty one."""
    ends = pc.cumulative_sum(lengths(lists))
    positions = pc.if_else(pc.equal(lengths(lists), 0), None, pc.subtract(ends, 1))
    return pc.take(pc.list_flatten(lists), positions)


def _segments_broken(name: str) -> Rule:
    def broken(rows: pa.RecordBatch) -> pa.BooleanArray:
        segments = pc.list_flatten(rows[name])
        units = pc.list_flatten(segments)
        wrong = pc.or_(rows_with(segments, outside(units, 0, LARGEST_CODEBOOK)), equal_neighbours(segments))
        return rows_with(rows[name], wrong)

    return Rule(f"{name}_raw", f"{name} holds collapsed units from 0 up, without the trainer's offset", broken)


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
        KEY: "the user's turn that is answered",
        "user_audio_ids": "the user's turns that are heard, in order, this one last",
        "prompt_template_id": "the prompt's template",
        "tokenizer_id": "the text tokenizer, by its digest",
        "asr_target_ids": "tokens of what the user said",
        "assistant_after_audio_shift": "positions from the audio's placeholder to the state that predicts the reply",
        "response_text": "the reply",
        "response_source": "whether the reply is the corpus's (reference) or the model's (generated)",
        "response_token_ids": "tokens of the reply",
        "sub_lengths": "tokens of each segment of the reply",
        "segment_char_ends": "where each segment ends in response_text, in characters",
        "unit_targets": "units of each segment, 0 to K - 1, runs collapsed, without the trainer's offset",
        "unit_target_words": "unit_targets as words of the unit language",
        "recorded_units": "units of the recorded reply, cut at the same segments",
        "echo_model_id": "the model that answered, by its digest",
        "decode_id": "how units were decoded",
        "codebook_id": "the codebook, by its encoder, layer, size and digest",
        "seed": "seed of what was sampled, beside the key",
        "mean_logprob": "mean natural log-probability of each segment's units",
        "hidden_text_agreement": "share of tokens that the hidden states spell as the reply does",
        "denoising_cosine": "mean cosine of each segment's denoised states and its text's embeddings",
        "unit_error_rate": "edits between unit_targets and recorded_units by length of the latter",
        "target_cer": "character error rate of unit_targets read back to text, against response_text",
        "stop_reason": "why each segment's decoding ended",
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
            "sub_lengths sum to the reply's tokens",
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
        Rule("segments_advance", "segment_char_ends rise", lambda rows: not_increasing(rows["segment_char_ends"])),
        Rule(
            "segments_cover_text",
            "the last segment ends with the reply's text",
            lambda rows: pc.fill_null(
                pc.not_equal(_last(rows["segment_char_ends"]), pc.utf8_length(rows["response_text"])), True
            ),
        ),
        _segments_broken("unit_targets"),
        _segments_broken("recorded_units"),
        Rule("unit_target_words_range", "each of unit_target_words is a word's number, from 0", _words_broken),
        range_rule("unit_error_rate", 0, 1e4),
        range_rule("target_cer", 0, 1e4),
        range_rule("hidden_text_agreement", 0, 1),
        list_range_rule("mean_logprob", -1e4, 0),
        list_range_rule("denoising_cosine", -1.0001, 1.0001),
    ),
)
