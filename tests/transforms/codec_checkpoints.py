"""Tiny codecs of transformers, made by its own classes and saved in its own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.transforms.bin_files import as_bin

SIZES: dict[str, dict[str, Any]] = {
    "Encodec": {
        "num_filters": 6,
        "hidden_size": 20,
        "codebook_dim": 20,
        "codebook_size": 64,
        "num_lstm_layers": 3,
        "kernel_size": 5,
        "target_bandwidths": [0.9, 1.8, 3.6],
    },
    "Dac": {
        "encoder_hidden_size": 5,
        "decoder_hidden_size": 48,
        "n_codebooks": 3,
        "codebook_dim": 7,
        "codebook_size": 32,
        "downsampling_ratios": [2, 4, 8, 8],
        "sampling_rate": 44_100,
    },
    "Mimi": {
        "num_filters": 6,
        "hidden_size": 36,
        "codebook_dim": 14,
        "codebook_size": 128,
        "num_quantizers": 5,
        "num_semantic_quantizers": 2,
        "vector_quantization_hidden_dimension": 14,
        "upsample_groups": 12,
        "num_hidden_layers": 3,
        "intermediate_size": 44,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "rope_theta": 300.0,
        "norm_eps": 3e-5,
    },
}
"""EnCodec with 2, 4 or 8 codebooks at 75 frames a second; DAC with 3 at 44100 / 512; Mimi with 5 at 12.5."""


def make_codec(folder: Path, name: str, safe: bool = True, **more: Any) -> str:
    """Saves a codec of random weights; returns its directory."""
    import torch
    import transformers

    config = getattr(transformers, f"{name}Config")(**{**SIZES[name], **more})
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = getattr(transformers, f"{name}Model")(config).eval()
        if name != "Dac":
            _spread(model, config)
    model.save_pretrained(folder, safe_serialization=safe)
    if not safe:
        as_bin(Path(folder))
    return str(folder)


def _spread(model: Any, config: Any) -> None:
    """Sets each codebook to what it is asked about in noise: untrained ones give one unit for everything."""
    import torch

    kind = next(type(module) for module in model.modules() if type(module).__name__.endswith("EuclideanCodebook"))
    quantize = kind.quantize

    def spread(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        places = torch.linspace(0, len(hidden) - 1, config.codebook_size).long()
        entries = hidden[places] + hidden.std() * torch.randn(len(places), hidden.shape[1]) / 4
        (self.embed_sum if hasattr(self, "embed_sum") else self.embed).copy_(entries)
        return quantize(self, hidden)

    kind.quantize = spread
    loud = torch.rand(16).repeat_interleave(config.sampling_rate // 2)
    most = {"bandwidth": config.target_bandwidths[-1]} if hasattr(config, "target_bandwidths") else {}
    with torch.inference_mode():
        model.encode((torch.randn(len(loud)) * loud)[None, None] / 4, **most)
    kind.quantize = quantize
