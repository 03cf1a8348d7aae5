"""Manifests and Parquet files that a test writes, as sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.sources.base import Item, Source
from echo_targets.transforms.sources.huggingface import HuggingFaceSource
from echo_targets.transforms.sources.manifest import ManifestSource

TONE = np.sin(np.arange(2 * SAMPLE_RATE) * 0.05) * 0.3


def manifest(folder: Path, text: str | bytes, name: str = "m.jsonl", **parameters: Any) -> ManifestSource:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return ManifestSource(kind="manifest", corpus="c", manifest=str(folder / name), **parameters)


def first(source: Source) -> Item:
    return next(iter(source.items()))


def parquet(file: Path, **parameters: Any) -> HuggingFaceSource:
    return HuggingFaceSource(kind="huggingface", corpus="hf", path="parquet", data_files=str(file), **parameters)


def texts(source: ManifestSource) -> list[str | None]:
    return [item.error or item.text for item in source.items()]
