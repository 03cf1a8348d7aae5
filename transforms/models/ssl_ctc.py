"""CTC checkpoints of transformers: wav2vec2, HuBERT or WavLM with a head over letters."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from transforms.models.embedded import ModelError, sha256_of
from transforms.models.letter_ctc import LetterCtc
from transforms.models.ssl_encoders import SslEncoder, do_normalize, hear, is_ssl, load_ssl

if TYPE_CHECKING:
    from torch import Tensor


class SslCtc(LetterCtc):
    """A directory with `config.json`, `preprocessor_config.json`, `vocab.json` and the weights."""

    @staticmethod
    def reads(model: str) -> bool:
        return is_ssl(model)

    def weights(self) -> str:
        both = SslEncoder(self.model).weights() + sha256_of(Path(self.model, "vocab.json"))
        return hashlib.sha256(bytes.fromhex(both)).hexdigest()

    def setup(self) -> None:
        from transformers import AutoModelForCTC

        self.letters = _letters(Path(self.model, "vocab.json"))
        self._normalize = do_normalize(self.model)
        self._network = load_ssl(AutoModelForCTC, self.model).to(self.device)
        self.blank = int(self._network.config.pad_token_id)

    def log_probs(self, waveform: np.ndarray) -> np.ndarray:
        return hear(self._forward, waveform, self._normalize, self.device)

    def _forward(self, waveform: Tensor) -> Tensor:
        logits: Tensor = self._network(waveform).logits
        return logits.float().log_softmax(-1)


def _letters(path: Path) -> dict[str, int]:
    try:
        letters = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: no vocabulary of letters ({error}); copy the whole checkpoint") from error
    if not isinstance(letters, dict) or not all(isinstance(each, int) for each in letters.values()):
        raise ModelError(f"{path}: not letters and their ids, but perhaps several languages: keep the one you align")
    return letters
