"""Cut sets, recordings with supervisions and Shar folders that lhotse itself wrote."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from pydantic import ValidationError

from echo_targets.jobs.commands.export import export_command
from echo_targets.transforms.sources.base import Item, SourceError
from echo_targets.transforms.sources.lhotse import LhotseSource
from tests.transforms.rows import run_stages

lhotse = pytest.importorskip("lhotse")
Speech = list[dict[str, Any]]


def source(tree: Path, **parameters: Any) -> LhotseSource:
    return LhotseSource(kind="lhotse", corpus="c", tree=str(tree), **parameters)


def listed(tree: Path, cuts: Any, **parameters: Any) -> list[Item]:
    """Items of a cut set, which lhotse writes."""
    lhotse.CutSet.from_cuts(cuts).to_file(tree / "cuts.jsonl.gz")
    return list(source(tree, cuts="cuts.jsonl.gz", **parameters).items())


def stored(given: LhotseSource, folder: Path) -> list[dict[str, Any]]:
    """What ingest stores, with the samples in `samples`."""
    dataset, reports = run_stages(folder / "root", {"ingest": {"sources": [given.model_dump(mode="json")]}})
    assert reports["ingest"].rejects == 0
    rows = dataset.read("utterances").to_pylist()
    return [row | {"samples": _samples(row["audio"]["bytes"])} for row in rows]


def _samples(data: bytes) -> np.ndarray:
    import io

    return soundfile.read(io.BytesIO(data))[0]


@pytest.fixture
def tree(tmp_path: Path, speech: Speech) -> Path:
    """A recording of three utterances with half a second between them, and a stereo call of two."""
    folder = tmp_path / "data"
    folder.mkdir()
    gap = np.zeros(8000)
    first, second, third = (soundfile.read(row["audio"])[0] for row in speech[:3])
    soundfile.write(folder / "talk.wav", np.concatenate([first, gap, second, gap, third]), 16_000)
    call = np.zeros((max(len(first), len(second)), 2))
    call[: len(first), 0], call[: len(second), 1] = first, second
    soundfile.write(folder / "call.flac", call, 16_000)
    return folder


@pytest.fixture
def recording(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tree)
    return lhotse.Recording.from_file("talk.wav")


@pytest.fixture
def supervisions(speech: Speech) -> list[Any]:
    made, start = [], 0.0
    for row in speech[:3]:
        made.append(
            lhotse.SupervisionSegment(
                id=row["id"],
                recording_id="talk",
                start=start,
                duration=row["duration"],
                text=row["text"],
                speaker=row["speaker"],
                language="English",
                custom={"pnc_text": row["text"].capitalize() + ".", "snr": 20.5},
            )
        )
        start += row["duration"] + 0.5
    return made


def check(rows: list[dict[str, Any]], speech: Speech) -> None:
    """Check that each row has the very samples that its text says."""
    for row, said in zip(rows, speech[:3], strict=True):
        samples, _ = soundfile.read(said["audio"])
        assert (row["utterance_id"], row["reference_text"], row["speaker_id"]) == (
            said["id"],
            said["text"],
            said["speaker"],
        )
        assert np.array_equal(row["samples"], samples) and row["language"] == "en"


def test_a_cut_of_several_supervisions(
    tree: Path, recording: Any, supervisions: list[Any], tmp_path: Path, speech: Speech
) -> None:
    cuts = lhotse.CutSet.from_manifests(
        lhotse.RecordingSet.from_recordings([recording]), lhotse.SupervisionSet.from_segments(supervisions)
    )
    cuts.to_file(tree / "cuts.jsonl.gz")
    check(stored(source(tree, cuts="cuts.jsonl.gz"), tmp_path / "whole"), speech)
    cuts.trim_to_supervisions().to_file(tree / "trimmed.jsonl")
    check(stored(source(tree, cuts="trimmed.jsonl"), tmp_path / "trimmed"), speech)


def test_recordings_with_supervisions(
    tree: Path, recording: Any, supervisions: list[Any], tmp_path: Path, speech: Speech
) -> None:
    other = lhotse.Recording.from_file("call.flac")
    lhotse.RecordingSet.from_recordings([other, recording]).to_file(tree / "recordings.jsonl.gz")
    lhotse.SupervisionSet.from_segments(supervisions).to_file(tree / "supervisions.jsonl.gz")
    given = source(tree, recordings="recordings.jsonl.gz", supervisions="supervisions.jsonl.gz")
    check(stored(given, tmp_path), speech)
    list(given.items())
    assert given.remarks == ["skipped recordings without a supervision: 1"]
    alone = list(source(tree, recordings="recordings.jsonl.gz").items())
    assert [(item.id, item.channel, item.error) for item in alone] == [("call", -1, None), ("talk", None, None)]
    lost = [lhotse.SupervisionSegment("s", "gone", 0, 1.0)]
    lhotse.SupervisionSet.from_segments(lost).to_file(tree / "supervisions.jsonl.gz")
    (tree / "again.jsonl").write_text(json.dumps(recording.to_dict() | {"duration": 1.0}))
    again = given.model_copy(update={"recordings": ["recordings.jsonl.gz", "again.jsonl"]})
    assert "again.jsonl:1 has the id 'talk' of another recording: remove one" in [item.error for item in again.items()]
    (item,) = given.items()
    assert "recording_id 'gone', which is not among the recordings" in str(item.error)


def test_a_shar_folder(tree: Path, recording: Any, supervisions: list[Any], tmp_path: Path, speech: Speech) -> None:
    """Shar stores the audio of a cut only; the start of the cut is then 0."""
    cuts = lhotse.CutSet.from_cuts([lhotse.MonoCut("w", 0, recording.duration, 0, supervisions, recording=recording)])
    shar = tree / "shar"
    shar.mkdir()
    trimmed = lhotse.CutSet.from_cuts(cut.with_id(f"{cut.id}.v1/part") for cut in cuts.trim_to_supervisions())
    trimmed.to_shar(shar, fields={"recording": "flac"}, shard_size=2)
    rows = stored(source(shar, cuts="cuts.*.jsonl.gz"), tmp_path)
    check(rows, speech)
    assert rows[2]["audio"]["path"].endswith("part.flac")
    (shar / "recording.000001.tar").write_bytes((shar / "recording.000000.tar").read_bytes()[:-10_240])
    items = list(source(shar, cuts="cuts.*.jsonl.gz").items())
    assert "for which recording.000001.tar has no audio" in str(items[2].error)
    assert items[3].error_class == "bad_archive" and "recording.000001.tar is truncated" in str(items[3].error)
    (shar / "recording.000001.tar").unlink()
    with pytest.raises(SourceError, match=r"recording\.000001\.tar"):
        list(source(shar, cuts="cuts.*.jsonl.gz").items())


def test_placeholders_of_a_shar_folder(tree: Path, recording: Any) -> None:
    from lhotse.shar import SharWriter

    with SharWriter(str(tree), fields={"recording": "wav"}, shard_size=None) as writer:
        writer.write(lhotse.MonoCut("a", 1.25, 2.5, 0, recording=recording))
        writer.write(lhotse.MonoCut("b", 0, 1, 0, features=None))
    good, bad = source(tree, cuts="cuts.jsonl.gz").items()
    assert (good.id, good.seconds, good.start_seconds, good.error) == ("a", 2.5, None, None)
    assert "has no recording" in str(bad.error)


def test_channels(tree: Path, speech: Speech, tmp_path: Path, recording: Any) -> None:
    call = lhotse.Recording.from_file("call.flac")
    sups = [
        lhotse.SupervisionSegment(f"s{channel}", "call", 0, speech[channel]["duration"], channel=channel)
        for channel in (0, 1)
    ]
    cut = lhotse.MultiCut("call", 0, call.duration, [0, 1], [*sups], recording=call)
    both = lhotse.MultiCut("both", 0, call.duration, [0, 1], recording=call)
    mono = lhotse.MonoCut("mono", 0, call.duration, 1, recording=call)
    listed(tree, [cut, both, mono])
    rows = stored(source(tree, cuts="cuts.jsonl.gz"), tmp_path)
    assert [(row["utterance_id"], row["channel"]) for row in rows] == [("s0", 0), ("s1", 1), ("both", -1), ("mono", 1)]
    for row, said in zip(rows, speech[:2], strict=False):
        assert np.array_equal(row["samples"], soundfile.read(said["audio"])[0])
    assert np.array_equal(rows[3]["samples"][: len(rows[1]["samples"])], rows[1]["samples"])


def test_channels_in_several_files(tree: Path, recording: Any) -> None:
    files = [lhotse.AudioSource("file", [channel], name) for channel, name in ((3, "talk.wav"), (5, "call.flac"))]
    array = lhotse.Recording("array", files, 16_000, recording.num_samples, recording.duration, [3, 5])
    one = lhotse.MonoCut("one", 0, array.duration, 5, recording=array)
    both = lhotse.MultiCut("both", 0, array.duration, [3, 5], recording=array)
    lost = lhotse.MonoCut("lost", 0, array.duration, 4, recording=array)
    items = listed(tree, [one, both, lost])
    assert (items[0].locator, items[0].channel) == ("call.flac", None)
    assert "channel 3, 5, which is in several files" in str(items[1].error)
    assert "channel 4, which is not among [3, 5]" in str(items[2].error)


def test_audio_that_lhotse_would_make(tree: Path, recording: Any) -> None:
    def cut(name: str, other: Any = recording) -> Any:
        return lhotse.MonoCut(name, 0, other.duration, 0, recording=other)

    def of(kind: str, place: Any) -> Any:
        sources = [lhotse.AudioSource(kind, [0], place)]
        return lhotse.Recording(kind, sources, 16_000, recording.num_samples, recording.duration)

    cuts = [
        cut("resampled").resample(22_050),
        cut("fast").perturb_speed(1.1),
        cut("loud").perturb_volume(2.0),
        cut("mixed").mix(cut("noise"), snr=10),
        cut("padded").pad(duration=60),
        cut("command", of("command", "touch /tmp/never")),
        cut("stream", of("url", "ftp://host/a.wav")),
        lhotse.MonoCut("features", 0, 1, 0),
    ]
    items = listed(tree, cuts)
    assert [item.error_class for item in items] == [None] + ["bad_line"] * 7
    for item, says in zip(
        items[1:],
        (
            "(Speed): leave the cut out, or store its audio with lhotse, `cuts.save_audios(FOLDER)`",
            "alters when it loads it (Volume)",
            "cuts.jsonl.gz:4 is a MixedCut: store its audio",
            "is a MixedCut",
            "its audio is the output of a shell command, which is not run",
            "ftp:// is not one of s3",
            "has no recording, so no audio",
        ),
        strict=True,
    ):
        assert says in str(item.error)
    memory = of("memory", "").to_dict() | {"sources": [{"type": "memory", "channels": [0], "source": "UklGRg=="}]}
    record = {"id": "m", "start": 0, "duration": 1.0, "channel": 0, "recording": memory, "type": "MonoCut"}
    (tree / "memory.jsonl").write_text(json.dumps(record))
    (item,) = source(tree, cuts="memory.jsonl").items()
    assert "its audio is in the manifest itself: store its audio" in str(item.error)


def test_a_supervision_outside_of_its_cut(tree: Path, recording: Any, supervisions: list[Any]) -> None:
    """Windows cut supervisions in parts. Each is listed as a whole, once, since only then its text is what is said."""
    from echo_targets.transforms.sources.registry import entries

    cut = lhotse.MonoCut("w", 0, recording.duration, 0, supervisions, recording=recording)
    windows = list(lhotse.CutSet.from_cuts([cut]).cut_into_windows(4.0))
    lhotse.CutSet.from_cuts(windows).to_file(tree / "cuts.jsonl.gz")
    made = source(tree, cuts="cuts.jsonl.gz")
    rows = list(entries([made]))
    assert [(row["utterance_id"], row["error"]) for row in rows] == [(one.id, None) for one in supervisions]
    assert [(row["start_seconds"], row["section_seconds"]) for row in rows] == [
        (pytest.approx(one.start), pytest.approx(one.duration)) for one in supervisions
    ]
    assert made.remarks == [f"skipped supervisions of earlier cuts: {sum(len(w.supervisions) for w in windows) - 3}"]
    supervisions[1] = lhotse.utils.fastcopy(supervisions[1], id=supervisions[0].id)
    assert [item.id for item in listed(tree, [lhotse.utils.fastcopy(cut, supervisions=supervisions)])] == [
        one.id for one in supervisions
    ]  # another utterance of the same id is left to be a duplicate


def test_speech_that_overlaps(tree: Path, recording: Any, supervisions: list[Any]) -> None:
    """Cuts trimmed to a supervision keep those that overlap with it, by default."""
    over = lhotse.utils.fastcopy(supervisions[0], id="over", start=supervisions[0].end - 1, duration=2.5, text="Yes.")
    cut = lhotse.MonoCut("w", 0, recording.duration, 0, [*supervisions, over], recording=recording)
    trimmed = list(cut.trim_to_supervisions(keep_overlapping=True))
    assert sum(len(one.supervisions) for one in trimmed) == 8
    items = listed(tree, trimmed)
    assert sorted(item.id for item in items) == sorted([*(one.id for one in supervisions), "over"])
    shar = tree / "shar"
    shar.mkdir()
    lhotse.CutSet.from_cuts(trimmed).to_shar(shar, fields={"recording": "flac"})
    items = list(source(shar, cuts="cuts.*.jsonl.gz").items())
    assert {item.id for item in items if not item.error} == {*(one.id for one in supervisions), "over"}
    assert all("correct its times" in str(item.error) for item in items if item.error)


def test_where_the_audio_is(tree: Path, recording: Any, speech: Speech) -> None:
    """Relative paths start from the folder of the list, or from `audio_dir` if the list was moved."""
    away = tree / "manifests"
    away.mkdir()
    cut = lhotse.MonoCut("w", 0, recording.duration, 0, recording=recording)
    (lost,) = listed(away, [cut])
    assert (lost.size, lost.error) == (None, None)  # ingest rejects it as missing
    (item,) = listed(away, [cut], audio_dir=str(tree))
    assert (item.locator, item.size) == ("talk.wav", (tree / "talk.wav").stat().st_size)
    (item,) = listed(away, [cut.move_to_memory()] if False else [cut.with_recording_path_prefix(str(tree))])
    assert item.locator == str(tree / "talk.wav") and item.size
    (item,) = listed(away, [cut.with_recording_path_prefix("..")])
    assert "leads out of" in str(item.error)


def test_names_of_fields(tree: Path, recording: Any, supervisions: list[Any]) -> None:
    supervisions[1].language = "Singaporean English"
    cut = lhotse.MonoCut("w", 0, recording.duration, 0, supervisions, recording=recording)
    items = listed(tree, [cut], columns={"text": "pnc_text"})
    assert [str(item.text)[-1:] for item in items] == [".", "e", "."]
    assert "`language` is 'Singaporean English'" in str(items[1].error)
    assert "cuts.jsonl.gz:1[1] " in str(items[1].error)
    items = listed(tree, [cut], ignore=["language"])
    assert [item.error for item in items] == [None] * 3


def test_what_was_exported_comes_back(tree: Path, tmp_path: Path, speech: Speech) -> None:
    lines = [
        {"id": f"d-{turn}", "audio": str(row["audio"]), "text": row["text"], "dialogue_id": "d", "turn": turn}
        for turn, row in enumerate(speech[:4])
    ]
    (tree / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    given = {"kind": "manifest", "corpus": "c", "manifest": str(tree / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "first", {"ingest": {"sources": [given]}})
    export_command(str(tmp_path / "first"), "lhotse", str(tmp_path / "out"), None, [])
    rows = stored(source(tmp_path / "out" / "train", cuts="cuts.*.jsonl.gz"), tmp_path / "second")
    before = dataset.read("utterances").to_pylist()
    for key in ("utterance_id", "dialogue_id", "turn", "role", "audio_sha256", "reference_text", "num_samples"):
        assert [row[key] for row in rows] == [row[key] for row in before]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"type": "MonoCut", "id": "a", "recording": 7}, "has no recording"),
        ({"type": "Recording", "id": "a"}, "has the type 'Recording'; expected a cut"),
        ({"id": "a"}, "has the type None"),
        ({"type": "MonoCut", "recording": {}, "supervisions": {}}, "`supervisions` is an object; expected a list"),
        ({"type": "MonoCut", "recording": {}, "supervisions": [7]}, "has an integer as a supervision"),
        ({"type": "MonoCut", "recording": {}, "id": "a", "duration": "x"}, "duration 'x' is not a number"),
        (
            {"type": "MonoCut", "recording": {}, "id": "a", "duration": 1, "start": -5},
            "is from -5 to -4 s of a recording of 0 s: correct its times",
        ),
        ({"type": "MonoCut", "recording": {}, "id": "a", "duration": 1}, "from 0 to 1 s of a recording of 0 s"),
        ({"type": "MonoCut", "recording": {}, "duration": 1}, "has no id"),
        (7, "is not a JSON object"),
    ],
)
def test_lines_that_are_no_cuts(tree: Path, line: Any, says: str) -> None:
    (tree / "cuts.jsonl").write_text(json.dumps(line))
    (item,) = source(tree, cuts="cuts.jsonl").items()
    assert item.error_class == "bad_line" and says in str(item.error) and str(item.error).startswith("cuts.jsonl")


def test_long_cuts_and_damaged_files(tree: Path, recording: Any, supervisions: list[Any]) -> None:
    many = [
        lhotse.utils.fastcopy(supervisions[0], id=f"s{number}", start=number * 1e-4, duration=0.5, text="x" * 300)
        for number in range(4000)
    ]
    items = listed(tree, [lhotse.MonoCut("w", 0, recording.duration, 0, many, recording=recording)])
    assert len(items) == 4000 and not any(item.error for item in items)
    data = (tree / "cuts.jsonl.gz").read_bytes()
    assert len(gzip.decompress(data)) > 1 << 20
    for broken in (data[:-40], b"no gzip"):
        (tree / "cuts.jsonl.gz").write_bytes(broken)
        with pytest.raises(SourceError, match=r"cuts\.jsonl\.gz: .*copy it again"):
            list(source(tree, cuts="cuts.jsonl.gz").items())


def test_what_to_list_must_be_clear(tmp_path: Path) -> None:
    for wrong in ({}, {"cuts": "c", "recordings": "r"}, {"cuts": "c", "supervisions": "s"}, {"supervisions": "s"}):
        with pytest.raises(ValidationError, match=r"name either cuts, or|name supervisions only with"):
            source(tmp_path, **wrong)
