"""Tensors of a checkpoint directory, in one file or in shards, with a LoRA adapter merged in.

The files are those of Hugging Face's libraries: safetensors or, if there are none, `pytorch_model.bin`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

FILES = ("model.safetensors", "pytorch_model.bin")
"""Names of a single-file checkpoint, in order of precedence; an index of shards appends `.index.json`."""
LORA, LORA_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT = "base_model.model."
LORA_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "peft_type": (None, "LORA"),
    "use_dora": (None, False),
    "lora_bias": (None, False),
    "fan_in_fan_out": (None, False),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "bias": (None, "none"),
    "init_lora_weights": (None, True, False, "gaussian", "eva"),  # other values also change the base's weights
    "megatron_config": (None,),
    "trainable_token_indices": (None,),
    "layer_replication": (None,),
}
"""Keys of `adapter_config.json` that change how an adapter is merged, each with the values supported here."""


def weight_files(path: Path) -> list[Path]:
    """Return the files that hold a checkpoint's tensors.

    Raises:
        ModelError: there are none, or the index names a file that is missing or outside the directory.
    """
    for name in FILES:
        if (path / name).is_file():
            return [path / name]
        if (path / f"{name}.index.json").is_file():
            return _shards(path / f"{name}.index.json")
    places = ", ".join(f"no {name} and no {name}.index.json" for name in FILES)
    raise ModelError(f"{path} has {places}, so it is not a checkpoint; copy it again")


def _shards(index: Path) -> list[Path]:
    weight_map = read_json(index).get("weight_map")
    names = sorted(set(map(str, weight_map.values()))) if isinstance(weight_map, dict) else []
    for name in names:
        if Path(name).name != name or not (index.parent / name).is_file():
            raise ModelError(f"{index} names {name!r}, which is not a file in its directory")
    if not names:
        raise ModelError(f"{index} names no files")
    return [index.parent / name for name in names]


def read_tensors(path: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Return all tensors of a checkpoint by name. For a LoRA adapter, this is its base model with the adapter merged.

    Raises:
        ModelError: a file is missing or damaged, or the adapter does not fit its base model.
    """
    if (path / LORA_CONFIG).is_file():
        return _merged(path, device)
    tensors: dict[str, Tensor] = {}
    for file in weight_files(path):
        tensors |= read_file(file, device)
    return tensors


def digest(path: Path) -> str:
    """Return a checkpoint's digest: the SHA-256 of its files, including those of a LoRA adapter's base model."""
    import hashlib

    files = [path / LORA, path / LORA_CONFIG] if (path / LORA_CONFIG).is_file() else weight_files(path)
    parts = [sha256_of(file) for file in files]
    if (path / LORA_CONFIG).is_file():
        parts.append(digest(_base(path, read_json(path / LORA_CONFIG))))
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def _merged(path: Path, device: str) -> dict[str, Tensor]:
    # LoRA (Hu et al. 2021, section 4.1) as peft stores it: W + alpha / r * B A.
    config = read_json(path / LORA_CONFIG)
    for key, neutral in LORA_NEUTRAL.items():
        if config.get(key) not in neutral:
            raise ModelError(
                f"{path / LORA_CONFIG}: {key} is {config[key]!r}, which can't be merged here: merge the adapter with "
                "peft (merge_and_unload, save_pretrained) and use the directory that it writes"
            )
    tensors = read_tensors(_base(path, config), device)
    adapter = {name.removeprefix(PEFT): tensor for name, tensor in read_file(path / LORA, device).items()}
    try:
        rank, alpha = config["r"], config["lora_alpha"]
        scale = alpha / rank**0.5 if config.get("use_rslora") else alpha / rank
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(f"{path / LORA_CONFIG}: r and lora_alpha are required ({error!r})") from error
    for name in sorted(adapter):
        if name.endswith(".lora_B.weight"):
            continue
        if not name.endswith(".lora_A.weight"):  # a module that was trained in full
            name_in_base = name.replace(".modules_to_save.default", "")
            if name_in_base not in tensors:
                raise ModelError(f"{path / LORA}: surplus {name}")
            tensors[name_in_base] = adapter[name]
            continue
        module = name.removesuffix(".lora_A.weight")
        weight, up = tensors.get(f"{module}.weight"), adapter.get(f"{module}.lora_B.weight")
        if weight is None or up is None or (up.shape[0], adapter[name].shape[1]) != tuple(weight.shape):
            raise ModelError(f"{path / LORA}: {name} does not match a tensor of the base model")
        merged = weight.float() + scale * (up.float() @ adapter[name].float())
        tensors[f"{module}.weight"] = merged.to(weight.dtype)
    return tensors


def _base(path: Path, config: dict[str, Any]) -> Path:
    base = path / str(config.get("base_model_name_or_path"))
    if not base.is_dir() or (base / LORA_CONFIG).is_file():
        raise ModelError(
            f"{path / LORA_CONFIG}: base_model_name_or_path {base} is not the directory of a complete model: correct it"
        )
    return base


def read_file(file: Path, device: str = "cpu") -> dict[str, Tensor]:
    """Return the tensors of one file, safetensors or `.bin`, by name.

    Raises:
        ModelError: the file is missing, is damaged, or holds more than tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if file.suffix == ".bin":
        return {name: tensor.to(device) for name, tensor in read_pickled(file).items()}
    try:
        return load_file(file, device=device)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{file}: missing or damaged ({error})") from error


def read_pickled(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a `torch.save` file by name. Nothing in the file is executed.

    Raises:
        ModelError: the file is missing, is damaged, or holds more than tensors; or a tensor claims more data than it
            holds.
    """
    return tensors_of(file, load_pickle(file))


def load_pickle(file: Path) -> Any:
    """Return what `torch.save` wrote: tensors and plain values. Nothing in the file is executed.

    Raises:
        ModelError: the file is missing, is damaged, or holds something else.
    """
    import torch

    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # from the zip, the pickle, or a class that it names
        raise ModelError(f"{file}: damaged, or more than tensors ({error}); copy it again") from error


def tensors_of(file: Path, tensors: Any) -> dict[str, Tensor]:
    """Check that an object from a file is a dictionary of tensors, and that the file held all of their data.

    Raises:
        ModelError: it is not, or a tensor claims more data than the file holds.
    """
    import torch

    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ModelError(f"{file}: not a dictionary of tensors: save the model's state_dict")
    for name, tensor in tensors.items():
        check_held(file, name, tensor)
    return tensors


def check_held(file: Path, name: str, tensor: Tensor) -> None:
    """Check that a file held all of a tensor's data, since strides can claim more numbers than are stored.

    Raises:
        ModelError: it holds less.
    """
    import torch

    size = tensor.numel() * tensor.element_size()
    if tensor.layout != torch.strided or tensor.untyped_storage().nbytes() < size:
        raise ModelError(f"{file}: {name} claims more numbers than the file holds")


def read_json(file: Path) -> dict[str, Any]:
    """Return the object in a checkpoint's JSON file.

    Raises:
        ModelError: the file is missing, or holds something else.
    """
    try:
        found = json.loads(file.read_bytes())
    except OSError as error:
        raise ModelError(f"{file}: {error.strerror}: copy the whole checkpoint") from error
    except ValueError as error:
        raise ModelError(f"{file}: not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{file}: not a JSON object")
    return found
