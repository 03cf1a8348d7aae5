"""Everything that the check must find, and everything that it must let pass."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.dataset.check import Finding, check_dataset, check_file
from echo_targets.schemas.dataset.layout import LayoutError
from echo_targets.schemas.tables.base import CATEGORY, column, list_of
from echo_targets.schemas.tables.targets import ORIGINS
from tests.schemas.dataset.target_mutants import TARGETS, in_columns, in_struct
from tests.schemas.samples import Root, Row, arrow, key, num_samples, opened, parquet, put_target, sample, samples

FINGERPRINT = "0123456789abcdef"
BESIDE_UTTERANCES = sorted(TABLES.keys() - {"entries", "utterances", "rejects"})


def findings_of(name: str, rows: list[Row]) -> list[Finding]:
    return list(check_file(opened(parquet(arrow(name, rows), TABLES[name], FINGERPRINT)), TABLES[name], "part"))


def rules_of(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings}


@pytest.fixture
def root(tmp_path: Path) -> Root:
    """Two shards of every table that has an utterance behind it."""
    root = Root(tmp_path / "root")
    for name in ("entries", "utterances", *BESIDE_UTTERANCES):
        root.put(name, samples(name, 4), samples(name, 4, first=4))
    return root


def check(root: Root) -> list[Finding]:
    return list(check_dataset(str(root.folder)))


# -- samples, and a mutant for every rule ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_valid_shard_passes(name: str, count: int) -> None:
    assert findings_of(name, samples(name, count)) == []


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
UNKNOWN = f"{'0' * 16}@{'0' * 16}"
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


def test_every_rule_has_a_mutant() -> None:
    for name, table in TABLES.items():
        assert {rule.name for rule in table.rules} == MUTANTS.get(name, {}).keys(), name
        assert {rule.name for rule in table.cross_rules} == CROSS_MUTANTS.get(name, {}).keys(), name


@pytest.mark.parametrize("name", TABLES)
def test_names_of_rules_are_unique_in_their_table(name: str) -> None:
    names = [rule.name for rule in (*TABLES[name].rules, *TABLES[name].cross_rules)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, rules in MUTANTS.items() for rule in rules])
def test_a_mutant_is_caught_under_its_rules_name(name: str, rule: str) -> None:
    rows = samples(name, 5)
    MUTANTS[name][rule](rows[2])
    findings = findings_of(name, rows)
    assert rule in rules_of(findings)
    assert rules_of(findings) <= {rule} | ALSO.get(rule, set())
    assert {finding.row for finding in findings} == {rows[2][KEY] or ""}
    assert f"{name} part" in str(findings[0]) and findings[0].rule in str(findings[0])


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, rules in CROSS_MUTANTS.items() for rule in rules])
def test_a_row_that_disagrees_with_its_utterance_is_caught(root: Root, name: str, rule: str) -> None:
    rows = samples(name, 4)
    CROSS_MUTANTS[name][rule](rows[2])
    root.put(name, rows, samples(name, 4, first=4))
    found = check(root)
    assert rules_of(found) == {rule} and [finding.row for finding in found] == [key(2)]


@pytest.mark.parametrize("channel", [-128, -2, 127])
@pytest.mark.parametrize("number", [0, 4])
def test_a_gap_in_any_channel_is_its_rows_own(number: int, channel: int) -> None:
    rows = samples("cuts", 5)
    rows[number]["gaps"][0]["channel"] = channel
    assert [(one.rule, one.row) for one in findings_of("cuts", rows)] == [("tiled", key(number))]


def test_frames_of_audio_that_is_no_multiple_of_the_hop(tmp_path: Path) -> None:
    """num_frames is rounded up: 16,000 samples are 50 frames, 16,001 are 51."""
    for length, frames, rules in ((16_000, 50, set()), (16_001, 51, set()), (16_001, 50, {"frames_cover_audio"})):
        root = Root(tmp_path / f"{length}-{frames}")
        root.put("utterances", [sample("utterances") | {"num_samples": length}])
        root.put("units", [sample("units") | {"num_frames": frames, "durations": [1, frames - 3, 2]}])
        assert rules_of(check(root)) == rules


@pytest.mark.parametrize(
    ("rate", "hop", "length", "frames"),
    [(44_100, 512, 16_000, 87), (24_000, 320, 16_000, 75), (24_000, 320, 16_001, 76), (24_000, 1920, 1280, 1)],
)
def test_frames_that_are_no_whole_number_of_samples(
    tmp_path: Path, rate: int, hop: int, length: int, frames: int
) -> None:
    """The codecs' rates are exact: 86.13, 75 and 12.5 frames a second."""
    for off in (-1, 0, 1):
        root = Root(tmp_path / f"{off}")
        root.put("utterances", [sample("utterances") | {"num_samples": length}])
        row = sample("units") | {"sampling_rate": rate, "hop_samples": hop, "units": [[7]]}
        root.put("units", [row | {"num_frames": frames + off, "durations": [frames + off]}] if frames + off else [])
        assert rules_of(check(root)) == ({"frames_cover_audio"} if off and frames + off else set())


def test_a_hop_of_zero_is_a_finding_not_a_division(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.put("utterances", samples("utterances", 1))
    root.put("units", [sample("units") | {"hop_samples": 0}])
    assert rules_of(check(root)) == {"hop_samples_range", "frames_cover_audio"}


def test_many_broken_rows_are_counted_not_listed() -> None:
    found = findings_of("rejects", [row | {"attempts": 0} for row in samples("rejects", 10)])
    assert [finding.row for finding in found] == [key(0), key(1), key(2), None]
    assert "and 7 more rows" in str(found[3])


# -- the schema ------------------------------------------------------------------------------------------------------


def schema_findings(rows: pa.Table, name: str, **about: str) -> list[Finding]:
    return list(check_file(opened(parquet(rows, TABLES[name], FINGERPRINT, about)), TABLES[name], "p", FINGERPRINT))


def retyped(rows: pa.Table, name: str, field: pa.Field) -> pa.Table:
    """`rows` with one column of another type, its values cast."""
    position = rows.column_names.index(name)
    return rows.set_column(position, field, rows[name].cast(field.type))


@pytest.mark.parametrize("name", TABLES)
def test_a_missing_a_surplus_and_a_moved_column(name: str) -> None:
    rows = arrow(name, samples(name, 2))
    last = rows.column_names[-1]
    surplus = rows.append_column("mood", pa.array(["good", "bad"]))
    moved = rows.select([last, *rows.column_names[:-1]])
    for broken, words in (
        (rows.drop_columns([last]), f"column {last} is missing"),
        (surplus, "column mood is not in"),
        (moved, "not in the order of the schema"),
    ):
        found = schema_findings(broken, name)
        assert rules_of(found) == {"schema"} and words in str(found[0])


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("units", column("num_frames", pa.int64())),
        ("units", column("units", list_of(list_of(pa.int64())))),
        ("units", column("units", pa.large_list(pa.field("element", list_of(pa.int32()), nullable=False)))),
        ("units", column("units", list_of(pa.list_(pa.int32())))),  # elements may be null
        ("units", column("codebook_id", pa.string())),
        ("units", column("num_frames", pa.int32(), nullable=True)),
        ("utterances", column("audio_sha256", pa.binary(32))),
        ("transcripts", column("language_prob", pa.float64(), nullable=True)),
        ("training/echo", column("unit_targets", list_of(list_of(list_of(pa.int64()))))),
        ("rejects", column("stage", pa.dictionary(pa.int8(), pa.string()))),
    ],
    ids=lambda value: str(value),
)
def test_a_column_of_another_type(name: str, field: pa.Field) -> None:
    found = schema_findings(retyped(arrow(name, samples(name, 2)), field.name, field), name)
    assert rules_of(found) == {"schema"} and f"column {field.name} is" in str(found[0])


@pytest.mark.parametrize(
    ("key_", "value"),
    [
        ("schema_name", ""),
        ("schema_name", "transcripts"),
        ("schema_version", ""),
        ("schema_version", "0.9.0"),
        ("fingerprint", ""),
        ("fingerprint", "ffffffffffffffff"),
    ],
)
def test_wrong_or_missing_metadata(key_: str, value: str) -> None:
    found = schema_findings(arrow("units", samples("units", 1)), "units", **{key_: value})
    assert rules_of(found) == {"metadata"} and key_ in str(found[0])


def test_a_lone_shard_needs_some_fingerprint() -> None:
    rows = arrow("units", samples("units", 1))
    assert list(check_file(opened(parquet(rows, TABLES["units"], "any")), TABLES["units"], "p")) == []
    found = list(check_file(opened(parquet(rows, TABLES["units"], "")), TABLES["units"], "p"))
    assert rules_of(found) == {"metadata"}


# -- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_twice_in_a_shard() -> None:
    found = findings_of("units", [*samples("units", 3), sample("units", 1)])
    assert [(finding.rule, finding.row) for finding in found] == [("key_unique", key(1))]


def test_a_key_twice_across_shards(tmp_path: Path) -> None:
    root = Root(tmp_path)
    root.put("utterances", samples("utterances", 3), samples("utterances", 3, first=2))
    found = check(root)
    assert [(finding.rule, finding.shard, finding.row) for finding in found] == [("key_unique", "all", key(2))]


@pytest.mark.parametrize("name", BESIDE_UTTERANCES)
def test_a_key_without_an_utterance(root: Root, name: str) -> None:
    root.put(name, [*samples(name, 3), sample(name, 77) | ({"user_audio_ids": []} if "echo" in name else {})], [])
    found = check(root)
    assert [(finding.rule, finding.table, finding.row) for finding in found] == [("key_resolves", name, key(77))]


@pytest.mark.parametrize("name", ["echo_targets", "training/echo"])
def test_a_user_turn_without_an_utterance(root: Root, name: str) -> None:
    root.put(name, [*samples(name, 3), sample(name, 3) | {"user_audio_ids": [key(2), "nobody"]}], [])
    found = check(root)
    found_at = [(finding.rule, finding.table, finding.row) for finding in found]
    assert found_at == [("user_audio_resolves", name, "nobody")]


def test_a_table_is_checked_against_the_utterances_it_was_made_from(root: Root) -> None:
    """Between two stages of a job the index names new utterances beside units of the old ones."""
    old = root.tables["utterances"]
    other = [[row | {"license": "MIT"} for row in samples("utterances", 4, first=first)] for first in (0, 4)]
    root.put("utterances", *other, variant="new")
    assert check(root) == []
    shutil.rmtree(root.folder / "utterances" / old)
    assert rules_of(check(root)) == {"upstream"}


# -- files and manifests ---------------------------------------------------------------------------------------------


def test_a_whole_root_passes(root: Root) -> None:
    root.put_rejects("units", samples("rejects", 2, first=20), shard=1, shards=2)
    assert check(root) == []


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def middle_of_a_page(data: bytes, column_name: str) -> int:
    with opened(data) as file:
        group = file.metadata.row_group(0)
        chunk = next(c for i in range(group.num_columns) if (c := group.column(i)).path_in_schema == column_name)
    return chunk.dictionary_page_offset + chunk.total_compressed_size - 2


def test_a_changed_byte_changes_the_digest(root: Root) -> None:
    path = root.file("units", 1, 2)
    path.write_bytes(flipped(path.read_bytes(), 100))
    found = check(root)
    assert [(finding.rule, finding.table) for finding in found] == [("digest", "units")]


@pytest.mark.parametrize("name", ["utterance_id", "units.list.element.list.element", "codebook_size"])
def test_a_damaged_page_is_caught_by_its_checksum(root: Root, name: str) -> None:
    """Even where someone made the manifest agree."""
    data = root.file("units", 0, 2).read_bytes()
    root.put_file("units", 0, flipped(data, middle_of_a_page(data, name)), 4, 2)
    found = check(root)
    assert [(finding.rule, finding.shard) for finding in found] == [("readable", root.ids[0])]
    assert "CRC" in found[0].message


@pytest.mark.parametrize("keep", [0, 3, 500, -1, -9])
def test_a_truncated_file(root: Root, keep: int) -> None:
    path = root.file("transcripts", 0, 2)
    data = path.read_bytes()[:keep]
    path.write_bytes(data)
    assert rules_of(check(root)) == {"digest"}
    root.put_file("transcripts", 0, data, 4, 2)
    assert rules_of(check(root)) == {"readable"}


def test_a_file_that_is_gone(root: Root) -> None:
    root.file("alignments", 1, 2).unlink()
    found = check(root)
    assert [(finding.rule, finding.table) for finding in found] == [("present", "alignments")]


def test_utterances_that_are_gone_or_damaged_do_not_stop_the_check(root: Root) -> None:
    root.put("alignments", samples("alignments", 3), [*samples("alignments", 2, first=4), sample("alignments", 4)])
    root.file("utterances", 0, 2).unlink()
    data = root.file("utterances", 1, 2).read_bytes()
    root.put_file("utterances", 1, flipped(data, middle_of_a_page(data, KEY)), 4, 2)
    found = check(root)
    assert ("utterances", "present") in {(finding.table, finding.rule) for finding in found}
    assert ("utterances", "readable") in {(finding.table, finding.rule) for finding in found}
    assert ("alignments", "key_unique") in {(finding.table, finding.rule) for finding in found}
    assert {finding.rule for finding in found if finding.table != "utterances"} == {"upstream", "key_unique"}


def test_utterances_of_another_schema_do_not_stop_the_check(root: Root) -> None:
    rows = arrow("utterances", samples("utterances", 4)).drop_columns(["num_samples"])
    root.put_file("utterances", 0, parquet(rows, TABLES["utterances"], root.tables["utterances"]), 4, 2)
    found = check(root)
    assert {finding.rule for finding in found if finding.table == "utterances"} == {"schema"}
    assert {finding.rule for finding in found if finding.table != "utterances"} == {"upstream"}


def test_a_shard_without_a_manifest_is_not_committed(root: Root) -> None:
    root.manifest("units", 1, 2).unlink()
    found = check(root)
    assert [(finding.rule, finding.shard) for finding in found] == [("committed", root.ids[1])]


def test_a_manifest_of_another_run_or_shard(root: Root) -> None:
    root.edit_manifest("units", 0, 2, fingerprint="ffffffffffffffff")
    root.manifest("units", 1, 2).write_bytes(root.manifest("units", 0, 2).read_bytes())
    found = check(root)
    assert rules_of(found) == {"manifest"}
    assert [finding.shard for finding in found] == [root.ids[0], root.ids[1], root.ids[1]]


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"table": "units"}', b"\xff\xfe", b'{"rows_in": "four"}'])
def test_a_damaged_manifest_is_a_finding(root: Root, damage: bytes) -> None:
    root.manifest("units", 0, 2).write_bytes(damage)
    root.manifest("utterances", 1, 2).write_bytes(damage)
    found = check(root)
    assert {("units", root.ids[0], "manifest"), ("utterances", root.ids[1], "manifest")} <= {
        (finding.table, finding.shard, finding.rule) for finding in found
    }
    assert rules_of(found) == {"manifest", "upstream"}


@pytest.mark.parametrize(
    ("changes", "rules"),
    [
        ({"rows_in": 5}, {"rows_add_up"}),
        ({"rows_in": 3}, {"rows_add_up"}),
        ({"reasons": {"too_short": 1}}, {"rows_add_up"}),
    ],
)
def test_counts_that_do_not_add_up(root: Root, changes: Row, rules: set[str]) -> None:
    root.edit_manifest("units", 0, 2, **changes)
    assert rules_of(check(root)) == rules


def test_rows_that_the_manifest_counts_otherwise(root: Root) -> None:
    data = root.file("units", 0, 2).read_bytes()
    root.put_file("units", 0, data, rows=3, shards=2)
    assert rules_of(check(root)) == {"rows"}


def test_rejects_that_are_gone_damaged_or_broken(root: Root) -> None:
    root.put_rejects("units", samples("rejects", 2, first=20), shard=0, shards=2)
    root.put_rejects("alignments", [sample("rejects", 20) | {"message": ""}], shard=0, shards=2)
    root.put_rejects("transcripts", samples("rejects", 1), shard=0, shards=2)
    (gone,) = root.folder.glob("rejects/units/*/*.parquet")
    gone.unlink()
    (damaged,) = root.folder.glob("rejects/transcripts/*/*.parquet")
    damaged.write_bytes(flipped(damaged.read_bytes(), 50))
    found = check(root)
    assert {finding.table for finding in found} == {"rejects"}
    assert sorted(finding.rule for finding in found) == ["digest", "message_present", "present"]


def test_a_table_of_another_version_and_one_that_nobody_knows(root: Root) -> None:
    path = root.folder / "units" / root.tables["units"] / "recipe.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema_version": "0.1.0"}))
    (root.folder / "index.json").write_text(json.dumps({"tables": root.versions | {"phonemes": UNKNOWN}}))
    assert rules_of(check(root)) == {"schema_version", "description", "known_table"}


def test_no_root_is_an_error_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"index\.json: no such file"):
        list(check_dataset(str(tmp_path)))
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(LayoutError, match=r"index\.json"):
        list(check_dataset(str(tmp_path)))


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Root, bytes, bytes]]:
    root = Root(tmp_path_factory.mktemp("one"))
    root.put("utterances", samples("utterances", 3))
    root.put("units", samples("units", 3))
    yield root, root.file("units").read_bytes(), root.manifest("units").read_bytes()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_changed_byte_of_a_shard_or_its_manifest_is_found(
    one_shard: tuple[Root, bytes, bytes], data: st.DataObject
) -> None:
    root, shard, manifest = one_shard
    whole = data.draw(st.sampled_from([shard, manifest]))
    at, bits = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    changed = whole[:at] + bytes([whole[at] ^ bits]) + whole[at + 1 :]
    root.file("units").write_bytes(changed if whole is shard else shard)
    root.manifest("units").write_bytes(changed if whole is manifest else manifest)
    same_json = whole is manifest and _json(changed) == _json(manifest)
    only_samples = whole is manifest and not same_json and _without_samples(changed) == _without_samples(manifest)
    assert check(root) or same_json or only_samples


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data


def _without_samples(data: bytes) -> Any:
    """`samples` is the one number of a manifest that nothing else in the root tells."""
    value = _json(data)
    return {name: item for name, item in value.items() if name != "samples"} if isinstance(value, dict) else value


# -- size and weight -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["echo_targets", "units"])
def test_ten_thousand_rows(name: str, tmp_path: Path) -> None:
    root = Root(tmp_path)
    count = 10_050  # more than one batch of the check
    root.put("utterances", samples("utterances", count))
    rows = samples(name, count)
    root.put(name, rows)
    assert check(root) == []
    rule = "units_in_codebook" if name == "units" else "t2c_units_in_codebook"
    for at in (0, 9_999, 10_000, count - 1):
        odd = [[99, 100, 99]] * rows[at].get("num_codebooks", 0)
        rows[at] |= {"units": odd} if name == "units" else put_target({"t2c": None}, units=[[[1, 2, 1]], [[100]]])
    root.put(name, rows)
    expected = {(rule, key(at)) for at in (0, 9_999, 10_000, count - 1)}
    assert {(finding.rule, finding.row) for finding in check(root)} == expected


@pytest.mark.parametrize("command", ["echo_targets.jobs.commands.check", "echo_targets.jobs.cli"])
def test_the_check_loads_no_model_library(root: Root, command: str) -> None:
    call = (
        "check_command(root)"
        if command == "echo_targets.jobs.commands.check"
        else "app(['check', root], standalone_mode=False)"
    )
    script = f"""
import sys
from {command} import *
from {command} import {call.partition("(")[0]}
root = sys.argv[1]
{call}
heavy = {{"torch", "transformers", "whisper", "faster_whisper", "ray", "apache_beam", "datasets", "sklearn", "scipy"}}
print(sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(root.folder)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    summary, heavy = done.stdout.splitlines()
    assert "13 tables, 26 shards, 104 rows, no problems found" in summary
    assert heavy == "[]"


def test_the_schema_of_every_table_is_what_it_says() -> None:
    """Keys first and never null; categories where the values repeat."""
    for table in TABLES.values():
        assert table.schema.field(0).equals(column(KEY, pa.string()))
        assert table.row_group_rows in (1, 100, 1000)
        assert all(name.partition(".")[0] in table.columns for name in table.unchecked)
    assert TABLES["units"].schema.field("codebook_id").type == CATEGORY
