"""Windows are cut in pauses, and speech that no segment covers is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.asr.base import DecodedWindow
from echo_targets.transforms.models.asr.long_form import Segment, Transcription, cut_windows
from echo_targets.transforms.models.whisper.encoder import WINDOW_SAMPLES

WINDOW = DecodedWindow([], 0, -0.1, 0.0, 0.0, "en", None)
Span = tuple[int, int]


def spans(*seconds: tuple[float, float]) -> list[Span]:
    return [(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE)) for start, end in seconds]


def transcription(speech: list[Span], segments: list[Span]) -> Transcription:
    return Transcription(speech, [WINDOW], [Segment(start, end, "x", WINDOW) for start, end in segments])


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


def test_a_window_ends_in_the_longest_pause_of_its_last_ten_seconds() -> None:
    speech = spans((0, 12), (15, 22), (22.3, 26), (27, 29), (29.2, 65))
    windows = cut_windows(noise(65), speech)
    assert windows[0] == (0, round(26.5 * SAMPLE_RATE))
    assert [end for _, end in windows[:-1]] == [start for start, _ in windows[1:]]
    assert windows[-1][1] == 65 * SAMPLE_RATE


def test_without_a_pause_a_window_ends_where_it_is_quietest() -> None:
    loud = noise(40)
    loud[round(24.4 * SAMPLE_RATE) : round(24.6 * SAMPLE_RATE)] *= 0.1
    ((_, end), _) = cut_windows(loud, spans((0, 40)))
    assert 24.4 * SAMPLE_RATE <= end <= 24.6 * SAMPLE_RATE


@given(
    st.integers(1, 200 * SAMPLE_RATE),
    st.lists(st.integers(0, 200 * SAMPLE_RATE), max_size=20, unique=True).map(sorted),
)
def test_windows_cover_the_audio_and_are_short_enough(num_samples: int, borders: list[int]) -> None:
    speech = [(start, min(end, num_samples)) for start, end in zip(borders[::2], borders[1::2], strict=False)]
    windows = cut_windows(np.zeros(num_samples, np.float32), [span for span in speech if span[0] < span[1]])
    assert windows[0][0] == 0 and windows[-1][1] == num_samples
    assert [end for _, end in windows[:-1]] == [start for start, _ in windows[1:]]
    assert all(0 < end - start <= WINDOW_SAMPLES for start, end in windows)


@pytest.mark.parametrize(
    ("speech", "segments", "covered", "uncovered", "gaps"),
    [
        # the last sentence
        (spans((0, 4), (5, 9)), spans((0, 4.2)), 0.5, spans((5, 9)), spans((5, 10))),
        # one in the middle
        (spans((0, 3), (4, 6), (7, 10)), spans((0, 3), (7, 10)), 0.75, spans((4, 6)), spans((4, 7))),
        # the first
        (spans((0, 4), (5, 9)), spans((5, 9)), 0.5, spans((0, 4)), spans((0, 5))),
        # a segment over a pause
        (spans((0, 4), (5, 9)), spans((0, 9)), 1.0, [], []),
        # a gap of less than a second, and the end of a word
        (spans((0, 4), (4, 9)), spans((0, 4), (4.9, 9)), 0.9, spans((4, 4.9)), []),
        (spans((0, 9.3)), spans((0, 9)), 0.9677, spans((9, 9.3)), []),
        # no speech at all
        ([], spans((0, 2)), None, [], []),
    ],
)
def test_speech_outside_segments_is_found(
    speech: list[Span], segments: list[Span], covered: float | None, uncovered: list[Span], gaps: list[Span]
) -> None:
    found = transcription(speech, segments)
    assert found.speech_covered == (None if covered is None else pytest.approx(covered, abs=1e-3))
    assert found.uncovered == uncovered
    assert found.gaps(10 * SAMPLE_RATE) == gaps


@pytest.mark.parametrize(
    ("text", "seconds", "sparse"),
    [
        ("Something is going to occur. He said.", 16.0, True),
        ("If called to a case supposed or suspected to be one of poisoning", 6.0, False),
        ("Yes.", 1.5, False),  # a slow word
        ("他在报告中说，这项工作已经完成。", 6.0, False),  # 2.5 characters a second, very slow
        ("他说。", 6.0, True),
        ("May 10, 1851. Madam.", 3.5, False),
        ("Он сказал, что уедет.", 3.0, False),
    ],
)
def test_a_segment_with_too_little_text_for_its_speech_is_found(text: str, seconds: float, sparse: bool) -> None:
    (span,) = spans((0, seconds))
    segment = Segment(*span, text, WINDOW)
    assert Transcription([span], [WINDOW], [segment]).is_sparse(segment) == sparse
