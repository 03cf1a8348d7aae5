"""The interface of a speech tokenizer: it describes its units before loading, and encodes speech frame by frame."""

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
    """Specification of a tokenizer's units.

    Attributes:
        codebook: the file or directory of the codebook.
        encoder: the encoder of a k-means codebook, as for `open_encoder`.
        layer: its layer, for a k-means file that does not record it.
        num_codebooks: number of the codec's codebooks to use, starting with the first; None for all.
    """

    codebook: Path
    encoder: str
    layer: int | None = None
    num_codebooks: int | None = None

    @property
    def of_an_encoder(self) -> bool:
        """True if it names an encoder or a layer, which only k-means tokenizers need."""
        return self.layer is not None or self.encoder != EMBEDDED


class UnitTokenizer(ABC):
    """Encodes speech as units of one or more codebooks. Nothing is loaded before `setup`.

    Attributes:
        codebook_id: a readable name that is unique to the codebook.
        digest: hex SHA-256 of everything that gives a unit meaning, for the fingerprint.
        codebook_size: K; the units of each codebook are 0 to K - 1.
        num_codebooks: units per frame.
        layer: number of the encoder's blocks before the features; None if that does not apply.
        sampling_rate, hop_samples: a frame has `hop_samples` samples at `sampling_rate` Hz, such as 320 at 24000 for 75
            per second. This is exact even if it is not a whole number of 16 kHz samples.
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
        """Return True if this class can load the codebook. Reads only its config files."""

    @abstractmethod
    def __init__(self, named: TokenizerSpec) -> None:
        """Find out what the units are.

        Raises:
            ModelError: files are missing or damaged, or the specification is incomplete or contradictory.
        """

    @abstractmethod
    def weight_digests(self) -> dict[str, str]:
        """Return names and digests of everything that shapes the units, for the fingerprint. Loads nothing."""

    @abstractmethod
    def setup(self, device: str) -> None:
        """Load the model.

        Raises:
            ModelError: the checkpoint is damaged.
        """

    @abstractmethod
    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Return the units of each waveform. They do not depend on its neighbors.

        Args:
            waveforms: float32, 16 kHz mono, none empty.

        Returns:
            (`num_frames`, `num_codebooks`) int32 each.
        """

    def num_frames(self, num_samples: int) -> int:
        """Return the number of frames of `num_samples` samples at 16 kHz; the last one may be partial."""
        return -(-num_samples * self.sampling_rate // (SAMPLE_RATE * self.hop_samples))

    def fitted(self, units: np.ndarray, num_samples: int) -> np.ndarray:
        """Return units that match the audio's length: surplus frames are cut, or the last frame is repeated.

        Raises:
            ValueError: the length is off by more than two frames.
        """
        wanted = self.num_frames(num_samples)
        if not len(units) or abs(wanted - len(units)) > MOST_FRAMES_OFF:
            raise ValueError(f"the model gave {len(units)} frames for audio of {wanted} frames")
        return np.pad(units[:wanted], ((0, max(0, wanted - len(units))), (0, 0)), "edge").astype(np.int32)
