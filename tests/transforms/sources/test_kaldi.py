"""Kaldi data directories: one that lhotse wrote, and the circumstances of recipes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.transforms.sources.base import Item, SourceError
from echo_targets.transforms.sources.kaldi import KaldiSource
from tests.transforms.rows import run_stages

Speech = list[dict[str, Any]]


def source(tree: Path, **parameters: Any) -> KaldiSource:
    return KaldiSource(kind="kaldi", corpus="c", tree=str(tree), **parameters)


def listed(tree: Path, **tables: str) -> list[Item]:
    for name, lines in tables.items():
        (tree / name.replace("_scp", ".scp")).write_text(lines)
    return list(source(tree).items())


def stored(given: KaldiSource, folder: Path) -> dict[str, dict[str, Any]]:
    dataset, reports = run_stages(folder / "root", {"ingest": {"sources": [given.model_dump(mode="json")]}})
    assert reports["ingest"].rejects == 0
    rows = dataset.read("utterances").to_pylist()
    return {
        row["utterance_id"]: row | {"samples": soundfile.read(io.BytesIO(row["audio"]["bytes"]))[0]} for row in rows
    }


@pytest.fixture
def tree(tmp_path: Path, speech: Speech) -> Path:
    """A data directory inside a recipe, whose paths start from the recipe's folder; a talk and a call in stereo."""
    recipe = tmp_path / "s5"
    (recipe / "data" / "train").mkdir(parents=True)
    (recipe / "wav").mkdir()
    first, second, third = (soundfile.read(row["audio"])[0] for row in speech[:3])
    soundfile.write(recipe / "wav" / "talk.wav", np.concatenate([first, np.zeros(8000), second]), 16_000)
    soundfile.write(recipe / "wav" / "alone.wav", third, 16_000)
    call = np.zeros((max(len(first), len(third)), 2))
    call[: len(first), 0], call[: len(third), 1] = first, third
    soundfile.write(recipe / "wav" / "call.flac", call, 16_000)
    return recipe / "data" / "train"


def check(row: dict[str, Any], said: dict[str, Any]) -> None:
    assert row["reference_text"] == said["text"] and row["speaker_id"] == said["speaker"]
    assert np.array_equal(row["samples"], soundfile.read(said["audio"])[0])


def test_a_directory_that_lhotse_wrote(tree: Path, tmp_path: Path, speech: Speech) -> None:
    lhotse = pytest.importorskip("lhotse")
    from lhotse.kaldi import export_to_kaldi

    talk = lhotse.Recording.from_file(tree.parents[1] / "wav" / "talk.wav")
    alone = lhotse.Recording.from_file(tree.parents[1] / "wav" / "alone.wav")
    times = [(talk, 0.0), (talk, speech[0]["duration"] + 0.5), (alone, 0.0)]
    segments = [
        lhotse.SupervisionSegment(
            row["id"], of.id, start, row["duration"], 0, row["text"], speaker=row["speaker"], language="en"
        )
        for (of, start), row in zip(times, speech, strict=False)
    ]
    recordings = lhotse.RecordingSet.from_recordings([talk, alone])
    supervisions = lhotse.SupervisionSet.from_segments(segments)
    export_to_kaldi(recordings, supervisions, tree)
    assert (tree / "segments").exists()
    rows = stored(source(tree), tmp_path)
    for row in speech[:3]:
        check(rows[row["id"]], row)


def test_paths_start_from_the_recipe(tree: Path, tmp_path: Path, speech: Speech) -> None:
    """Without segments a recording is an utterance. Several spaces and tabs separate; texts keep theirs."""
    (tree / "wav.scp").write_text("u1 wav/talk.wav\nu2\twav/alone.wav \n")
    (tree / "text").write_text(f"u2   {speech[2]['text']}\n")
    (tree / "utt2spk").write_text(f"u1 anna\nu2 {speech[2]['speaker']}\n")
    (tree / "utt2lang").write_text("u1 English\nu2 de\n")
    given = source(tree, audio_dir=str(tree.parents[1]))
    rows = stored(given, tmp_path)
    check(rows["u2"], speech[2])
    assert (rows["u1"]["language"], rows["u2"]["language"], rows["u1"]["reference_text"]) == ("en", "de", None)
    list(given.items())
    assert given.remarks == ["utterances without a line in text: 1"]
    assert [item.size for item in source(tree).items()] == [None, None]  # they are not in data/train


def test_segments(tree: Path) -> None:
    """An end of -1 is the recording's (kaldi's extract-segments, lhotse #952)."""
    segments = "a talk 0.25 1.5\nb talk 2 -1\nc talk 3 -1.00\nd talk 3 3\ne talk x 4\nf gone 0 1\ng talk 1\nh \u3000\n"
    items = listed(tree, wav_scp="talk wav/talk.wav\nunused wav/alone.wav\n", segments=segments)
    assert [(item.start_seconds, item.section_seconds) for item in items[:3]] == [(0.25, 1.25), (2, None), (3, None)]
    for item, says in zip(
        items[3:],
        (
            "`end` 3 is not after `start` 3",
            "start 'x' is not a number",
            "has the recording 'gone', which is not in wav.scp",
            "is not followed by RECORDING START END",
            "is not followed by RECORDING START END",
        ),
        strict=True,
    ):
        assert item.error_class == "bad_line" and says in str(item.error) and "segments, line" in str(item.error)
    made = source(tree)
    list(made.items())
    assert made.remarks == ["skipped recordings of wav.scp without a segment: 1"]


def test_sides_of_a_call(tree: Path, tmp_path: Path, speech: Speech) -> None:
    """`reco2file_and_channel` chooses a channel of a file that two recordings share, and of no other."""
    (tree / "wav.scp").write_text("call-A wav/call.flac\ncall-B wav/call.flac\nown-B wav/alone.wav\n")
    (tree / "reco2file_and_channel").write_text("call-A call A\ncall-B call B\nown-B own B\n")
    given = source(tree, audio_dir=str(tree.parents[1]))
    rows = stored(given, tmp_path)
    assert [rows[key]["channel"] for key in ("call-A", "call-B", "own-B")] == [0, 1, -1]
    for key, number in (("call-A", 0), ("call-B", 2), ("own-B", 2)):
        samples = soundfile.read(speech[number]["audio"])[0]
        assert np.array_equal(rows[key]["samples"][: len(samples)], samples)
    items = listed(tree, wav_scp="call wav/call.flac\n", segments="s call 0 1 1\nt call 0 1 B\nu call 0 1 x\n")
    assert [item.channel for item in items] == [1, 1, None] and "'x' is not a number" in str(items[2].error)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (
            "sph2pipe -f wav -p -c 1 /d/a.sph |",
            "has a command in wav.scp, which is not run: name the file that it decodes",
        ),
        ("touch /tmp/never|", "which is not run"),
        ("-", "which is not run"),
        ("", "which is not run"),
        ("/d/data/wav.1.ark:1234", "is in a Kaldi archive: write it to a file, for instance with wav-copy"),
        ("../../x.wav", "leads out of"),
        ("ftp://host/a.wav", "is not one of s3"),
    ],
)
def test_recordings_that_are_no_files(tree: Path, value: str, says: str) -> None:
    items = listed(tree, wav_scp=f"u1 {value}\nu2 wav/talk.wav\n")
    assert [item.error_class for item in items] == ["bad_line", None]
    assert says in str(items[0].error) and str(items[0].error).startswith("wav.scp, line 1: 'u1'")


def test_what_tables_do_not_agree_on_is_said(tree: Path) -> None:
    (tree / "text").write_bytes(b"u1 one\nlost two\nu1 three\nbad caf\xe9\n")
    items = listed(tree, wav_scp="u1 wav/talk.wav\nu1 wav/alone.wav\nu2 wav/alone.wav\n")
    assert [(item.id, item.text) for item in items[:2]] == [("u1", "one"), ("u2", None)]
    assert [item.error for item in items[2:]] == [
        "text, line 2: utterance 'lost' has no audio in wav.scp; add it, or remove the line",
        "wav.scp, line 2: 'u1' is already in line 1; remove one",
        "text, line 3: 'u1' is already in line 1; remove one",
        "text, line 4: is not UTF-8 (byte 0xe9 at 7); convert the file, for instance with iconv -f LATIN1 -t UTF-8 IN "
        "> OUT",
    ]


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"wav\.scp"):
        list(source(tmp_path).items())
