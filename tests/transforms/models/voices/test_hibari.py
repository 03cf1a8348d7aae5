"""The embedded voice: what pace, pitch, loudness and noise do to it, measured on what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("hibari", reason="the [demo] extra is not installed")

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.voices.base import NothingToSay, Voice
from echo_targets.transforms.models.voices.delivery import Delivery, deliver
from echo_targets.transforms.models.voices.registry import open_voice

TEXT = "Say this. The red ball is under the table."
BANDS = (200, 400, 800, 1600, 3200, 6400)


@pytest.fixture(scope="module")
def voice() -> Voice:
    voice = open_voice()
    voice.setup()
    return voice


@pytest.fixture(scope="module")
def plain(voice: Voice) -> np.ndarray:
    return voice.speak(TEXT)


def fundamental(speech: np.ndarray) -> float:
    """Median over loud frames of 64 ms of the lag that a frame is most like itself at, in Hz."""
    shortest, longest = SAMPLE_RATE // 400, SAMPLE_RATE // 80
    frames = speech[: len(speech) // 1024 * 1024].reshape(-1, 1024)
    found = []
    for frame in frames[np.square(frames).mean(axis=1) > np.square(speech).mean()]:
        likeness = np.correlate(frame, frame, "full")[1023:]
        found.append(SAMPLE_RATE / (shortest + np.argmax(likeness[shortest:longest])))
    return float(np.median(found))


def decibels(sound: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(np.square(sound, dtype=np.float64))))


@pytest.mark.parametrize("speed", [0.7, 1.4])
def test_pace(voice: Voice, plain: np.ndarray, speed: float) -> None:
    assert len(deliver(voice, TEXT, Delivery(speed=speed))) == pytest.approx(len(plain) / speed, rel=0.1)


@pytest.mark.parametrize("semitones", [-6.0, 6.0])
def test_pitch_moves_and_the_pace_stays(voice: Voice, plain: np.ndarray, semitones: float) -> None:
    speech = deliver(voice, TEXT, Delivery(pitch=semitones))
    assert len(speech) == pytest.approx(len(plain), rel=0.1)
    assert 12 * np.log2(fundamental(speech) / fundamental(plain)) == pytest.approx(semitones, abs=1.5)


def test_gain(voice: Voice, plain: np.ndarray) -> None:
    assert decibels(deliver(voice, TEXT, Delivery(gain_db=-9))) == pytest.approx(decibels(plain) - 9, abs=0.01)


@pytest.mark.parametrize(("noise", "slope"), [("white", 0.0), ("pink", -3.0)])
def test_noise_has_its_power_and_colour(voice: Voice, plain: np.ndarray, noise: Any, slope: float) -> None:
    added = deliver(voice, TEXT, Delivery(snr_db=10, noise=noise)) - plain
    assert decibels(added) == pytest.approx(decibels(plain) - 10, abs=0.1)
    spectrum = np.abs(np.fft.rfft(added)) ** 2
    hz = np.fft.rfftfreq(len(added), 1 / SAMPLE_RATE)
    density = [10 * np.log10(spectrum[(hz >= low) & (hz < 2 * low)].mean()) for low in BANDS[:-1]]
    assert np.polyfit(range(len(density)), density, 1)[0] == pytest.approx(slope, abs=0.5)


def test_noise_is_the_texts_and_the_seeds(voice: Voice) -> None:
    noisy = Delivery(snr_db=0)

    def added(text: str, seed: int) -> np.ndarray:
        return (deliver(voice, text, noisy, seed) - voice.speak(text, seed=seed))[:8000]

    assert np.array_equal(added(TEXT, 0), added(TEXT, 0))
    for other in (added(TEXT, 1), added("Where is Rome?", 0)):
        assert abs(np.corrcoef(added(TEXT, 0), other)[0, 1]) < 0.05


@pytest.mark.parametrize("delivery", [Delivery(), Delivery(speed=0.5, pitch=6, gain_db=12, snr_db=-10)])
def test_samples_are_16_bit(voice: Voice, delivery: Delivery) -> None:
    speech = deliver(voice, TEXT, delivery)
    assert speech.dtype == np.float32 and speech.min() >= -1 and speech.max() < 1
    assert np.array_equal(speech * 32768, np.rint(speech * 32768))


def test_speech_is_the_librarys(voice: Voice, plain: np.ndarray) -> None:
    """At its own pace and faster, at 24 kHz, resampled."""
    import soxr
    from hibari import Hibari

    for rate, seed in ((1.0, 0), (1.5, 3)):
        expected = soxr.resample(Hibari()(TEXT, speed=rate, seed=seed), 24_000, SAMPLE_RATE)
        np.testing.assert_allclose(voice.speak(TEXT, rate=rate, seed=seed), expected, atol=1 / 32768)
    assert np.array_equal(voice.speak(TEXT), plain)


@pytest.mark.parametrize("text", ["He said no.", "Yes, no. Maybe.", "I saw the Sun. It was hot."])
def test_a_last_word_is_no_abbreviation(voice: Voice, text: str) -> None:
    """hibari would say "number" and "Sunday"."""
    from hibari import Hibari

    speak = Hibari()
    right, wrong = len(speak(text.replace("no.", "no!").replace("Sun.", "Sun!"))), len(speak(text))
    found = len(voice.synthesize(text, None, 1.0, 0))
    assert abs(found - right) < abs(found - wrong)


def test_nothing_to_say(voice: Voice) -> None:
    with pytest.raises(NothingToSay, match="nothing to speak"):
        voice.speak(" \n")


def test_what_it_can_not_do(voice: Voice) -> None:
    with pytest.raises(ModelError, match="has one speaker"):
        voice.speak(TEXT, "emma")
    for rate in (0.2, 4.1):
        with pytest.raises(ModelError, match="is not between"):
            voice.check(rate=rate)
