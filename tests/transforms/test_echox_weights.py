"""Checkpoints: one file or shards, LoRA, Whisper under its published names; what is wrong is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.transforms.tiny_echox import SPEC, weights, write_checkpoint
from transforms.echox.audio_tower import AudioTower
from transforms.echox.model import EchoX
from transforms.models.checkpoints import digest, read_tensors
from transforms.models.embedded import ModelError

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


def write_adapter(folder: Path, base: str, changes: dict[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
    """A LoRA adapter of two layers' query projections, as peft stores it."""
    folder.mkdir()
    tensors = {}
    for layer in (0, 2):
        module = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        generator = torch.Generator().manual_seed(layer)
        tensors[f"{module}.lora_A.weight"] = torch.randn(4, 24, generator=generator)
        tensors[f"{module}.lora_B.weight"] = torch.randn(24, 4, generator=generator)
    save_file(tensors | (changes or {}), folder / "adapter_model.safetensors")
    config = {"r": 4, "lora_alpha": 8, "base_model_name_or_path": base, "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return tensors


def test_a_lora_adapter_is_merged_into_its_base(checkpoint: Path) -> None:
    adapter = checkpoint.parent / "adapter"
    lora = write_adapter(adapter, "../tiny")
    base, merged = read_tensors(checkpoint), read_tensors(adapter)
    for layer in (0, 1, 2):
        name = f"model.layers.{layer}.self_attn.q_proj"
        wanted = base[f"{name}.weight"]
        if layer != 1:
            wanted = (
                wanted
                + 2 * lora[f"base_model.model.{name}.lora_B.weight"] @ lora[f"base_model.model.{name}.lora_A.weight"]
            )
        torch.testing.assert_close(merged[f"{name}.weight"], wanted)
    assert digest(adapter) != digest(checkpoint)


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("../nowhere", {}, "base_model_name_or_path .*nowhere is no directory"),
        ("../tiny", {"base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight": torch.zeros(4, 24)}, "layers.7"),
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
