"""Real speech, degraded by known amounts, and signals whose scores are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy.special import digamma, erf
from scipy.stats import poisson

from benchmarks.scores import Change, at_44_khz, clipped, coded, noise_of, noisy, quantized, resampled
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.degradation import (
    LOWEST_SNR_DB,
    SNR_STEP_DB,
    WADA,
    bandwidth_hz,
    clipped_share,
    snr_db,
)
from tests.transforms.audio.audio_files import spoken

SECOND = np.arange(SAMPLE_RATE) / SAMPLE_RATE


@pytest.fixture(scope="module")
def sounds(speech: list[dict[str, Any]]) -> list[np.ndarray]:
    """Every tenth utterance."""
    return [soundfile.read(row["audio"], dtype="float32")[0] for row in speech[::10]]


# -- bandwidth --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "low", "high"),
    [
        (resampled(8000), 3700, 4000),
        (resampled(11_025), 5100, 5512.5),
        (resampled(12_000), 5600, 6000),
        (coded("WAV", "ULAW", 8000), 3600, 4100),
        (coded("WAV", "GSM610", 8000), 3400, 4000),
        (coded("MP3", "MPEG_LAYER_III", 8000, 0.99), 2000, 4100),
    ],
    ids=["8 kHz", "11 kHz", "12 kHz", "G.711", "GSM", "MP3 at 8 kHz"],
)
def test_speech_that_lost_its_high_frequencies(
    change: Change, low: float, high: float, sounds: list[np.ndarray]
) -> None:
    found = [bandwidth_hz(quantized(change(sound))) for sound in sounds]
    assert all(value is not None and low <= value <= high for value in found), found


def test_speech_as_recorded(sounds: list[np.ndarray]) -> None:
    found = [bandwidth_hz(sound) or 0 for sound in sounds]
    assert min(found) > 5500 and np.median(found) > 7000


def test_bandwidth_has_no_level_and_no_offset() -> None:
    plain = resampled(8000)(spoken())
    found = {bandwidth_hz(quantized(sound)) for sound in (plain, plain / 5, -plain, plain / 2 + 0.25)}
    assert len(found) == 1
    assert bandwidth_hz(np.concatenate([quantized(plain), np.zeros(9 * SAMPLE_RATE, np.float32)])) in found


@pytest.mark.parametrize("hertz", [500.0, 3000.0, 7500.0])
def test_bandwidth_of_a_tone_is_its_frequency(hertz: float) -> None:
    """The window's main lobe reaches four bins to both sides at its foot, and less 50 dB below its peak."""
    tone = 0.5 * np.sin(2 * np.pi * hertz * SECOND).astype(np.float32)
    assert hertz <= (bandwidth_hz(tone) or 0) <= hertz + 4 * 31.25


def test_an_image_of_the_voice_counts_as_sound() -> None:
    """Upsampled without a filter, speech of 4 kHz is mirrored above 4 kHz: a known limit (DeepSpeech, issue 1726)."""
    assert (bandwidth_hz(quantized(np.repeat(resampled(8000)(spoken())[::2], 2))) or 0) > 4500


@pytest.mark.parametrize("length", [1, 2, 511, 512, 513, 16_000])
def test_short_and_silent_sounds(length: int) -> None:
    zeros = np.zeros(length, np.float32)
    assert (bandwidth_hz(zeros), clipped_share(zeros), snr_db(zeros)) == (None, 0, None)
    loud = np.full(length, 0.5, np.float32)
    assert 0 <= (bandwidth_hz(loud) or 0) <= 8000 and -10 <= (snr_db(loud) or 0) <= 40
    assert 0 <= clipped_share(loud) <= 1


def test_a_long_recording_is_measured_in_parts_that_do_not_show() -> None:
    """The spectrum is summed over parts of 1,000 frames; a tone in the last frame of all must count."""
    quiet = np.zeros(25 * SAMPLE_RATE, np.float32)
    quiet[-4800:] = 0.5 * np.hanning(4800) * np.sin(2 * np.pi * 5000 * SECOND[:4800])
    assert 5000 <= (bandwidth_hz(quiet) or 0) <= 5100


# -- clipping ---------------------------------------------------------------------------------------------------------


def test_speech_is_not_clipped(sounds: list[np.ndarray]) -> None:
    assert max(clipped_share(sound) for sound in sounds) < 0.0005


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("gain", [1.0, 0.23, -0.4])
def test_clipped_speech_whatever_its_gain(share: float, gain: float, sounds: list[np.ndarray]) -> None:
    found = [clipped_share(quantized(clipped(share, gain)(sound))) for sound in sounds]
    assert np.median(found) == pytest.approx(share, rel=0.2) and max(found) < 2 * share


def test_one_side_may_clip_alone() -> None:
    sound = quantized(np.clip(spoken(), -1, np.quantile(spoken(), 0.97)))
    assert clipped_share(sound) == pytest.approx(0.03, rel=0.2)


def test_clipping_at_44_khz_is_found_in_part(sounds: list[np.ndarray]) -> None:
    """Downsampling lets plateaus overshoot at their ends, which hides them in most recordings: a known limit."""
    change = at_44_khz(clipped(0.01))
    found = [clipped_share(quantized(change(sound))) > 0.003 for sound in sounds]
    assert 0.2 < np.mean(found) < 0.9


def test_a_plateau_has_three_samples() -> None:
    sound = np.array([0.1, 0.9, 0.1, -0.5, -0.5, -0.48, 0.2, 0.86, 0.88, 0.9, 0.9, 0, -0.5, -0.5], np.float32)
    assert clipped_share(sound) == 7 / 14  # three at -0.5, and four at 0.9


# -- noise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "lowest", "off"), [("white", -5, 1.5), ("pink", 0, 1.5), ("babble", 5, 2.0)])
def test_noise_of_known_ratio(
    kind: str, lowest: int, off: float, sounds: list[np.ndarray], speech: list[dict[str, Any]]
) -> None:
    """The median error is small; four of five utterances are off by less than 4 dB, at 15 dB by less than 6."""
    if speech[0]["split"] == "made":
        pytest.skip("the estimate assumes amplitudes of real speech, and the made speech has noise of its own")
    noise = noise_of(kind, sounds, np.random.default_rng(3))
    for snr in (ratio for ratio in (-5, 0, 5, 10, 15) if ratio >= lowest):
        errors = [(snr_db(noisy(sound, noise(len(sound)), snr)) or 99) - snr for sound in sounds]
        assert abs(np.median(errors)) < off, snr
        assert np.percentile(np.abs(errors), 80) < (4 if snr < 15 else 6), snr


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "a constant offset": lambda sound: sound + 0.05,
    "digital silence": lambda sound: np.concatenate([sound, np.zeros(8 * SAMPLE_RATE)]),
    "20 dB less": lambda sound: sound / 10,
    "another sign": lambda sound: -sound,
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_ratio_stays(change: str) -> None:
    """An offset of half the RMS, as some of LibriSpeech has, would be taken for noise at -10 dB."""
    sound = noisy(spoken(), noise_of("white", [spoken()], np.random.default_rng(1))(len(spoken())), 12)
    assert snr_db(quantized(CHANGES[change](sound))) == pytest.approx(snr_db(sound), abs=0.3)


def test_noise_alone_and_a_gate() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 5 * SAMPLE_RATE)
    assert (snr_db(quantized(noise)) or 0) < -4
    gate = quantized(np.where(np.arange(len(noise)) % 16_000 < 8000, noise, 0))
    assert (snr_db(gate) or 0) < -4, "half a second of zeros was gated, and is no clean pause"


def test_the_table_is_that_of_the_model() -> None:
    """Gamma amplitudes of shape 0.4 and Gaussian noise of power 1, integrated; two of the paper's own figures."""
    u = np.linspace(0, 40**0.4, 200_001)
    u = (u[1:] + u[:-1]) / 2  # the substitution u = s^0.4 makes the gamma density smooth
    s, weight = u**2.5, np.exp(-(u**2.5))
    sizes = np.concatenate([[0], np.logspace(-7, 4, 1500)])
    mean = np.sqrt(2 / np.pi) * np.exp(-(sizes**2) / 2) + sizes * erf(sizes / np.sqrt(2))
    logs = [_mean_log(size) for size in sizes]
    for place, expected in enumerate(WADA):
        scaled = s / np.sqrt(0.4 * 1.4) * 10 ** ((LOWEST_SNR_DB + SNR_STEP_DB * place) / 20)
        of_mean, of_logs = (np.average(np.interp(scaled, sizes, values), weights=weight) for values in (mean, logs))
        assert np.log(of_mean) - of_logs == pytest.approx(expected, abs=2e-4)
    assert (WADA[5], WADA[15]) == pytest.approx((0.46221, 0.95655), abs=1e-3)


def _mean_log(size: float) -> float:
    """E log|size + z| of a standard normal z: z² is noncentral chi-square, a Poisson mixture of central ones."""
    half = size**2 / 2
    if half > 500:
        return float(np.log(size) - 1 / (2 * size**2))
    terms = np.arange(int(half + 12 * np.sqrt(half + 1)) + 40)
    return float((np.log(2) + (poisson.pmf(terms, half) * digamma(terms + 0.5)).sum()) / 2)
