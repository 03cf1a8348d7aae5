"""A small EchoX checkpoint with a tokenizer, of random weights: its replies mean nothing, its ways are real.

No two sizes are equal, no head is the width divided by the heads, and no value is a default.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.network import EchoXNetwork
from echo_targets.transforms.models.t2c.model import character_tokenizer
from echo_targets.transforms.models.whisper.weights import EMBEDDED

TINY_EN_WIDTH = 384


def small_config(**changes: Any) -> dict[str, Any]:
    tokenizer = character_tokenizer()
    ids = {name: tokenizer.token_to_id(name) for name in ("<pad>", "<user>", "<assistant>", "<end>", ".")}
    return {
        "vocab_size": tokenizer.get_vocab_size() + 1,
        "hidden_size": 40,
        "intermediate_size": 56,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 14,
        "rope_theta": 20_000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 1.5},
        "rms_norm_eps": 2e-5,
        "eos_token_id": ids["<end>"],
        "pad_token_id": ids["<pad>"],
        "audio_tower": EMBEDDED,
        "audio_context": 300,
        "unit_vocab_size": 120,
        "units": 100,
        "unit_model": {
            "num_layers": 2,
            "hidden_size": 24,
            "num_heads": 6,
            "num_kv_heads": 3,
            "head_dim": 10,
            "ffn_size": 34,
            "rope_theta": 7_000.0,
            "rms_norm_eps": 3e-6,
            "max_units_per_text_token": 4,
        },
        "denoiser_size": 52,
        "audio_patch_id": tokenizer.get_vocab_size(),
        "period_id": ids["."],
        "unit_prefix_ids": [ids["<user>"]],
        "unit_middle_ids": [ids["<end>"], ids["<assistant>"]],
        "unit_end_id": ids["<end>"],
    } | changes


def write_small(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A checkpoint whose audio tower is the embedded Whisper."""
    torch.manual_seed(seed)
    config = small_config(**changes)
    network = EchoXNetwork(EchoXConfig.model_validate(config), TINY_EN_WIDTH)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    character_tokenizer().save(str(folder / "tokenizer.json"))
    return folder
