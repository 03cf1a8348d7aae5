"""Names and shapes of the published sizes, by the rules of the release's description, on torch's meta device.

The rules are written down here a second time, and nothing of the network's own code is asked for them.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from echo_targets.transforms.models.echox.audio_tower import SIZES
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.network import EchoXNetwork
from echo_targets.transforms.models.whisper.tensor_names import from_transformers
from tests.transforms.released_echox import Shapes, echox_shapes, linear, norm, rope_of

ROPE = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
LLAMA = {
    "architectures": ["EchoXForCausalLM"],
    "model_type": "EchoX",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 128,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "torch_dtype": "float16",
    "transformers_version": "4.49.0",
    "use_cache": False,
    "vocab_size": 128257,
    "adapter_size": 1280,
    "audio_token_len": 1,
    "audio_tower": "./whisper-large-v3",
    "unit_output": "finetune_kd",
    "unit_vocab_size": 5003,
}
"""Llama 3's keys as Meta's `config.json` has them, and EchoX's as its code reads them."""
LLAMA_3B = LLAMA | {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_attention_heads": 24,
    "num_hidden_layers": 28,
    "rope_scaling": ROPE | {"factor": 32.0},
    "tie_word_embeddings": True,
}
LLAMA_8B = LLAMA | {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rope_scaling": ROPE | {"factor": 8.0},
    "tie_word_embeddings": False,
}
WHISPER_WIDTH, WHISPER_FFN, WHISPER_LAYERS, WHISPER_MELS = 1280, 5120, 32, 128
UNIT_MODELS: list[Any] = ["large", "small", "base", None, "unset"]


def whisper_shapes() -> Shapes:
    """The encoder of whisper-large-v3, as transformers names it."""
    width = WHISPER_WIDTH
    shapes: Shapes = {
        "encoder.conv1.weight": (width, WHISPER_MELS, 3),
        "encoder.conv1.bias": (width,),
        "encoder.conv2.weight": (width, width, 3),
        "encoder.conv2.bias": (width,),
        "encoder.embed_positions.weight": (1500, width),
        **norm("encoder.layer_norm", width),
    }
    for layer in range(WHISPER_LAYERS):
        prefix = f"encoder.layers.{layer}"
        for name in ("q_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{prefix}.self_attn.{name}", width, width)
        shapes[f"{prefix}.self_attn.k_proj.weight"] = (width, width)
        shapes |= linear(f"{prefix}.fc1", width, WHISPER_FFN) | linear(f"{prefix}.fc2", WHISPER_FFN, width)
        shapes |= norm(f"{prefix}.self_attn_layer_norm", width) | norm(f"{prefix}.final_layer_norm", width)
    return shapes


def with_decoder(llm: dict[str, Any], unit_model: str | None) -> dict[str, Any]:
    return llm if unit_model == "unset" else llm | {"unit_model": unit_model}


@pytest.mark.parametrize("unit_model", UNIT_MODELS)
@pytest.mark.parametrize("llm", [LLAMA_3B, LLAMA_8B], ids=["3B", "8B"])
def test_every_tensor_of_the_published_sizes(llm: dict[str, Any], unit_model: str | None) -> None:
    with torch.device("meta"):
        network = EchoXNetwork(EchoXConfig.model_validate(with_decoder(llm, unit_model)), WHISPER_WIDTH)
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == echox_shapes(with_decoder(llm, unit_model), WHISPER_WIDTH)


def test_every_tensor_of_the_audio_tower() -> None:
    from whisper.model import AudioEncoder

    config = {
        "num_mel_bins": WHISPER_MELS,
        "max_source_positions": 1500,
        "d_model": WHISPER_WIDTH,
        "encoder_attention_heads": 20,
        "encoder_layers": WHISPER_LAYERS,
    }
    with torch.device("meta"):
        encoder = AudioEncoder(**{ours: config[theirs] for ours, theirs in SIZES.items()})
    expected = {from_transformers(name).removeprefix("encoder."): shape for name, shape in whisper_shapes().items()}
    assert {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()} == expected


@pytest.mark.parametrize("unit_model", UNIT_MODELS)
@pytest.mark.parametrize("llm", [LLAMA_3B, LLAMA_8B], ids=["3B", "8B"])
def test_both_decoders_turn_by_the_language_models_frequencies(llm: dict[str, Any], unit_model: str | None) -> None:
    """Llama 3.1's rule, by its formula: long waves are stretched by `factor`, those between blend."""
    config = EchoXConfig.model_validate(with_decoder(llm, unit_model))
    with torch.device("meta"):
        network = EchoXNetwork(config, WHISPER_WIDTH)
    scaling = llm["rope_scaling"]
    for llama in (network.model, network.unit_translator.model):
        of_model = llama.config
        assert (rope_of(of_model)[0], of_model.rms_norm_eps, of_model.hidden_act) == (500000.0, 1e-5, "silu")
        heads = 128 if llama is network.model or unit_model == "large" else 64
        assert of_model.head_dim == heads
        with torch.device("cpu"):
            found = type(llama.rotary_emb)(of_model).inv_freq
        plain = 500000.0 ** -(torch.arange(0, heads, 2, dtype=torch.float64) / heads)
        waves = 2 * torch.pi / plain
        blend = (8192 / waves - 1) / (4 - 1)
        expected = (1 - blend.clamp(0, 1)) * plain / scaling["factor"] + blend.clamp(0, 1) * plain
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)
    assert network.unit_translator.model.config.max_position_embeddings == 2048
