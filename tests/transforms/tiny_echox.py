"""Tiny checkpoints of EchoX's architecture whose figures the released code computed, from names and shapes alone.

Each tensor is drawn from a generator seeded by the CRC-32 of its own name.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

FIGURES = Path(__file__).parent / "data" / "echox"


def spec(kind: str = "") -> dict[str, Any]:
    """Configurations and shapes: of unit model `large` where no kind is given, else `unset` or `base`."""
    found: dict[str, Any] = json.loads((FIGURES / kind / "spec.json").read_text())
    return found


SPEC = spec()


def weights(shapes: dict[str, list[int]], kind: str = "") -> dict[str, torch.Tensor]:
    """normal(0, 0.1) for norms (around 1) and biases, normal(0, 0.4) for the rest; float32."""
    return {name: torch.from_numpy(_weight(name, shape, kind and f"{kind}:")) for name, shape in shapes.items()}


def _weight(name: str, shape: list[int], prefix: str) -> np.ndarray:
    seed = zlib.crc32((prefix + name).encode())
    drawn = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    drawn *= np.float32(0.1 if "norm" in name or name.endswith("bias") else 0.4)
    return drawn + np.float32("norm" in name and name.endswith("weight"))


def write_checkpoint(folder: Path, kind: str = "", **config: Any) -> Path:
    """The checkpoint's directory with its audio tower inside, as a user would download them."""
    tower, about = folder / "audio_tower", spec(kind)
    tower.mkdir(parents=True)
    save_file(weights(about["shapes"], kind), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(about["config"] | config))
    save_file(weights(about["audio_tower_shapes"], kind), tower / "model.safetensors")
    (tower / "config.json").write_text(json.dumps(about["audio_tower"]))
    return folder


def log_mel(case: int) -> torch.Tensor:
    """The input of a case, (1, 80, 3000): a different pattern every 100 frames."""
    rng = np.random.Generator(np.random.PCG64(1000 + case))
    blocks = rng.standard_normal((1, 80, 30), dtype=np.float32)
    return torch.from_numpy(
        np.repeat(blocks, 100, axis=2) + 0.05 * rng.standard_normal((1, 80, 3000), dtype=np.float32)
    )
