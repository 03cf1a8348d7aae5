"""The interface of a vocoder: units to 16 kHz speech."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from echo_targets.transforms.errors import ModelError


class Vocoder(ABC):
    """A vocoder for units of one or more codebooks, from a directory.

    Args:
        path: the directory.
        device: a torch device.

    Attributes:
        codebook_size: number of units of each codebook.
        needs_durations: True if it can't speak collapsed units without their durations.

    Raises:
        ModelError: a file is missing or damaged, or it is not a supported kind.
    """

    codebook_size: int
    needs_durations: bool

    @staticmethod
    @abstractmethod
    def can_load(path: Path) -> bool:
        """Return True if this class can load the directory. Reads only its config files."""

    @staticmethod
    @abstractmethod
    def digest(path: Path) -> str:
        """Return the digest of the directory's files, for the fingerprint."""

    @abstractmethod
    def __init__(self, path: Path, device: str = "cpu") -> None: ...

    @abstractmethod
    def check_codebook(self, codebook_id: str, codebook_size: int | None = None) -> None:
        """Check that the vocoder is for a codebook.

        Args:
            codebook_size: None if it is not known.

        Raises:
            ModelError: it is for another one.
        """

    @abstractmethod
    def speak(self, frames: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        """Return the speech of an utterance, which does not depend on others.

        Args:
            frames: (num_codebooks, T) units. Without frames it is silent.

        Returns:
            (samples,) float32, 16 kHz mono.

        Raises:
            ValueError: a unit is not in the codebook, or there are more codebooks than it has.
        """


def frames_of(
    segments: Sequence[Sequence[Sequence[int]]], durations: Sequence[Sequence[int]] | None = None
) -> np.ndarray:
    """Return the frames of a reply, its segments joined.

    Args:
        segments: units of each segment, by codebook.
        durations: frames of each unit, by segment; None takes each unit as one frame.

    Returns:
        (num_codebooks, T) int64; (0, 0) without segments.

    Raises:
        ValueError: units and durations differ in number.
    """
    if not segments:
        return np.zeros((0, 0), np.int64)
    parts = [np.asarray(units, np.int64).reshape(len(units), -1) for units in segments]
    if durations is not None:
        parts = [_repeated(units, lasting) for units, lasting in zip(parts, durations, strict=True)]
    return np.concatenate(parts, axis=1)


def _repeated(units: np.ndarray, durations: Sequence[int]) -> np.ndarray:
    if units.shape[1] != len(durations):
        raise ValueError(f"{units.shape[1]} units have {len(durations)} durations")
    return np.repeat(units, np.asarray(durations, np.int64), axis=1)


def check_durations(vocoder: Vocoder, durations: object | None) -> None:
    """Check that collapsed units come with durations if the vocoder needs them.

    Raises:
        ModelError: they do not.
    """
    if durations is None and vocoder.needs_durations:
        raise ModelError(
            "a codec decodes frames, but these units are collapsed and have no durations: use targets that have "
            "durations, or a vocoder or reader for collapsed units"
        )
