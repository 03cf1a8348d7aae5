"""Every example of docs/SOURCES.md lists items of the files that it describes, without an error."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import yaml

from echo_targets.transforms.sources.registry import AnySource, entries
from echo_targets.transforms.stages.ingest import IngestParameters

ROOT = Path(__file__).parents[3]
BLOCKS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "SOURCES.md").read_text(encoding="utf-8"), re.DOTALL)
SOURCES = [source for block in BLOCKS for source in yaml.safe_load(block)["stages"]["ingest"]["sources"]]


def lines(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def pack(path: Path, files: dict[str, Path]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, file in files.items():
            archive.add(file, name)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speech: list[dict[str, Any]]) -> Path:
    """A folder with the files of every example."""
    monkeypatch.chdir(tmp_path)
    audio = speech[0]["audio"]
    for place in (
        "recordings/anna/7.flac",
        "a.flac",
        "nemo/a.flac",
        "download/a.flac",
        "LibriSpeech/dev-clean/84/121/84-121-0000.flac",
        "mls_english/train/audio/10/20/10_20_000001.flac",
        "EchoX-Dialogues/S2S/part/a.flac",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(audio, tmp_path / place)
    (tmp_path / "recordings/anna/7.txt").write_text("Hello.")
    lines(tmp_path / "calls.jsonl", [{"id": "a", "audio": "a.flac", "utterance": "Hello."}])
    lines(
        tmp_path / "nemo/train.json", [{"audio_filepath": "a.flac", "duration": speech[0]["duration"], "text": "Hi."}]
    )
    for number in (0, 1):
        pack(tmp_path / f"tarred/audio_{number}.tar", {f"a{number}.flac": audio})
        row = {
            "audio_filepath": f"a{number}.flac",
            "duration": speech[0]["duration"],
            "text": "Hi.",
            "shard_id": number,
        }
        lines(tmp_path / f"tarred/sharded_manifests/manifest_{number}.json", [row])
        lines(tmp_path / "EN.json", [{"text": "Hi."}])
        pack(tmp_path / f"emilia/EN-00000{number}.tar", {"a.flac": audio, "a.json": tmp_path / "EN.json"})
    lhotse_files(tmp_path)
    lines(tmp_path / "data/train/wav.scp", ["u download/a.flac"])
    (tmp_path / "cv-corpus-17.0-2024-03-15/en/clips").mkdir(parents=True)
    samples, rate = soundfile.read(audio)
    for split in ("train", "dev"):
        folder = tmp_path / "cv-corpus-17.0-2024-03-15/en"
        soundfile.write(folder / "clips" / f"{split}.mp3", samples, rate)
        lines(folder / f"{split}.tsv", ["client_id\tpath\tsentence\tlocale", f"x\t{split}.mp3\tHi.\ten"])
    lines(tmp_path / "LibriSpeech/dev-clean/84/121/84-121.trans.txt", ["84-121-0000 HELLO"])
    lines(tmp_path / "mls_english/train/transcripts.txt", ["10_20_000001\thello"])
    lines(tmp_path / "mls_english/train/segments.txt", ["10_20_000001\tx.mp3\t1\t3"])
    dialogue = {"conversations": [{"from": "human", "value": "Hello.", "audio": "a.flac"}]}
    lines(tmp_path / "EchoX-Dialogues/S2S/part/data.json", [[dialogue]])
    lines(tmp_path / "texts.jsonl", [{"id": "a", "text": "Hello."}])
    return tmp_path


def lhotse_files(folder: Path) -> None:
    lhotse = pytest.importorskip("lhotse")
    recording = lhotse.Recording.from_file(folder / "download/a.flac")
    recording.sources[0].source = "a.flac"
    segment = lhotse.SupervisionSegment("s", "a", 0.5, 1.5, text="Hello.")
    recordings = lhotse.RecordingSet.from_recordings([recording])
    supervisions = lhotse.SupervisionSet.from_segments([segment])
    cuts = lhotse.CutSet.from_manifests(recordings, supervisions)
    (folder / "manifests").mkdir()
    recordings.to_file(folder / "manifests/recordings.jsonl.gz")
    supervisions.to_file(folder / "manifests/supervisions.jsonl.gz")
    cuts.to_file(folder / "manifests/cuts_train.jsonl.gz")
    recording.sources[0].source = str(folder / "download/a.flac")
    (folder / "shar").mkdir()
    cuts.to_shar(folder / "shar", fields={"recording": "flac"}, shard_size=1)


def table(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = {"audio": [(folder / "a.flac").read_bytes()], "sentence": ["Hello."]}
    datasets.Dataset.from_dict(data).to_parquet(str(folder / "table.parquet"))


def test_every_kind_has_an_example() -> None:
    kinds = {kind.model_fields["kind"].annotation.__args__[0] for kind in AnySource.__args__[0].__args__}  # type: ignore[attr-defined]
    assert {source["kind"] for source in SOURCES} == kinds


@pytest.mark.parametrize("given", SOURCES, ids=lambda given: f"{given['kind']} {given.get('corpus', '')}")
def test_an_example_lists_its_items(given: dict[str, Any], here: Path) -> None:
    if given["kind"] == "huggingface":
        table(here)
    (source,) = IngestParameters.model_validate({"sources": [given]}).sources
    rows = list(entries([source]))
    assert rows and [row["error"] for row in rows] == [None] * len(rows)
    assert all(row["reference_text"] for row in rows) or given["kind"] == "kaldi"
    assert all(row["size"] for row in rows) or given["kind"] == "spoken"
