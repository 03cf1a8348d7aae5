"""CTC forced alignment with a letter recognizer: words are spelled in the letters of its vocabulary.

A word with a letter that the vocabulary lacks (digits, other scripts) is a wildcard, as in `hama.py`. The border
between two words lies at the pause between their letters, or in the middle of the blanks if there is no pause.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from echo_targets.transforms.models.aligners.ctc import TokenAligner
from echo_targets.transforms.models.aligners.vocabulary import Vocabulary


class LetterCtc(ABC):
    """A recognizer of letters. Nothing is loaded before `setup`.

    Args:
        model: the checkpoint's directory or file.
        device: a torch device.
        language: the text's language, which a multilingual checkpoint needs.
    """

    def __init__(self, model: str, device: str, language: str = "en") -> None:
        self.model, self.device, self.language = model, device, language

    @staticmethod
    @abstractmethod
    def can_load(model: str) -> bool:
        """Return True if this class can load the checkpoint. Reads only its config files."""

    @abstractmethod
    def weight_digest(self) -> str:
        """Return a digest of everything that shapes the checkpoint's output, for the fingerprint.

        Raises:
            ModelError: files are missing.
        """

    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """Return the letters. Reads small files only; loads no weights.

        Raises:
            ModelError: files are missing, damaged, or do not list letters.
        """

    @abstractmethod
    def setup(self) -> None:
        """Load the model.

        Raises:
            ModelError: the checkpoint is damaged, or its library is not installed.
        """

    @abstractmethod
    def log_probs(self, waveform: np.ndarray) -> np.ndarray:
        """Return (frames of 320 samples, tokens) float32 log-probabilities of a waveform: float32, 16 kHz mono."""


class LetterAligner(TokenAligner):
    """Forced alignment by letters."""

    def __init__(self, ctc: LetterCtc) -> None:
        self._ctc = ctc

    def weight_digests(self) -> dict[str, str]:
        return {"ctc": self._ctc.weight_digest()}

    def setup(self) -> None:
        self._vocabulary = self._ctc.vocabulary()
        self.blank = self._vocabulary.blank
        self._ctc.setup()

    def emissions(self, waveform: np.ndarray) -> np.ndarray:
        log_probs = self._ctc.log_probs(waveform)
        if (border := self._vocabulary.border) is not None:
            log_probs[:, self.blank] = np.logaddexp(log_probs[:, self.blank], log_probs[:, border])
        return log_probs

    def tokens(self, symbol: str) -> tuple[int, ...] | None:
        return self._vocabulary.spell(symbol)
