"""ECAPA-TDNN (arXiv 2005.07143) as trained by speechbrain, such as `spkrec-ecapa-voxceleb`.

`hyperparams.yaml` is parsed as data; only its features and the network's sizes are used. Embeddings equal those of
`EncoderClassifier.encode_batch` of one waveform, scaled to unit length.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.speechbrain import (
    HYPERPARAMS,
    Hyperparams,
    fill,
    need_speechbrain,
    read_state,
)
from echo_targets.transforms.models.speakers.base import SpeakerEncoder

CHECKPOINT = "embedding_model.ckpt"
SIZES = {
    *("input_size", "lin_neurons", "channels", "kernel_sizes", "dilations", "groups"),
    *("attention_channels", "res2net_scale", "se_channels", "global_context", "dropout"),
}
"""Arguments of the network that a checkpoint may set. `activation` would name a class."""
FEATURES = {"n_mels", "sample_rate", "f_min", "f_max", "n_fft", "win_length", "hop_length", "deltas", "context"}
SHORTEST = SAMPLE_RATE // 10
"""Shorter sound is repeated: the network's first layers mirror the ends, which needs some frames."""


class EcapaEncoder(SpeakerEncoder):
    """A directory with `hyperparams.yaml` and `embedding_model.ckpt`."""

    @staticmethod
    def can_load(model: str) -> bool:
        return all(Path(model, name).is_file() for name in (HYPERPARAMS, CHECKPOINT))

    def weight_digest(self) -> str:
        digests = [sha256_of(Path(self.model, name)) for name in (HYPERPARAMS, CHECKPOINT)]
        return hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()

    def load(self, device: str) -> None:
        need_speechbrain()
        import torch
        from speechbrain.lobes.features import Fbank
        from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN

        hyperparams = Hyperparams(Path(self.model))
        _check_norm(hyperparams)
        features = _given(hyperparams, "compute_features", "Fbank", FEATURES)
        if features.get("sample_rate", SAMPLE_RATE) != SAMPLE_RATE:
            raise ModelError(f"{hyperparams.path}: sample_rate is {features['sample_rate']}; expected {SAMPLE_RATE}")
        sizes = _given(hyperparams, "embedding_model", "ECAPA_TDNN", SIZES)
        try:
            self._features = Fbank(**features).eval().to(device)
            with torch.device("meta"):
                network = ECAPA_TDNN(**sizes)
        except Exception as error:  # the classes raise various errors for bad arguments
            raise ModelError(f"{hyperparams.path}: wrong sizes ({error}); copy the whole directory") from error
        path = Path(self.model, CHECKPOINT)
        fill(network, read_state(path), path)
        self._network = network.to(device)
        self.dimension = int(self._network.fc.conv.out_channels)

    def encode(self, waveform: np.ndarray) -> np.ndarray:
        import torch

        if len(waveform) < SHORTEST:
            waveform = np.resize(waveform, SHORTEST)
        with torch.inference_mode():
            features = self._features(torch.from_numpy(waveform.astype(np.float32))[None].to(self._device))
            features = features - features.mean(dim=1, keepdim=True)
            return np.asarray(self._network(features)[0, 0].cpu().numpy())


def _given(hyperparams: Hyperparams, name: str, kind: str, known: set[str]) -> dict[str, Any]:
    """Return an object's arguments.

    Raises:
        ModelError: it is another class, or has arguments that are not supported.
    """
    given = hyperparams.given(name, kind)
    if unknown := given.keys() - known:
        raise ModelError(
            f"{hyperparams.path}: `{name}` has {', '.join(sorted(unknown))}; supported are {', '.join(sorted(known))}"
        )
    return given


def _check_norm(hyperparams: Hyperparams) -> None:
    """Check that features are normalized by their mean over the utterance, and no more.

    Raises:
        ModelError: they are normalized in another way.
    """
    given = hyperparams.given("mean_var_norm", "InputNormalization")
    if given.get("norm_type") != "sentence" or given.get("std_norm", True):
        raise ModelError(
            f"{hyperparams.path}: mean_var_norm must have norm_type: sentence and std_norm: False; others are not "
            "supported"
        )
