"""Thresholds: each holds back what it should, says why, and lets a row that lacks the score through."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from schemas import ALIGNMENTS, ECHO_TARGETS, KEY, TRANSCRIPTS, UNITS, UTTERANCES
from tests.schemas.samples import sample
from transforms.base import joined, table_of
from transforms.publish import (
    EchoSetParameters,
    PublishEcho,
    PublishS2T,
    PublishT2C,
    S2TParameters,
    T2CParameters,
)

ROW: dict[str, Any] = {
    "num_samples": 32_000,
    "reference_text": "Ten words or so, spoken.",
    "transcripts": {"wer_vs_reference": 0.2, "text": "ten words"},
    "alignments": {"coverage": 0.9},
    "units": {},
    "echo_targets": {
        "mean_logprob": [-0.5, -1.0],
        "stop_reason": ["end", "end"],
        "unit_error_rate": 0.4,
        "target_cer": 0.2,
    },
}


NO_TEXT = {"reference_text": " ", "transcripts": None}


def batch(*rows: dict[str, Any]) -> pa.Table:
    """What a publishing stage works on: rows of utterances with the other tables joined, None where there is none."""
    own = [{name: row[name] for name in ("num_samples", "reference_text")} for row in rows]
    result = table_of([sample("utterances", number) | values for number, values in enumerate(own)], UTTERANCES)
    for table in (TRANSCRIPTS, ALIGNMENTS, UNITS, ECHO_TARGETS):
        there = [(number, row[table.name]) for number, row in enumerate(rows) if row[table.name] is not None]
        result = joined(result, table, table_of([sample(table.name, number) | row for number, row in there], table))
    return result.append_column("response_text", pa.nulls(len(result), pa.string()))


def held(transform: Any, *rows: dict[str, Any]) -> list[tuple[str, str] | None]:
    """Why each row was held back; None where it was published."""
    given = batch(*(ROW | row for row in rows))
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
        (PublishS2T(S2TParameters(max_wer=None)), {"transcripts": {"wer_vs_reference": 9.0, "text": "x"}}, None),
        (PublishS2T(S2TParameters(min_alignment_coverage=0.95)), {}, "alignment_coverage"),
        (PublishT2C(T2CParameters()), {}, None),
        (PublishT2C(T2CParameters()), {"units": None}, "no_units"),
        (PublishT2C(T2CParameters()), {"num_samples": 1600}, "chars_per_s"),
        (PublishT2C(T2CParameters()), {"num_samples": 320_000}, "chars_per_s"),
        (PublishEcho(EchoSetParameters()), {}, None),
        (PublishEcho(EchoSetParameters()), {"echo_targets": None}, "no_echo_targets"),
        (PublishEcho(EchoSetParameters(min_mean_logprob=-0.9)), {}, "mean_logprob"),
        (PublishEcho(EchoSetParameters(max_unit_error_rate=0.3)), {}, "unit_error_rate"),
        (PublishEcho(EchoSetParameters(max_target_cer=0.1)), {}, "target_cer"),
        (
            PublishEcho(EchoSetParameters()),
            {"echo_targets": ROW["echo_targets"] | {"stop_reason": ["end", "repetition"]}},
            "stop_reason",
        ),
    ],
)
def test_thresholds(transform: Any, changes: dict[str, Any], reason: str | None) -> None:
    """The row stands between the plain ones, so that a mask that slips by a row is seen."""
    plain = held(transform, {})[0]
    before, found, after = held(transform, {}, changes, {})
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
        (PublishEcho(EchoSetParameters(min_mean_logprob=-0.9)), {}, "mean_logprob -1 is below min_mean_logprob=-0.9"),
        (
            PublishEcho(EchoSetParameters()),
            {"echo_targets": ROW["echo_targets"] | {"stop_reason": ["repetition", "length"]}},
            "a segment ended by length, repetition",
        ),
    ],
)
def test_the_reason_names_value_and_threshold(transform: Any, changes: dict[str, Any], message: str) -> None:
    (found,) = held(transform, changes)
    assert found is not None and found[1] == message


def test_the_first_check_that_fails_gives_the_reason() -> None:
    transform = PublishT2C(T2CParameters(max_seconds=1.0, max_wer=0.1))
    found = held(transform, {"units": None} | NO_TEXT, NO_TEXT, {"num_samples": 1600}, {})
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
    scores = {"mean_logprob": [-0.7], "stop_reason": ["end"], "unit_error_rate": 0.3, "target_cer": 0.3}
    echo = EchoSetParameters(max_unit_error_rate=0.3, max_target_cer=0.3, min_mean_logprob=-0.7)
    s2t = S2TParameters(max_wer=0.3, min_alignment_coverage=0.7)
    row = {
        "echo_targets": scores,
        "transcripts": {"wer_vs_reference": 0.3, "text": "x"},
        "alignments": {"coverage": 0.7},
    }
    assert held(PublishEcho(echo), row) == held(PublishS2T(s2t), row) == [None]


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
