"""Voice activity detection with Silero (v6, MIT), as shipped with faster-whisper."""

from __future__ import annotations

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.models.checkpoints.embedded import SILERO_VAD

Span = tuple[int, int]
LOW_PEAK = 0.1
"""A recording with a lower peak is scaled up to this peak. At a peak of 0.002 Silero misses half of the speech."""


class VoiceActivity:
    """Silero VAD with its authors' settings: probability 0.5, pauses from 100 ms, speech from 250 ms.

    It uses one thread and one utterance at a time, so results do not depend on other utterances.
    """

    def weight_digest(self) -> str:
        """Return the model's digest.

        Raises:
            ModelError: faster-whisper is not installed, or its model is not the pinned one.
        """
        return sha256_of(SILERO_VAD.locate())

    def setup(self) -> None:
        """Load the model.

        Raises:
            ModelError: as for `weight_digest`.
        """
        SILERO_VAD.locate()
        from faster_whisper.vad import VadOptions, get_vad_model

        get_vad_model()
        self._options = VadOptions(
            threshold=0.5, min_speech_duration_ms=250, min_silence_duration_ms=100, speech_pad_ms=30
        )

    def __call__(self, waveform: np.ndarray) -> list[Span]:
        """Return the stretches of speech.

        Args:
            waveform: (num_samples,) float32 at 16 kHz.

        Returns:
            First sample and exclusive end of each stretch, in order, without overlap.
        """
        from faster_whisper.vad import get_speech_timestamps

        peak = float(np.abs(waveform).max(initial=0.0))
        if 0 < peak < LOW_PEAK:
            waveform = waveform * np.float32(LOW_PEAK / peak)
        found = get_speech_timestamps(waveform, self._options, SAMPLE_RATE)
        return [(span["start"], span["end"]) for span in found]
