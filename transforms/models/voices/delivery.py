"""How a line is spoken: speaker, pace, pitch, loudness, and added noise."""

from __future__ import annotations

import zlib
from typing import Literal

import numpy as np
from pydantic import ConfigDict, Field

from echo_targets.transforms.base import Parameters
from echo_targets.transforms.models.voices.base import Voice, pcm_values, resampled


class Delivery(Parameters):
    """How a text is spoken.

    Attributes:
        speaker: a speaker of the voice; None for its only or default one.
        speed: 1 is the voice's own pace, 2 is twice as fast.
        pitch: semitones above the voice's own. Formants move too, as for another speaker; the pace stays the same.
        gain_db: gain of voice and noise together; samples beyond full scale are clipped.
        snr_db: mean power of the speech over that of the noise, in dB; None adds no noise.
        noise: white, or pink, whose power falls by 3 dB per octave.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    speaker: str | None = None
    speed: float = Field(default=1.0, ge=0.5, le=2.0)
    pitch: float = Field(default=0.0, ge=-6.0, le=6.0)
    gain_db: float = Field(default=0.0, ge=-24.0, le=12.0)
    snr_db: float | None = Field(default=None, ge=-10.0, le=100.0)
    noise: Literal["white", "pink"] = "white"

    @property
    def stretch(self) -> float:
        """Factor of the sampling rate that raises the pitch."""
        return 2 ** (self.pitch / 12)

    @property
    def rate(self) -> float:
        """The rate to speak at: slower by `stretch`, since resampling then makes the speech faster."""
        return self.speed / self.stretch


PLAIN = Delivery()


def deliver(voice: Voice, text: str, delivery: Delivery = PLAIN, seed: int = 0) -> np.ndarray:
    """Speak a text as a delivery says. Arguments, result and errors are otherwise those of `Voice.speak`.

    The added noise depends on the seed and the text.
    """
    voice.check(delivery.speaker, delivery.rate)
    speech = voice.synthesize(text, delivery.speaker, delivery.rate, seed)
    sound = resampled(speech, voice.sampling_rate * delivery.stretch)
    if delivery.snr_db is not None:
        noise = _noise(delivery.noise, len(sound), np.random.default_rng([seed, zlib.crc32(text.encode())]))
        sound = sound + noise * np.sqrt(np.mean(sound**2) / 10 ** (delivery.snr_db / 10))
    return pcm_values(sound * 10 ** (delivery.gain_db / 20))


def _noise(color: str, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return (samples,) of noise with a mean power of 1."""
    noise = rng.standard_normal(samples)
    if color == "pink":
        spectrum = np.fft.rfft(noise)
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
        spectrum[0] = 0
        noise = np.fft.irfft(spectrum, samples)
    return noise / np.sqrt(np.mean(noise**2))
