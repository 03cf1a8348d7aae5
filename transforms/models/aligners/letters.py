"""CTC forced alignment with a letter recognizer: words are spelled in the letters of its vocabulary.

A word with a letter that the vocabulary lacks (digits, other scripts) is a wildcard, as in `hama.py`. The border
between two words lies at the pause between their letters, or in the middle of the blanks if there is no pause.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from echo_targets.transforms.models.aligners.base import Aligner, Alignment, alignment_of
from echo_targets.transforms.models.aligners.ctc import align_tokens
from echo_targets.transforms.models.aligners.vocabulary import Vocabulary
from echo_targets.transforms.text import TextWord


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


class LetterAligner(Aligner):
    """Forced alignment by letters."""

    def __init__(self, ctc: LetterCtc) -> None:
        self._ctc = ctc

    def weight_digests(self) -> dict[str, str]:
        return {"ctc": self._ctc.weight_digest()}

    def setup(self) -> None:
        self._vocabulary = self._ctc.vocabulary()
        self._ctc.setup()

    def _aligned(self, waveform: np.ndarray, words: list[TextWord], text: str) -> Alignment:
        tokens = [self.tokens(word.symbol) for word in words]
        if not any(tokens):
            return alignment_of(words, [None] * len(words), len(waveform))
        return align_tokens(words, tokens, self.emissions(waveform), self._vocabulary.blank, waveform)

    def emissions(self, waveform: np.ndarray) -> np.ndarray:
        """Return (frames of 320 samples, tokens) float32 log-probabilities of letters; word borders count as blank."""
        log_probs, blank = self._ctc.log_probs(waveform), self._vocabulary.blank
        if (border := self._vocabulary.border) is not None:
            log_probs[:, blank] = np.logaddexp(log_probs[:, blank], log_probs[:, border])
        return log_probs

    def tokens(self, symbol: str) -> tuple[int, ...] | None:
        """Return the ids of a word's letters; None if it can't be spelled."""
        return self._vocabulary.spell(symbol)
