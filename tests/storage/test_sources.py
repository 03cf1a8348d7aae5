"""Sources in a bucket: the same entries and audio as in a folder, and only the bytes of an item from an archive."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from echo_targets.transforms.sources.base import Source, SourceError
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.stages.ingest import IngestParameters
from tests.storage.object_store import Network, Store

Speech = list[dict[str, Any]]


def folder(tree: Path, audio: list[Path]) -> dict[str, Any]:
    (tree / "deep" / ".hidden").mkdir(parents=True)
    for name in ("deep/a.flac", "deep/.hidden/b.flac", "b.flac", "b.mp3"):
        (tree / name).write_bytes(audio[0].read_bytes())
    (tree / "deep" / "a.txt").write_text("Hello.")
    (tree / "notes.csv").write_text("x")
    return {"kind": "folder", "corpus": "c", "folder": "TREE"}


def webdataset(tree: Path, audio: list[Path]) -> dict[str, Any]:
    (tree / "en").mkdir()
    for number, path in enumerate(audio[:2]):
        (tree / f"{number}.json").write_text(json.dumps({"text": f"No. {number}"}))
        with tarfile.open(tree / "en" / f"part-{number}.tar", "w") as archive:
            archive.add(path, "x.flac")
            archive.add(tree / f"{number}.json", "x.json")
    return {"kind": "webdataset", "corpus": "c", "tree": "TREE", "shards": "en/part-*.tar"}


def nemo(tree: Path, audio: list[Path]) -> dict[str, Any]:
    with tarfile.open(tree / "audio_3.tar", "w") as archive:
        archive.add(audio[0], "a.flac")
    lines = [{"audio_filepath": "a.flac", "offset": 0.25, "duration": 1.5, "text": "A."}, {"audio_filepath": "b.flac"}]
    (tree / "manifest_3.json").write_text("\n".join(map(json.dumps, lines)))
    return {"kind": "nemo", "corpus": "c", "tree": "TREE", "manifests": "manifest_{3..3}.json", "tars": "audio_*.tar"}


def shar(tree: Path, audio: list[Path]) -> dict[str, Any]:
    lhotse = pytest.importorskip("lhotse")
    cuts = lhotse.CutSet.from_cuts(lhotse.Recording.from_file(path).to_cut() for path in audio[:3])
    cuts.to_shar(tree, fields={"recording": "flac"}, shard_size=2)
    return {"kind": "lhotse", "corpus": "c", "tree": "TREE", "cuts": "cuts.*.jsonl.gz"}


def cuts(tree: Path, audio: list[Path]) -> dict[str, Any]:
    lhotse = pytest.importorskip("lhotse")
    (tree / "wav").mkdir()
    (tree / "wav" / "a.flac").write_bytes(audio[0].read_bytes())
    recording = lhotse.Recording.from_file(tree / "wav" / "a.flac")
    recording.sources[0].source = "a.flac"
    lhotse.CutSet.from_cuts([recording.to_cut()]).to_file(tree / "cuts.jsonl.gz")
    return {"kind": "lhotse", "corpus": "c", "tree": "TREE", "cuts": "cuts.jsonl.gz", "audio_dir": "TREE/wav"}


def kaldi(tree: Path, audio: list[Path]) -> dict[str, Any]:
    (tree / "a.flac").write_bytes(audio[0].read_bytes())
    (tree / "wav.scp").write_text("u a.flac\nv lost.flac\n")
    (tree / "text").write_text("u Hello.\n")
    return {"kind": "kaldi", "corpus": "c", "tree": "TREE"}


def common_voice(tree: Path, audio: list[Path]) -> dict[str, Any]:
    (tree / "clips").mkdir()
    soundfile.write(tree / "clips" / "c_1.mp3", soundfile.read(audio[0])[0], 16_000)
    (tree / "train.tsv").write_text("client_id\tpath\tsentence\tlocale\nx\tc_1.mp3\tHello.\ten\n")
    return {"kind": "common-voice", "tree": "TREE"}


MADE: dict[str, Callable[[Path, list[Path]], dict[str, Any]]] = {
    made.__name__: made for made in (folder, webdataset, nemo, shar, cuts, kaldi, common_voice)
}


def source(given: dict[str, Any], place: str) -> Source:
    at = {key: value.replace("TREE", place) if isinstance(value, str) else value for key, value in given.items()}
    (parsed,) = IngestParameters.model_validate({"sources": [at]}).sources
    return parsed


def uploaded(server: Store, bucket: str, tree: Path) -> str:
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            server.put(bucket, f"corpus/{path.relative_to(tree)}", path.read_bytes())
    return f"s3://{bucket}/corpus"


@pytest.mark.parametrize("kind", MADE)
def test_a_source_in_a_bucket(
    network: Network, server: Store, bucket: str, tmp_path: Path, speech: Speech, kind: str
) -> None:
    given = MADE[kind](tmp_path, [row["audio"] for row in speech[:3]])
    local, remote = source(given, str(tmp_path)), source(given, uploaded(server, bucket, tmp_path))
    rows = list(entries([remote]))
    assert rows == list(entries([local])) and rows[0]["error"] is None
    assert remote.remarks == local.remarks
    network.seen.clear()
    opened, here = remote.open(rows[0]["locator"]), local.open(rows[0]["locator"])
    assert opened == (here.read_bytes() if isinstance(here, Path) else here)
    assert len(network.seen) <= 2  # an archive is not read from its start


@pytest.mark.parametrize("kind", MADE)
def test_a_network_that_fails_is_no_bad_data(
    network: Network, server: Store, bucket: str, tmp_path: Path, speech: Speech, kind: str
) -> None:
    given = MADE[kind](tmp_path, [row["audio"] for row in speech[:3]])
    remote = source(given, uploaded(server, bucket, tmp_path))
    network.choose = lambda number, method, path: "503"
    with pytest.raises(SourceError, match="Service Unavailable"):
        list(remote.items())
