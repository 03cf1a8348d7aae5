"""For each rule, a change to a valid row that breaks it and no other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from echo_targets.schemas import KEY
from echo_targets.schemas.tables.targets import ORIGINS
from tests.schemas.dataset.target_mutants import TARGETS, in_columns, in_struct
from tests.schemas.samples import Row, num_samples, sample


def put(name: str, value: Any) -> Callable[[Row], None]:
    return lambda row: row.update({name: value})


def inside(name: str, position: int, **changes: Any) -> Callable[[Row], None]:
    return lambda row: row[name][position].update(changes)


ECHO_MUTANTS = {
    "response_source_known": put("response_source", "copied"),
    **{f"{name}_present": put(name, "") for name in ("prompt_template_id", "tokenizer_id", "echo_model_id")},
    "turn_range": put("turn", -1),
    "system_text_trimmed": put("system_text", " "),
    "response_text_present": lambda row: row.update(
        {name: [] for name, value in row.items() if isinstance(value, list)}
        | {name: None for name, value in row.items() if name in ORIGINS}
        | {"response_text": ""}
    ),
    "assistant_after_audio_shift_range": put("assistant_after_audio_shift", -1),
    "response_token_ids_range": put("response_token_ids", [4, 5, 6, -7]),
    "asr_target_ids_range": put("asr_target_ids", [1, -100]),
    "sub_lengths_range": put("sub_lengths", [0, 4]),
    "sub_lengths_sum": put("sub_lengths", [1, 2]),
    "sub_lengths_lengths": put("segment_char_ends", [11]),
    "segments_advance": put("segment_char_ends", [11, 11]),
    "segments_cover_text": put("segment_char_ends", [5, 10]),
    "hidden_text_agreement_range": put("hidden_text_agreement", 1.5),
    "denoising_cosine_range": put("denoising_cosine", [0.0, 1.5]),
}
UNIT_MUTANTS = {
    "codebook_id_present": put("codebook_id", ""),
    "codebook_size_range": put("codebook_size", 70_000),
    "num_codebooks_range": lambda row: row.update(num_codebooks=0, units=[]),
    "units_codebooks": put("units", [[99, 0, 99]]),
    "units_in_codebook": put("units", [[99, 0, 99], [7, 100, 7]]),
    "units_collapsed": put("units", [[99, 99, 0], [7, 7, 8]]),
    "units_lengths": put("units", [[99, 0, 99], [7, 8]]),
    "durations_range": lambda row: row.update(durations=[0, row["num_frames"], 0]),
    "durations_sum": lambda row: row.update(num_frames=row["num_frames"] + 1),
    "unit_words_range": lambda row: row.update(
        num_codebooks=1, units=row["units"][:1], unit_words=[5, -6], unit_language_id="words"
    ),
    "unit_words_codebook": lambda row: row.update(unit_words=[5, 6], unit_language_id="words"),
    "unit_language_named": put("unit_language_id", "words"),
}
CUT_MUTANTS = {
    "sampling_rate_range": put("sampling_rate", 0),
    "num_channels_range": put("num_channels", 0),
    "num_samples_range": lambda row: row.update(num_samples=0),
    "tiled": inside("gaps", 0, end_sample=3_899),
    "cuts_not_empty": lambda row: row["cuts"].insert(0, {**row["cuts"][0], "end_sample": 100, "turn": None}),
    "gaps_not_empty": lambda row: row["gaps"].append({**row["gaps"][0], "start_sample": 3_900}),
    "turns_increase": inside("cuts", 3, turn=1),
    "overlap_range": inside("cuts", 0, overlap=math.nan),
    "level_dbfs_range": inside("cuts", 2, level_dbfs=-math.inf),
    "cuts_text_trimmed": inside("cuts", 1, text="It is nine. "),
    "cuts_role_known": inside("cuts", 1, role="robot"),
    "cuts_border_known": inside("cuts", 1, border="word"),
    "gaps_why_known": inside("gaps", 4, why="noise"),
}
MUTANTS: dict[str, dict[str, Callable[[Row], None]]] = {
    "entries": {
        "utterance_id_present": put(KEY, ""),
        "seconds_range": put("seconds", -1.0),
        "source_present": put("source", ""),
        "attempt_range": put("attempt", -1),
        "size_range": put("size", -1),
        "start_seconds_range": put("start_seconds", -0.1),
        "section_seconds_range": put("section_seconds", -1.0),
        "declared_seconds_range": put("declared_seconds", -1.0),
        "timed_text_named": lambda row: row.update(timed_text=None, timed_text_sha256="ab"),
        "overlap_range": put("overlap", 1.5),
        "system_text_trimmed": put("system_text", ""),
        "error_worded": put("error", "calls.jsonl, line 3: not JSON"),
    },
    "utterances": {
        "utterance_id_present": put(KEY, ""),
        "role_known": put("role", "robot"),
        "sampling_rate_range": put("sampling_rate", 0),
        "num_samples_range": put("num_samples", 0),
        "channel_range": put("channel", -2),
        "turn_range": put("turn", -1),
        "audio_sha256_length": put("audio_sha256", bytes(31)),
        "audio_named": put("audio", {"bytes": b"fLaC", "path": None}),
        "turn_of_dialogue": put("turn", None),
        "reference_text_trimmed": put("reference_text", "hello there you\ufeff"),
        "spoken_text_trimmed": put("spoken_text", " "),
        "overlap_range": put("overlap", math.nan),
        "system_text_trimmed": put("system_text", "Be brief.\n"),
        "place_in_recording": put("end_sample", 7),
        "length_in_recording": lambda row: row.update(
            recording_id="call", start_sample=7, end_sample=row["num_samples"] + 10
        ),
    },
    "cuts": CUT_MUTANTS,
    "transcripts": {
        "language_prob_range": put("language_prob", 1.5),
        "wer_vs_reference_range": put("wer_vs_reference", -0.1),
        "wer_unit_known": put("wer_unit", "syllable"),
        "wer_unit_paired": put("wer_unit", None),
        "chars_per_s_range": put("chars_per_s", math.inf),
        "segments_not_empty": lambda row: row["segments"][1].update(text=""),
        "speech_covered_range": put("speech_covered", 1.5),
        "segments_monotone": inside("segments", 1, start_sample=7_999),
        "no_speech_prob_range": inside("segments", 0, no_speech_prob=math.nan),
        "avg_logprob_range": inside("segments", 1, avg_logprob=0.1),
        "compression_ratio_range": inside("segments", 0, compression_ratio=math.inf),
    },
    "measures": {
        "loudness_lufs_range": put("loudness_lufs", -math.inf),
        "speech_share_range": put("speech_share", 1.01),
        "longest_silence_samples_range": put("longest_silence_samples", -1),
        "bandwidth_hz_range": put("bandwidth_hz", 8_000.5),
        "clipped_share_range": put("clipped_share", -0.001),
        "snr_db_range": put("snr_db", math.inf),
        "dnsmos_sig_range": put("dnsmos_sig", -0.1),
        "dnsmos_bak_range": put("dnsmos_bak", 6.1),
        "dnsmos_ovrl_range": put("dnsmos_ovrl", math.nan),
        "dnsmos_p808_range": put("dnsmos_p808", -math.inf),
        "speaker_embedding_unit": put("speaker_embedding", [0.6, 0.79, 0.0]),
        "chars_per_s_range": put("chars_per_s", -0.1),
        "unique_word_share_range": put("unique_word_share", math.nan),
        "longest_word_range": put("longest_word", 0),
        "longest_word_excess_range": put("longest_word_excess", -0.1),
        "repeated_share_range": put("repeated_share", 1.1),
    },
    "alignments": {
        "tier_known": put("tier", "syllable"),
        "text_source_known": put("text_source", "guess"),
        "status_known": put("status", "fine"),
        "coverage_range": put("coverage", 1.01),
        "times_monotone": inside("items", 2, start_sample=6_999),
        "characters_monotone": inside("items", 1, char_start=4),
        "times_present": inside("items", 2, end_sample=7_000),
        "characters_present": inside("items", 1, char_end=6),
        "status_fits": put("status", "ok"),
        "times_paired": inside("items", 1, end_sample=7_000),
        "score_range": inside("items", 0, score=-0.1),
    },
    "units": {
        **UNIT_MUTANTS,
        "layer_range": put("layer", -1),
        "sampling_rate_range": put("sampling_rate", 0),
        "hop_samples_range": put("hop_samples", -320),
    },
    "features": {
        "encoder_present": put("encoder", ""),
        "layer_range": put("layer", -1),
        "hop_samples_range": put("hop_samples", 0),
        "width_range": put("width", 0),
        "frames_range": put("frames", [-1, 0, 4]),
        "frames_increase": put("frames", [0, 4, 4]),
        "features_size": put("frames", [0, 4]),
        "features_range": put("features", [0.5, -1.0, 2.5, 0.0, 1.0, math.inf]),
    },
    "unit_counts": {
        "utterances_range": put("utterances", 0),
        "words_increase": put("words", [b"\0\1", b"\0\1", b"\0\7"]),
        "words_lengths": put("counts", [5, 2]),
        "counts_range": put("counts", [5, 0, 9]),
    },
    "echo_targets": {
        **ECHO_MUTANTS,
        **{f"{origin}_{rule}": in_struct(origin, changes) for origin in ORIGINS for rule, changes in TARGETS.items()},
    },
    "rejects": {
        "utterance_id_present": put(KEY, ""),
        "stage_present": put("stage", ""),
        "error_class_present": put("error_class", ""),
        "message_present": put("message", ""),
        "attempts_range": put("attempts", 0),
    },
    "training/s2t": {
        "text_present": put("text", ""),
        "system_text_trimmed": put("system_text", "Be brief. "),
        "num_samples_range": put("num_samples", -1),
        "wer_vs_reference_range": put("wer_vs_reference", math.nan),
        "alignment_coverage_range": put("alignment_coverage", 1.1),
    },
    "training/t2c": {
        **UNIT_MUTANTS,
        "text_present": put("text", ""),
        "units_present": lambda row: row.update(units=[[], []], durations=[], num_frames=0, borders=[]),
        "borders_in_order": put("borders", [{"char_start": 0, "char_end": 3, "frame": 1}]),
        "borders_inside_text": put("borders", [{"char_start": 9, "char_end": 16, "frame": 1}]),
        "borders_advance": lambda row: row.update(borders=[border | {"frame": 7} for border in TWO_BORDERS]),
        "borders_inside_units": put("borders", [{"char_start": 5, "char_end": 7, "frame": 0}]),
    },
    "training/echo": {
        **ECHO_MUTANTS,
        "text_present": put("text", ""),
        "num_samples_range": put("num_samples", 0),
        "target_known": put("target", "spoken"),
        **{f"target_{rule}": in_columns(changes) for rule, changes in TARGETS.items()},
    },
}
TWO_BORDERS = sample("training/t2c")["borders"]
CROSS_MUTANTS: dict[str, dict[str, Callable[[Row], None]]] = {
    "transcripts": {"segments_inside_audio": lambda row: row["segments"][1].update(end_sample=num_samples(2) + 1)},
    "measures": {"silence_inside_audio": put("longest_silence_samples", num_samples(2) + 1)},
    "alignments": {
        "times_inside_audio": lambda row: row["items"][2].update(end_sample=num_samples(2) + 1),
        "words_of_the_reference": inside("items", 0, char_end=4, symbol="Hell"),
    },
    "units": {
        "frames_cover_audio": lambda row: row.update(
            num_frames=row["num_frames"] + 1, durations=[1, row["num_frames"] - 2, 2]
        )
    },
    "echo_targets": {"system_text_agrees": put("system_text", "Be brief.")},
    "training/s2t": {
        "num_samples_agree": put("num_samples", 16_000),
        "system_text_agrees": put("system_text", "Be brief."),
    },
    "training/echo": {
        "num_samples_agree": put("num_samples", 16_000),
        "system_text_agrees": put("system_text", "Be brief."),
    },
}
ALSO: dict[str, set[str]] = {
    "units_lengths": {"durations_sum"},
    "units_present": {"units_lengths"},
    "width_range": {"features_size"},
    "response_text_present": {"segments_cover_text"},
    "num_samples_range": {"tiled"},
}
"""Rules that a mutant can't but break along with its own."""
