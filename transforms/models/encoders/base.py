"""The interface of a speech encoder, whose layers give the features that units are made from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Features: TypeAlias = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Maps waveforms (float32, 16 kHz mono) to (num_frames, D) float32 each, at 50 frames per second.

The last frame may be partial. A waveform's features do not depend on its neighbors.
"""


class Encoder(ABC):
    """An encoder checkpoint. Nothing is loaded before `features`.

    Args:
        model: the checkpoint's directory, file or name.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    @staticmethod
    @abstractmethod
    def can_load(model: str) -> bool:
        """Return True if this class can load the checkpoint. Reads only its config files."""

    @abstractmethod
    def weight_digest(self) -> str:
        """Return a digest of everything that shapes the encoder's features, for the fingerprint.

        Raises:
            ModelError: files are missing.
        """

    @abstractmethod
    def name(self) -> str:
        """Return the encoder's name in codebooks, such as `whisper-tiny.en`."""

    @abstractmethod
    def features(self, layer: int, device: str) -> Features:
        """Load the encoder up to a layer; layer 0 is the input of the first block.

        Raises:
            ModelError: the checkpoint is damaged, or has fewer layers.
        """
