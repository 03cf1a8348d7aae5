"""What is wrong with samples that were decoded well is named, with what to do."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.waveforms import MIX, BadAudio, Limits, load
from tests.transforms.audio.audio_files import spoken, written

LIMITS = Limits(0.1, 3600)
NOISE = np.random.default_rng(0).normal(0, 0.002, 64_000).astype(np.float32)


def mixed(*channels: np.ndarray, channel: int = MIX) -> np.ndarray:
    return load((np.stack(channels), SAMPLE_RATE), LIMITS, channel).pcm


INVERTED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exactly": lambda x: -x,
    "almost": lambda x: -0.95 * x,
    "with noise": lambda x: -x + NOISE,
    "a sample late": lambda x: -np.concatenate([np.zeros(1, np.float32), x[:-1]]),
}


@pytest.mark.parametrize("how", INVERTED)
def test_channels_that_cancel_are_named_and_each_alone_is_a_row(how: str) -> None:
    second = INVERTED[how]
    with pytest.raises(BadAudio, match=r"2 channels that cancel each other.*channel: 0") as caught:
        mixed(spoken(), second(spoken()))
    assert caught.value.error_class == "cancelled_channels"
    assert np.array_equal(mixed(spoken(), second(spoken()), channel=0), mixed(spoken()))


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 44_100])
def test_channels_that_cancel_in_a_part_only_are_named_with_its_place(rate: int) -> None:
    speech = np.tile(spoken(), 6)
    seconds = len(speech) / rate
    for first, last in ((0.5, 1.0), (0.3, 0.5)):
        start, end = round(first * len(speech)), round(last * len(speech))
        other = np.concatenate([speech[:start], -speech[start:end], speech[end:]])
        with pytest.raises(BadAudio, match=r"2 channels that cancel each other.*channel: 0") as caught:
            load((np.stack([speech, other]), rate), LIMITS)
        assert caught.value.error_class == "cancelled_channels"
        said = re.search(r"for (\S+) s, first at (\S+) s", str(caught.value))
        assert said is not None
        assert abs(float(said[1]) - (last - first) * seconds) < 0.3 * seconds
        assert 0 <= float(said[2]) - first * seconds < 1.5
        assert len(load((np.stack([speech, other]), rate), LIMITS, 0).pcm) == round(seconds * SAMPLE_RATE)


def test_a_part_of_other_channels_that_cancel_is_named() -> None:
    mono, inverted = mono_then_inverted()
    with pytest.raises(BadAudio, match=r"first at 4\.") as caught:
        load(mono + inverted, LIMITS)
    assert caught.value.error_class == "cancelled_channels"


def mono_then_inverted() -> tuple[bytes, bytes]:
    """A WAV of one channel and a WAV of two, one of them inverted, to be joined."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([spoken(), -spoken()], axis=1), SAMPLE_RATE, format="WAV")
    return written("WAV"), buffer.getvalue()


def test_noise_that_cancels_in_a_pause_is_no_reason() -> None:
    pause = np.concatenate([np.zeros(64_000, np.float32), np.ones(64_000, np.float32)])
    hum = 0.003 * np.sin(2 * np.pi * 50 * np.arange(128_000) / SAMPLE_RATE).astype(np.float32) * pause
    speech = np.concatenate([spoken(), np.zeros(64_000, np.float32)])
    assert len(mixed(speech + hum, speech - hum)) == len(speech)


def test_independent_channels_are_no_cancelled_ones() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (64, SAMPLE_RATE)).astype(np.float32)
    assert len(mixed(*noise)) == SAMPLE_RATE
    assert len(mixed(spoken(), np.roll(spoken(), 7))) == len(spoken())


@pytest.mark.parametrize("dead", [np.zeros(64_000), np.full(64_000, 0.02), NOISE / 1000], ids=["0", "offset", "dither"])
def test_a_dead_channel_makes_the_others_no_quieter(dead: np.ndarray) -> None:
    alone = mixed(spoken()).astype(int)
    pcm = mixed(spoken(), dead.astype(np.float32)).astype(int)
    assert np.abs(pcm - pcm.mean() - alone + alone.mean()).max() <= 2
    with pytest.raises(BadAudio, match="silent in channel 1; channel 0 has sound") as caught:
        mixed(spoken(), np.zeros(64_000, np.float32), channel=1)
    assert caught.value.error_class == "dead_channel"


def test_a_constant_is_no_sound() -> None:
    for rate in (SAMPLE_RATE, 44_100):
        with pytest.raises(BadAudio, match=r"constant offset of 0\.300") as caught:
            load((np.full(64_000, 0.3, np.float32), rate), LIMITS)
        assert caught.value.error_class == "offset_only"
    assert len(mixed(spoken() + 0.2)) == len(spoken())


@pytest.mark.parametrize("scale", [32768.0, 2147483648.0, 30.0])
def test_samples_far_beyond_full_scale_are_refused_with_the_remedy(scale: float) -> None:
    padded = np.concatenate([np.zeros(640_000, np.float32), spoken() * scale])
    for samples in (spoken() * scale, padded):
        with pytest.raises(BadAudio, match=r"must lie in \[-1, 1\]; divide") as caught:
            load((samples, SAMPLE_RATE), LIMITS)
        assert caught.value.error_class == "beyond_full_scale"


def test_modest_overs_and_single_clicks_are_clipped() -> None:
    loud = spoken() / np.abs(spoken()).max() * 1.2
    assert np.abs(mixed(loud).astype(int)).max() >= 32767
    click = spoken().copy()
    click[30_000] = 1e30
    for rate in (SAMPLE_RATE, 44_100):
        clean, clicked = (load((x, rate), LIMITS).pcm.astype(int) for x in (spoken(), click))
        assert (np.abs(clean - clicked) > 100).sum() < 100, "a click does not ring"


def test_what_is_not_finite_is_named_with_its_time() -> None:
    samples = spoken().copy()
    samples[24_000] = np.nan
    with pytest.raises(BadAudio, match=r"the first after 1\.50 s") as caught:
        mixed(samples)
    assert caught.value.error_class == "not_finite"


KINDS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], int]] = {
    "int16": (lambda x: (x * 32767).astype(np.int16), 1),
    "uint8": (lambda x: np.rint(x * 128 + 128).clip(0, 255).astype(np.uint8), 129),
    "int32": (lambda x: (x * 2147483520).astype(np.int32), 1),
    "float64": (lambda x: x.astype(np.float64), 1),
    "channels first": (lambda x: np.tile(x, (2, 1)), 1),
    "channels last": (lambda x: np.tile(x[:, None], (1, 2)), 1),
}


@pytest.mark.parametrize("kind", KINDS)
def test_waveforms_of_every_kind(kind: str) -> None:
    make, like = KINDS[kind]
    pcm = load((make(spoken()), SAMPLE_RATE), LIMITS).pcm.astype(int)
    assert np.abs(pcm - np.rint(spoken() * 32768)).max() <= like


@pytest.mark.parametrize(
    ("samples", "rate", "error_class"),
    [
        (np.zeros((2, 2, 2)), 16_000, "unreadable"),
        (np.zeros(100, complex), 16_000, "unreadable"),
        (np.zeros(0), 16_000, "empty"),
        (np.ones(100), 0, "bad_header"),
        (np.ones(100), 10**9, "bad_header"),
    ],
)
def test_arrays_that_are_no_waveforms(samples: np.ndarray, rate: int, error_class: str) -> None:
    with pytest.raises(BadAudio) as caught:
        load((samples, rate), LIMITS)
    assert caught.value.error_class == error_class
