"""What a tokenizer of speech is: it says what its units are with nothing loaded, and gives them frame by frame."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.whisper.weights import EMBEDDED

MOST_FRAMES_OFF = 2


@dataclass(frozen=True)
class TokenizerSpec:
    """What names a tokenizer's units.

    Attributes:
        codebook: the file or directory that they come from.
        encoder: the encoder that a k-means codebook is of, as `open_encoder` takes it.
        layer: of which of its layers, for a k-means file that does not say so.
        num_codebooks: how many of a codec's codebooks, the first ones; None for all of them.
    """

    codebook: Path
    encoder: str
    layer: int | None = None
    num_codebooks: int | None = None

    @property
    def of_an_encoder(self) -> bool:
        """Whether it names an encoder or a layer, which a tokenizer that is a whole model has no use for."""
        return self.layer is not None or self.encoder != EMBEDDED


class UnitTokenizer(ABC):
    """Speech as units of one or more codebooks. Nothing of a model is loaded before `setup`.

    Attributes:
        codebook_id: a name for people that no two codebooks share.
        digest: what stands for the codebook in a fingerprint: hex SHA-256 of what a unit means.
        codebook_size: K; the units of each codebook are 0 to K - 1.
        num_codebooks: units a frame.
        layer: blocks of the encoder before the features are taken; None where there is no such thing.
        sampling_rate, hop_samples: a frame is `hop_samples` of `sampling_rate` Hz, 320 of 24000 for 75 a second: exact,
            whether or not that is a whole number of 16 kHz samples.
    """

    codebook_id: str
    digest: str
    codebook_size: int
    num_codebooks: int
    layer: int | None
    sampling_rate: int
    hop_samples: int

    @staticmethod
    @abstractmethod
    def can_load(path: Path) -> bool:
        """Whether this is the kind of a codebook; seen from its small files alone."""

    @abstractmethod
    def __init__(self, named: TokenizerSpec) -> None:
        """Finds out what the units are.

        Raises:
            ModelError: files are missing or damaged, or it is not said what must be.
        """

    @abstractmethod
    def weight_digests(self) -> dict[str, str]:
        """Names and digests of all that shapes the units, for a fingerprint; loads nothing."""

    @abstractmethod
    def setup(self, device: str) -> None:
        """Loads the model.

        Raises:
            ModelError: the checkpoint is damaged.
        """

    @abstractmethod
    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Units of each waveform, whatever its neighbours.

        Args:
            waveforms: float32, 16 kHz mono, none of them empty.

        Returns:
            (`num_frames`, `num_codebooks`) int32 each.
        """

    def num_frames(self, num_samples: int) -> int:
        """Frames that so many samples at 16 kHz are, the last one perhaps in part."""
        return -(-num_samples * self.sampling_rate // (SAMPLE_RATE * self.hop_samples))

    def fitted(self, units: np.ndarray, num_samples: int) -> np.ndarray:
        """Units that cover the audio: of a model that gives a frame more or less, without it or the last one again.

        Raises:
            ValueError: more than two frames are off.
        """
        wanted = self.num_frames(num_samples)
        if not len(units) or abs(wanted - len(units)) > MOST_FRAMES_OFF:
            raise ValueError(f"{len(units)} frames came of audio of {wanted}")
        return np.pad(units[:wanted], ((0, max(0, wanted - len(units))), (0, 0)), "edge").astype(np.int32)
