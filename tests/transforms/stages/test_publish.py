"""Thresholds: each holds back what it should, says why, and lets a row that lacks the score through."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from echo_targets.pipeline.stage import changes, recipe_of
from echo_targets.schemas import ALIGNMENTS, ECHO_TARGETS, KEY, MEASURES, T2C, TRANSCRIPTS, UNITS, UTTERANCES
from echo_targets.transforms.base import joined, table_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.segments.rule import borders_of
from echo_targets.transforms.stages.publish.fences import FencesError, RateFences
from echo_targets.transforms.stages.publish.stage import (
    EchoSetParameters,
    PublishEcho,
    PublishS2T,
    PublishT2C,
    S2TParameters,
    T2CParameters,
)
from tests.schemas.samples import sample

ROW: dict[str, Any] = {
    "num_samples": 32_000,
    "reference_text": "Ten words or so, spoken.",
    "transcripts": {"wer_vs_reference": 0.2, "text": "ten words"},
    "measures": {},
    "alignments": {"coverage": 0.9},
    "units": {},
    "echo_targets": {
        "t2c": sample("echo_targets")["t2c"]
        | {"mean_logprob": [-0.5, -1.0], "stop_reason": ["end", "end"], "unit_error_rate": 0.4, "target_cer": 0.2},
        "recorded": sample("echo_targets", 1)["recorded"],
    },
}


def _t2c(**changes: Any) -> dict[str, Any]:
    """The row's echo targets, of which T2C's are changed."""
    return {"echo_targets": {"t2c": ROW["echo_targets"]["t2c"] | changes}}


def _word(number: int) -> dict[str, Any]:
    """A word of 24 letters, spoken for four of every five seconds."""
    first, start = 25 * number, 80_000 * number
    times = {"start_sample": start, "end_sample": start + 64_000, "score": 0.9, "interpolated": False}
    return {"symbol": "w" * 24, "char_start": first, "char_end": first + 24, **times}


WORDS = [_word(number) for number in range(24)]
SAID = {"text_source": "reference", "status": "ok", "items": WORDS}
LONG: dict[str, Any] = {  # two minutes
    "num_samples": 120 * 16_000,
    "reference_text": " ".join(["w" * 24] * 24),
    "alignments": SAID,
    "units": {
        "num_codebooks": 1,
        "sampling_rate": 16_000,
        "num_frames": 6000,
        "units": [[1, 2]],
        "durations": [1, 5999],
    },
}
NO_TEXT = {"reference_text": " ", "transcripts": None}


def batch(*rows: dict[str, Any]) -> pa.Table:
    """What a publishing stage works on: rows of utterances with the other tables joined, None where there is none."""
    own = [
        {name: row[name] for name in ("num_samples", "overlap", "reference_text", "corpus", "language") if name in row}
        for row in rows
    ]
    result = table_of([sample("utterances", number) | values for number, values in enumerate(own)], UTTERANCES)
    for table in (TRANSCRIPTS, MEASURES, ALIGNMENTS, UNITS, ECHO_TARGETS):
        there = [(number, row[table.name]) for number, row in enumerate(rows) if row[table.name] is not None]
        result = joined(result, table, table_of([sample(table.name, number) | row for number, row in there], table))
    empty = pa.nulls(len(result), pa.string())
    return result.append_column("response_text", empty).append_column("lacks", empty)


def dropped(transform: Any, *rows: dict[str, Any], made: Container[str] = ()) -> list[tuple[str, str] | None]:
    """Why each row was dropped by a job that makes these tables; None where it was published."""
    given = batch(*(ROW | row for row in rows))
    given = given.drop_columns(["lacks"]).append_column("lacks", transform.lacks(given, made))
    output = transform(given)
    reasons = {reject.utterance_id: (reject.error_class, reject.message) for reject in output.rejects}
    assert output.rows.schema.equals(transform.writes.schema)
    assert output.rows[KEY].to_pylist() == [key for key in given[KEY].to_pylist() if key not in reasons]
    return [reasons.get(key) for key in given[KEY].to_pylist()]


@pytest.mark.parametrize(
    ("transform", "changes", "reason"),
    [
        (PublishS2T(S2TParameters()), {}, None),
        (PublishS2T(S2TParameters()), NO_TEXT, "no_text"),
        (PublishS2T(S2TParameters()), {"num_samples": 1600}, "seconds"),
        (PublishS2T(S2TParameters()), {"num_samples": 31 * 16_000}, "seconds"),
        (PublishS2T(S2TParameters(max_wer=0.1)), {}, "wer"),
        (PublishS2T(S2TParameters(max_wer=0.1)), {"transcripts": None}, None),
        *(
            (publish, {"transcripts": {"flags": ["fallback", "uncovered_speech"]}}, "uncovered_speech")
            for publish in (PublishS2T(S2TParameters()), PublishT2C(T2CParameters()), PublishEcho(EchoSetParameters()))
        ),
        (PublishS2T(S2TParameters(drop_flags=[])), {"transcripts": {"flags": ["uncovered_speech"]}}, None),
        (PublishS2T(S2TParameters(drop_flags=["fallback"])), {"transcripts": {"flags": ["fallback"]}}, "fallback"),
        (PublishS2T(S2TParameters()), {"transcripts": {"speech_covered": 0.2}}, None),
        (PublishS2T(S2TParameters(min_speech_covered=0.5)), {"transcripts": {"speech_covered": 0.2}}, "speech_covered"),
        (PublishS2T(S2TParameters(min_speech_covered=0.5)), {"transcripts": {"speech_covered": None}}, None),
        (PublishS2T(S2TParameters(max_wer=None)), {"transcripts": {"wer_vs_reference": 9.0, "text": "x"}}, None),
        (PublishS2T(S2TParameters(min_alignment_coverage=0.95)), {}, "alignment_coverage"),
        (PublishT2C(T2CParameters()), {}, None),
        (PublishT2C(T2CParameters()), {"units": None}, "no_units"),
        (PublishT2C(T2CParameters()), {"num_samples": 1600}, "chars_per_s"),
        (PublishT2C(T2CParameters()), {"num_samples": 320_000}, "chars_per_s"),
        (PublishT2C(T2CParameters()), LONG, None),
        (PublishT2C(T2CParameters(max_segment_seconds=5.4)), LONG, "segment_seconds"),
        (PublishT2C(T2CParameters(max_segment_seconds=5.5)), LONG, None),
        (PublishT2C(T2CParameters(max_seconds=119)), LONG, "seconds"),
        (PublishT2C(T2CParameters()), LONG | {"alignments": None}, "segment_seconds"),
        (PublishT2C(T2CParameters()), LONG | {"alignments": SAID | {"status": "failed"}}, "segment_seconds"),
        (PublishT2C(T2CParameters()), LONG | {"alignments": SAID | {"text_source": "transcript"}}, "segment_seconds"),
        (PublishT2C(T2CParameters()), LONG | {"alignments": SAID | {"items": WORDS[:12]}}, "segment_seconds"),
        (PublishT2C(T2CParameters(max_segment_seconds=None)), LONG | {"alignments": None}, None),
        (PublishEcho(EchoSetParameters()), {}, None),
        (PublishEcho(EchoSetParameters()), {"echo_targets": None}, "no_echo_targets"),
        (PublishEcho(EchoSetParameters(min_mean_logprob=-0.9)), {}, "mean_logprob"),
        (PublishEcho(EchoSetParameters(max_unit_error_rate=0.3)), {}, "unit_error_rate"),
        (PublishEcho(EchoSetParameters(max_target_cer=0.1)), {}, "target_cer"),
        (PublishEcho(EchoSetParameters(target="recorded", max_target_cer=0.1)), {}, None),
        (PublishEcho(EchoSetParameters(target="voice")), {}, "no_target"),
        (
            PublishEcho(EchoSetParameters()),
            _t2c(stop_reason=["end", "repetition"]),
            "stop_reason",
        ),
    ],
)
def test_thresholds(transform: Any, changes: dict[str, Any], reason: str | None) -> None:
    """The row stands between the plain ones, so that a mask that slips by a row is seen."""
    plain = dropped(transform, {})[0]
    before, found, after = dropped(transform, {}, changes, {})
    assert (found and found[0]) == (reason and f"filtered_{reason}")
    assert (before, after) == (plain, plain)


GERMAN = {"wer_vs_reference": 0.2, "text": "zehn", "language": "de", "language_prob": 0.9}
TOLD = GERMAN | {"language_prob": None}


@pytest.mark.parametrize(
    ("limits", "changes", "reason"),
    [
        ({}, {"measures": None}, None),
        ({}, {"measures": {"speech_share": 0.05}}, "speech_share"),
        ({"min_speech_share": None}, {"measures": {"speech_share": 0.05}}, None),
        ({}, {"measures": {"loudness_lufs": -55.0}}, "loudness_lufs"),
        ({}, {"measures": {"loudness_lufs": None}}, None),
        ({"max_loudness_lufs": -30.0}, {}, None),
        ({"max_loudness_lufs": -10.0}, {"measures": {"loudness_lufs": -9.0}}, "loudness_lufs"),
        ({}, {"measures": {"bandwidth_hz": 0.0, "clipped_share": 1.0, "snr_db": -10.0, "dnsmos_ovrl": 1.0}}, None),
        ({"min_bandwidth_hz": 4500}, {"measures": {"bandwidth_hz": 4500.0}}, None),
        ({"min_bandwidth_hz": 4500}, {"measures": {"bandwidth_hz": 4468.75}}, "bandwidth_hz"),
        ({"min_bandwidth_hz": 4500}, {"measures": {"bandwidth_hz": None}}, None),
        ({"max_overlap": 0.3}, {"overlap": 0.3}, None),
        ({"max_overlap": 0.3}, {"overlap": 0.301}, "overlap"),
        ({"max_overlap": 0.3}, {"overlap": None}, None),
        ({"max_clipped_share": 0.01}, {"measures": {"clipped_share": 0.01}}, None),
        ({"max_clipped_share": 0.07}, {"measures": {"clipped_share": 0.0701}}, "clipped_share"),
        ({"min_snr_db": 10.0}, {"measures": {"snr_db": 9.9}}, "snr_db"),
        ({"min_snr_db": 10.0}, {"measures": {"snr_db": None}}, None),
        ({"min_dnsmos_sig": 3.0}, {"measures": {"dnsmos_sig": 2.9}}, "dnsmos_sig"),
        ({"min_dnsmos_bak": 3.0}, {"measures": {"dnsmos_bak": 2.9}}, "dnsmos_bak"),
        ({"min_dnsmos_ovrl": 3.0}, {"measures": {"dnsmos_ovrl": 2.9}}, "dnsmos_ovrl"),
        ({"min_dnsmos_p808": 3.0}, {"measures": {"dnsmos_p808": 2.9}}, "dnsmos_p808"),
        ({"min_dnsmos_ovrl": 3.0}, {"measures": {"dnsmos_ovrl": None}}, None),
        ({"max_silence_s": 1.0}, {"measures": {"longest_silence_samples": 16_000}}, None),
        ({"max_silence_s": 1.0}, {"measures": {"longest_silence_samples": 16_001}}, "silence_s"),
        ({}, {"measures": {"unique_word_share": 0.4}}, None),
        ({}, {"measures": {"unique_word_share": 0.3999}}, "unique_word_share"),
        ({}, {"measures": {"unique_word_share": None, "longest_word": None, "repeated_share": None}}, None),
        ({}, {"measures": {"longest_word": 24}}, None),
        ({}, {"measures": {"longest_word": 25}}, "longest_word"),
        ({}, {"measures": {"longest_word_excess": 9.0}}, None),
        ({"max_longest_word_excess": 3.0}, {"measures": {"longest_word_excess": 3.5}}, "longest_word_excess"),
        ({}, {"measures": {"repeated_share": 0.3}}, None),
        ({}, {"measures": {"repeated_share": 0.31}}, "repeated_share"),
        ({"max_repeated_share": None}, {"measures": {"repeated_share": 1.0}}, None),
        ({"max_chars_per_s": 10}, {}, "chars_per_s"),
        ({"min_chars_per_s": 13}, {}, "chars_per_s"),
        ({}, {"transcripts": GERMAN}, None),
        ({}, {"transcripts": GERMAN | {"language_prob": 0.69}}, "language_prob"),
        ({}, {"transcripts": TOLD}, None),
        ({"languages": ["en", "fr"]}, {"transcripts": GERMAN}, "language"),
        ({"languages": ["en", "fr"]}, {"transcripts": TOLD}, None),
        ({"languages": ["en", "fr"]}, {"transcripts": None}, None),
        ({"languages": ["en", "de"]}, {"transcripts": GERMAN}, None),
        ({"languages": []}, {"transcripts": GERMAN}, "language"),
        ({"same_language": True}, {"transcripts": GERMAN}, "same_language"),
        ({"same_language": True}, {"transcripts": TOLD}, None),
        ({"same_language": True}, {"transcripts": GERMAN, "language": "de-AT"}, None),
        ({"same_language": True}, {"transcripts": GERMAN, "language": "DE_at"}, None),
        ({"same_language": True}, {"transcripts": GERMAN, "language": ""}, None),
    ],
)
@pytest.mark.parametrize(
    ("stage", "parameters"),
    [(PublishS2T, S2TParameters), (PublishT2C, T2CParameters), (PublishEcho, EchoSetParameters)],
)
def test_thresholds_of_every_set(
    stage: Any, parameters: Any, limits: dict[str, Any], changes: dict[str, Any], reason: str | None
) -> None:
    transform = stage(parameters(**limits))
    plain = dropped(transform, {})[0]
    before, found, after = dropped(transform, {}, changes, {})
    assert (found and found[0]) == (reason and f"filtered_{reason}")
    assert (before, after) == (plain, plain)


@pytest.mark.parametrize(
    ("transform", "changes", "message"),
    [
        (PublishS2T(S2TParameters(max_wer=0.1)), {}, "wer 0.2 is above max_wer=0.1"),
        (PublishS2T(S2TParameters()), {"num_samples": 1600}, "seconds 0.1 is below min_seconds=0.3"),
        (PublishT2C(T2CParameters(min_chars_per_s=20)), {}, "chars_per_s 12 is below min_chars_per_s=20"),
        (PublishT2C(T2CParameters()), {"units": None}, "has no row in units"),
        (PublishT2C(T2CParameters()), NO_TEXT, "has neither reference text nor transcript"),
        (
            PublishS2T(S2TParameters(max_silence_s=0.2)),
            {},
            "silence_s 0.25 is above max_silence_s=0.2",
        ),
        (
            PublishS2T(S2TParameters(languages=["en"])),
            {"transcripts": GERMAN},
            "language de is not in languages=['en']",
        ),
        (
            PublishS2T(S2TParameters(same_language=True)),
            {"transcripts": GERMAN},
            "detected language de, but the corpus says en (same_language)",
        ),
        (PublishEcho(EchoSetParameters(min_mean_logprob=-0.9)), {}, "mean_logprob -1 is below min_mean_logprob=-0.9"),
        (
            PublishEcho(EchoSetParameters()),
            _t2c(stop_reason=["repetition", "length"]),
            "a segment ended by length, repetition",
        ),
    ],
)
def test_the_reason_names_value_and_threshold(transform: Any, changes: dict[str, Any], message: str) -> None:
    (found,) = dropped(transform, changes)
    assert found is not None and found[1] == message


def test_the_first_check_that_fails_gives_the_reason() -> None:
    transform = PublishT2C(T2CParameters(max_seconds=1.0, max_wer=0.1))
    found = dropped(transform, {"units": None} | NO_TEXT, NO_TEXT, {"num_samples": 1600}, {})
    assert [reason and reason[0] for reason in found] == [
        "filtered_no_units",
        "filtered_no_text",
        "filtered_wer",
        "filtered_seconds",
    ]


def test_the_reference_is_the_text_where_there_is_one() -> None:
    rows = batch(
        ROW, ROW | {"reference_text": ""}, ROW | {"reference_text": None}, ROW | {"reference_text": " a b\u3000"}
    )
    transform = PublishT2C(T2CParameters(min_chars_per_s=None))
    assert transform(rows).rows["text"].to_pylist() == [ROW["reference_text"], "ten words", "ten words", "a b"]


def test_a_score_that_is_the_threshold_passes() -> None:
    """Scores are stored as float32, of which the nearest to 0.3 is above 0.3."""
    scores = {"mean_logprob": [-0.7, -0.7], "stop_reason": ["end", "end"], "unit_error_rate": 0.3, "target_cer": 0.3}
    echo = EchoSetParameters(max_unit_error_rate=0.3, max_target_cer=0.3, min_mean_logprob=-0.7)
    s2t = S2TParameters(max_wer=0.3, min_alignment_coverage=0.7)
    row = {
        **_t2c(**scores),
        "transcripts": {"wer_vs_reference": 0.3, "text": "x"},
        "alignments": {"coverage": 0.7},
    }
    assert dropped(PublishEcho(echo), row) == dropped(PublishS2T(s2t), row) == [None]


def test_a_rate_outside_of_its_corpus_fences(tmp_path: Path) -> None:
    """The row has 12 characters a second."""
    rates = {
        ("calls", "en"): np.array([12, 13, 14, 15]),
        ("calls", "de"): np.array([20, 21, 22]),
        ("slow", "en"): [5.0],
    }
    fences = RateFences.fit({group: np.asarray(values, np.float32) for group, values in rates.items()})
    fences.save(tmp_path / "f.json")
    transform = PublishS2T(S2TParameters(rate_fences=str(tmp_path / "f.json")))
    rows = ({}, {"language": "de"}, {"corpus": "slow"}, {"corpus": "new"}, {"num_samples": 160_000})
    reasons = dropped(transform, *rows)
    low, high = 12.75 - 1.5 * 1.5, 14.25 + 1.5 * 1.5
    assert reasons == [
        None,
        ("filtered_rate_fences", "chars_per_s 12 is outside rate_fences 19 to 23"),
        ("filtered_rate_fences", "chars_per_s 12 is outside rate_fences 5 to 5"),
        None,
        ("filtered_rate_fences", f"chars_per_s 2.4 is outside rate_fences {low:g} to {high:g}"),
    ]


def test_files_are_digests_in_the_fingerprint(tmp_path: Path) -> None:
    fences = RateFences.fit({("calls", "en"): np.ones(4, np.float32)})
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        fences.save(tmp_path / folder / "f.json")
    a, b = (PublishT2C(T2CParameters(rate_fences=str(tmp_path / folder / "f.json"))) for folder in ("a", "b"))
    assert (
        a.fingerprint_parameters() == b.fingerprint_parameters() == PublishT2C(T2CParameters()).fingerprint_parameters()
        and a.weight_digests() == b.weight_digests()
    )
    before, after = (recipe_of(stage, {}) for stage in (PublishT2C(T2CParameters()), a))
    assert changes(before, after) == [f"weights.rate_fences: None, now {a.weight_digests()['rate_fences'][:12]}…"]


def test_files_that_can_not_be_used_are_named(tmp_path: Path) -> None:
    file = tmp_path / "f"
    with pytest.raises(FencesError, match="f: no such fences file; fit one with `echo-targets fit-fences`"):
        PublishT2C(T2CParameters(rate_fences=str(file))).weight_digests()
    with pytest.raises(ModelError, match="f: not a list of phrases in UTF-8, one per line"):
        PublishEcho(EchoSetParameters(phrases=str(file))).weight_digests()
    file.write_bytes(b"caf\xe9")
    with pytest.raises(FencesError, match="f: not a fences file: "):
        PublishT2C(T2CParameters(rate_fences=str(file))).weight_digests()
    with pytest.raises(ModelError, match="f: not a list of phrases in UTF-8, one per line"):
        PublishEcho(EchoSetParameters(phrases=str(file))).weight_digests()


def test_a_transcript_that_is_a_phrase_alone(tmp_path: Path) -> None:
    phrases = "Thank you 2302208\n\nSubtitles by Jo\n  Bye. 7 \nご視聴ありがとうございました\nधन्यवाद\n"
    (tmp_path / "en.txt").write_text(phrases)
    transform = PublishS2T(S2TParameters(phrases=str(tmp_path / "en.txt")))
    heard = ["Thank you.", "THANK YOU!", "thank you all", "Subtitles by Jo", "bye", "Thank you 2302208", "7"]
    heard += ["ご視聴ありがとうございました。", "धन्यवाद।"]
    rows = [{"reference_text": None, "transcripts": {"text": text, "wer_vs_reference": None}} for text in heard]
    reasons = dropped(transform, *rows, {"reference_text": "Thank you."})
    assert [bool(reason) for reason in reasons] == [True, True, False, True, True, False, False, True, True, False]
    assert reasons[0] == ("filtered_phrases", "text is only 'Thank you.', which is listed in phrases")


def test_an_answered_turn_has_its_reply() -> None:
    turns = [
        ("d", 0, "user", "Who?"),
        ("d", 1, "assistant", "First."),
        ("d", 2, "user", "Again?"),
        ("d", 1, "assistant", "Second."),
        ("e", 0, "user", "Anyone?"),
        ("e", 1, "user", "Hello?"),
        (None, None, "narrator", "It rained."),
        ("", 0, "user", "Alone?"),
        ("", 1, "assistant", "Of another dialogue."),
    ]
    names = ("dialogue_id", "turn", "role", "reference_text")
    rows = [sample("utterances", number) | dict(zip(names, turn, strict=True)) for number, turn in enumerate(turns)]
    utterances = table_of(rows, UTTERANCES)
    published = PublishS2T(S2TParameters()).rows(utterances, {"utterances": utterances})
    assert dict(zip(published["reference_text"].to_pylist(), published["response_text"].to_pylist(), strict=True)) == {
        "Who?": "Second.",
        "Again?": None,
        "Anyone?": None,
        "Hello?": None,
        "It rained.": None,
        "Alone?": None,
    }


def test_borders_are_those_that_echo_cuts_at() -> None:
    """Rows with and without borders side by side, and frames that are no whole number of samples at 16 kHz."""
    gaps = [
        word | ({"start_sample": None, "end_sample": None} if place % 5 == 0 else {})
        for place, word in enumerate(WORDS)
    ]
    guessed = [word | {"interpolated": place % 3 > 0} for place, word in enumerate(WORDS)]
    codec = {"num_codebooks": 2, "sampling_rate": 24_000, "hop_samples": 1920, "num_frames": 1500}
    rows = [
        ROW,
        LONG,
        LONG | {"alignments": SAID | {"items": gaps}},
        LONG | {"alignments": None},
        LONG | {"alignments": SAID | {"items": guessed}, "units": LONG["units"] | codec | {"units": [[1, 2], [3, 3]]}},
        LONG | {"alignments": SAID | {"items": []}},
    ]
    output = PublishT2C(T2CParameters(max_segment_seconds=None))(batch(*(ROW | row for row in rows)))
    found = output.rows["borders"].to_pylist()
    expected = [
        [], borders_of(WORDS, 320, 6000), borders_of(gaps, 320, 6000), [], borders_of(guessed, 1280, 1500), []
    ]  # fmt: skip
    assert found == [[border._asdict() for border in each] for each in expected]
    assert [len(each) for each in found] == [0, 23, 14, 0, 15, 0]
    assert found[1][0] == {"char_start": 24, "char_end": 25, "frame": 225}
    table = PublishT2C(T2CParameters())(batch(ROW | LONG)).rows
    (row,) = table.to_batches()
    assert not any(pc.any(pc.fill_null(rule.broken(row), False)).as_py() for rule in T2C.rules)


@pytest.mark.parametrize(
    ("transform", "table"),
    [
        (PublishS2T(S2TParameters()), "transcripts"),
        (PublishS2T(S2TParameters()), "measures"),
        (PublishS2T(S2TParameters()), "alignments"),
        (PublishT2C(T2CParameters()), "transcripts"),
        (PublishT2C(T2CParameters()), "alignments"),
        (PublishEcho(EchoSetParameters()), "transcripts"),
        (PublishEcho(EchoSetParameters()), "measures"),
    ],
)
def test_a_row_that_a_stage_of_the_job_rejected_is_never_published(transform: Any, table: str) -> None:
    every = [each.name for each in transform.reads]
    assert dropped(transform, {}, {table: None}, made=every) == [
        None,
        (f"filtered_no_{table}", f"has no row in {table}"),
    ]
    others = [name for name in every if name != table]
    assert dropped(transform, {}, {table: None}, made=others) == [None, None], "a stage that is not there holds nothing"
