"""Features of HuBERT, mHuBERT, WavLM, wav2vec2 and XLSR layers, for units: 50 frames per second.

Utterances are encoded one at a time, on a GPU too. Group norm in the first convolution would see the padding. Even for
equal lengths, libraries may choose kernels by the batch size that add in another order, so units could depend on it.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json, weight_files
from echo_targets.transforms.models.encoders.base import Encoder
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES, num_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

EXTRACTOR = "Wav2Vec2FeatureExtractor"
MODEL_TYPES = ("hubert", "wav2vec2", "wavlm")
CHUNK_SAMPLES = 100 * SAMPLE_RATE
"""Longer utterances are cut every 100 s, as in fairseq's `dump_hubert_feature.py`."""
MOST_LAYERS = 1_000
SHORTEST_SAMPLES = 400
"""Minimum for the convolutions to give one frame; shorter utterances are padded with silence."""


def is_ssl(model: str) -> bool:
    """Return True if a model is a transformers directory with one of these encoders."""
    path = Path(model, "config.json")
    return path.is_file() and read_json(path).get("model_type") in MODEL_TYPES


class SslEncoder(Encoder):
    """A transformers directory with HuBERT, mHuBERT, WavLM, wav2vec2 or XLSR."""

    @staticmethod
    def can_load(model: str) -> bool:
        return is_ssl(model)

    def weight_digest(self) -> str:
        sha = hashlib.sha256()
        small = [Path(self.model, name) for name in ("config.json", "preprocessor_config.json")]
        for file in [*small, *self.tensor_files()]:
            sha.update(bytes.fromhex(sha256_of(file)))
        return sha.hexdigest()

    def tensor_files(self) -> list[Path]:
        """Return the files that hold the tensors."""
        return weight_files(Path(self.model))

    def name(self) -> str:
        """Return a name from the model type and the digest of the files, such as `hubert-1a2b3c4d`."""
        return f"{read_json(Path(self.model, 'config.json'))['model_type']}-{self.weight_digest()[:8]}"

    def features(self, layer: int, device: str) -> SslFeatures:
        return SslFeatures(self.model, layer, device)


def do_normalize(model: str) -> bool:
    """Return True if the encoder was trained on waveforms of zero mean and unit variance.

    Raises:
        ModelError: the checkpoint does not state it, or is for another sample rate.
    """
    path = Path(model, "preprocessor_config.json")
    if not path.is_file():
        raise ModelError(f"{path} is missing: it says whether waveforms are normalized; copy the whole checkpoint")
    about = read_json(path)
    if (rate := about.get("sampling_rate", SAMPLE_RATE)) != SAMPLE_RATE:
        raise ModelError(f"{path}: the encoder is for {rate} Hz, but the audio has {SAMPLE_RATE} Hz: use another one")
    if (kind := about.get("feature_extractor_type", EXTRACTOR)) != EXTRACTOR or about.get("feature_size", 1) != 1:
        raise ModelError(f"{path}: the encoder takes features of {kind}, not waveforms; use another one")
    if not isinstance(normalizes := about.get("do_normalize", True), bool):
        raise ModelError(f"{path}: do_normalize is {normalizes!r}; set it to true or false, as in training")
    return normalizes


def normalized(waveform: np.ndarray, eps: float = 1e-7) -> np.ndarray:
    """Return a waveform of zero mean and unit variance, like `Wav2Vec2FeatureExtractor`; adds `eps` to the variance."""
    return np.asarray((waveform - waveform.mean()) / np.sqrt(waveform.var() + eps), np.float32)


class SslFeatures:
    """Hidden states after `layer` blocks (0 is the input of the first): transformers' `hidden_states[layer]`."""

    eps = 1e-7

    def __init__(self, model: str, layer: int, device: str) -> None:
        self._device = device
        self._normalize = do_normalize(model)
        self._encoder = self.load(model)
        blocks = self._encoder.encoder.layers
        if not 0 <= layer <= len(blocks):
            raise ModelError(
                f"{model} has {len(blocks)} layers, but the codebook needs layer {layer}: use the codebook's encoder"
            )
        if layer < len(blocks) and self._encoder.config.do_stable_layer_norm:
            import torch

            self._encoder.encoder.layer_norm = torch.nn.Identity()  # the norm follows only the last block
        self._encoder.encoder.layers = blocks[:layer]
        self._encoder.adapter = None
        self._encoder.to(device)

    def load(self, model: str) -> Any:
        """Load the whole network."""
        from transformers import AutoModel

        return load_ssl(AutoModel, model)

    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Return features of each waveform (float32, 16 kHz mono): (num_frames, D) float32, 50 frames per second."""
        return [
            encode_utterance(self._hidden, waveform, self._normalize, self._device, self.eps) for waveform in waveforms
        ]

    def _hidden(self, waveform: Tensor) -> Tensor:
        return self._encoder(waveform).last_hidden_state


def encode_utterance(
    forward: Callable[[Tensor], Tensor], waveform: np.ndarray, normalize: bool, device: str, eps: float = 1e-7
) -> np.ndarray:
    """Return a model's output for each frame of a waveform, (num_frames, D) float32.

    The convolutions omit the last frame or two, which are partial; the last whole frame is repeated for them.

    Args:
        forward: maps (1, samples) to (1, frames, D).
        waveform: float32, 16 kHz mono, of any length except 0.
    """
    import torch

    if normalize:
        waveform = normalized(waveform, eps)
    parts = []
    for start in range(0, len(waveform), CHUNK_SAMPLES):
        chunk = waveform[start : start + CHUNK_SAMPLES]
        filled = np.pad(chunk, (0, max(0, SHORTEST_SAMPLES - len(chunk))))
        with torch.inference_mode():
            frames = forward(torch.from_numpy(filled)[None].to(device))[0].float().cpu().numpy()
        parts.append(np.pad(frames, ((0, num_frames(len(chunk)) - len(frames)), (0, 0)), "edge"))
    return np.concatenate(parts)


def load_ssl(kind: Any, model: str) -> Any:
    """Load an encoder, with or without a head, by `load_pretrained`.

    Raises:
        ModelError: as for `load_pretrained`, or the frames have another length.
    """
    loaded = load_pretrained(kind, model)
    check_hop(model, loaded.config)
    return loaded


def load_pretrained(kind: Any, model: str) -> Any:
    """Load a model from a local directory, in float32 and evaluation mode.

    Args:
        kind: a transformers class with `from_pretrained`.

    Raises:
        ModelError: files are missing or damaged, they lack some of the model's tensors, or the configuration claims a
            larger model than they hold.
    """
    files = weight_files(Path(model))
    try:
        _check_claims(kind, model, sum(file.stat().st_size for file in files))
        loaded, about = kind.from_pretrained(
            model, local_files_only=True, weights_only=True, output_loading_info=True, dtype="float32"
        )
    except ModelError:
        raise
    except Exception as error:  # safetensors, torch and transformers each raise their own errors
        raise ModelError(
            f"{model}: transformers can't load the checkpoint ({error}); damaged, or too new for it"
        ) from error
    missing = [*sorted(about["missing_keys"]), *map(str, about["mismatched_keys"])]
    if missing := [name for name in missing if not name.endswith("masked_spec_embed")]:  # used only in training
        raise ModelError(f"{model}: its weights lack {', '.join(missing[:5])}; copy the checkpoint again")
    return loaded.eval()


def network_of(kind: Any, model: str) -> Any:
    """Build the network that a directory's `config.json` describes, without data (on torch's device `meta`).

    Raises:
        ModelError: it has too many layers.
        Exception: whatever transformers raises for an invalid configuration.
    """
    import torch
    from transformers import AutoConfig

    # AutoConfig does not know the model types of vocoders
    config = (getattr(kind, "config_class", None) or AutoConfig).from_pretrained(model, local_files_only=True)
    for name, value in config.to_dict().items():
        if "layers" in name and isinstance(value, int) and value > MOST_LAYERS:
            raise ModelError(f"{model}/config.json: {name} is {value}; at most {MOST_LAYERS} are supported")
    with torch.device("meta"):
        return kind.from_config(config) if hasattr(kind, "from_config") else kind(config)


def _check_claims(kind: Any, model: str, held: int) -> None:
    """Reject a configuration that claims more numbers than the weights have bytes, before allocating any."""
    if (claimed := sum(tensor.numel() for tensor in network_of(kind, model).state_dict().values())) > held:
        about = f"it describes {claimed:,} numbers, but the weights have {held:,} bytes"
        raise ModelError(f"{model}/config.json: {about}: copy the whole checkpoint")


def check_every_frame(model: str, config: Mapping[str, Any]) -> None:
    """Check that the last layer keeps all frames of the convolutions.

    Args:
        config: contents of `config.json`.

    Raises:
        ModelError: more convolutions (`add_adapter`) follow the blocks and merge frames.
    """
    if config.get("add_adapter"):
        raise ModelError(
            f"{model}/config.json: add_adapter is set, so the model's frames are longer than {HOP_SAMPLES} samples; "
            "use a model without it"
        )


def check_hop(model: str, config: Any) -> None:
    """Check that a frame has `HOP_SAMPLES` samples.

    Raises:
        ModelError: it has another length.
    """
    if (hop := math.prod(config.conv_stride)) != HOP_SAMPLES:
        raise ModelError(f"{model}: a frame is {hop} samples, but must be {HOP_SAMPLES}: use another encoder")
