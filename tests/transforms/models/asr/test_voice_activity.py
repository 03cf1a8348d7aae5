"""Speech is found at any loudness, and noise at none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.transforms.models.asr.voice_activity import (
    Span,
    SpeechProbabilities,
    VoiceActivity,
    spans_of,
    speech_windows,
)


@pytest.fixture(scope="module")
def voice_activity() -> VoiceActivity:
    detector = VoiceActivity()
    detector.setup()
    return detector


def length(spans: list[Span]) -> int:
    return sum(end - start for start, end in spans)


@pytest.mark.parametrize("decibels", [-20, -40, -50, -60])
def test_quiet_speech_is_speech(voice_activity: VoiceActivity, speech: list[dict[str, Any]], decibels: int) -> None:
    waveforms = [soundfile.read(row["audio"], dtype="float32")[0] for row in speech[::30]]
    quiet = [np.rint(waveform * 10 ** (decibels / 20) * 2**15).astype(np.float32) / 2**15 for waveform in waveforms]
    for loud, soft in zip(waveforms, quiet, strict=True):
        assert length(voice_activity(soft)) > 0.8 * length(voice_activity(loud))


@pytest.mark.parametrize("level", [1e-5, 1e-3, 0.1])
def test_noise_is_no_speech(voice_activity: VoiceActivity, level: float) -> None:
    noise = (np.random.default_rng(0).standard_normal(320_000) * level).astype(np.float32)
    assert voice_activity(noise) == voice_activity(noise * 0) == voice_activity(noise[:0]) == []


def test_a_recording_in_pieces_has_the_speech_of_the_whole(
    speech: list[dict[str, Any]], voice_activity: VoiceActivity
) -> None:
    """Silero's own rule differs in one detail: a doubtful window in a pause may join what is before and after it."""
    waveform = np.concatenate([soundfile.read(row["audio"], dtype="float32")[0] for row in speech[:12]])
    whole = voice_activity(waveform)
    found = []
    for size in (997, 160_000, len(waveform)):
        stream = SpeechProbabilities()
        for start in range(0, len(waveform), size):
            stream.add(waveform[start : start + size])
        found.append(spans_of(speech_windows(stream.finish()), len(waveform)))
    assert found[0] == found[1] == found[2] and len(waveform) > 2 * SpeechProbabilities.CHUNK
    assert len(set(found[0]) & set(whole)) > 0.9 * len(whole)
    assert abs(sum(end - start for start, end in found[0]) / sum(end - start for start, end in whole) - 1) < 0.01


@pytest.mark.usefixtures("voice_activity")
def test_a_quiet_recording_is_scaled_up_in_pieces_too(speech: list[dict[str, Any]]) -> None:
    waveform = soundfile.read(speech[0]["audio"], dtype="float32")[0]
    spoken = []
    for gain in (1.0, 0.003):
        stream = SpeechProbabilities()
        stream.add(waveform * np.float32(gain))
        spoken.append(speech_windows(stream.finish()).mean())
    assert spoken[1] == pytest.approx(spoken[0], abs=0.05)


@pytest.mark.usefixtures("voice_activity")
def test_nothing_has_no_speech() -> None:
    assert len(SpeechProbabilities().finish()) == 0 and spans_of(np.zeros(0, bool), 0) == []
