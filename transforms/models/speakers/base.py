"""The interface of a speaker encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from echo_targets.transforms.threads import in_parallel


class SpeakerEncoder(ABC):
    """A speaker encoder. Nothing is loaded before `setup`.

    Args:
        model: the checkpoint's directory, or `embedded:NAME`.
    """

    dimension: int
    """Length of an embedding; known after `setup`."""

    def __init__(self, model: str) -> None:
        self.model = model

    @staticmethod
    @abstractmethod
    def can_load(model: str) -> bool:
        """Return True if this class can load the checkpoint. Looks at file names only."""

    @abstractmethod
    def weight_digest(self) -> str:
        """Return a digest of everything that shapes the embeddings.

        Raises:
            ModelError: files are missing.
        """

    def setup(self, device: str = "cpu") -> None:
        """Load the model.

        Raises:
            ModelError: the checkpoint is damaged, or a library is missing.
        """
        self._device = device
        self.load(device)

    @abstractmethod
    def load(self, device: str) -> None:
        """Load the model onto a torch device, and set `dimension`."""

    def embed(self, waveforms: list[np.ndarray]) -> np.ndarray:
        """Return the embedding of each waveform; the cosine of two says how alike the speakers sound.

        Each waveform is encoded by itself, so an embedding does not depend on its neighbors. Silence should be cut out
        before, and about two seconds of speech or more be left.

        Args:
            waveforms: (num_samples,) float32 at 16 kHz, of one speaker each; one may be empty.

        Returns:
            (n, dimension) float32 unit vectors; all zeros for an empty waveform.
        """
        rows = in_parallel(lambda some: [self._unit(waveform) for waveform in some], waveforms, self._device)
        return np.stack(rows) if rows else np.zeros((0, self.dimension), np.float32)

    @abstractmethod
    def encode(self, waveform: np.ndarray) -> np.ndarray:
        """Return the embedding of one waveform, of any length but empty: (dimension,) float32 of any norm."""

    def _unit(self, waveform: np.ndarray) -> np.ndarray:
        if not len(waveform):
            return np.zeros(self.dimension, np.float32)
        vector = self.encode(waveform).astype(np.float64)
        return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12), np.float32)
