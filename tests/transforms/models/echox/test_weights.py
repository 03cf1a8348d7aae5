"""Checkpoints: one file or shards, LoRA, Whisper under its published names; what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import digest, read_tensors
from echo_targets.transforms.models.echox.audio_tower import AudioTower
from echo_targets.transforms.models.echox.model import EchoX
from tests.transforms.tiny_echox import SPEC, weights, write_checkpoint

Change = Callable[[dict[str, torch.Tensor]], Any]


@pytest.fixture()
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny")


def rewrite(file: Path, change: Change) -> None:
    state = load_file(file)
    change(state)
    save_file(state, file)


def shard(folder: Path) -> None:
    """The checkpoint's weights in three files with an index, as large ones are published."""
    state = load_file(folder / "model.safetensors")
    names = sorted(state)
    files = {name: f"model-{number % 3 + 1:05d}-of-00003.safetensors" for number, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: state[name] for name in names if files[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    (folder / "model.safetensors").unlink()


def test_shards_are_one_checkpoint(checkpoint: Path) -> None:
    whole = EchoX.load(checkpoint).network.state_dict()
    before = digest(checkpoint)
    shard(checkpoint)
    assert digest(checkpoint) != before
    for name, tensor in EchoX.load(checkpoint).network.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("model.lbm.encoder_attn.in_proj_bias"), "missing model.lbm.encoder_attn.in_proj_bias"),
        (lambda state: state.update({"model.extra": torch.zeros(1)}), "surplus model.extra"),
        (
            lambda state: state.update({"model.mm_projector1.weight": torch.zeros(24, 16)}),
            r"model.mm_projector1.weight is \(24, 16\), expected \(24, 32\)",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(checkpoint: Path, change: Change, message: str) -> None:
    rewrite(checkpoint / "model.safetensors", change)
    with pytest.raises(ModelError, match=message):
        EchoX.load(checkpoint)


def test_a_shard_that_is_not_there_or_outside_is_named(checkpoint: Path) -> None:
    shard(checkpoint)
    index = checkpoint / "model.safetensors.index.json"
    found = json.loads(index.read_text())
    for name in ("model-00009-of-00003.safetensors", "../model.safetensors", "/etc/passwd"):
        index.write_text(json.dumps({"weight_map": found["weight_map"] | {"lm_head.weight": name}}))
        with pytest.raises(ModelError, match=name):
            EchoX.load(checkpoint)


def test_damaged_files_are_named(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model\.safetensors: missing or damaged"):
        EchoX.load(checkpoint)
    file.unlink()
    with pytest.raises(ModelError, match=r"has no model\.safetensors and no model\.safetensors\.index\.json"):
        EchoX.load(checkpoint)


def test_a_wrong_config_is_named(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(json.dumps(SPEC["config"] | {"hidden_size": "wide"}))
    with pytest.raises(ModelError, match=r"config\.json: hidden_size"):
        EchoX.load(checkpoint)


def test_tied_embeddings_need_no_output_layer(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tied", tie_word_embeddings=True)
    rewrite(folder / "model.safetensors", lambda state: state.pop("lm_head.weight"))
    network = EchoX.load(folder).network
    assert torch.equal(network.lm_head.weight, network.model.embed_tokens.weight)


PEFT_CONFIG = {
    "alpha_pattern": {},
    "auto_mapping": None,
    "bias": "none",
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": ["mm_projector1", "asr_transformer_encoder", "out_norm", "lbm", "aligner_MLP"],
    "peft_type": "LORA",
    "r": 5,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["k_proj", "q_proj"],
    "task_type": "CAUSAL_LM",
    "use_dora": False,
    "use_rslora": False,
}
"""As peft writes it for the authors' training code, with another rank."""
MODULES = ["model.layers.0.self_attn", "model.layers.2.self_attn", "unit_translator.model.layers.1.self_attn"]


def write_adapter(
    folder: Path, base: str, changes: dict[str, torch.Tensor] | None = None, **config: Any
) -> dict[str, torch.Tensor]:
    """A LoRA adapter of some layers' key projections and the projector of audio, as peft stores it."""
    folder.mkdir()
    tensors = {"base_model.model.model.mm_projector1.bias": torch.linspace(-1, 1, 24)}
    for number, module in enumerate(MODULES):
        generator = torch.Generator().manual_seed(number)
        name = f"base_model.model.{module}.k_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(5, 24, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(12, 5, generator=generator)
    save_file(tensors | (changes or {}), folder / "adapter_model.safetensors")
    written = PEFT_CONFIG | {"base_model_name_or_path": base} | config
    (folder / "adapter_config.json").write_text(json.dumps(written))
    return tensors


@pytest.mark.parametrize(("rslora", "scale"), [(False, 16 / 5), (True, 16 / 5**0.5)])
def test_a_lora_adapter_is_merged_into_its_base(checkpoint: Path, rslora: bool, scale: float) -> None:
    adapter = checkpoint.parent / "adapter"
    lora = write_adapter(adapter, "../tiny", use_rslora=rslora)
    base, merged = read_tensors(checkpoint), read_tensors(adapter)
    for name in base:
        wanted = base[name]
        if name.removesuffix(".k_proj.weight") in MODULES:
            stored = f"base_model.model.{name.removesuffix('.weight')}"
            wanted = wanted + scale * lora[f"{stored}.lora_B.weight"] @ lora[f"{stored}.lora_A.weight"]
        elif name == "model.mm_projector1.bias":
            wanted = torch.linspace(-1, 1, 24)
        torch.testing.assert_close(merged[name], wanted)
    assert digest(adapter) != digest(checkpoint)


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("../nowhere", {}, "base_model_name_or_path .*nowhere is not the directory"),
        ("../tiny", {"base_model.model.model.layers.7.self_attn.k_proj.lora_A.weight": torch.zeros(5, 24)}, "layers.7"),
        (
            "../tiny",
            {"base_model.model.model.surplus.weight": torch.zeros(2)},
            "surplus base_model|surplus model.surplus",
        ),
    ],
)
def test_an_adapter_that_does_not_fit_is_named(
    checkpoint: Path, base: str, changes: dict[str, torch.Tensor], message: str
) -> None:
    adapter = checkpoint.parent / "adapter"
    write_adapter(adapter, base, changes)
    with pytest.raises(ModelError, match=message):
        read_tensors(adapter)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("peft_type", "LOHA"),
        ("use_dora", True),
        ("rank_pattern", {"q_proj": 8}),
        ("alpha_pattern", {"q_proj": 32}),
        ("bias", "lora_only"),
        ("fan_in_fan_out", True),
        ("init_lora_weights", "pissa"),
    ],
)
def test_an_adapter_that_is_merged_in_another_way_is_named(checkpoint: Path, key: str, value: Any) -> None:
    adapter = checkpoint.parent / "adapter"
    write_adapter(adapter, "../tiny", **{key: value})
    with pytest.raises(ModelError, match=rf"adapter_config\.json: {key} is .* merge the adapter with peft"):
        read_tensors(adapter)


def test_a_whole_whisper_checkpoint_serves_as_audio_tower(checkpoint: Path) -> None:
    tower = checkpoint / "audio_tower"
    alone = AudioTower.load(str(tower), 1500).encoder.state_dict()
    whisper = {f"model.{name}": tensor for name, tensor in weights(SPEC["audio_tower_shapes"]).items()}
    whisper |= {"model.decoder.layer_norm.weight": torch.ones(16), "proj_out.weight": torch.zeros(64, 16)}
    save_file(whisper, tower / "model.safetensors")
    for name, tensor in AudioTower.load(str(tower), 1500).encoder.state_dict().items():
        assert torch.equal(tensor, alone[name]), name
    save_file(whisper | {"model.encoder.surplus.weight": torch.zeros(1)}, tower / "model.safetensors")
    with pytest.raises(ModelError, match="surplus"):
        AudioTower.load(str(tower), 1500)
