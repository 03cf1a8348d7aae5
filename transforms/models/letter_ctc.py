"""CTC forced alignment with a recogniser of letters: words become letters of its own vocabulary.

A word with a letter that the vocabulary lacks (digits, other scripts) is a wildcard, as in `hama_ctc`. A word
ends and the next one starts at the pause between their letters, or in the middle of the blanks where there is none.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import numpy as np

from transforms.forced_alignment import Aligner, Alignment, alignment_of
from transforms.models.hama_ctc import align_tokens
from transforms.text import TextWord

DELIMITER = "|"


class LetterCtc(ABC):
    """A recogniser of letters. Nothing of it is loaded before `setup`.

    Args:
        model: the checkpoint's directory or file.
        device: a torch device.

    Attributes:
        letters: ids of the letters, and of the border between words where there is one (`DELIMITER`); after `setup`.
        blank: id of CTC's blank; after `setup`.
    """

    letters: Mapping[str, int]
    blank: int

    def __init__(self, model: str, device: str) -> None:
        self.model, self.device = model, device

    @staticmethod
    @abstractmethod
    def reads(model: str) -> bool:
        """Whether this is the kind of a checkpoint; seen from its small files alone."""

    @abstractmethod
    def weights(self) -> str:
        """What stands for the checkpoint in a fingerprint: a digest of all that shapes what it hears.

        Raises:
            ModelError: files are missing.
        """

    @abstractmethod
    def setup(self) -> None:
        """Loads the model.

        Raises:
            ModelError: the checkpoint is damaged, or its library is not installed.
        """

    @abstractmethod
    def log_probs(self, waveform: np.ndarray) -> np.ndarray:
        """Log-probabilities, (frames of 320 samples, tokens) float32, of a waveform: float32, 16 kHz mono."""


class LetterAligner(Aligner):
    """Forced alignment by letters."""

    def __init__(self, ctc: LetterCtc) -> None:
        self._ctc = ctc

    def weights(self) -> dict[str, str]:
        return {"ctc": self._ctc.weights()}

    def setup(self) -> None:
        self._ctc.setup()

    def _aligned(self, waveform: np.ndarray, words: list[TextWord]) -> Alignment:
        tokens = [self.tokens(word.symbol) for word in words]
        if not any(tokens):
            return alignment_of(words, [None] * len(words), len(waveform))
        return align_tokens(words, tokens, self.emissions(waveform), self._ctc.blank, waveform)

    def emissions(self, waveform: np.ndarray) -> np.ndarray:
        """Log-probabilities of the letters, (frames of 320 samples, tokens) float32; word borders are blanks."""
        log_probs, blank = self._ctc.log_probs(waveform), self._ctc.blank
        if (border := self._ctc.letters.get(DELIMITER)) is not None:
            log_probs[:, blank] = np.logaddexp(log_probs[:, blank], log_probs[:, border])
        return log_probs

    def tokens(self, symbol: str) -> tuple[int, ...] | None:
        """Ids of a word's letters, without punctuation that the vocabulary lacks; None where it lacks a letter.

        Combining marks that it lacks in every spelling of the word are left out as well: Arabic vowel signs, accents.
        """
        letters = self._ctc.letters
        for needed in ("LNM", "LN"):
            for spelling in _spellings(symbol.replace("’", "'")):
                wanted = [each for each in spelling if each in letters or unicodedata.category(each)[0] in needed]
                if wanted and all(letter in letters for letter in wanted):
                    return tuple(letters[letter] for letter in wanted)
        return None


def _spellings(symbol: str) -> Iterator[str]:
    """The word in every case and Unicode form: a vocabulary knows é, half-width kana or sara am in one of them."""
    for spelling in (symbol, *(unicodedata.normalize(form, symbol) for form in ("NFC", "NFKC", "NFD"))):
        yield from (spelling, spelling.upper(), spelling.lower())
