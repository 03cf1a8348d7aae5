"""The tiny checkpoint of EchoX's architecture whose figures the released code computed, from names and shapes alone.

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
SPEC: dict[str, Any] = json.loads((FIGURES / "spec.json").read_text())


def weights(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """normal(0, 0.1) for norms (around 1) and biases, normal(0, 0.4) for the rest; float32."""
    return {name: torch.from_numpy(_weight(name, shape)) for name, shape in shapes.items()}


def _weight(name: str, shape: list[int]) -> np.ndarray:
    drawn = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()))).standard_normal(shape, dtype=np.float32)
    drawn *= np.float32(0.1 if "norm" in name or name.endswith("bias") else 0.4)
    return drawn + np.float32("norm" in name and name.endswith("weight"))


def write_checkpoint(folder: Path, **config: Any) -> Path:
    """The checkpoint's directory with its audio tower inside, as a user would download them."""
    tower = folder / "audio_tower"
    tower.mkdir(parents=True)
    save_file(weights(SPEC["shapes"]), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(SPEC["config"] | config))
    save_file(weights(SPEC["audio_tower_shapes"]), tower / "model.safetensors")
    (tower / "config.json").write_text(json.dumps(SPEC["audio_tower"]))
    return folder


def log_mel(case: int) -> torch.Tensor:
    """The input of a case, (1, 80, 3000): a different pattern every 100 frames."""
    rng = np.random.Generator(np.random.PCG64(1000 + case))
    blocks = rng.standard_normal((1, 80, 30), dtype=np.float32)
    return torch.from_numpy(
        np.repeat(blocks, 100, axis=2) + 0.05 * rng.standard_normal((1, 80, 3000), dtype=np.float32)
    )
