"""utterances: the audio, its reference text and its origin."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import (
    AUDIO,
    CATEGORY,
    KEY,
    ORIGIN,
    RECORDING,
    SOUND,
    SYSTEM,
    TURN,
    Mask,
    Rule,
    Table,
    column,
)
from echo_targets.schemas.tables.rules import not_empty_rule, one_of_rule, range_rule, trimmed_rule

ROUNDING = 2
"""Samples by which resampling may change the length of an utterance cut from a recording of another rate."""


def _half_placed(rows: pa.RecordBatch) -> Mask:
    """Mark rows that have some, but not all, of recording, start and end."""
    missing = [pc.is_null(rows[name]) for name in ("recording_id", "start_sample", "end_sample")]
    return pc.or_(pc.xor(missing[0], missing[1]), pc.xor(missing[1], missing[2]))


UTTERANCES = Table(
    name="utterances",
    version="3.3.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("recording_id", pa.string(), nullable=True),
            column("overlap", pa.float32(), nullable=True),
            column("start_sample", pa.int64(), nullable=True),
            column("end_sample", pa.int64(), nullable=True),
            column("dialogue_id", pa.string(), nullable=True),
            column("turn", pa.int16(), nullable=True),
            column("role", CATEGORY),
            column("corpus", CATEGORY),
            column("split", CATEGORY),
            column("language", CATEGORY),
            column("audio", AUDIO),
            column("audio_sha256", pa.binary()),
            column("sampling_rate", pa.int32()),
            column("num_samples", pa.int64()),
            column("channel", pa.int8()),
            column("speaker_id", pa.string(), nullable=True),
            column("reference_text", pa.string(), nullable=True),
            column("spoken_text", pa.string(), nullable=True),
            column("system_text", pa.string(), nullable=True),
            column("license", CATEGORY),
            column("synthetic", pa.bool_()),
        ]
    ),
    means={
        **TURN,
        **ORIGIN,
        **SOUND,
        **RECORDING,
        **SYSTEM,
        "start_sample": "first sample of the utterance in its recording, at 16 kHz; null without a recording",
        "end_sample": "exclusive end in its recording",
        "role": "who speaks: user, assistant or narrator",
        "audio_sha256": "SHA-256 of the samples as little-endian 16-bit integers, 32 bytes",
        "sampling_rate": "sampling rate of the source in Hz",
        "channel": "channel of the source; -1 is the mean of all channels",
        "reference_text": "text of the speech, as given by the corpus, without surrounding white space",
        "spoken_text": "what a voice spoke for reference_text, with digits in words; null for a recording",
        "synthetic": "true if the audio was synthesized by this pipeline",
    },
    rules=(
        not_empty_rule(KEY),
        one_of_rule("role", ("user", "assistant", "narrator")),
        range_rule("sampling_rate", 1, 1_000_000),
        range_rule("num_samples", 1, 2**40),
        range_rule("channel", -1, 127),
        range_rule("turn", 0, 32_767),
        range_rule("overlap", 0, 1),
        trimmed_rule("reference_text"),
        trimmed_rule("spoken_text"),
        trimmed_rule("system_text"),
        Rule("audio_named", "audio has a path", lambda rows: pc.is_null(pc.struct_field(rows["audio"], "path"))),
        Rule(
            "audio_sha256_length",
            "audio_sha256 has 32 bytes",
            lambda rows: pc.not_equal(pc.binary_length(rows["audio_sha256"]), 32),
        ),
        Rule(
            "place_in_recording", "recording_id, start_sample and end_sample are all present or all null", _half_placed
        ),
        Rule(
            "length_in_recording",
            f"end_sample is num_samples after start_sample, within {ROUNDING} samples of rounding",
            lambda rows: pc.greater(
                pc.abs(pc.subtract(pc.subtract(rows["end_sample"], rows["start_sample"]), rows["num_samples"])),
                ROUNDING,
            ),
        ),
        Rule(
            "turn_of_dialogue",
            "dialogue_id and turn are both present or both null",
            lambda rows: pc.xor(pc.is_null(rows["dialogue_id"]), pc.is_null(rows["turn"])),
        ),
    ),
    unchecked=("audio.bytes",),
    row_group_rows=100,
)
