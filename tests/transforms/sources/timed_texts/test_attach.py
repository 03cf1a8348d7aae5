"""Files beside audio that are its timed texts, and digests that make a changed text a new entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.transforms.sources.folder import FolderSource
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.sources.timed_texts.attach import beside

NAMES = ["sub/a.wav", "b.mp3.flac", "c.wav", "d.v2.wav", "e.wav"]
TEXTS = ["sub/a.en-US.VTT", "b.mp3.flac.srt", "c.TextGrid", "c.srt", "d.v2.rttm", "stray.stm", "sub/e.ctm"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for number, name in enumerate(NAMES, 1):
        soundfile.write(tmp_path / name, np.zeros(1_000 * number), 16_000)
    for name in TEXTS:
        (tmp_path / name).write_text(name)
    return tmp_path


def listed(folder: Path, **options: Any) -> dict[str, dict[str, Any]]:
    source = FolderSource(kind="folder", corpus="c", folder=str(folder), **options)
    return {row["utterance_id"]: row for row in entries([source])}


def test_files_of_the_same_name_are_timed_texts(folder: Path) -> None:
    rows = listed(folder, timed_texts=True)
    found = {key: row["timed_text"] for key, row in rows.items() if row["error"] is None}
    assert found == {"sub/a": "sub/a.en-US.VTT", "b.mp3": "b.mp3.flac.srt", "d.v2": "d.v2.rttm", "e": None}
    (bad,) = [row for row in rows.values() if row["error"] is not None]
    assert "c.wav has several timed texts, c.TextGrid and c.srt: keep one" in bad["error"]
    source = FolderSource(kind="folder", corpus="c", folder=str(folder), timed_texts=True)
    list(source.items())
    assert "skipped text files without an audio file of their name: 2" in source.remarks


def test_the_name_of_the_audio_may_be_whole(tmp_path: Path) -> None:
    """As whisper.cpp names its files. `wav` could also be a language."""
    soundfile.write(tmp_path / "a.wav", np.zeros(1_000), 16_000)
    (tmp_path / "a.wav.srt").write_text("text")
    assert listed(tmp_path, timed_texts=True)["a"]["timed_text"] == "a.wav.srt"


def test_without_the_parameter_they_are_other_files(folder: Path) -> None:
    rows = listed(folder)
    assert {row["timed_text"] for row in rows.values()} == {None} and len(rows) == len(NAMES)
    source = FolderSource(kind="folder", corpus="c", folder=str(folder))
    list(source.items())
    assert any(f"without an ending of audio: {len(TEXTS)} (" in remark for remark in source.remarks)


def test_a_language_may_stand_before_the_ending() -> None:
    names = ["a.srt", "a.de.srt", "b.pt-BR.vtt", "c.1080p.srt", "d.txt"]
    assert beside(names) == {
        "a": ["a.srt", "a.de.srt"],
        "a.de": ["a.de.srt"],
        "b": ["b.pt-BR.vtt"],
        "b.pt-BR": ["b.pt-BR.vtt"],
        "c.1080p": ["c.1080p.srt"],
    }


def test_the_digest_is_that_of_the_file(folder: Path) -> None:
    first = listed(folder, timed_texts=True)["d.v2"]
    (folder / "d.v2.rttm").write_text("d.v2.RTTM")
    second = listed(folder, timed_texts=True)["d.v2"]
    assert first["timed_text_sha256"] != second["timed_text_sha256"]
    assert {key for key, value in first.items() if value != second[key]} == {"timed_text_sha256"}


def test_items_that_share_a_text_have_its_digest_and_a_missing_one_has_none(tmp_path: Path) -> None:
    lines = [{"id": key, "audio": "a.wav", "timed_text": "all.ctm"} for key in "abc"]
    lines.append({"id": "d", "audio": "a.wav", "timed_text": "lost.ctm"})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "all.ctm").write_text("a 1 0 1 yes\n")
    source = ManifestSource(kind="manifest", corpus="c", manifest=str(tmp_path / "m.jsonl"))
    *shared, lost = [item.timed_text_sha256 for item in source.items()]
    assert len(set(shared)) == 1 and len(shared[0] or "") == 64 and lost is None
