"""Encoders trained by speechbrain: `wav2vec2.ckpt`, `hubert.ckpt` or `wavlm.ckpt` next to transformers' configs.

The file is the state dict of speechbrain's `Wav2Vec2`, `HuBERT`, `WavLM` or `Wav2Vec2Pretrain`, which wrap a network of
transformers. The configs are those of the checkpoint that speechbrain started from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.speechbrain import fill, read_state
from echo_targets.transforms.models.encoders.self_supervised import (
    SslEncoder,
    SslFeatures,
    check_hop,
    is_ssl,
    network_of,
)

CHECKPOINTS = ("wav2vec2.ckpt", "hubert.ckpt", "wavlm.ckpt")
PREFIXES = ("model.wav2vec2.", "model.hubert.", "model.wavlm.", "model.")
"""Prefixes of the tensor names. Those of pretraining come first, since its file also holds other tensors."""
EPS = 1e-5
"""Added to a waveform's variance by torch's `layer_norm`, with which speechbrain normalizes."""


def checkpoint_of(model: str) -> Path | None:
    """Return the file of the encoder's tensors, if the directory has one."""
    return next((path for name in CHECKPOINTS if (path := Path(model, name)).is_file()), None)


class SpeechbrainEncoder(SslEncoder):
    """A directory with one of `CHECKPOINTS`, `config.json` and `preprocessor_config.json`."""

    @staticmethod
    def can_load(model: str) -> bool:
        return checkpoint_of(model) is not None

    def tensor_files(self) -> list[Path]:
        return [path for path in [checkpoint_of(self.model)] if path]

    def features(self, layer: int, device: str) -> SslFeatures:
        return SpeechbrainFeatures(self.model, layer, device)


class SpeechbrainFeatures(SslFeatures):
    """Hidden states as counted by speechbrain's `output_all_hiddens`, not normalized, as its k-means needs them."""

    eps = EPS

    def load(self, model: str) -> Any:
        return load_encoder(model)


def load_encoder(model: str) -> Any:
    """Load the encoder of a directory, in float32 and evaluation mode.

    Raises:
        ModelError: files are missing or damaged, or the tensors do not match the configuration.
    """
    from transformers import AutoModel

    path = checkpoint_of(model)
    if path is None or not is_ssl(model):
        raise ModelError(
            f"{model}: a speechbrain encoder needs config.json and preprocessor_config.json of the checkpoint that it "
            "was trained from (named in hyperparams.yaml); copy them into the directory"
        )
    state = read_state(path)
    prefix = next((prefix for prefix in PREFIXES if any(name.startswith(prefix) for name in state)), "")
    try:
        encoder = network_of(AutoModel, model)
    except ModelError:
        raise
    except Exception as error:  # transformers raises various errors
        raise ModelError(f"{model}/config.json: not an encoder's configuration ({error}); copy it again") from error
    check_hop(model, encoder.config)
    fill(encoder, {name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)}, path)
    return encoder
