"""Tiny encoders of transformers, made by its own classes and saved in its own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.transforms.bin_files import as_bin

KINDS = ("hubert", "wav2vec2", "wavlm")
SIZE = 40


def make_ssl(folder: Path, kind: str, norm: str = "group", safe: bool = True, head: bool = False, **more: Any) -> str:
    """Saves an encoder of random weights, 4 blocks of `SIZE`; returns its directory. No two sizes are equal.

    Args:
        norm: `group` (base models, waveforms as they are) or `layer` (large ones, with stable layer norm, normalised).
        safe: as safetensors, or as `pytorch_model.bin`.
        head: with a CTC head.
    """
    import torch
    import transformers

    large = norm == "layer"
    shape = {"conv_dim": (12,) * 7, "hidden_size": SIZE, "num_hidden_layers": 4, "num_attention_heads": 2}
    shape |= {"intermediate_size": 72, "num_conv_pos_embeddings": 18, "num_conv_pos_embedding_groups": 5}
    shape |= {"conv_bias": large, "layer_norm_eps": 1e-3, **more}
    name = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}[kind]
    config = getattr(transformers, f"{name}Config")(feat_extract_norm=norm, do_stable_layer_norm=large, **shape)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = getattr(transformers, f"{name}{'ForCTC' if head else 'Model'}")(config)
    model.save_pretrained(folder, safe_serialization=safe)
    if not safe:
        as_bin(Path(folder))
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=large, return_attention_mask=large)
    extractor.save_pretrained(folder)
    return str(folder)
