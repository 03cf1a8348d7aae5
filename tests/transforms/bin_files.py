"""Checkpoints of `pytorch_model.bin`, which transformers 4 writes and transformers 5 only reads."""

from __future__ import annotations

import json
from pathlib import Path


def as_bin(folder: Path) -> None:
    """Rewrite the safetensors files of a checkpoint, shards too, as transformers 4 names and writes its `.bin` files.

    No-op where there are none.
    """
    import torch
    from safetensors.torch import load_file

    for file in folder.glob("model*.safetensors"):
        torch.save(load_file(file), folder / bin_name(file.name))
        file.unlink()
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        about = json.loads(index.read_text())
        about["weight_map"] = {name: bin_name(file) for name, file in about["weight_map"].items()}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(about))
        index.unlink()


def bin_name(name: str) -> str:
    """`model-00001-of-00002.safetensors` as `pytorch_model-00001-of-00002.bin`."""
    return f"pytorch_{name.removesuffix('.safetensors')}.bin"
