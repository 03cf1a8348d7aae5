"""Checkpoints that fairseq2 computes: its card, `model.yaml`, and weights under several naming schemes.

The card is the one that fairseq2 writes with its checkpoints. Weights may use the names of fairseq2, fairseq or
transformers. fairseq2's own loader loads them, restricted to `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import math
import re
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import check_held
from echo_targets.transforms.models.checkpoints.tensors import check_tensors
from echo_targets.transforms.models.encoders.self_supervised import CHUNK_SAMPLES
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES, num_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fairseq2.models.wav2vec2 import Wav2Vec2Config, Wav2Vec2EncoderConfig
    from fairseq2.models.wav2vec2.asr import Wav2Vec2AsrConfig
    from torch import Tensor
    from torch.nn import Module

SPEECH, LETTERS = "wav2vec2", "wav2vec2_asr"
FAMILIES = (SPEECH, LETTERS)
MAX_CARD_BYTES = 1 << 20
MAX_LAYERS = 1_000
INSTALL = "pip install 'echo-targets[fairseq2]'"

PREFIXES = re.compile(r"(module\.)?(w2v_encoder\.)?(w2v_model\.|wav2vec2\.|hubert\.)?")
FAIRSEQ2_NAMES = {
    r"encoder\.layers\.(\d+)\.(?:self_attn|attention)\.out_proj\.": r"encoder.layers.\1.self_attn.output_proj.",
    r"encoder\.layers\.(\d+)\.attention\.": r"encoder.layers.\1.self_attn.",
    r"encoder\.layers\.(\d+)\.layer_norm\.": r"encoder.layers.\1.self_attn_layer_norm.",
    r"encoder\.layers\.(\d+)\.(?:fc1|feed_forward\.intermediate_dense)\.": r"encoder.layers.\1.ffn.inner_proj.",
    r"encoder\.layers\.(\d+)\.(?:fc2|feed_forward\.output_dense)\.": r"encoder.layers.\1.ffn.output_proj.",
    r"encoder\.layers\.(\d+)\.final_layer_norm\.": r"encoder.layers.\1.ffn_layer_norm.",
    r"encoder\.pos_conv\.(\d+)\.0\.": r"encoder_frontend.pos_encoder.layers.\1.conv.",
    r"encoder\.(?:pos_conv\.0|pos_conv_embed\.conv)\.": r"encoder_frontend.pos_encoder.conv.",
    r"feature_extractor\.conv_layers\.(\d+)\.(?:0|conv)\.": r"encoder_frontend.feature_extractor.layers.\1.conv.",
    r"feature_extractor\.conv_layers\.(\d+)\.(?:2\.1|2|layer_norm)\.": (
        r"encoder_frontend.feature_extractor.layers.\1.layer_norm."
    ),
    r"(?:feature_projection\.)?layer_norm\.": "encoder_frontend.post_extract_layer_norm.",
    r"(?:post_extract_proj|feature_projection\.projection)\.": "encoder_frontend.model_dim_proj.",
    r"(?:proj|lm_head)\.": "final_proj.",
}
"""Patterns for the start of fairseq's and transformers' tensor names, and fairseq2's names. The first match counts.

fairseq2's own converter recognizes fairseq checkpoints by `mask_emb.weight`, but fairseq names it `mask_emb`.
"""
GROUP_NORM = {
    r"feature_extractor\.conv_layers\.0\.(?:2|layer_norm)\.": "encoder_frontend.feature_extractor.layers.0.group_norm."
}
ENDINGS = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


class Fairseq2Checkpoint:
    """A directory with `model.yaml` and weights, or a fairseq2 `step_N` directory, whose card is in the parent.

    Weights are `*.safetensors`, one `.pt`, `.pth` or `.bin` file, or fairseq2's shards (`model/pp_00/tp_00/sdp_00.pt`).

    Args:
        model: the directory.
    """

    def __init__(self, model: str) -> None:
        self.folder = Path(model)
        inside = self.folder / "model.yaml"
        above = self.folder.parent / "model.yaml"
        self.card_file = above if self.folder.name.startswith("step_") and not inside.exists() else inside

    def exists(self) -> bool:
        """Return True if there is a card of a supported family."""
        return self.card_file.is_file() and self.card.get("model_family") in FAMILIES

    @cached_property
    def card(self) -> dict[str, Any]:
        """Contents of `model.yaml`.

        Raises:
            ModelError: the file can't be parsed, or is not a card.
        """
        try:
            if self.card_file.stat().st_size > MAX_CARD_BYTES:
                raise ModelError(f"{self.card_file} is too large for a card: write the few lines in docs/BACKENDS.md")
            text = self.card_file.read_text(encoding="utf-8")
            aliases = any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, yaml.SafeLoader))
            card = {} if aliases else yaml.safe_load(text)
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise ModelError(f"{self.card_file}: not valid YAML ({_innermost(error)}): copy it again") from error
        if not isinstance(card, dict):
            raise ModelError(f"{self.card_file}: not a single fairseq2 card: write the few lines in docs/BACKENDS.md")
        if aliases or "${" in text:  # aliases may explode; ${…} would read the environment
            raise ModelError(f"{self.card_file} has YAML aliases or ${{…}}: replace them with their values")
        return card

    @property
    def family(self) -> str:
        """`wav2vec2` or `wav2vec2_asr`."""
        return str(self.card["model_family"])

    @property
    def normalizes(self) -> bool:
        """True if the encoder was trained on waveforms of zero mean and unit variance.

        Raises:
            ModelError: the card does not state it.
        """
        normalizes = self.card.get("normalize_audio")
        if not isinstance(normalizes, bool):
            raise ModelError(
                f"{self.card_file} does not say whether waveforms are normalized: add `normalize_audio: true` "
                "(large_lv60k, XLSR) or `normalize_audio: false` (base, large), as the model was trained"
            )
        return normalizes

    def digest(self) -> str:
        """Return the SHA-256 of the card and the weights; other files do not count.

        Raises:
            ModelError: files are missing.
        """
        sha = hashlib.sha256()
        for file in [self.card_file, *self._weights()[1]]:
            sha.update(bytes.fromhex(sha256_of(file)))
        return sha.hexdigest()

    def config(self) -> Wav2Vec2Config | Wav2Vec2AsrConfig:
        """Return the card's configuration: a fairseq2 architecture, and what differs from it.

        Raises:
            ModelError: fairseq2 is missing or can't parse it, or the network does not take waveforms at 50 frames per
                second.
        """
        start_fairseq2()
        from fairseq2.assets import AssetCard
        from fairseq2.models.wav2vec2 import get_wav2vec2_model_hub
        from fairseq2.models.wav2vec2.asr import get_wav2vec2_asr_model_hub

        hub = get_wav2vec2_model_hub() if self.family == SPEECH else get_wav2vec2_asr_model_hub()
        try:
            config = hub.get_model_config(AssetCard("model.yaml", self.card))
            sizes = config.encoder_config
            hop = math.prod(stride for _, _, stride in sizes.feature_extractor_layer_descs)
        except Exception as error:  # each part of fairseq2 raises its own errors
            known = ", ".join(sorted(hub.get_archs()))
            raise ModelError(
                f"{self.card_file}: {_innermost(error)}: name an architecture (model_arch: {known}), "
                "and put what differs from it into model_config"
            ) from error
        if sizes.use_fbank:
            raise ModelError(f"{self.card_file}: its encoder takes filterbanks (use_fbank): use one for waveforms")
        if hop != HOP_SAMPLES:
            raise ModelError(f"{self.card_file}: a frame is {hop} samples, not {HOP_SAMPLES}: use another encoder")
        if max(sizes.num_encoder_layers, sizes.pos_encoder_depth) > MAX_LAYERS:
            raise ModelError(f"{self.card_file} claims more than {MAX_LAYERS} layers: correct it")
        sizes.max_seq_len = max(sizes.max_seq_len, num_frames(CHUNK_SAMPLES))  # the size of a table
        return config

    def load(self, build: Callable[[], Module], sizes: Wav2Vec2EncoderConfig) -> Any:
        """Return a network with the checkpoint's weights: float32, in evaluation mode, on the CPU.

        Args:
            build: makes the network; its parts must be parts of the family (`encoder_frontend`, `encoder`,
                `final_proj`).
            sizes: the encoder's sizes.

        Raises:
            ModelError: the weights are damaged, hold more than tensors and plain values, or do not fit the network.
        """
        import torch
        from fairseq2.nn.utils.module import reset_non_persistent_buffers, to_empty

        try:
            with torch.device("meta"):  # a card's claims take no memory until the weights match them
                network = build()
        except Exception as error:
            raise ModelError(f"{self.card_file}: no network has these sizes ({error}): correct them") from error
        tensors = self._tensors(tuple(f"{part}." for part, _ in network.named_children()), sizes)
        check_tensors(self.card_file, network.state_dict(), tensors)
        to_empty(network, device=torch.device("cpu"))
        network.load_state_dict(tensors)
        reset_non_persistent_buffers(network)
        return network.eval()

    def _tensors(self, parts: tuple[str, ...], sizes: Wav2Vec2EncoderConfig) -> dict[str, Tensor]:
        from fairseq2.model_checkpoint import ModelCheckpointLoadOptions, get_model_checkpoint_loader
        from torch.serialization import safe_globals

        path, _ = self._weights()

        def wanted(state_dict: dict[str, object]) -> dict[str, object]:
            renamed = in_fairseq2_names(state_dict, sizes)
            kept = {name: tensor for name, tensor in renamed.items() if name.startswith(parts)}
            for name, tensor in kept.items():
                check_held(path, name, tensor)
            return dict(kept)

        options = ModelCheckpointLoadOptions(restrict=True, state_dict_converter=wanted)
        try:
            with safe_globals([argparse.Namespace]):  # fairseq's older checkpoints hold one; harmless
                return {name: each.float() for name, each in get_model_checkpoint_loader().lazy_load(path, {}, options)}
        except Exception as error:  # fairseq2, torch and safetensors each raise their own errors
            raise ModelError(
                f"{path}: weights that can't be loaded safely ({_innermost(error)}): copy the checkpoint again, or, if "
                "you trust it, keep only its tensors: "
                "torch.save({'model': torch.load(FILE, weights_only=False)['model']}, FILE)"
            ) from error

    def _weights(self) -> tuple[Path, list[Path]]:
        """Return the path for fairseq2's loader, and the files that it reads."""
        for folder in (self.folder, self.folder / "model"):
            if (folder / "pp_00").is_dir():
                return folder, sorted(folder.glob("pp_*/tp_*/sdp_*.pt"))
        if safe := sorted(self.folder.glob("*.safetensors")):
            return self.folder, safe
        files = sorted(file for file in self.folder.glob("*") if file.suffix in (".pt", ".pth", ".bin"))
        if len(files) != 1:
            found = ", ".join(file.name for file in files[:5]) or "none"
            raise ModelError(
                f"{self.folder}: weights must be *.safetensors, one .pt file, or fairseq2's shards (model/pp_00): "
                f"found {found}; for a training run, name one checkpoint, such as {self.folder / 'step_1000'}"
            )
        return files[0], files


def in_fairseq2_names(state: Mapping[str, Any], sizes: Wav2Vec2EncoderConfig) -> dict[str, Tensor]:
    """Return the tensors of a state dict (or of its entry `model`) under fairseq2's names."""
    from fairseq2.models.transformer import TransformerNormOrder
    from torch import Tensor

    state = state.get("model", state)
    tensors = {PREFIXES.sub("", name, count=1): value for name, value in state.items() if isinstance(value, Tensor)}
    if any(name.startswith("encoder_frontend.") for name in tensors):
        return tensors
    post = sizes.norm_order == TransformerNormOrder.POST
    own = {r"encoder\.layer_norm\.": "encoder_frontend.layer_norm." if post else "encoder.layer_norm."}
    own |= {} if sizes.feature_extractor_layer_norm_convs else GROUP_NORM
    return {_renamed(name, own | FAIRSEQ2_NAMES): tensor for name, tensor in tensors.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for theirs, ours in names.items():
        if found := re.match(theirs, name):
            name = found.expand(ours) + name[found.end() :]
            break
    return next((name.removesuffix(theirs) + ours for theirs, ours in ENDINGS.items() if name.endswith(theirs)), name)


def layer_normed(waveform: np.ndarray) -> np.ndarray:
    """Return a waveform of zero mean and unit variance, by a layer norm over it all, as in fairseq and fairseq2."""
    import torch

    return torch.nn.functional.layer_norm(torch.from_numpy(waveform), waveform.shape).numpy()


def start_fairseq2() -> None:
    """Initialize fairseq2, once per process.

    Raises:
        ModelError: fairseq2 is not installed, or does not load.
    """
    try:
        _lend_libsndfile()
        from fairseq2 import init_fairseq2
        from fairseq2.error import InvalidOperationError
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelError(f"fairseq2 does not load ({error}): {INSTALL}") from error
    with suppress(InvalidOperationError):  # already initialized
        init_fairseq2(no_progress=True)


def _lend_libsndfile() -> None:
    """Load soundfile's libsndfile under the name libsndfile.so.1, which fairseq2 expects from the system."""
    data = find_spec("_soundfile_data")
    for library in Path(data.origin).parent.glob("libsndfile*.so") if data and data.origin else ():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())
