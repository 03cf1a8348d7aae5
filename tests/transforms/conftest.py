"""Speech, ingested once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from echo_targets.schemas.dataset.layout import Dataset
from tests.transforms.rows import run_stages


@pytest.fixture(scope="session")
def ingested(speech: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Eight utterances of many lengths, as the table `utterances`."""
    folder = tmp_path_factory.mktemp("ingested")
    chosen = sorted(speech, key=lambda row: row["duration"])[:: len(speech) // 8][:8]
    lines = [json.dumps({**row, "audio": str(row["audio"])}) for row in chosen]
    (folder / "m.jsonl").write_text("\n".join(lines))
    source = {"kind": "manifest", "corpus": "speech", "manifest": str(folder / "m.jsonl")}
    return run_stages(folder / "root", {"ingest": {"sources": [source]}})[0]


@pytest.fixture(scope="session")
def long_utterance(speech: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A minute and more of one speaker in one file, with its text."""
    import numpy as np
    import soundfile

    rows = [row for row in speech if row["speaker"] == speech[0]["speaker"]]
    path: Path = tmp_path_factory.mktemp("long") / "long.flac"
    soundfile.write(path, np.concatenate([soundfile.read(row["audio"])[0] for row in rows]), 16_000)
    return {"id": "long", "audio": str(path), "text": " ".join(row["text"] for row in rows)}
