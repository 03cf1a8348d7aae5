"""echo_targets: for each user turn, the reply's text in segments, and the units that each origin says for them."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import CATEGORY, KEY, SYSTEM, TURN, Mask, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import (
    lengths,
    lengths_rule,
    list_range_rule,
    not_empty_rule,
    not_increasing,
    one_of_rule,
    range_rule,
    sums,
    trimmed_rule,
)
from echo_targets.schemas.tables.targets import MEANS, ORIGINS, TARGET, rules_of_struct


def _last(lists: pa.ListArray) -> pa.Array:
    """Return the last element of each row's list; null for an empty list."""
    ends = pc.cumulative_sum(lengths(lists))
    positions = pc.if_else(pc.equal(lengths(lists), 0), None, pc.subtract(ends, 1))
    return pc.take(pc.list_flatten(lists), positions)


def _another_system(rows: pa.RecordBatch) -> Mask:
    """Mark rows that have an utterance, and another system text than it."""
    texts = [pc.fill_null(rows[name], "") for name in ("system_text", "utterances.system_text")]
    return pc.and_(pc.is_valid(rows["utterances.num_samples"]), pc.not_equal(*texts))


RULES = (
    one_of_rule("response_source", ("reference", "generated")),
    not_empty_rule("response_text"),
    trimmed_rule("system_text"),
    not_empty_rule("prompt_template_id"),
    not_empty_rule("tokenizer_id"),
    not_empty_rule("echo_model_id"),
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
    lengths_rule("sub_lengths", "segment_char_ends", "denoising_cosine"),
    Rule("segments_advance", "segment_char_ends increase", lambda rows: not_increasing(rows["segment_char_ends"])),
    Rule(
        "segments_cover_text",
        "the last segment ends at the end of response_text",
        lambda rows: pc.fill_null(
            pc.not_equal(_last(rows["segment_char_ends"]), pc.utf8_length(rows["response_text"])), True
        ),
    ),
    range_rule("hidden_text_agreement", 0, 1),
    list_range_rule("denoising_cosine", -1.0001, 1.0001),
)
"""Rules of a reply, whoever says its units."""
SAME_SYSTEM = Rule("system_text_agrees", "system_text equals that of the utterance", _another_system)

ECHO_TARGETS = Table(
    name="echo_targets",
    version="3.1.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("dialogue_id", pa.string()),
            column("turn", pa.int16()),
            column("user_audio_ids", list_of(pa.string())),
            column("system_text", pa.string(), nullable=True),
            column("prompt_template_id", CATEGORY),
            column("tokenizer_id", CATEGORY),
            column("asr_target_ids", list_of(pa.int32())),
            column("assistant_after_audio_shift", pa.int32()),
            column("response_text", pa.string()),
            column("response_source", CATEGORY),
            column("response_token_ids", list_of(pa.int32())),
            column("sub_lengths", list_of(pa.int32())),
            column("segment_char_ends", list_of(pa.int32())),
            column("echo_model_id", CATEGORY),
            column("seed", pa.int64()),
            column("hidden_text_agreement", pa.float32(), nullable=True),
            column("denoising_cosine", list_of(pa.float32()), nullable=True),
            *(column(origin, TARGET, nullable=True) for origin in ORIGINS),
        ]
    ),
    means={
        **TURN,
        **SYSTEM,
        KEY: "the user turn that the row replies to",
        "user_audio_ids": "the user turns whose audio the model receives, in order; this one is last",
        "prompt_template_id": "the prompt template; a system_text stands in place of its own system text",
        "tokenizer_id": "the text tokenizer: its digest",
        "asr_target_ids": "tokens of the user's words",
        "assistant_after_audio_shift": "positions from the audio placeholder to the state that predicts the reply",
        "response_text": "text of the reply",
        "response_source": "origin of the reply: reference (from the corpus) or generated (by the model)",
        "response_token_ids": "tokens of the reply",
        "sub_lengths": "number of tokens of each segment of the reply",
        "segment_char_ends": "end of each segment in response_text, in characters",
        "echo_model_id": "the model that wrote or read the reply and cut it: its digest",
        "seed": "seed of sampling, combined with the key",
        "hidden_text_agreement": "share of reply tokens that the hidden states predict",
        "denoising_cosine": "mean cosine similarity of each segment's denoised states and its text's embeddings",
        **{
            origin: f"the units of the reply: {said}; null if not asked for or not possible"
            for origin, said in ORIGINS.items()
        },
        **{f"{origin}.{field}": means for origin in ORIGINS for field, means in MEANS.items()},
    },
    rules=(*RULES, *(rule for origin in ORIGINS for rule in rules_of_struct(origin))),
    cross_rules=(SAME_SYSTEM,),
)
