"""The embedded voice: 24 kHz English speech from text on a CPU, for demo corpora and unit training."""

from __future__ import annotations

import numpy as np

from transforms.models.embedded import HIBARI_VOICE

SAMPLE_RATE = 16_000


class Voice:
    """hibari's bundled voice, its weights checked against the pinned release.

    Raises:
        ModelError: hibari is not installed, or its weights are not the pinned ones.
    """

    def __init__(self) -> None:
        weights = HIBARI_VOICE.locate()
        from hibari import Hibari

        self._model = Hibari(model=str(weights), threads=1)

    def speak(self, text: str, seed: int = 0, speed: float = 1.0) -> np.ndarray:
        """Say a text; equal arguments give equal samples.

        Args:
            text: English; numbers and abbreviations are read out.
            seed: of the noise that voiceless sounds are made from.
            speed: 1 is the voice's own pace, 2 twice as fast.

        Returns:
            (samples,) float32, 16 kHz mono, on the grid of 16-bit PCM, so that a 16-bit file holds it exactly.

        Raises:
            ValueError: nothing in the text can be said.
        """
        import soxr

        speech = self._model(text, speed=speed, seed=seed)
        if not len(speech):
            raise ValueError(f"nothing to say in {text!r}")
        resampled = soxr.resample(speech, self._model.sample_rate, SAMPLE_RATE)
        pcm = np.clip(np.rint(resampled * 32768), -32768, 32767)
        return (pcm / 32768).astype(np.float32)
