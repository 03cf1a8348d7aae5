"""CTC checkpoints of transformers: wav2vec2, HuBERT or WavLM with a head over letters; MMS has a head per language."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.letters import LetterCtc
from echo_targets.transforms.models.aligners.vocabulary import Vocabulary
from echo_targets.transforms.models.aligners.wav2vec2_vocabulary import (
    LanguageVocabulary,
    read_vocabulary,
    vocabulary_files,
)
from echo_targets.transforms.models.checkpoints.files import read_file, read_json
from echo_targets.transforms.models.checkpoints.tensors import check_tensors
from echo_targets.transforms.models.encoders.self_supervised import (
    SslEncoder,
    check_every_frame,
    do_normalize,
    encode_utterance,
    is_ssl,
    load_ssl,
)

if TYPE_CHECKING:
    from torch import Tensor


class SslCtc(LetterCtc):
    """A directory with `config.json`, `preprocessor_config.json`, `vocab.json` and the weights.

    MMS has letters, a head and small adapter layers for each language. The main weights hold those of one language;
    the others are in `adapter.LANGUAGE.safetensors`.
    """

    @staticmethod
    def can_load(model: str) -> bool:
        return is_ssl(model)

    def weight_digest(self) -> str:
        self.vocabulary()  # reports a bad vocabulary before anything runs
        chosen, adapter = self._chosen, self._adapter()
        files = [*vocabulary_files(Path(self.model)), *([adapter] if adapter else [])]
        digests = [SslEncoder(self.model).weight_digest(), *map(sha256_of, files)]
        return hashlib.sha256("\n".join([*digests, chosen.language or ""]).encode()).hexdigest()

    def vocabulary(self) -> Vocabulary:
        letters, width = self._chosen.letters, read_json(Path(self.model, "config.json")).get("vocab_size")
        if self._adapter() is None and isinstance(width, int):
            letters.check_width(width)
        return letters

    def setup(self) -> None:
        from transformers import AutoModelForCTC

        self._normalize = do_normalize(self.model)
        check_every_frame(self.model, read_json(Path(self.model, "config.json")))
        adapter = self._adapter()
        network = load_ssl(AutoModelForCTC, self.model)
        if adapter:
            _put_adapter(network, adapter)
        self.vocabulary().check_width(network.lm_head.out_features)
        self._network = network.to(self.device)

    def log_probs(self, waveform: np.ndarray) -> np.ndarray:
        return encode_utterance(self._forward, waveform, self._normalize, self.device)

    def _forward(self, waveform: Tensor) -> Tensor:
        return self._network(waveform).logits.float().log_softmax(-1)

    @cached_property
    def _chosen(self) -> LanguageVocabulary:
        return read_vocabulary(Path(self.model), self.language)

    def _adapter(self) -> Path | None:
        """Return the file with the chosen language's layers; None if the main weights have them.

        Raises:
            ModelError: the layers are in neither place.
        """
        language = self._chosen.language
        if language is None:
            return None
        files = [Path(self.model, f"adapter.{language}.{ending}") for ending in ("safetensors", "bin")]
        found = next((file for file in files if file.is_file()), None)
        if found is None and not self._chosen.is_default:
            raise ModelError(
                f"{files[0]} is missing. It holds the adapter layers and the head of {language!r}; copy it from the "
                "checkpoint's source, or set align.language to the language of the main weights (target_lang in "
                "tokenizer_config.json)"
            )
        return found


def _put_adapter(network: Any, file: Path) -> None:
    """Give a network the adapter layers and the head of another language, as transformers' `load_adapter` does.

    Raises:
        ModelError: the file's tensors do not match the network's adapter layers.
    """
    import torch

    tensors = {name: tensor.float() for name, tensor in read_file(file).items()}
    head = tensors.get("lm_head.weight")
    if head is not None and head.ndim == 2 and head.shape[1] == network.lm_head.in_features:
        network.lm_head = torch.nn.Linear(head.shape[1], head.shape[0])
    own = {
        name: each
        for name, each in network.state_dict().items()
        if ".adapter_layer." in name or name.startswith("lm_head.")
    }
    check_tensors(file, own, tensors)
    network.load_state_dict(tensors, strict=False)
    network.eval()
