"""Who speaks when: parts cover the speech, voices are told apart, and odd moments are no speakers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.diarization import error_rate, mixture
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.asr.voice_activity import VoiceActivity
from echo_targets.transforms.models.speakers.base import SpeakerEncoder
from echo_targets.transforms.models.speakers.registry import open_speaker_encoder
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.stages.segment import diarization
from echo_targets.transforms.stages.segment.diarization import (
    DiarizationParameters,
    cluster,
    diarize,
    with_speakers,
)
from echo_targets.transforms.stages.segment.stretches import StretchLoader

PARAMETERS = DiarizationParameters()


class Pitches(SpeakerEncoder):
    """Tells tones apart: the spectrum up to 2 kHz."""

    dimension = 40

    @staticmethod
    def can_load(model: str) -> bool:
        return model == "pitches"

    def weight_digest(self) -> str:
        return "pitches"

    def load(self, device: str) -> None:
        """Nothing to load."""

    def encode(self, waveform: np.ndarray) -> np.ndarray:
        spectrum = np.abs(np.fft.rfft(waveform, SAMPLE_RATE))[:2000]
        return np.asarray(spectrum.reshape(40, 50).sum(axis=1), np.float32)


@pytest.fixture(scope="module")
def pitches() -> Pitches:
    encoder = Pitches("pitches")
    encoder.setup()
    return encoder


def tones(*parts: tuple[float, float]) -> np.ndarray:
    """Tones of (seconds, Hz), one after the other."""
    sound = [np.sin(2 * np.pi * hertz * np.arange(int(length * SAMPLE_RATE)) / SAMPLE_RATE) for length, hertz in parts]
    return np.concatenate(sound).astype(np.float32)


def found_in(
    sound: np.ndarray, speech: Sequence[tuple[int, int]], encoder: SpeakerEncoder
) -> list[tuple[int, int, int]]:
    return diarize(speech, lambda spans: [sound[start:end] for start, end in spans], encoder, PARAMETERS)


def test_tones_are_told_apart_and_numbered_as_they_come(pitches: Pitches) -> None:
    sound = tones((4, 900), (6, 300), (5, 900), (4, 1500))
    found = found_in(sound, [(0, len(sound))], pitches)
    assert [speaker for *_, speaker in found] == [0, 1, 0, 2]
    for (_, end, _), border in zip(found, (4, 10, 15), strict=False):
        assert abs(end / SAMPLE_RATE - border) <= 0.8  # half a window


def test_an_interjection_in_a_short_pause_is_no_other_speaker(pitches: Pitches) -> None:
    sound = tones((5, 900), (0.3, 300), (5, 900), (4, 300))
    speech = [(0, 80_000), (80_000, 84_800), (84_800, 164_800), (164_800, len(sound))]
    assert [speaker for *_, speaker in found_in(sound, speech, pitches)] == [0, 0, 0, 1]


def test_a_moment_of_another_voice_is_no_speaker(pitches: Pitches) -> None:
    sound = tones((8, 900), (1.5, 300), (8, 900))
    speech = [(0, 128_000), (128_000, 152_000), (152_000, len(sound))]
    assert {speaker for *_, speaker in found_in(sound, speech, pitches)} == {0}


def test_no_speech_has_no_speakers(pitches: Pitches) -> None:
    assert found_in(np.zeros(0, np.float32), [], pitches) == []


@settings(max_examples=25)
@given(
    gaps=st.lists(st.tuples(st.integers(1700, 40_000), st.integers(4_100, 200_000)), min_size=1, max_size=6),
    seed=st.integers(0, 9),
)
def test_the_parts_are_the_speech(pitches: Pitches, gaps: list[tuple[int, int]], seed: int) -> None:
    borders = np.cumsum([length for pair in gaps for length in pair]).tolist()
    speech = list(zip(borders[::2], borders[1::2], strict=True))
    sound = np.random.default_rng(seed).normal(0, 0.1, borders[-1]).astype(np.float32)
    found = found_in(sound, speech, pitches)
    covered = np.zeros(borders[-1], np.int8)
    for start, end, _ in found:
        covered[start:end] += 1
    expected = np.zeros(borders[-1], np.int8)
    for start, end in speech:
        expected[start:end] = 1
    assert (covered == expected).all() and all(one[1] <= other[0] for one, other in pairwise(found))
    assert found[0][2] == 0


def test_texts_get_the_speaker_who_speaks_most_in_them() -> None:
    said = [(0, 50_000, 0), (52_000, 90_000, 1), (91_000, 130_000, 0), (160_000, 200_000, 1)]
    phrases = [Phrase(1_000, 48_000, "one"), Phrase(49_000, 88_000, "two"), Phrase(140_000, 150_000, "nobody")]
    found = with_speakers(phrases, said)
    assert [(phrase.text, phrase.speaker) for phrase in found] == [
        ("one", "0"),
        ("two", "1"),
        (None, "0"),
        ("nobody", None),
        (None, "1"),
    ]
    assert (found[2].start, found[2].end) == (91_000, 130_000)


def test_only_long_stretches_without_text_have_a_phrase() -> None:
    """A short stretch without text stays with the text next to it, so that the text is not split."""
    said = [(0, 40_000, 0), (41_000, 60_000, 0)]
    phrases = [Phrase(0, 12_000, "these"), Phrase(9_000, 30_000, "words"), Phrase(41_000, 50_000, "meet")]
    assert [phrase.text for phrase in with_speakers(phrases, said)] == ["these", "words", "meet"]
    assert [(phrase.start, phrase.end, phrase.speaker) for phrase in with_speakers([], said)] == [
        (0, 40_000, "0"),
        (41_000, 60_000, "0"),
    ]


def test_many_windows_are_clustered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    centers = np.eye(3, 16)
    truth = rng.integers(0, 3, 500)
    points = centers[truth] + rng.normal(0, 0.05, (500, 16))
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    whole = cluster(points, PARAMETERS)
    monkeypatch.setattr(diarization, "MOST_WINDOWS", 40)
    for parameters in (PARAMETERS, DiarizationParameters(num_speakers=3)):
        parts = cluster(points, parameters)
        assert len(set(zip(whole, parts, strict=True))) == len(set(parts)) == 3


def test_stretches_are_loaded_from_a_file(tmp_path: Path, speech: list[dict[str, Any]]) -> None:
    waveform = soundfile.read(speech[0]["audio"], dtype="float32")[0]
    both = soxr.resample(np.stack([np.zeros_like(waveform), waveform], axis=1), SAMPLE_RATE, 22_050)
    soundfile.write(tmp_path / "two.flac", both, 22_050)
    load = StretchLoader(tmp_path / "two.flac", 1)
    for spans in ([(1000, 20_000), (24_000, 40_001)], [(41_000, 60_000)]):
        for (start, end), stretch in zip(spans, load(spans), strict=True):
            assert abs(len(stretch) - (end - start)) <= 2
            count = min(len(stretch), end - start) - 100
            assert np.corrcoef(stretch[50:count], waveform[start + 50 : start + count])[0, 1] > 0.98
    assert len(StretchLoader(tmp_path / "two.flac", 0)([(0, 9_000)])[0]) == 0


def test_the_rate_counts_missed_false_and_confused_speech() -> None:
    truth = [(0, 160_000, 0), (160_000, 320_000, 1)]
    assert error_rate(truth, [(0, 160_000, 7), (160_000, 320_000, 3)], []) == 0
    assert error_rate(truth, [(0, 320_000, 0)], []) == 0.5
    assert error_rate(truth, [(0, 160_000, 0)], []) == 0.5
    assert error_rate(truth[:1], truth, []) == 1.0
    assert error_rate(truth, [(0, 163_000, 0), (163_000, 320_000, 1)], truth) == 0


@pytest.mark.slow
def test_speakers_of_real_speech(speech: list[dict[str, Any]]) -> None:
    """Needs Resemblyzer, whose dependency has to be compiled."""
    encoder, activity = open_speaker_encoder("embedded:resemblyzer"), VoiceActivity()
    if find_spec("resemblyzer") is None:
        pytest.skip("Resemblyzer is not installed")
    encoder.setup("cpu")
    activity.setup()
    sound, truth = mixture(speech, 3, 1.5, 1)
    stretches = activity(sound)
    found = found_in(sound, stretches, encoder)
    spoken = [
        (max(start, first), min(end, last), speaker)
        for start, end, speaker in truth
        for first, last in stretches
        if max(start, first) < min(end, last)
    ]
    assert error_rate(spoken, found, truth) < 0.15
