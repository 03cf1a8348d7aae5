"""Silence between loud parts, as levels see it."""

from __future__ import annotations

import numpy as np
import pytest

from echo_targets.transforms.models.aligners.pauses import HOP, Levels

RATE = 16_000


def sound(*parts: tuple[float, float], seed: int = 0) -> np.ndarray:
    """Noise of the given seconds and levels (dB of full scale)."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.standard_normal(round(seconds * RATE)) * 10 ** (level / 20) for seconds, level in parts]
    ).astype(np.float32)


@pytest.mark.parametrize("floor", [-55.0, -75.0, -200.0])
def test_a_pause_is_found_to_ten_milliseconds(floor: float) -> None:
    [(start, end)] = Levels(sound((1, -20), (0.3, floor), (1, -25))).silences(0, round(2.3 * RATE))
    assert abs(start - RATE) <= 160 and abs(end - 1.3 * RATE) <= 160


def test_a_plosives_closure_is_no_pause() -> None:
    assert Levels(sound((1, -20), (0.08, -70), (1, -20))).silences(0, 2 * RATE) == []


def test_a_breath_parts_a_pause_in_two() -> None:
    levels = Levels(sound((1, -20), (0.3, -70), (0.1, -40), (0.3, -70), (1, -20)))
    assert len(levels.silences(0, 3 * RATE)) == 2


def test_a_pause_of_two_silences_is_one() -> None:
    """A recording's own noise, then a silence that someone put in."""
    levels = Levels(sound((1, -20), (0.3, -56), (0.3, -80), (0.3, -58), (1, -20)))
    [(start, end)] = levels.silences(0, 3 * RATE)
    assert abs(start - RATE) <= 160 and abs(end - 1.9 * RATE) <= 160


def test_noise_close_to_the_speech_hides_pauses() -> None:
    assert Levels(sound((1, -20), (0.5, -30), (1, -20))).silences(0, 3 * RATE) == []


def test_only_the_stretch_asked_for() -> None:
    levels = Levels(sound((1, -20), (1, -70), (1, -20)))
    assert levels.silences(0, RATE - 800) == []
    assert levels.silences(round(1.2 * RATE), round(1.5 * RATE)) == [(round(1.2 * RATE), round(1.5 * RATE))]


@pytest.mark.parametrize("samples", [0, 1, HOP, 1_601])
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_little_or_no_sound_has_no_pauses(samples: int, value: float) -> None:
    levels = Levels(np.full(samples, value, np.float32))
    assert levels.silences(0, samples) == levels.silences(-1_000, samples + 1_000) == levels.silences(5, 3) == []


def test_silences_end_with_the_audio() -> None:
    waveform = sound((1, -20), (0.5, -80))[: 16_000 + 4_003]
    assert Levels(waveform).silences(0, 10 * RATE)[-1][1] == len(waveform)
