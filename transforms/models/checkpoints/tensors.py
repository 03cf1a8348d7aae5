"""Model weights on disk: check them against the network, and write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from echo_targets.transforms.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def check_tensors(path: Path, expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of two state dicts.

    Raises:
        ModelError: they differ; the message names tensors.
    """
    problems = [f"missing {name}" for name in sorted(expected.keys() - found.keys())]
    problems += [f"surplus {name}" for name in sorted(found.keys() - expected.keys())]
    problems += [
        f"{name} is {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    if problems:
        problems[5:] = [f"and {len(problems) - 5} more"] * (len(problems) > 5)
        raise ModelError(f"{path}: the weights do not match the configuration: {', '.join(problems)}")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], half: bool) -> None:
    """Write a state dict as safetensors, in float16 if `half`."""
    from safetensors.torch import save

    # Not save_file, whose files only their owner may read.
    path.write_bytes(save({name: (each.half() if half else each).contiguous() for name, each in tensors.items()}))
