"""Texts spoken by a voice of a directory: speakers and seeds of lines, what is stored, and the whole way by the CLI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from echo_targets.jobs.cli import app
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.voices.delivery import Delivery, deliver
from echo_targets.transforms.models.voices.registry import EMBEDDED, open_voice
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.sources.spoken import SpokenSource
from tests.transforms.rows import rejects
from tests.transforms.voice_checkpoints import make_vits

LINES: list[dict[str, Any]] = [
    {"id": "a", "text": "Room 21 is free.", "voice": {"speaker": "0"}},
    {"id": "b", "text": "Room 21 is free.", "voice": {"speaker": "2", "speed": 1.5}},
    {"id": "c", "text": "Room 21 is free.", "voice": {"speaker": "2", "speed": 1.5}, "speaker": "anna"},
    {"id": "d", "text": "no such speaker", "voice": {"speaker": "3"}},
    {"id": "e", "text": "it has several"},
    {"id": "f", "text": "...", "voice": {"speaker": "1"}},
    {"id": "g", "text": "добрый день", "voice": {"speaker": "1"}},
]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vits(tmp_path_factory.mktemp("voice") / "v", num_speakers=3, speaker_embedding_size=8)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "t.jsonl"
    file.write_text("\n".join(map(json.dumps, LINES)))
    return file


def source(texts: Path, voice: Path | str, **more: Any) -> SpokenSource:
    given = {"kind": "spoken", "corpus": "s", "texts": str(texts), "voice": str(voice), **more}
    return SpokenSource.model_validate(given)


def test_lines_have_speakers_and_seeds(texts: Path, voice: Path) -> None:
    made = source(texts, voice)
    rows = {row[KEY]: row for row in entries([made])}
    errors = {key: row["error"] for key, row in rows.items() if row["error"]}
    assert set(errors) == {"t.jsonl:4", "t.jsonl:5"}
    assert all("has speakers 0 to 2; set `speaker` to one of them" in error for error in errors.values())
    assert rows["a"]["reference_text"] == "Room 21 is free." and rows["c"]["speaker_id"] == "anna"
    assert made.spoken_text(rows["a"]["locator"]) == "Room twenty one is free." and rows["a"]["speaker_id"] is None
    said = {key: made.open(rows[key]["locator"])[0] for key in "abc"}
    assert len({speech.tobytes() for speech in said.values()}) == 3, "each line has its own seed"
    other = source(texts, voice, voice_seed=1)
    again = {row[KEY]: row for row in entries([other])}
    assert not np.array_equal(other.open(again["a"]["locator"])[0], said["a"])
    assert again["a"]["source_fingerprint"] != rows["a"]["source_fingerprint"]


def test_the_fingerprint_has_the_voices_digest(texts: Path, voice: Path, tmp_path: Path) -> None:
    made = source(texts, voice)
    moved = make_vits(tmp_path / "copy", num_speakers=3, speaker_embedding_size=8)
    assert made.weight_digests() == open_voice(str(voice)).weight_digests() == source(texts, moved).weight_digests()
    assert "voice" not in made.fingerprint_parameters()
    with pytest.raises(ModelError, match="not a directory"):
        next(entries([source(texts, tmp_path / "none")]))


def test_the_default_license_is_the_embedded_voices(texts: Path, voice: Path) -> None:
    assert source(texts, EMBEDDED).license == "Apache-2.0"
    assert source(texts, voice).license == "unknown"
    assert source(texts, voice, license="CC-BY-4.0").license == "CC-BY-4.0"


def test_by_the_command_line(texts: Path, voice: Path, tmp_path: Path) -> None:
    config = {
        "root": str(tmp_path / "root"),
        "workers": 1,
        "max_reject_fraction": 1.0,
        "stages": {
            "ingest": {
                "sources": [{"kind": "spoken", "corpus": "s", "texts": str(texts), "voice": str(voice)}],
                "min_seconds": 0.01,
            }
        },
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(config))
    result = CliRunner().invoke(app, ["run", str(tmp_path / "job.yaml")])
    assert result.exit_code == 0, result.output
    dataset = Dataset(str(tmp_path / "root"))
    assert list(check_dataset(dataset.root)) == []
    rows = {row[KEY]: row for row in dataset.read("utterances").to_pylist()}
    assert set(rows) == {"a", "b", "c"}
    assert {row["reference_text"] for row in rows.values()} == {"Room 21 is free."}
    assert {row["spoken_text"] for row in rows.values()} == {"Room twenty one is free."}
    assert all(row["synthetic"] and row["license"] == "unknown" for row in rows.values())
    refused = {key: row["error_class"] for key, row in rejects(dataset, "utterances").items()}
    assert refused == {
        "t.jsonl:4": "bad_line",
        "t.jsonl:5": "bad_line",
        "f": "nothing_to_say",
        "g": "unspeakable_text",
    }
    speaker = open_voice(str(voice))
    speaker.setup()
    seed = json.loads(next(row for row in dataset.read("entries").to_pylist() if row[KEY] == "b")["locator"])["seed"]
    expected = deliver(speaker, "Room twenty one is free.", Delivery(speaker="2", speed=1.5), seed)
    assert np.array_equal(decode_flac(rows["b"]["audio"]["bytes"]), expected)
