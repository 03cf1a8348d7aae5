"""What an encoder of speech is: its checkpoint gives, layer by layer, the features that units are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Features: TypeAlias = Callable[[list[np.ndarray]], list[np.ndarray]]
"""From waveforms (float32, 16 kHz mono) to (num_frames, D) float32 each, 50 frames a second, the last perhaps in part.

What a waveform gives does not depend on its neighbours.
"""


class Encoder(ABC):
    """A checkpoint. Nothing of it is loaded before `features`.

    Args:
        model: its directory, file or name.
    """

    def __init__(self, model: str) -> None:
        self.model = model

    @staticmethod
    @abstractmethod
    def can_load(model: str) -> bool:
        """Whether this is the kind of a checkpoint; seen from its small files alone."""

    @abstractmethod
    def weight_digest(self) -> str:
        """What stands for the encoder in a fingerprint: a digest of all that shapes its features.

        Raises:
            ModelError: files are missing.
        """

    @abstractmethod
    def name(self) -> str:
        """What a codebook calls the encoder, such as `whisper-tiny.en`."""

    @abstractmethod
    def features(self, layer: int, device: str) -> Features:
        """Loads the encoder as far as a layer: 0 is before its first block.

        Raises:
            ModelError: the checkpoint is damaged, or has not as many layers.
        """
