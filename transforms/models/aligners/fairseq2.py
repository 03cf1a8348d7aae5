"""Letter recognizers of fairseq2: wav2vec2 with a CTC head, in the file formats of fairseq2 or fairseq."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.letters import LetterCtc
from echo_targets.transforms.models.aligners.vocabulary import Vocabulary
from echo_targets.transforms.models.checkpoints.fairseq2 import (
    LETTERS,
    Fairseq2Checkpoint,
    layer_normed,
    start_fairseq2,
)
from echo_targets.transforms.models.encoders.self_supervised import encode_utterance

if TYPE_CHECKING:
    from torch import Tensor

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
"""The first tokens of fairseq's dictionaries, which their files omit."""
VOCABULARIES = ("tokenizer.model", "dict.ltr.txt")
"""fairseq2's SentencePiece model of characters, and fairseq's dictionary of letters."""
DELIMITER = "|"
"""fairseq's word border."""
SPACE = "▁"
"""SentencePiece's space."""
BLANK = 0
"""CTC's blank in fairseq2's loss; fairseq's `<s>`."""


class Fairseq2Ctc(LetterCtc):
    """A directory with a fairseq2 card of family `wav2vec2_asr`, weights and a vocabulary."""

    @staticmethod
    def can_load(model: str) -> bool:
        checkpoint = Fairseq2Checkpoint(model)
        return checkpoint.exists() and checkpoint.family == LETTERS

    def weight_digest(self) -> str:
        both = self._checkpoint.digest() + sha256_of(self._vocabulary)
        return hashlib.sha256(bytes.fromhex(both)).hexdigest()

    def vocabulary(self) -> Vocabulary:
        tokens = self._tokens()
        letters = {token: number for number, token in enumerate(tokens) if len(token) == 1 and token != DELIMITER}
        return Vocabulary(self._vocabulary, letters, BLANK, tokens.index(DELIMITER) if DELIMITER in tokens else None)

    def setup(self) -> None:
        self._normalize = self._checkpoint.normalizes
        config = self._checkpoint.config()
        from fairseq2.models.wav2vec2.asr import Wav2Vec2AsrConfig, Wav2Vec2AsrFactory

        assert isinstance(config, Wav2Vec2AsrConfig)
        if (num_tokens := len(self._tokens())) != config.target_vocab_size:
            raise ModelError(
                f"{self._vocabulary} has {num_tokens} tokens, but the model has {config.target_vocab_size}: "
                "use the model's own file"
            )
        config.use_masking = False
        self._network = self._checkpoint.load(Wav2Vec2AsrFactory(config).create_model, config.encoder_config)
        self._network.to(self.device)

    def log_probs(self, waveform: np.ndarray) -> np.ndarray:
        return encode_utterance(
            self._forward, layer_normed(waveform) if self._normalize else waveform, False, self.device
        )

    def _forward(self, waveform: Tensor) -> Tensor:
        from fairseq2.nn import BatchLayout

        logits, _ = self._network(waveform, BatchLayout.of(waveform))
        return logits.float().log_softmax(-1)

    def _tokens(self) -> list[str]:
        path = self._vocabulary
        return _pieces(path) if path.suffix == ".model" else _dictionary(path)

    @cached_property
    def _checkpoint(self) -> Fairseq2Checkpoint:
        return Fairseq2Checkpoint(self.model)

    @cached_property
    def _vocabulary(self) -> Path:
        folder = self._checkpoint.card_file.parent
        found = [folder / name for name in VOCABULARIES if (folder / name).is_file()]
        if len(found) != 1:
            raise ModelError(f"{folder} must hold exactly one of {' and '.join(VOCABULARIES)}: copy the model's own")
        return found[0]


def _dictionary(path: Path) -> list[str]:
    """Return the tokens of a fairseq dictionary, which has a letter and its count per line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a dictionary of letters ({error}): copy it again") from error
    letters = [line.split(" ")[0] for line in lines]
    if wrong := [letter for letter in letters if len(letter) != 1]:
        raise ModelError(f"{path}: {wrong[0]!r} is not a letter: use a model of letters, in one language")
    return [*SPECIAL, *letters]


def _pieces(path: Path) -> list[str]:
    """Return the tokens of a SentencePiece model, with its space as `DELIMITER`."""
    start_fairseq2()
    from fairseq2.data.tokenizers.sentencepiece import SentencePieceModel

    try:
        model = SentencePieceModel(path)
        pieces = [model.index_to_token(number) for number in range(model.vocabulary_size)]
    except Exception as error:  # from fairseq2's C++ code
        raise ModelError(f"{path}: not a SentencePiece model ({error}): copy it again") from error
    if wrong := [piece for piece in pieces if len(piece) > 1 and not (piece.startswith("<") and piece.endswith(">"))]:
        raise ModelError(f"{path}: {wrong[0]!r} is not a letter: use a model of characters")
    return [DELIMITER if piece == SPACE else piece for piece in pieces]
