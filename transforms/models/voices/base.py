"""The interface of a voice: text to 16 kHz speech."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import BadData, ModelError

SLOWEST, FASTEST = 0.25, 4.0


class NothingToSay(BadData):
    """A text has nothing to speak, such as only punctuation."""

    def __init__(self, text: str) -> None:
        super().__init__("nothing_to_say", f"has nothing to speak in {text!r}")


class UnspeakableText(BadData):
    """A voice would leave out a part of a text."""

    def __init__(self, message: str) -> None:
        super().__init__("unspeakable_text", message)


class Voice(ABC):
    """A voice. Nothing is loaded before `setup`; then several threads may use it.

    Attributes:
        id: a readable name that is unique to the weights, such as `vits-1a2b3c4d`.
        sampling_rate: rate of `synthesize`, in Hz.
        changes_rate: True if it can speak slower and faster.
    """

    id: str
    sampling_rate: int
    changes_rate: bool = False

    @abstractmethod
    def weight_digests(self) -> dict[str, str]:
        """Return names and digests of everything that shapes the speech, for the fingerprint. Loads nothing."""

    @abstractmethod
    def check_speaker(self, speaker: str | None) -> None:
        """Check that the voice has a speaker. Loads nothing.

        Raises:
            ModelError: it does not, or it has several and `speaker` is None.
        """

    @abstractmethod
    def setup(self) -> None:
        """Load the model.

        Raises:
            ModelError: the checkpoint is damaged.
        """

    @abstractmethod
    def synthesize(self, text: str, speaker: str | None, rate: float, seed: int) -> np.ndarray:
        """Return the speech as (samples,) float32 at `sampling_rate`. Arguments and errors are those of `speak`."""

    def check(self, speaker: str | None = None, rate: float = 1.0) -> None:
        """Check that the voice can speak as requested. Loads nothing.

        Raises:
            ModelError: it lacks the speaker, or can't speak at this rate.
        """
        if rate != 1 and not self.changes_rate:
            raise ModelError(f"{self.id} can't change its rate; remove speed and pitch, or use another voice")
        if not SLOWEST <= rate <= FASTEST:
            raise ModelError(f"the rate {rate:g} is not between {SLOWEST:g} and {FASTEST:g}")
        self.check_speaker(speaker)

    def speak(self, text: str, speaker: str | None = None, rate: float = 1.0, seed: int = 0) -> np.ndarray:
        """Speak a text. Equal arguments give equal samples on the same kind of device, whatever was spoken before.

        Args:
            text: spoken as it is; `verbalize` spells out digits and abbreviations.
            speaker: a speaker of the voice; None for a voice with one speaker, or with a default one.
            rate: 1 is the voice's own pace, 2 is twice as fast.
            seed: seeds whatever the voice samples. Derive it from the row's key.

        Returns:
            (samples,) float32, 16 kHz mono, rounded to 16-bit PCM values, so that a 16-bit file holds it exactly.

        Raises:
            NothingToSay: nothing in the text can be spoken.
            UnspeakableText: not all of it can be spoken.
            ModelError: the voice lacks the speaker, or can't speak at this rate.
        """
        self.check(speaker, rate)
        return pcm_values(resampled(self.synthesize(text, speaker, rate, seed), self.sampling_rate))


def resampled(speech: np.ndarray, rate: float) -> np.ndarray:
    """Return speech of a rate in Hz, which need not be whole, at 16 kHz."""
    import soxr

    return speech if rate == SAMPLE_RATE else soxr.resample(speech, rate, SAMPLE_RATE)


def pcm_values(sound: np.ndarray) -> np.ndarray:
    """Return sound as float32, clipped and rounded to 16-bit PCM values."""
    return (np.clip(np.rint(sound * 32768), -32768, 32767) / 32768).astype(np.float32)
