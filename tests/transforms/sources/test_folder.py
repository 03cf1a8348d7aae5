"""A folder of audio without a manifest: what is taken, its ids and texts, and what is skipped and said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile

from echo_targets.transforms.sources.base import Item, SourceError
from echo_targets.transforms.sources.folder import FolderSource
from tests.transforms.rows import rejects, run_stages

Speech = list[dict[str, Any]]


def source(folder: Path | str) -> FolderSource:
    return FolderSource(kind="folder", corpus="c", folder=str(folder))


def listed(folder: Path) -> dict[str, Item]:
    return {item.id: item for item in source(folder).items()}


@pytest.fixture
def tree(tmp_path: Path, speech: Speech) -> Path:
    """Three utterances, each in another format and depth, with its text in another kind of file."""
    folder = tmp_path / "calls"
    for row, place, text in zip(
        speech,
        ("a.WAV", "anna/b.flac", "anna/2024/21.15-26.44.mp3"),
        ("a.txt", "anna/b.normalized.txt", "anna/2024/21.15-26.44.lab"),
        strict=False,
    ):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(row["audio"])
        soundfile.write(folder / place, samples, rate, format=place[-3:].upper().replace("LAC", "FLAC"))
        (folder / text).write_text(f"\ufeff{row['text']}\r\n", encoding="utf-8")
    (folder / "anna" / "b.original.txt").write_text("Not this.")
    return folder


def test_audio_at_any_depth_with_its_texts(tree: Path, tmp_path: Path, speech: Speech) -> None:
    given = {"kind": "folder", "corpus": "c", "folder": str(tree)}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [given]}})
    rows = {row["utterance_id"]: row for row in dataset.read("utterances").to_pylist()}
    assert list(rows) == ["a", "anna/b", "anna/2024/21.15-26.44"]
    for row, utterance in zip(speech, rows.values(), strict=False):
        assert utterance["reference_text"] == row["text"]
        assert utterance["num_samples"] / 16_000 == pytest.approx(row["duration"], abs=0.1)


def test_items_stay_the_same_where_the_folder_lies(tree: Path, tmp_path: Path) -> None:
    before = list(source(tree).items())
    shutil.move(tree, tmp_path / "moved")
    assert list(source(tmp_path / "moved").items()) == before
    assert list(source(f"{tmp_path}/moved/").items()) == before


def test_what_is_skipped_is_counted_and_said(tree: Path) -> None:
    (tree / "__MACOSX").mkdir()
    for name in ("__MACOSX/a.wav", ".trash.wav", "._a.WAV", "notes.csv", "more.CSV", "README", "cover.jpg"):
        (tree / name).write_bytes(b"x")
    made = source(tree)
    assert len(list(made.items())) == 3
    assert made.remarks == [
        "skipped hidden files and folders: 3",
        "skipped files without an ending of audio: 4 (.csv 2, without any 1, .jpg 1)",
        "skipped text files without an audio file of their name: 1",
    ]
    assert len(list(made.items())) == 3 and ": 3" in made.remarks[0]  # counted again


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"x.txt": "caf\u00e9".encode("latin-1")}, "x.txt is not UTF-8 (byte 0xe9 at 3); convert the file"),
        ({"x.txt": "hi".encode("utf-16")}, "x.txt is UTF-16; convert it: iconv"),
        ({"x.txt": b"a" * (1 << 20) + b"b"}, "x.txt is longer than 1048576 bytes"),
        ({"x.txt": b"a\0b"}, "x.txt `text` holds a NUL"),
        ({"x.txt": b"0 46797 She had your dark suit"}, "x.txt starts with times"),
        ({"x.lab": b"         0    2500000 xx^xx-sil+ax=k"}, "x.lab starts with times"),
        ({"x.txt": b"0.500000\t2.250000\thello"}, "x.txt starts with times"),
        ({"x.txt": b"one", "x.lab": b"two"}, "different texts in x.txt and x.lab: remove one"),
    ],
)
def test_texts_that_are_none_reject_their_audio(tree: Path, files: dict[str, bytes], says: str) -> None:
    shutil.copy(tree / "a.WAV", tree / "x.wav")
    for name, data in files.items():
        (tree / name).write_bytes(data)
    items = listed(tree)
    assert len(items) == 4 and items["x.wav"].error_class == "bad_line"
    assert says in str(items["x.wav"].error) and str(items["x.wav"].error).startswith("x.wav has ")


def test_texts_of_other_tools(tree: Path) -> None:
    for name, text in {"blank": "  \u200b\n", "said": "10 20 thirty", "same": "So it is.", "cpp.wav": "Hi."}.items():
        shutil.copy(tree / "a.WAV", tree / f"{name.removesuffix('.wav')}.wav")
        (tree / f"{name}.TXT").write_text(text)
    (tree / "same.lab").write_text("So  it\nis.")
    items = listed(tree)
    assert [items[name].text for name in ("blank", "said", "same", "cpp")] == [None, "10 20 thirty", "So it is.", "Hi."]


def test_a_text_that_can_not_be_opened_rejects_its_audio(tree: Path) -> None:
    for name in ("gone", "pipe"):
        shutil.copy(tree / "a.WAV", tree / f"{name}.wav")
    (tree / "gone.txt").symlink_to("nowhere")
    os.mkfifo(tree / "pipe.txt")
    items = listed(tree)
    assert "gone.txt: No such file" in str(items["gone.wav"].error)
    assert "pipe.txt: is not a file" in str(items["pipe.wav"].error)


def test_two_files_of_one_stem(tree: Path) -> None:
    shutil.copy(tree / "a.WAV", tree / "a.aac")
    items = listed(tree)
    assert items["a"].locator == "a.WAV" and items["a.aac"].error_class == "duplicate_id"
    assert items["a.aac"].error == "a.aac: a.WAV would get the same id: rename one"


def test_names_that_are_no_ids(tree: Path) -> None:
    for name in (b"caf\xe9.wav", b"two\nlines.wav", b"\xe2\x80\x8b.wav", b"nan.wav"):
        shutil.copy(tree / "a.WAV", os.fsencode(tree) + b"/" + name)
    items = listed(tree)
    assert "not UTF-8" in str(items[r"caf\xe9.wav"].error)
    assert "control characters" in str(items[r"two\nlines.wav"].error)
    assert "without visible characters" in str(items["\u200b.wav"].error)
    assert items["nan"].error is None


def test_links(tree: Path, tmp_path: Path) -> None:
    """Each folder once: by its path without a link if it has one. A link to itself is no folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(tree / "a.WAV", outside / "far.wav")
    for link, target in {"0": "anna", "anna/up": "..", "loop": ".", "far": outside, "again": outside}.items():
        (tree / link).symlink_to(target)
    (tree / "self.wav").symlink_to("self.wav")
    (tree / "gone.wav").symlink_to("nowhere.wav")
    made = source(tree)
    items = {item.id: item.size for item in made.items()}
    assert list(items) == ["a", "gone", "self", "anna/b", "anna/2024/21.15-26.44", "again/far"]
    assert (items["gone"], items["self"]) == (None, None)  # ingest rejects them
    assert "skipped linked folders that are already listed: 4" in made.remarks


def test_files_that_are_none(tree: Path, tmp_path: Path) -> None:
    os.mkfifo(tree / "pipe.wav")
    (tree / "page.mp3").write_text("<!doctype html><html></html>")
    (tree / "gone.wav").symlink_to("nowhere.wav")
    given = {"kind": "folder", "corpus": "c", "folder": str(tree)}
    dataset, reports = run_stages(tmp_path / "root", {"ingest": {"sources": [given]}})
    found = {key: row["error_class"] for key, row in rejects(dataset, "utterances").items()}
    assert reports["ingest"].rows == 3
    assert found == {"pipe": "missing_file", "page": "unreadable", "gone": "missing_file"}


def test_folders_without_audio(tmp_path: Path) -> None:
    (tmp_path / "a.pcm").write_bytes(b"x")
    with pytest.raises(
        SourceError, match=r"has no audio files; skipped files without an ending of audio: 1 \(\.pcm 1\)"
    ):
        list(source(tmp_path).items())
    with pytest.raises(SourceError, match=r"gone: .*No such file"):
        list(source(tmp_path / "gone").items())
    with pytest.raises(SourceError, match="Not a directory"):
        list(source(tmp_path / "a.pcm").items())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_can_not_be_listed_is_an_error(tree: Path) -> None:
    (tree / "anna").chmod(0)
    try:
        with pytest.raises(SourceError, match="Permission denied"):
            list(source(tree).items())
    finally:
        (tree / "anna").chmod(0o755)
