"""CTC forced alignment with a checkpoint of transformers: wav2vec2, HuBERT or WavLM with a head over letters.

Words become letters of the checkpoint's own vocabulary; one with a letter that is not in it (digits, other scripts)
is a wildcard, as in `hama_ctc`. A word starts and ends with the frames in which its letters were heard.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transforms.forced_alignment import Aligner, Alignment, alignment_of, failed, words_of
from transforms.models.embedded import ModelError, sha256_of
from transforms.models.hama_ctc import align_tokens
from transforms.models.ssl_encoders import do_normalize, hear, load_pretrained, ssl_weights_of

if TYPE_CHECKING:
    from torch import Tensor

DELIMITER = "|"


class LetterAligner(Aligner):
    """Forced alignment by letters.

    Args:
        model: a directory with `config.json`, `preprocessor_config.json`, `vocab.json` and the weights.
        device: a torch device.
    """

    def __init__(self, model: str, device: str = "cpu") -> None:
        self.model, self.device = model, device

    def weights(self) -> dict[str, str]:
        both = ssl_weights_of(self.model) + sha256_of(Path(self.model, "vocab.json"))
        return {"ctc": hashlib.sha256(bytes.fromhex(both)).hexdigest()}

    def setup(self) -> None:
        from transformers import AutoModelForCTC

        self._letters = _letters(Path(self.model, "vocab.json"))
        self._normalize = do_normalize(self.model)
        self._ctc = load_pretrained(AutoModelForCTC, self.model).to(self.device)
        self._blank = int(self._ctc.config.pad_token_id)

    def align(self, waveform: np.ndarray, text: str) -> Alignment:
        words = words_of(text)
        if not len(waveform):
            return failed("the audio is empty")
        tokens = [self.tokens(symbol) for symbol, _, _ in words]
        if not any(tokens):
            return alignment_of(words, [None] * len(words), len(waveform))
        return align_tokens(words, tokens, self.emissions(waveform), self._blank, len(waveform))

    def emissions(self, waveform: np.ndarray) -> np.ndarray:
        """Log-probabilities of the letters, (frames of 320 samples, tokens) float32; word borders are blanks."""
        log_probs = hear(self._log_probs, waveform, self._normalize, self.device)
        if (border := self._letters.get(DELIMITER)) is not None:
            log_probs[:, self._blank] = np.logaddexp(log_probs[:, self._blank], log_probs[:, border])
        return log_probs

    def tokens(self, symbol: str) -> tuple[int, ...] | None:
        """Ids of a word's letters, without punctuation that the vocabulary lacks; None where it lacks a letter."""
        spoken = symbol.replace("’", "'")
        for cased in (spoken, spoken.upper(), spoken.lower()):
            ids = [self._letters.get(letter) for letter in cased if letter in self._letters or letter.isalnum()]
            known = tuple(each for each in ids if each is not None)
            if known and len(known) == len(ids):
                return known
        return None

    def _log_probs(self, waveform: Tensor) -> Tensor:
        logits: Tensor = self._ctc(waveform).logits
        return logits.float().log_softmax(-1)


def _letters(path: Path) -> dict[str, int]:
    try:
        letters = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no vocabulary of letters ({error}); copy the whole checkpoint") from error
    if not isinstance(letters, dict) or not all(isinstance(each, int) for each in letters.values()):
        raise ModelError(f"{path}: not letters and their ids, but perhaps several languages: keep the one you align")
    return letters
