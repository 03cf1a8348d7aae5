"""The streaming cut, against the released EchoX code and against its own statement; recorded units of segments."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.transforms.segments.rule import (
    Border,
    Cut,
    SegmentRule,
    borders_of,
    cut_units,
    cuts_of,
    frames_of,
    recorded_segments,
    text_scores,
)
from echo_targets.transforms.units.codebook import collapse, expand

RELEASED = json.loads((Path(__file__).parents[1] / "data" / "echox_segments.json").read_text())


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


MARKS = [
    ('"Come in," he said, "it is open." She came.', ['"Come in,"', " he said,", ' "it is open."', " She came."]),
    ("Mr. Bennet paid 3.5 pounds, i.e. 3,000 pence.", ["Mr. Bennet paid 3.5 pounds,", " i.e. 3,000 pence."]),
    ("J. R. Smith left at 10:30. It was I. He left.", ["J. R. Smith left at 10:30.", " It was I.", " He left."]),
    ("so it goes. and we left, he said", ["so it goes.", " and we left,", " he said"]),
    ("我们去公园。你想去吗？好的，我到“门口”等你！", ["我们去公园。", "你想去吗？", "好的，", "我到“门口”等你！"]),
    ("他说：「走吧。」然后离开了，没有回头。", ["他说：", "「走吧。」", "然后离开了，", "没有回头。"]),
    (
        "行きましょう、それから「食べよう。」と言った。",
        ["行きましょう、", "それから「食べよう。」", "と言った。"],
    ),
    ("هل أنت بخير؟ نعم، أنا بخير؛ شكرا.", ["هل أنت بخير؟", " نعم،", " أنا بخير؛", " شكرا."]),
    ("मैं घर जा रहा हूँ। ठीक है।", ["मैं घर जा रहा हूँ।", " ठीक है।"]),
    ("สวัสดีครับ วันนี้อากาศดี", ["สวัสดีครับ", " วันนี้อากาศดี"]),
    ("To do:\n1. Wash it.\n2. Dry it!", ["To do:", "\n1. Wash it.", "\n2. Dry it!"]),
    ("¿Cómo estás? ¡Bien! «Gracias», dijo él.", ["¿Cómo estás?", " ¡Bien!", " «Gracias»,", " dijo él."]),
    ("Really?! Well... yes. No—wait… now.", ["Really?!", " Well...", " yes.", " No—", "wait…", " now."]),
    ("the dogs' 'empty' bowls (two, red). Next", ["the dogs' 'empty' bowls (two,", " red).", " Next"]),
]

# What other projects' users reported of their sentence splitters.
REPORTED = {
    "kyutai-labs/pocket-tts 162": (
        "It is 98.6°F, or 37,0. Pi is 3.14.",
        ["It is 98.6°F,", " or 37,0.", " Pi is 3.14."],
    ),
    "kyutai-labs/pocket-tts 38": (
        "it was the age of wisdom, the other way—in short, so far",
        ["it was the age of wisdom,", " the other way—", "in short,", " so far"],
    ),
    "NVIDIA/NeMo-Speech.cpp 36": (
        "Dr. Smith left the U.S. capital, e.g. by St. Mary. It rained.",
        ["Dr. Smith left the U.S. capital,", " e.g. by St. Mary.", " It rained."],
    ),
    "KittenML/KittenTTS 115": ("At 9:30 a.m., out of breath. Go.", ["At 9:30 a.m.,", " out of breath.", " Go."]),
    "FluidInference/FluidAudio 934": ("before rain — a mix of soil.", ["before rain —", " a mix of soil."]),
    "erew123/alltalk_tts 190": ("“Often.” “How often?” “Well.”", ["“Often.”", " “How often?”", " “Well.”"]),
    "AndBible/and-bible 2726": ("起初，神创造天地；地是空虚。", ["起初，", "神创造天地；", "地是空虚。"]),
    "vellum-ai/vellum-assistant 40313": ("全部で１，０００円です。はい。", ["全部で１，０００円です。", "はい。"]),
    "Azure-Samples/cognitive-services-speech-sdk 2985": (
        "PM2.5：52.0 微克每立方米。 臭氧：36.0 微克。",
        ["PM2.5：52.0 微克每立方米。", " 臭氧：", "36.0 微克。"],
    ),
    "xinnan-tech/xiaozhi-esp32-server 477": (
        "价格1,000.00元，可以在40.0度运行。",
        ["价格1,000.00元，", "可以在40.0度运行。"],
    ),
}


@pytest.mark.parametrize("report", REPORTED)
def test_reported_texts(report: str) -> None:
    text, segments = REPORTED[report]
    assert cut(text, SegmentRule(lookahead=1, min_tokens=1, max_tokens=99, threshold=0.2)) == segments


def cut(text: str, rule: SegmentRule, offsets: list[tuple[int, int]] | None = None) -> list[str]:
    """A text's segments; a token is a character where nothing else is said."""
    offsets = offsets or [(place, place + 1) for place in range(len(text))]
    ends = [offsets[end - 1][1] for end in rule.ends(text_scores(text, offsets))]
    return [text[start:end] for start, end in pairwise([0, *ends])]


@pytest.mark.parametrize(("text", "segments"), MARKS, ids=lambda value: value if isinstance(value, str) else "")
def test_marks_of_sentences_and_clauses(text: str, segments: list[str]) -> None:
    assert cut(text, SegmentRule(lookahead=1, min_tokens=1, max_tokens=99, threshold=0.2)) == segments


def test_a_character_of_several_tokens_is_not_cut() -> None:
    """Byte-level tokens of one character have the same offsets."""
    text = "好的。我去。"
    bytewise = [(place, place + 1) for place in range(len(text)) for _ in range(3)]
    scores = text_scores(text, bytewise)
    assert [place for place, score in enumerate(scores) if score > 0.5] == [8]
    assert cut(text, SegmentRule(lookahead=2, min_tokens=3), bytewise) == ["好的。", "我去。"]


def test_words_are_not_cut_in_scripts_of_any_kind() -> None:
    rule = SegmentRule(lookahead=2, min_tokens=4, max_tokens=6)
    for segment in cut("我用iPhone给他打了一个很长很长的电话", rule)[:-1]:
        assert not segment.endswith(("i", "iP", "iPh", "iPho", "iPhon"))
    assert all(segment[0] not in "ัิีึืุู่้" for segment in cut("ที่นี่มีต้นไม้ใหญ่และสูงมาก", rule))


def word(start: int | None, end: int | None, char_start: int, char_end: int, interpolated: bool = False) -> dict:
    names = ("start_sample", "end_sample", "char_start", "char_end", "interpolated")
    return dict(zip(names, (start, end, char_start, char_end, interpolated), strict=True))


def test_recorded_units_are_cut_in_the_middle_of_the_pause() -> None:
    frames = np.repeat(np.arange(10), 2)
    units, durations = collapse(frames)
    words = [word(0, 1600, 0, 3), word(3200, 6400, 4, 7)]  # the pause is frames 5 to 10
    borders = borders_of(words, 320, len(frames))
    assert borders == [Border(3, 4, 8)]
    (first, _), (second, _) = recorded_segments(units, durations, borders, [3, 7]) or []
    assert first.tolist() == [0, 1, 2, 3] and second.tolist() == [4, 5, 6, 7, 8, 9]


def test_a_run_that_a_border_falls_into_goes_on_in_both_segments() -> None:
    halves = recorded_segments(np.array([5, 6, 7]), [2, 6, 2], [Border(3, 4, 4)], [3, 7]) or []
    assert [[each.tolist() for each in half] for half in halves] == [[[5, 6], [2, 2]], [[6, 7], [4, 2]]]


def test_no_border_inside_a_word_or_without_a_time_of_its_own() -> None:
    words = [word(0, 1600, 0, 3), word(3200, 4800, 4, 7), word(4800, 6400, 8, 12)]
    borders = borders_of(words, 320, 20)
    assert frames_of([3, 4, 5, 7, 8, 10], borders) == [8, 8, None, 15, 15, None]
    assert recorded_segments(np.array([1, 2]), [10, 10], borders, [5, 12]) is None
    later = word(1600, 3200, 4, 7, True), word(3200, 4800, 8, 12, True), word(None, None, 13, 15)
    guessed = [words[0], *later]
    assert [border.char_start for border in borders_of(guessed, 320, 20)] == [3]
    assert borders_of([], 320, 20) == borders_of([word(0, 0, 0, 3), word(0, 9, 4, 5)], 320, 20) == []


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.data())
def test_segments_together_are_the_recording(frames: list[int], data: st.DataObject) -> None:
    units, durations = collapse(np.array(frames))
    text = data.draw(st.text("ab ,.", min_size=2, max_size=60))
    offsets = [(place, place + 1) for place in range(len(text))]
    chars = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=len(frames) - 1)))
    size = len(chars)
    at = sorted(data.draw(st.sets(st.integers(1, max(1, len(frames) - 1)), min_size=size, max_size=size)))
    borders = [Border(char, char, frame) for char, frame in zip(chars, at, strict=True)]
    rule = SegmentRule(lookahead=1, min_tokens=2, max_tokens=5)
    cuts = cuts_of(rule, text, offsets, borders)
    assert {cut.char for cut in cuts} == set(rule.ends(text_scores(text, offsets))[:-1]) & set(chars)
    pieces = cut_units(units, durations, [cut.frame for cut in cuts])
    assert all(len(piece) for piece, _ in pieces)
    assert np.concatenate([expand(*piece) for piece in pieces]).tolist() == frames
    assert all((piece[1:] != piece[:-1]).all() for piece, _ in pieces)


def test_without_a_rule_or_a_border_a_text_is_one_segment() -> None:
    text, borders = "ab, cd, ef", [Border(3, 4, 2)]
    offsets = [(place, place + 1) for place in range(len(text))]
    rule = SegmentRule(lookahead=1, min_tokens=1)
    assert cuts_of(None, text, offsets, borders) == cuts_of(rule, text, offsets, []) == []
    assert cuts_of(rule, text, offsets, borders) == [Cut(3, 3, 2)]
