"""Every kind of bad input ends as a reject with the file's name and the reason; all else goes through."""

from __future__ import annotations

import errno
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import ENTRIES, SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.transforms.audio.waveforms import Limits, decode_flac, load
from echo_targets.transforms.base import table_of
from echo_targets.transforms.sources.base import Item, Source
from echo_targets.transforms.sources.registry import entries
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
    lasts = f"good.flac (beyond) lasts {len(pcm) / SAMPLE_RATE:.2f} s"
    assert reasons["beyond"] == ("section_outside", f"{lasts}, but the section from 1.00 s to 61.00 s was requested")
    assert reasons["whole"][0] == "duration_mismatch" and "60.00 s were declared" in reasons["whole"][1]
