"""The embedded voice: English speech from text on a CPU, for demo corpora and unit training."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
from pydantic import ConfigDict, Field

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.base import Parameters
from echo_targets.transforms.models.checkpoints.embedded import HIBARI_VOICE


class Delivery(Parameters):
    """How a text is spoken.

    Attributes:
        speed: 1 is the voice's own pace, 2 is twice as fast.
        pitch: semitones above the voice's own. Formants move too, as for another speaker; the pace stays the same.
        gain_db: gain of voice and noise together; samples beyond full scale are clipped.
        snr_db: mean power of the speech over that of the noise, in dB; None adds no noise.
        noise: white, or pink, whose power falls by 3 dB per octave.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    speed: float = Field(default=1.0, ge=0.5, le=2.0)
    pitch: float = Field(default=0.0, ge=-6.0, le=6.0)
    gain_db: float = Field(default=0.0, ge=-24.0, le=12.0)
    snr_db: float | None = Field(default=None, ge=-10.0, le=100.0)
    noise: Literal["white", "pink"] = "white"


PLAIN = Delivery()


class Voice:
    """hibari's bundled voice, with weights checked against the pinned release.

    Raises:
        ModelError: hibari is not installed, or its weights are not the pinned ones.
    """

    def __init__(self) -> None:
        weights = HIBARI_VOICE.locate()
        from hibari import Hibari

        self._model = Hibari(model=str(weights), threads=1)

    def speak(self, text: str, seed: int = 0, delivery: Delivery = PLAIN) -> np.ndarray:
        """Synthesize a text. Equal arguments give equal samples.

        Args:
            text: English; numbers and abbreviations are spelled out.
            seed: seed of the voice's own noise (voiceless sounds) and, with the text, of the added noise.
            delivery: pace, pitch, loudness, noise.

        Returns:
            (samples,) float32, 16 kHz mono, rounded to 16-bit PCM values, so that a 16-bit file holds it exactly.

        Raises:
            ValueError: nothing in the text can be spoken.
        """
        import soxr

        pitch = 2 ** (delivery.pitch / 12)  # synthesized slower by this factor, then resampled to be faster
        speech = self._model(text, speed=delivery.speed / pitch, seed=seed)
        if not len(speech):
            raise ValueError(f"nothing to speak in {text!r}")
        sound = soxr.resample(speech, self._model.sample_rate * pitch, SAMPLE_RATE)
        if delivery.snr_db is not None:
            noise = _noise(delivery.noise, len(sound), np.random.default_rng([seed, zlib.crc32(text.encode())]))
            sound = sound + noise * np.sqrt(np.mean(sound**2) / 10 ** (delivery.snr_db / 10))
        pcm = np.clip(np.rint(sound * 10 ** (delivery.gain_db / 20) * 32768), -32768, 32767)
        return (pcm / 32768).astype(np.float32)


def _noise(color: str, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return (samples,) of noise with a mean power of 1."""
    noise = rng.standard_normal(samples)
    if color == "pink":
        spectrum = np.fft.rfft(noise)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        noise = np.fft.irfft(spectrum, samples)
    return noise / np.sqrt(np.mean(noise**2))
