"""One pass over a file: what is heard does not depend on blocks, rates or gains, and what can't be used says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.mixing import MIX
from echo_targets.transforms.audio.waveforms import BadAudio
from echo_targets.transforms.models.asr.voice_activity import VoiceActivity
from echo_targets.transforms.stages.segment.cross_talk import own_speech
from echo_targets.transforms.stages.segment.scanning import FRAME, HALF, scan


@pytest.fixture(scope="module", autouse=True)
def model() -> None:
    VoiceActivity().setup()


@pytest.fixture(scope="module")
def clips(speech: list[dict[str, Any]]) -> list[np.ndarray]:
    """Two clips of different speakers, (num_samples,) float32, cut to seven seconds."""
    first = speech[0]
    other = next(row for row in speech if row["speaker"] != first["speaker"] and row["duration"] > 7)
    return [soundfile.read(row["audio"], dtype="float32")[0][: 7 * SAMPLE_RATE] for row in (first, other)]


def test_a_file_and_its_samples_are_heard_alike(tmp_path: Path, clips: list[np.ndarray]) -> None:
    waveform = np.concatenate([clips[0], np.zeros(33_333, np.float32), clips[1]])
    soundfile.write(tmp_path / "a.wav", waveform, SAMPLE_RATE, subtype="FLOAT")
    one, other = (scan(raw, MIX, False) for raw in (tmp_path / "a.wav", (waveform, SAMPLE_RATE)))
    (first,), (second,) = one.tracks, other.tracks
    assert one.num_samples == other.num_samples == len(waveform) and one.source_rate == SAMPLE_RATE
    assert (first.speech == second.speech).all() and (first.power == second.power).all()
    assert len(first.power) == -(-len(waveform) // FRAME)
    at = 7 * FRAME - HALF
    high = [waveform[n] - waveform[n - HALF : n + HALF + 1].mean() for n in range(at, at + FRAME)]
    assert first.high_passed[7] == pytest.approx(np.mean(np.square(high)), rel=1e-3)
    assert first.power[7] == pytest.approx(np.mean(waveform[7 * FRAME : 8 * FRAME] ** 2))
    assert not first.speech[len(clips[0]) // 512 + 20 : (len(clips[0]) + 33_333) // 512 - 5].any()


def test_another_rate_changes_little(clips: list[np.ndarray]) -> None:
    for rate in (44_100, 8_000):
        (track,) = scan((soxr.resample(clips[0], SAMPLE_RATE, rate), rate), MIX, False).tracks
        (wanted,) = scan((clips[0], SAMPLE_RATE), MIX, False).tracks
        assert abs(track.num_samples - wanted.num_samples) <= 2
        count = min(len(track.speech), len(wanted.speech))
        assert (track.speech[:count] == wanted.speech[:count]).mean() > 0.93


def test_each_channel_is_scanned(clips: list[np.ndarray]) -> None:
    count = min(map(len, clips))
    both = np.stack([clip[:count] for clip in clips], axis=1)
    recording = scan((both, SAMPLE_RATE), MIX, True)
    assert [track.channel for track in recording.tracks] == [0, 1] and recording.num_channels == 2
    for number, track in enumerate(recording.tracks):
        (alone,) = scan((both, SAMPLE_RATE), number, False).tracks
        assert (track.speech == alone.speech).all() and (track.power == alone.power).all()


@pytest.mark.parametrize("gain_db", [0, -12, 12])
@pytest.mark.parametrize(("bleed_db", "delay"), [(-14, 0.003), (-20, 0.003), (-30, 0.003), (-14, 0.3), (-20, 0.1)])
def test_speech_that_a_microphone_picks_up_is_not_its_own(
    clips: list[np.ndarray], gain_db: float, bleed_db: float, delay: float
) -> None:
    """One speaks, then the other, then both, with one microphone louder than the other."""
    one, other = (clip / np.sqrt(np.mean(clip**2)) * 0.03 for clip in clips)
    count = min(len(one), len(other))
    said = np.zeros((2, 3 * count), np.float32)
    said[0, :count], said[1, count : 2 * count] = one[:count], other[:count]
    said[0, 2 * count :], said[1, 2 * count :] = one[:count], other[:count]
    heard = said + np.roll(said[::-1], round(delay * SAMPLE_RATE), axis=1) * 10 ** (bleed_db / 20)
    heard[1] *= 10 ** (gain_db / 20)
    heard += np.random.default_rng(1).normal(0, 1e-4, heard.shape).astype(np.float32)
    recording = scan((heard.T, SAMPLE_RATE), MIX, True)
    own = own_speech(recording.tracks)
    window = count // 512
    alone = [
        (recording.tracks[0].speech, own[0], slice(0, window)),
        (recording.tracks[1].speech, own[1], slice(window + 12, 2 * window)),  # after the other's echo
    ]
    for speech, mine, part in alone:
        assert mine[part].sum() > 0.93 * speech[part].sum() > 100
    assert own[1][:window].sum() < 0.03 * window and own[0][window + 10 : 2 * window].sum() < 0.03 * window
    for mine, part in ((own[0], slice(0, window)), (own[1], slice(window, 2 * window))):
        both = mine[2 * window : 3 * window].sum()
        assert both > 0.7 * mine[part].sum()


def test_hum_and_offset_change_nothing(clips: list[np.ndarray]) -> None:
    count = min(map(len, clips))
    said = np.zeros((2 * count, 2), np.float32)
    said[:count, 0], said[count:, 1] = clips[0][:count], clips[1][:count]
    heard = said + 0.05 * said[:, ::-1]
    hum = 0.02 * np.sin(2 * np.pi * 50 / SAMPLE_RATE * np.arange(2 * count))[:, None] + np.array([0.1, 0.02])
    plain, disturbed = (
        own_speech(scan((sound.astype(np.float32), SAMPLE_RATE), MIX, True).tracks) for sound in (heard, heard + hum)
    )
    for one, other in zip(plain, disturbed, strict=True):
        assert (one == other).mean() > 0.95 and one.sum() > 50


def test_a_channel_that_only_picks_up_the_other_has_no_speech(clips: list[np.ndarray]) -> None:
    both = np.stack([clips[0], clips[0] * 0.05], axis=1)
    both += np.random.default_rng(1).normal(0, 1e-4, both.shape).astype(np.float32)
    own = own_speech(scan((both, SAMPLE_RATE), MIX, True).tracks)
    assert own[0].sum() > 100 and own[1].sum() == 0


@pytest.mark.parametrize(("gain", "noise_db"), [(0.5, -60.0), (2.5, -60.0), (1.0, -23.0), (-0.9, -23.0)])
def test_copies_of_one_sound_are_no_speakers(clips: list[np.ndarray], gain: float, noise_db: float) -> None:
    """Codecs and converters add noise and change gains. AAC at 48 kbit/s leaves -28 dB between two equal channels."""
    sound = np.concatenate(clips)
    noise = np.random.default_rng(1).normal(0, 10 ** (noise_db / 20) * sound.std(), len(sound))
    both = np.stack([sound, gain * (sound + noise) + 0.01], axis=1).astype(np.float32)
    with pytest.raises(BadAudio) as raised:
        scan((both, SAMPLE_RATE), MIX, True)
    assert raised.value.error_class == "same_channels"


@pytest.mark.parametrize(
    ("channels", "channel", "separately", "error_class"),
    [(1, MIX, True, "one_channel"), (2, 2, False, "no_channel"), (2, MIX, True, "same_channels")],
)
def test_recordings_that_can_not_be_scanned(
    clips: list[np.ndarray], channels: int, channel: int, separately: bool, error_class: str
) -> None:
    signs = np.array([1, 1] if channels == 1 or channel == 2 else [1, -1])[:channels]
    for samples in (np.repeat(clips[0][:, None], channels, axis=1), clips[0][:, None] * signs):
        with pytest.raises(BadAudio) as raised:
            scan((samples.astype(np.float32), SAMPLE_RATE), channel, separately)
        assert raised.value.error_class == error_class


def test_samples_that_are_no_numbers(clips: list[np.ndarray]) -> None:
    broken = clips[0].copy()
    broken[50_000] = np.nan
    with pytest.raises(BadAudio, match=r"NaN or infinite after 3\.12 s"):
        scan((broken, SAMPLE_RATE), MIX, False)
