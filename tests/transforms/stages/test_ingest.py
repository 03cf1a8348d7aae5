"""Every kind of bad input ends as a reject with the file's name and the reason; all else goes through."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import ENTRIES, SAMPLE_RATE
from echo_targets.schemas.dataset import object_store as objects
from echo_targets.schemas.dataset import web as connections
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.transforms.audio.waveforms import Limits, decode_flac, load
from echo_targets.transforms.base import table_of
from echo_targets.transforms.sources.base import Item, Source, SourceError
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.registry import _entry, entries, named
from echo_targets.transforms.stages.ingest import Ingest, IngestParameters
from tests.transforms.rows import rejects, run_stages


@pytest.fixture
def folder(tmp_path: Path, speech: list[dict]) -> Path:
    """A folder with one good file and one of each kind of bad one."""
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE)
    good, _ = soundfile.read(speech[0]["audio"])
    soundfile.write(tmp_path / "good.flac", good, SAMPLE_RATE)
    (tmp_path / "empty.wav").write_bytes(b"")
    flac = (tmp_path / "good.flac").read_bytes()
    (tmp_path / "truncated.flac").write_bytes(flac[: len(flac) // 2])
    (tmp_path / "text.wav").write_text("This is a text file.\n" * 100)
    soundfile.write(tmp_path / "nan.wav", np.where(noise > 0.2, np.nan, noise), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "short.wav", noise[: SAMPLE_RATE // 20], SAMPLE_RATE)
    soundfile.write(tmp_path / "silence.flac", np.zeros(40 * 60 * SAMPLE_RATE, np.int16), SAMPLE_RATE)
    names = ["good.flac", "empty.wav", "truncated.flac", "text.wav", "nan.wav", "short.wav", "silence.flac", "lost.wav"]
    lines = [json.dumps({"id": name, "audio": name}) for name in names]
    lines += [json.dumps({"id": "good.flac", "audio": "good.flac"}), "not JSON"]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    return tmp_path


def test_every_turn_of_a_dialogue_has_its_system_text(tmp_path: Path, speech: list[dict]) -> None:
    """Even if the line that states it lies in another window, or its audio is missing."""

    def line(name: str, turn: int, **more: Any) -> str:
        return json.dumps(
            {"id": f"{name}{turn}", "audio": str(speech[0]["audio"]), "dialogue_id": name, "turn": turn} | more
        )

    lines = [line("a", 0), line("b", 0, audio="lost.wav", system="Be brief."), line("c", 0), line("b", 1), line("c", 1)]
    lines += [json.dumps({"id": "alone", "audio": str(speech[0]["audio"]), "system": "Alone."})]
    lines += [line("a", 1, system="Be kind."), line("c", 1, id="c2", system="It is a second turn 1.")]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    source = {"kind": "manifest", "corpus": "c", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}})
    assert list(check_dataset(dataset.root)) == []
    found = {row["utterance_id"]: row["system_text"] for row in dataset.read("utterances").to_pylist()}
    expected = {"a0": "Be kind.", "a1": "Be kind.", "b1": "Be brief.", "alone": "Alone.", "c0": None, "c1": None}
    assert found == expected
    assert {row["error_class"] for row in rejects(dataset, "utterances").values()} == {"missing_file", "duplicate_turn"}


def test_a_folder_of_bad_files(folder: Path) -> None:
    source = {"kind": "manifest", "corpus": "bad", "manifest": str(folder / "m.jsonl")}
    dataset, reports = run_stages(folder / "root", {"ingest": {"sources": [source]}})
    report = reports["ingest"]
    assert (report.rows_in, report.rows, report.rejects) == (10, 1, 9)
    found = rejects(dataset, "utterances")
    assert {key: row["error_class"] for key, row in found.items()} == {
        "empty.wav": "empty",
        "truncated.flac": "truncated",
        "text.wav": "unreadable",
        "nan.wav": "not_finite",
        "short.wav": "too_short",
        "silence.flac": "silent",
        "lost.wav": "missing_file",
        "m.jsonl:9": "duplicate_id",
        "m.jsonl:10": "bad_line",
    }
    for key, row in found.items():
        assert key.split(":")[0] in row["message"], row["message"]
    assert "m.jsonl:1" in found["m.jsonl:9"]["message"]
    assert "line 10" in found["m.jsonl:10"]["message"]
    assert list(check_dataset(dataset.root)) == []


def test_what_is_stored_is_the_speech(folder: Path) -> None:
    source = {"kind": "manifest", "corpus": "bad", "manifest": str(folder / "m.jsonl")}
    dataset, _ = run_stages(folder / "root", {"ingest": {"sources": [source]}})
    (row,) = dataset.read("utterances").to_pylist()
    pcm, _ = soundfile.read(folder / "good.flac", dtype="int16")
    assert np.array_equal(decode_flac(row["audio"]["bytes"]) * 32768, pcm)
    assert row["num_samples"] == len(pcm) and row["sampling_rate"] == SAMPLE_RATE
    assert row["audio"]["path"] == "good.flac" and row["role"] == "narrator" and not row["synthetic"]


def test_a_moved_corpus_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (moved / file.name).write_bytes(file.read_bytes())
    files = []
    for place in (folder, moved):
        source = {"kind": "manifest", "corpus": "bad", "manifest": str(place / "m.jsonl")}
        run_stages(place / "root", {"ingest": {"sources": [source]}})
        files.append(
            {path.relative_to(place / "root"): path.read_bytes() for path in (place / "root").rglob("*.parquet")}
        )
    assert files[0] == files[1] and len(files[0]) == 3


def test_a_line_that_names_what_no_disk_can_hold_costs_that_line_alone(folder: Path) -> None:
    good = json.dumps({"id": "good", "audio": "good.flac"})
    odd = {"long": "x" * 300 + ".wav", "scheme": "htp://x/y.wav", "through": "good.flac/y.wav"}
    lines = [json.dumps({"id": key, "audio": audio}) for key, audio in odd.items()]
    (folder / "odd.jsonl").write_text("\n".join([*lines, good]))
    source = {"kind": "manifest", "corpus": "odd", "manifest": str(folder / "odd.jsonl")}
    dataset, reports = run_stages(folder / "odd", {"ingest": {"sources": [source]}})
    assert reports["ingest"].rows == 1
    found = {key: row["error_class"] for key, row in rejects(dataset, "utterances").items()}
    assert found == {"long": "missing_file", "odd.jsonl:2": "bad_line", "through": "missing_file"}


class _Web(BaseHTTPRequestHandler):
    """Serves a folder, whole files alone as Python's own server does; `/403/x` is answered with that status."""

    folder: ClassVar[Path]

    def do_GET(self) -> None:
        first = self.path.split("/")[1]
        status = int(first) if first.isdecimal() else 200
        data = b"" if first.isdecimal() else (self.folder / self.path.strip("/")).read_bytes()
        self.send_response(status)
        if "unsized" not in self.path:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def web(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a web server on loopback that serves the folder."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(objects, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(connections, "forbidden", lambda address: None)
    monkeypatch.setattr(_Web, "folder", folder, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def listing(folder: Path, places: list[str], name: str = "web.jsonl") -> dict[str, Any]:
    lines = [json.dumps({"id": "-".join(place.split("/")[3:]), "audio": place}) for place in places]
    (folder / name).write_text("\n".join(lines))
    return {"kind": "manifest", "corpus": "web", "manifest": str(folder / name), "allow_http": True}


def test_a_web_address_that_is_gone_or_denied_costs_its_line_alone(folder: Path, web: str) -> None:
    gone = {"404": "No such file", "410": "HTTP 410", "401": "HTTP 401", "403": "HTTP 403", "451": "HTTP 451"}
    (folder / "x").mkdir()
    for name in ("whole", "unsized"):
        shutil.copy(folder / "good.flac", folder / "x" / f"{name}.flac")
    places = [f"{web}/x/whole.flac", *(f"{web}/{status}/a.flac" for status in gone)]
    sources = [listing(folder, places), listing(folder, [f"{web}/x/unsized.flac"], "unsized.jsonl")]
    dataset, reports = run_stages(folder / "web", {"ingest": {"sources": sources}})
    seconds = soundfile.info(folder / "good.flac").duration
    listed = dataset.read("entries").to_pylist()
    assert [row["seconds"] for row in listed if "/x/" in str(row["locator"])] == [pytest.approx(seconds)] * 2
    assert reports["ingest"].rows == 2
    found = rejects(dataset, "utterances")
    assert {key: row["error_class"] for key, row in found.items()} == {
        f"{status}-a.flac": "missing_file" for status in gone
    }
    for status, says in gone.items():
        assert says in found[f"{status}-a.flac"]["message"]


@pytest.mark.parametrize("status", ["500", "503", "429", "408"])
def test_a_web_server_s_own_fault_rejects_nothing(folder: Path, web: str, status: str) -> None:
    places = [f"{web}/good.flac", f"{web}/{status}/a.flac"]
    with pytest.raises(SourceError, match=f"web.jsonl: .*{status}.*{web}/{status}/a.flac"):
        list(entries([ManifestSource(**listing(folder, places))]))  # type: ignore[arg-type]
    source = ManifestSource(**listing(folder, places))  # type: ignore[arg-type]
    ingest = Ingest(IngestParameters(sources=[source]))
    row = _entry("c/train", source, Item(id="a", where="web.jsonl:2", locator=places[1]), {})
    row |= {"source": next(iter(named([source]))), "source_fingerprint": ""}
    with pytest.raises(OSError, match=status):
        ingest(table_of([row], ENTRIES))


@pytest.mark.timeout(60)
def test_a_pipe_and_a_device_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    lines = [{"id": "pipe", "audio": "pipe.wav"}, {"id": "zero", "audio": "/dev/zero"}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"kind": "manifest", "corpus": "odd", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}})
    found = rejects(dataset, "utterances")
    assert {key: row["error_class"] for key, row in found.items()} == {"pipe": "missing_file", "zero": "missing_file"}
    assert "is not a file" in found["pipe"]["message"]


def test_a_disk_that_fails_is_not_the_files_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "open", lambda *_, **__: Broken(bytes(1000)))
    with pytest.raises(OSError, match="Input/output error"):
        load(folder / "good.flac", Limits(0.1, 10.0))


class Sections(Source):
    """A source of sections of one file, as a manifest with offsets lists them."""

    has_files: ClassVar[bool] = True
    kind: Literal["manifest"] = "manifest"
    folder: str

    def items(self) -> Iterator[Item]:
        parts = {
            "first": {"section_seconds": 1.0},
            "second": {"start_seconds": 1.0, "section_seconds": 1.5, "declared_seconds": 1.5},
            "last": {"start_seconds": 2.5},
            "beyond": {"start_seconds": 1.0, "section_seconds": 60.0},
            "whole": {"declared_seconds": 60.0},
        }
        for key, part in parts.items():
            yield Item(id=key, where=key, locator="good.flac", seconds=4.0, text=key, **part)

    def open(self, locator: str) -> Path:
        return Path(self.folder, locator)


def test_sections_of_one_file_are_entries_of_their_own(folder: Path) -> None:
    source = Sections(corpus="c", folder=str(folder))
    rows = list(entries([source]))
    assert [row["seconds"] for row in rows] == [1.0, 1.5, 1.5, 60.0, 4.0]
    ingest = Ingest(IngestParameters.model_construct(sources=[source], min_seconds=0.1, max_seconds=3600.0))
    output = ingest(table_of(rows, ENTRIES))
    pcm, _ = soundfile.read(folder / "good.flac", dtype="int16")
    stored = {row["utterance_id"]: decode_flac(row["audio"]["bytes"]) * 32768 for row in output.rows.to_pylist()}
    expected = {"first": pcm[:16_000], "second": pcm[16_000:40_000], "last": pcm[40_000:]}
    assert stored.keys() == expected.keys()
    assert all(np.array_equal(stored[key], samples) for key, samples in expected.items())
    reasons = {reject.utterance_id: (reject.error_class, reject.message) for reject in output.rejects}
    lasts = f"good.flac lasts {len(pcm) / SAMPLE_RATE:.2f} s"
    assert reasons["beyond"] == ("section_outside", f"{lasts}, but the section from 1.00 s to 61.00 s was requested")
    assert reasons["whole"][0] == "duration_mismatch" and "60.00 s were declared" in reasons["whole"][1]
