"""Thresholds: each holds back what it should, says why, and lets a row that lacks the score through."""

from __future__ import annotations

from typing import Any

import pytest

from transforms.publish import (
    EchoSetParameters,
    PublishEcho,
    PublishS2T,
    PublishT2C,
    S2TParameters,
    T2CParameters,
)

ROW: dict[str, Any] = {
    "utterance_id": "u",
    "num_samples": 32_000,
    "reference_text": "Ten words or so, spoken.",
    "transcripts": {"wer_vs_reference": 0.2, "text": "ten words"},
    "alignments": {"coverage": 0.9},
    "units": {},
    "echo_targets": {"mean_logprob": [-0.5, -1.0], "stop_reason": ["end", "end"], "unit_error_rate": 0.4},
}


def held(transform: Any, **changes: Any) -> str | None:
    row = ROW | changes
    return next((name for name, check in transform.checks() if check(row)), None)


@pytest.mark.parametrize(
    ("transform", "changes", "reason"),
    [
        (PublishS2T(S2TParameters()), {}, None),
        (PublishS2T(S2TParameters()), {"reference_text": " ", "transcripts": None}, "no_text"),
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
        (
            PublishEcho(EchoSetParameters()),
            {"echo_targets": ROW["echo_targets"] | {"stop_reason": ["end", "repetition"]}},
            "stop_reason",
        ),
    ],
)
def test_thresholds(transform: Any, changes: dict[str, Any], reason: str | None) -> None:
    assert held(transform, **changes) == reason


def test_the_reason_names_value_and_threshold() -> None:
    check = dict(PublishS2T(S2TParameters(max_wer=0.1)).checks())["wer"]
    assert check(ROW) == "wer 0.2 is above max_wer=0.1"
