"""Turns of two and three speakers: pauses, interruptions, and remarks inside another's turn."""

from __future__ import annotations

import pytest

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.stages.segment.turns import turns


def found(*speech: list[tuple[float, float]]) -> list[tuple[int, float, float]]:
    """Speaker, start and end of each turn, in seconds; a remark inside a turn has the speaker's number below 0."""
    samples = [[(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in spans] for spans in speech]
    return [
        (~turn.speaker if turn.is_inside else turn.speaker, turn.start / SAMPLE_RATE, turn.end / SAMPLE_RATE)
        for turn in turns(samples)
    ]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param([(1, 3), (5, 8)], [(9, 12)], [(0, 1, 8), (1, 9, 12)], id="a pause inside a turn"),
        pytest.param([(1, 3), (20, 22)], [], [(0, 1, 22)], id="a long pause, in which nobody speaks"),
        pytest.param([(1, 3), (6, 8)], [(4, 5)], [(0, 1, 3), (1, 4, 5), (0, 6, 8)], id="a reply in the pause"),
        pytest.param([(1, 3)], [(2.5, 6)], [(0, 1, 3), (1, 2.5, 6)], id="an interruption"),
        pytest.param([(1, 9)], [(4, 4.5)], [(0, 1, 9), (~1, 4, 4.5)], id="a remark inside"),
        pytest.param(
            [(1, 5), (5.6, 9)], [(4.6, 5.7)], [(0, 1, 5), (1, 4.6, 5.7), (0, 5.6, 9)], id="more pause than talk"
        ),
        pytest.param([(1, 5.2), (5.8, 9)], [(4.2, 6)], [(0, 1, 9), (~1, 4.2, 6)], id="over a pause, most of it inside"),
        pytest.param([(1, 5)], [(1, 5)], [(0, 1, 5), (~1, 1, 5)], id="both at once"),
        pytest.param([], [(1, 2)], [(1, 1, 2)], id="one who is silent"),
        pytest.param([], [], [], id="nobody"),
        pytest.param([(1, 5)], [(4.9, 9)], [(0, 1, 5), (1, 4.9, 9)], id="who goes on, has the turn"),
    ],
)
def test_two_speakers(
    one: list[tuple[float, float]], other: list[tuple[float, float]], expected: list[tuple[int, float, float]]
) -> None:
    assert found(one, other) == expected


def test_three_speakers() -> None:
    assert found([(1, 3), (9, 11)], [(4, 5)], [(5.5, 8)]) == [(0, 1, 3), (1, 4, 5), (2, 5.5, 8), (0, 9, 11)]
