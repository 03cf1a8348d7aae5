"""Every table as `datasets` reads it: with one line, streamed or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echo_targets.schemas import TABLES
from echo_targets.transforms.audio.waveforms import decode_flac, encode_flac
from tests.schemas.samples import Root, samples

WITH_AUDIO = [name for name, table in TABLES.items() if "audio" in table.columns]


def load(root: Root, name: str, streaming: bool, cache: Path) -> Any:
    from datasets import load_dataset

    return load_dataset(
        "parquet",
        data_files=[root.dataset.path(manifest.output.path) for manifest in root.dataset.manifests(name)],
        split="train",
        streaming=streaming,
        cache_dir=str(cache),
    )


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("name", TABLES)
def test_one_line_loads_a_table(name: str, streaming: bool, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.put(name, samples(name, 3), samples(name, 2, 3))
    assert list(load(root, name, streaming, tmp_path / "cache")) == root.dataset.read(name).to_pylist()


@pytest.mark.parametrize("name", WITH_AUDIO)
def test_audio_is_what_the_audio_feature_expects(name: str, tmp_path: Path) -> None:
    from datasets import Audio

    pcm = np.arange(1600, dtype=np.int16)
    root = Root(tmp_path / "root")
    root.put(name, [row | {"audio": {"bytes": encode_flac(pcm), "path": "a.flac"}} for row in samples(name, 2)])
    loaded = load(root, name, True, tmp_path / "cache").cast_column("audio", Audio(decode=False))
    assert loaded.features["audio"] == Audio(decode=False)
    for row in loaded:
        assert row["audio"]["path"] == "a.flac"
        np.testing.assert_array_equal(decode_flac(row["audio"]["bytes"]) * 32768, pcm)
