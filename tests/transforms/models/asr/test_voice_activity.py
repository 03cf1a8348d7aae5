"""Speech is found at any loudness, and noise at none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.transforms.models.asr.voice_activity import Span, VoiceActivity


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
