"""EchoX's frozen Whisper encoder, which has a checkpoint of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json, read_tensors
from echo_targets.transforms.models.checkpoints.tensors import check_tensors
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES, encode, log_mel
from echo_targets.transforms.models.whisper.tensor_names import from_transformers
from echo_targets.transforms.models.whisper.weights import EMBEDDED, load_whisper

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from whisper.model import AudioEncoder

SIZES = {
    "n_mels": "num_mel_bins",
    "n_ctx": "max_source_positions",
    "n_state": "d_model",
    "n_head": "encoder_attention_heads",
    "n_layer": "encoder_layers",
}
MELS = (80, 128)
"""Log-mel bands for which Whisper has filters."""


class AudioTower:
    """Encodes audio as frames, 50 per second.

    Args:
        encoder: openai-whisper's encoder, in evaluation mode.
        context: audio is padded to a multiple of this many frames.
    """

    def __init__(self, encoder: AudioEncoder, context: int) -> None:
        self.encoder, self.context = encoder, context

    @property
    def width(self) -> int:
        """Size of a frame."""
        return int(self.encoder.positional_embedding.shape[1])

    @property
    def max_samples(self) -> int:
        """Maximum length of a turn's audio, in 16 kHz samples: 30 s."""
        return len(self.encoder.positional_embedding) // self.context * self.context * HOP_SAMPLES

    @classmethod
    def load(cls, model: str, context: int, device: str = "cpu", dtype: torch.dtype | None = None) -> AudioTower:
        """Load `embedded:tiny.en`, or a directory of safetensors with Hugging Face's names (a decoder is ignored).

        Raises:
            ModelError: a file or a tensor is missing, unexpected, or has another shape.
        """
        from torch import nn

        if model == EMBEDDED:
            encoder = load_whisper(model).encoder
        else:
            encoder = _encoder(Path(model), read_tensors(Path(model), device))
        if len(encoder.positional_embedding) < context:
            raise ModelError(
                f"{model} encodes {len(encoder.positional_embedding)} frames, fewer than audio_context {context}: "
                "use a Whisper with max_source_positions 1500"
            )
        encoder = encoder.to(device=device, dtype=dtype).eval()
        for module in encoder.modules():
            if isinstance(module, nn.LayerNorm):
                module.float()  # openai-whisper's norms always compute in float32
        return cls(encoder, context)

    def frames(self, waveforms: Sequence[np.ndarray]) -> list[Tensor]:
        """Map waveforms of at most `max_samples` to (frames, width) each; equal padded lengths are batched."""
        import torch

        step = self.context * HOP_SAMPLES
        lengths = [max(1, -(-len(waveform) // step)) * step for waveform in waveforms]
        order = sorted(range(len(waveforms)), key=lengths.__getitem__)
        found: dict[int, Tensor] = {}
        weight = self.encoder.conv1.weight
        mels = self.encoder.conv1.in_channels
        for length, group in groupby(order, lengths.__getitem__):
            rows = list(group)
            batch = torch.stack([log_mel(waveforms[row], length, mels, weight.device) for row in rows])
            found.update(zip(rows, encode(self.encoder, batch.to(weight.dtype)), strict=True))
        return [found[row] for row in range(len(waveforms))]


def _encoder(path: Path, tensors: Mapping[str, Tensor]) -> AudioEncoder:
    from whisper.model import AudioEncoder, Linear

    config = read_json(path / "config.json")
    activation, mels = config.get("activation_function", "gelu"), config.get("num_mel_bins")
    if activation != "gelu" or mels not in MELS:
        raise ModelError(
            f"{path}/config.json: activation_function is {activation!r} and num_mel_bins is {mels!r}; a Whisper "
            "encoder has gelu and 80 or 128: use a published Whisper"
        )
    try:
        encoder = AudioEncoder(**{ours: int(config[theirs]) for ours, theirs in SIZES.items()})
        width, inner = int(config["d_model"]), int(config["encoder_ffn_dim"])
        for block in encoder.blocks:  # openai-whisper only supports an inner width of 4 x d_model
            block.mlp[0], block.mlp[2] = Linear(width, inner), Linear(inner, width)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}/config.json: not the sizes of a Whisper encoder ({error!r})") from error
    state = _state(tensors)
    check_tensors(path, encoder.state_dict(), state)
    encoder.load_state_dict(state)
    return encoder


def _state(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the encoder's tensors of a Hugging Face checkpoint, under openai-whisper's names."""
    parts = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return {
        from_transformers(f"encoder.{name.removeprefix('encoder.')}").removeprefix("encoder."): tensor
        for name, tensor in parts.items()
        if not name.startswith(("decoder.", "proj_out."))
    }
