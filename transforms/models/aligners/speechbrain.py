"""CTC letter models of speechbrain: a directory of `EncoderASR` with wav2vec2, HuBERT or WavLM.

`hyperparams.yaml` defines the layers between encoder and letters. It is parsed as data: layers in `LAYERS` are
constructed here, and any other is an error.
"""

from __future__ import annotations

import hashlib
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.letters import LetterCtc
from echo_targets.transforms.models.aligners.vocabulary import Vocabulary
from echo_targets.transforms.models.checkpoints.speechbrain import (
    HYPERPARAMS,
    MOST_BYTES,
    Hyperparams,
    Tagged,
    fill,
    need_speechbrain,
    read_state,
)
from echo_targets.transforms.models.encoders.self_supervised import check_every_frame, do_normalize, encode_utterance
from echo_targets.transforms.models.encoders.speechbrain import EPS, SpeechbrainEncoder, checkpoint_of, load_encoder

if TYPE_CHECKING:
    from torch import Tensor

HEADS = ("asr.ckpt", "model.ckpt")
"""Files with the layers after the encoder: as published, and as trained."""
VOCABULARIES = ("tokenizer.ckpt", "label_encoder.txt", "label_encoder.ckpt")
ENCODERS = ("Wav2Vec2", "HuBERT", "WavLM", "HuggingFaceWav2Vec2", "HuggingFaceHuBERT", "HuggingFaceWavLM")
LAYERS = {
    *(f"speechbrain.nnet.{name}" for name in ("linear.Linear", "normalization.BatchNorm1d", "normalization.LayerNorm")),
    *(f"torch.nn.{name}" for name in ("LeakyReLU", "ReLU", "ELU", "GELU", "SiLU", "Tanh", "Dropout", "Identity")),
}
MOST_BLOCKS = 64
ENCODER_ARGUMENTS = (
    *("source", "save_path", "freeze", "freeze_feature_extractor", "apply_spec_augment", "pretrain"),  # training
    *("output_norm", "output_all_hiddens"),
)
TRAINING = ("speechbrain.augment.", "speechbrain.lobes.augment.", "speechbrain.processing.speech_augmentation.")
"""Modules that old recipes list but inference does not run."""


class SpeechbrainCtc(LetterCtc):
    """A directory with `hyperparams.yaml`, a speechbrain encoder, one of `HEADS` and one of `VOCABULARIES`."""

    @staticmethod
    def can_load(model: str) -> bool:
        return Path(model, HYPERPARAMS).is_file()

    def weight_digest(self) -> str:
        digests = [SpeechbrainEncoder(self.model).weight_digest()] if checkpoint_of(self.model) else []
        digests += [sha256_of(self._file(*names)) for names in ((HYPERPARAMS,), HEADS, VOCABULARIES)]
        return hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()

    def vocabulary(self) -> Vocabulary:
        need_speechbrain()
        return _vocabulary(self._file(*VOCABULARIES), self._hyperparams.get("blank_index", 0))

    def setup(self) -> None:
        need_speechbrain()
        import torch

        hyperparams = self._hyperparams
        encoder = checkpoint_of(self.model)
        if encoder is None:
            raise ModelError(f"{self.model}: its encoder is not supported; use wav2vec2, HuBERT or WavLM")
        self._output_norm = _output_norm(hyperparams, encoder.stem)
        self._normalize = do_normalize(self.model)
        network = load_encoder(self.model)
        check_every_frame(self.model, network.config.to_dict())
        self._encoder = network.to(self.device)
        with torch.device("meta"):
            self._head = _head(hyperparams)
        _check_parts(hyperparams, encoder.stem)
        fill(self._head, read_state(self._file(*HEADS)), self._file(*HEADS))
        self._head.to(self.device)
        self.vocabulary().check_width(self._head[1].w.out_features)

    def log_probs(self, waveform: np.ndarray) -> np.ndarray:
        return encode_utterance(self._forward, waveform, self._normalize, self.device, EPS)

    def _forward(self, waveform: Tensor) -> Tensor:
        import torch

        hidden: Tensor = self._encoder(waveform).last_hidden_state
        if self._output_norm:
            hidden = torch.nn.functional.layer_norm(hidden, hidden.shape[1:])  # over time too, as speechbrain does
        enc, linear = self._head
        return linear(enc(hidden)).log_softmax(-1)

    @cached_property
    def _hyperparams(self) -> Hyperparams:
        return Hyperparams(Path(self.model))

    def _file(self, *names: str) -> Path:
        found = next((path for name in names if (path := Path(self.model, name)).is_file()), None)
        if found is None:
            raise ModelError(f"{self.model} has no {' or '.join(names)}; copy the whole speechbrain directory")
        return found


def _check_parts(hyperparams: Hyperparams, encoder: str) -> None:
    """Check that there is nothing between waveform and letters except the encoder, `enc` and `ctc_lin`.

    Raises:
        ModelError: there is another part, such as a downsampler.
    """
    whole = hyperparams.get("encoder")
    chained = isinstance(whole, Tagged) and whole.named.endswith("LengthsCapableSequential")
    parts = whole.value if chained else hyperparams.get("modules", {})
    known = [hyperparams.get(name) for name in (encoder, "enc", "ctc_lin", "log_softmax", "encoder")]
    for name, written in (parts if isinstance(parts, dict) else {}).items():
        part = hyperparams.follow(written)
        named = part.named if isinstance(part, Tagged) else ""
        if part not in known and not named.startswith(TRAINING):
            raise ModelError(
                f"{hyperparams.path}: `{name}` ({named or part}) is not a supported part of the model; "
                f"supported are {encoder}, enc and ctc_lin"
            )


def _output_norm(hyperparams: Hyperparams, encoder: str) -> bool:
    """Return True if the encoder's output is normalized.

    Raises:
        ModelError: the encoder's output is not its last layer, or the file does not say whether it is normalized.
    """
    about = hyperparams.made(encoder, *ENCODERS)
    if hyperparams.follow(about.get("output_all_hiddens")):
        raise ModelError(f"{hyperparams.path}: combines all layers of the encoder; only its last layer is supported")
    if unknown := [name for name in about if name not in ENCODER_ARGUMENTS]:
        raise ModelError(f"{hyperparams.path}: `{encoder}` has {unknown[0]}, which is not supported; use another model")
    normed = hyperparams.follow(about.get("output_norm", False))
    old = "output_norm" not in about and hyperparams.get(encoder).named.rpartition(".")[2].startswith("HuggingFace")
    if old or not isinstance(normed, bool):
        raise ModelError(
            f"{hyperparams.path}: `{encoder}` does not say whether its output is normalized, and versions of "
            "speechbrain differ: write `output_norm: true` or `output_norm: false` as in the recipe that trained it"
        )
    return normed


def _head(hyperparams: Hyperparams) -> Any:
    """Return `enc` and `ctc_lin` in a list, like their checkpoint.

    Raises:
        ModelError: they are made of parts that are not supported.
    """
    import torch
    from speechbrain.lobes.models.VanillaNN import VanillaNN
    from speechbrain.nnet.containers import Sequential
    from speechbrain.nnet.linear import Linear

    enc = hyperparams.given("enc", "VanillaNN", "Sequential")
    linear = hyperparams.given("ctc_lin", "Linear")
    vanilla = hyperparams.get("enc").named.endswith("VanillaNN")
    try:
        made = {name: _layer(hyperparams, value) if isinstance(value, Tagged) else value for name, value in enc.items()}
    except TypeError as error:  # arguments that a layer does not take
        raise ModelError(f"{hyperparams.path}: a layer of `enc` has wrong arguments ({error})") from error
    blocks = made.get("dnn_blocks", 2)
    if vanilla and not (isinstance(blocks, int) and 0 < blocks <= MOST_BLOCKS):
        raise ModelError(f"{hyperparams.path}: dnn_blocks is {blocks!r}; it must be 1 to {MOST_BLOCKS}")
    try:
        return torch.nn.ModuleList([(VanillaNN if vanilla else Sequential)(**made), Linear(**linear)])
    except Exception as error:  # the classes raise various errors for bad arguments
        raise ModelError(f"{hyperparams.path}: `enc` and `ctc_lin` have wrong arguments ({error})") from error


def _layer(hyperparams: Hyperparams, tagged: Tagged) -> Any:
    """Return a layer (`!new:`) or a function that makes one (`!name:`). Only `LAYERS` are supported."""
    kind, _, name = tagged.tag.partition(":")
    given = tagged.value or {}
    if name not in LAYERS or kind not in ("new", "name") or not isinstance(given, dict):
        raise ModelError(
            f"{hyperparams.path}: `!{tagged.tag}` is not supported; supported are {', '.join(sorted(LAYERS))}"
        )
    module, _, attribute = name.rpartition(".")
    made = partial(getattr(import_module(module), attribute), **hyperparams.arguments(given))
    return made() if kind == "new" else made


def _vocabulary(path: Path, blank: Any) -> Vocabulary:
    """Return the letters of a `CTCTextEncoder` or of a character-level SentencePiece model.

    Raises:
        ModelError: the file is neither, or its tokens are not letters.
    """
    from sentencepiece import SentencePieceProcessor
    from speechbrain.dataio.encoder import CTCTextEncoder

    if path.stat().st_size > MOST_BYTES:
        raise ModelError(f"{path} has more than {MOST_BYTES:,} bytes: not a vocabulary of letters")
    if not isinstance(blank, int):
        raise ModelError(f"{path.parent / HYPERPARAMS}: blank_index is {blank!r}; write the id of CTC's blank")
    labels = CTCTextEncoder()
    try:
        labels.load(path)
        tokens = {str(label): number for label, number in labels.lab2ind.items()}
    except (ValueError, SyntaxError, RecursionError, MemoryError):  # so it should be SentencePiece
        pieces = SentencePieceProcessor()
        try:
            pieces.Load(str(path))
        except (RuntimeError, OSError) as error:
            raise ModelError(f"{path}: neither labels nor a SentencePiece model ({error}); copy it again") from error
        plain = [n for n in range(pieces.GetPieceSize()) if not (pieces.IsControl(n) or pieces.IsUnknown(n))]
        tokens = {pieces.IdToPiece(number): number for number in plain}
    if tokens.get("<blank>", blank) != blank:
        raise ModelError(f"{path}: <blank> is {tokens['<blank>']}, but blank_index of {HYPERPARAMS} is {blank}")
    tokens = {token: number for token, number in tokens.items() if not (token[:1] == "<" and token[-1:] == ">")}
    borders = [tokens.pop(space) for space in (" ", "▁") if space in tokens]
    return Vocabulary(path, tokens, blank, borders[0] if borders else None)
