"""Tensors of a checkpoint's directory: safetensors, in one file or in shards, with a LoRA adapter merged in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transforms.models.embedded import ModelError, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
LORA, LORA_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT = "base_model.model."


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a checkpoint.

    Raises:
        ModelError: there are none, or the index names a file that is missing or outside the directory.
    """
    if (path / ONE).is_file():
        return [path / ONE]
    index = _json(path / INDEX)
    names = set(index.get("weight_map", {}).values())
    for name in sorted(names):
        if Path(name).name != name or not (path / name).is_file():
            raise ModelError(f"{path / INDEX} names {name!r}, which is no file beside it")
    if not names:
        raise ModelError(f"{path / INDEX} names no files")
    return [path / name for name in sorted(names)]


def read_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """All tensors of a checkpoint, by name. A directory with a LoRA adapter is its base model with the adapter merged.

    Raises:
        ModelError: a file is missing or damaged, or the adapter does not fit its base.
    """
    if (path / LORA_CONFIG).is_file():
        return _merged(path, device)
    tensors: dict[str, Tensor] = {}
    for file in weight_files(path):
        tensors |= _read(file, device)
    return tensors


def digest(path: Path) -> str:
    """What stands for a checkpoint in a fingerprint: the SHA-256 of its files, those of a LoRA's base among them."""
    import hashlib

    files = [path / LORA, path / LORA_CONFIG] if (path / LORA_CONFIG).is_file() else weight_files(path)
    parts = [sha256_of(file) for file in files]
    if (path / LORA_CONFIG).is_file():
        parts.append(digest(_base(path, _json(path / LORA_CONFIG))))
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def _merged(path: Path, device: str) -> dict[str, Tensor]:
    # LoRA (Hu et al. 2021, section 4.1) as peft stores it: W + alpha / r * B A.
    config = _json(path / LORA_CONFIG)
    tensors = read_tensors(_base(path, config), device)
    adapter = {name.removeprefix(PEFT): tensor for name, tensor in _read(path / LORA, device).items()}
    try:
        rank, alpha = config["r"], config["lora_alpha"]
        scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"{path / LORA_CONFIG}: r and lora_alpha are needed ({error!r})") from error
    for name in sorted(adapter):
        if name.endswith(".lora_B.weight"):
            continue
        if not name.endswith(".lora_A.weight"):  # a module that was trained whole
            name_in_base = name.replace(".modules_to_save.default", "")
            if name_in_base not in tensors:
                raise ModelError(f"{path / LORA}: surplus {name}")
            tensors[name_in_base] = adapter[name]
            continue
        module = name.removesuffix(".lora_A.weight")
        weight, up = tensors.get(f"{module}.weight"), adapter.get(f"{module}.lora_B.weight")
        if weight is None or up is None or (up.shape[0], adapter[name].shape[1]) != tuple(weight.shape):
            raise ModelError(f"{path / LORA}: {name} fits no tensor of the base model")
        merged = weight.float() + scale * (up.float() @ adapter[name].float())
        tensors[f"{module}.weight"] = merged.to(weight.dtype)
    return tensors


def _base(path: Path, config: dict[str, Any]) -> Path:
    base = path / str(config.get("base_model_name_or_path"))
    if not base.is_dir() or base.resolve() == path.resolve():
        raise ModelError(f"{path / LORA_CONFIG}: base_model_name_or_path {base} is no directory: give the base's path")
    return base


def _read(file: Path, device: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file, device=device)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: missing or damaged ({error})") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise ModelError(f"{file.parent} has no {ONE} and no {INDEX}: not a checkpoint ({error})") from error
    except ValueError as error:
        raise ModelError(f"{file}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file}: not a JSON object")
    return found
