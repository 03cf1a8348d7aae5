"""Load stretches of a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.waveforms import Audio, Limits, Raw, Section, load_sections, reader_of
from echo_targets.transforms.models.asr.voice_activity import Span

Load = Callable[[Sequence[Span]], list[np.ndarray]]
"""Loads stretches of a recording: (num_samples,) float32 at 16 kHz each."""


class StretchLoader:
    """Loads stretches of a recording in one more pass, if they are requested in order."""

    def __init__(self, raw: Raw, channel: int) -> None:
        self._reader, self._channel = reader_of(raw), channel

    def __call__(self, stretches: Sequence[Span]) -> list[np.ndarray]:
        """Return each stretch, (num_samples,) float32 at 16 kHz; empty if it is silent or can't be used."""
        wanted = [
            (self._channel, Section(start / SAMPLE_RATE, (end - start) / SAMPLE_RATE)) for start, end in stretches
        ]
        loaded = load_sections(self._reader, Limits(0, np.inf), wanted)
        return [
            each.pcm.astype(np.float32) / 32768 if isinstance(each, Audio) else np.zeros(0, np.float32)
            for each in loaded
        ]
