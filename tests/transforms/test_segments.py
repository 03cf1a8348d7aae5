"""The streaming cut, against the released EchoX code and against its own statement; recorded units of segments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.codebook import collapse, expand
from transforms.segments import SegmentRule, recorded_segments, text_scores

RELEASED = json.loads((Path(__file__).parent / "data" / "echox_segments.json").read_text())


@pytest.mark.parametrize("case", RELEASED, ids=lambda case: f"{len(case['scores'])} tokens")
def test_cuts_where_the_released_code_cuts(case: dict) -> None:
    assert SegmentRule().ends(case["scores"]) == case["ends"]


@given(st.lists(st.floats(-1, 1), max_size=300))
def test_segments_cover_the_reply(scores: list[float]) -> None:
    ends = SegmentRule().ends(scores)
    assert ends == sorted(set(ends))
    assert ends[-1:] == ([len(scores)] if scores else [])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=300))
def test_a_cut_does_not_depend_on_what_comes_after_its_look_ahead(scores: list[float]) -> None:
    rule = SegmentRule()
    for end in rule.ends(scores)[:-1]:
        assert end in rule.ends(scores[: end + rule.lookahead])


def test_text_is_cut_at_its_pauses() -> None:
    text = "It is a little over twelve miles. From there, take the second road to the left and go on to the mill."
    offsets = [(place, place + 1) for place in range(len(text))]
    ends = SegmentRule(min_tokens=20, max_tokens=90).ends(text_scores(text, offsets))
    assert [text[start:end] for start, end in zip([0, *ends], ends, strict=False)] == [
        "It is a little over twelve miles.",
        " From there, take the second road to the left and go on to the mill.",
    ]


def test_a_long_clause_is_cut_between_words() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    offsets = [(place, place + 1) for place in range(len(text))]
    ends = SegmentRule().ends(text_scores(text, offsets))
    assert len(ends) > 1
    assert all(text[end].isspace() for end in ends[:-1])


def word(start: int, end: int, char_start: int, char_end: int) -> dict:
    return {"start_sample": start, "end_sample": end, "char_start": char_start, "char_end": char_end}


def test_recorded_units_are_cut_in_the_middle_of_the_pause() -> None:
    frames = np.repeat(np.arange(10), 2)
    units, durations = collapse(frames)
    words = [word(0, 1600, 0, 3), word(3200, 6400, 4, 7)]  # the pause is frames 5 to 10
    first, second = recorded_segments(units, durations, 320, words, [3, 7]) or []
    assert first.tolist() == [0, 1, 2, 3] and second.tolist() == [4, 5, 6, 7, 8, 9]


def test_no_border_without_timed_words_on_both_sides() -> None:
    words = [word(0, 1600, 0, 3)]
    assert recorded_segments([1, 2], [5, 5], 320, words, [3, 7]) is None
    assert recorded_segments([1, 2], [5, 5], 320, [{**words[0], "end_sample": None}, words[0]], [3, 7]) is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.data())
def test_segments_together_are_the_recording(frames: list[int], data: st.DataObject) -> None:
    units, durations = collapse(np.array(frames))
    count = data.draw(st.integers(1, 6))
    times = sorted(data.draw(st.lists(st.integers(0, len(frames) * 320), min_size=2 * count, max_size=2 * count)))
    words = [word(times[2 * n], times[2 * n + 1], 4 * n, 4 * n + 3) for n in range(count)]
    segments = recorded_segments(units, durations, 320, words, [4 * n + 3 for n in range(count)])
    assert segments is not None and len(segments) == count
    joined = [unit for segment in segments for unit in segment]
    assert collapse(np.array(joined, np.int16))[0].tolist() == units.tolist()
    assert len(expand(units, durations)) == len(frames)
