"""Recordings through the command line: cut, ingested, published; and what is said when a part is missing."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from benchmarks.made_recordings import DIALOGUE_RATE
from echo_targets.jobs.commands.retry import retry_command
from echo_targets.jobs.commands.run import run_command
from echo_targets.jobs.config import ConfigError, load
from echo_targets.jobs.recordings import remarks
from echo_targets.schemas import CUTS, SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.audio.waveforms import decode_flac
from echo_targets.transforms.sources.base import SourceError
from tests.jobs.recording_jobs import CONFIG, Made, make, put_manifest, run_manifest

A_CUT = {"channel": 0, "start_sample": 0, "end_sample": 1, "overlap": 0.0, "level_dbfs": 0.0, "border": "turn"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, speech: list[dict[str, Any]]) -> Made:
    """Recordings whole, silent and truncated, and their manifests."""
    folder, clips, said = make(tmp_path_factory.mktemp("recordings"), speech, 1.5)
    soundfile.write(folder / "silence.wav", np.zeros(20 * SAMPLE_RATE), SAMPLE_RATE)
    (folder / "cut.flac").write_bytes((folder / "mono.flac").read_bytes()[:50_000])
    mono, two, silence, cut = (
        {"id": Path(file).stem, "audio": file, "split": "train"}
        for file in ("mono.flac", "two.flac", "silence.wav", "cut.flac")
    )
    put_manifest(folder, "mono", [mono, silence, cut])
    put_manifest(folder, "two", [two | {"text": "words of the whole"}, mono])
    return folder, clips, said


def utterances(root: Path) -> list[dict[str, Any]]:
    return Dataset(str(root)).read("utterances").to_pylist()


def test_a_recording_becomes_utterances(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    folder, clips, _ = made
    assert run_manifest(folder, "mono") == 0
    printed = capsys.readouterr().out
    assert re.search(r"segment .* 1 .*truncated", printed)
    assert "recordings without speech: 1 of 2 (silence)" in printed
    rows = utterances(folder / "mono")
    whole = np.rint(soundfile.read(folder / "mono.flac")[0] * 32768).astype(np.int16)
    for row in rows:
        assert row["recording_id"] == "mono" and row["dialogue_id"] is None and row["license"] == "CC0"
        part = whole[row["start_sample"] : row["end_sample"]]
        decoded = np.rint(decode_flac(row["audio"]["bytes"]) * 32768).astype(np.int16)
        assert (decoded == part).all() and row["audio"]["path"] == "mono.flac"
        assert row["utterance_id"] == f"mono-{row['start_sample']:010d}"
    covered = np.zeros(len(whole), bool)
    for row in rows:
        covered[row["start_sample"] : row["end_sample"]] = True
    for clip in clips:  # all but its pauses
        assert covered[int(clip.start * SAMPLE_RATE) : int(clip.end * SAMPLE_RATE)].mean() > 0.7
    assert len(rows) >= len(clips)
    cuts = Dataset(str(folder / "mono-recordings")).read("cuts").to_pylist()
    silent = next(row for row in cuts if row["utterance_id"] == "silence")
    assert silent["cuts"] == [] and silent["gaps"] == [
        {"channel": -1, "start_sample": 0, "end_sample": 20 * SAMPLE_RATE, "why": "no_speech"}
    ]
    for root in ("mono", "mono-recordings"):
        assert list(check_dataset(str(folder / root))) == []
    assert run_manifest(folder, "mono") == 0
    assert "segment: 0 rows" in capsys.readouterr().out.replace("segment: nothing", "segment: 0 rows")


def test_two_channels_become_a_dialogue(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    folder, _, said = made
    roles = "stages.segment.roles={0: assistant, 1: user}"
    assert run_manifest(folder, "two", "stages.segment.speakers=channels", roles) == 0
    printed = capsys.readouterr().out
    assert re.search(r"segment .* 1 .*one_channel", printed)
    assert "recordings with a text without times: 1. With speakers: channels" in " ".join(printed.split())
    (recording,) = Dataset(str(folder / "two-recordings")).read("cuts").to_pylist()
    rows = sorted(utterances(folder / "two"), key=lambda row: row["start_sample"])
    turns = [row for row in rows if row["dialogue_id"] is not None]
    truth = sorted({clip.turn for clip in said if clip.turn is not None})
    assert [row["turn"] for row in turns] == truth
    assert [row["role"] for row in turns] == [("user", "assistant")[turn % 2] for turn in truth]
    for row in turns:
        clips = [clip for clip in said if clip.turn == row["turn"]]
        assert row["channel"] == clips[0].channel and row["speaker_id"] == f"two-{row['channel']}"
        assert abs(row["start_sample"] / SAMPLE_RATE - clips[0].start) < 0.5
        assert abs(row["end_sample"] / SAMPLE_RATE - clips[-1].end) < 0.5
        assert row["sampling_rate"] == DIALOGUE_RATE
    assert [row["overlap"] for row in rows] == [cut["overlap"] for cut in recording["cuts"]]
    assert max(row["overlap"] for row in turns) > 0
    assert len(rows) - len(turns) == sum(clip.turn is None for clip in said)
    for root in ("two", "two-recordings"):
        assert list(check_dataset(str(folder / root))) == []


def test_a_dry_run_plans_the_recordings_first(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made[0]
    given = [f"manifest={folder}/mono.jsonl", f"root={tmp_path}/out"]
    assert run_command(str(folder / "config.yaml"), given, dry_run=True) == 0
    said = capsys.readouterr().out
    assert "3 items" in said and "when the recordings have been cut" in said
    assert not (tmp_path / "out").exists() and not (tmp_path / "out-recordings").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.segment.roles={0: user}", "set speakers to channels"),
        ("stages.segment.max_seconds=3", "at least twice min_seconds"),
        ("stages.ingest.sources.0.root=r", "the job's own root"),
        (
            "stages.segment.sources=[{kind: folder, corpus: a, folder: f}, {kind: folder, corpus: a, folder: g}]",
            "two sources are named a/train",
        ),
        ("stages.segment.speakers=many", "'one', 'channels' or 'diarized'"),
    ],
)
def test_parameters_that_do_not_fit(made: Made, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(str(made[0] / "config.yaml"), ["manifest=m", "root=r", override])


def test_cuts_that_are_not_there(made: Made, tmp_path: Path) -> None:
    folder = made[0]
    config = tmp_path / "c.yaml"
    start, end = CONFIG.index("  segment:"), CONFIG.index("  ingest:")
    source = f"{{kind: manifest, corpus: calls, manifest: {folder}/mono.jsonl}}"
    config.write_text(
        (CONFIG[:start] + CONFIG[end:]).replace("manifest: ???\n", "").replace('"${stages.segment.sources.0}"', source)
    )
    with pytest.raises(SourceError, match="run segment first"):
        run_command(str(config), [f"root={tmp_path}/out"], dry_run=False)


def test_recordings_that_give_less_than_one_expects() -> None:
    roles = {"both": ["user", "assistant"], "no-reply": ["user"], "aside": ["user", None], "mute": [], "d": [], "e": []}
    rows = [
        {"utterance_id": key, "cuts": [A_CUT | {"role": role or "assistant", "turn": role and 0} for role in each]}
        for key, each in roles.items()
    ]
    fields = [CUTS.schema.field(name) for name in ("utterance_id", "cuts")]
    cuts = pa.Table.from_pylist(rows, pa.schema(fields))
    silent = "recordings without speech: 3 of 6 (mute, d, e)"
    assert list(remarks(cuts, [])) == [silent]
    assert list(remarks(cuts, ["user", "assistant"])) == [
        silent,
        "recordings without a turn of an assistant, so without echo targets: 2 of 6 (no-reply, aside)",
    ]
    assert list(remarks(cuts.slice(0, 1), ["user", "assistant"])) == list(remarks(cuts.slice(0, 0), ["user"])) == []


def test_recordings_without_any_speech(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    put_manifest(made[0], "quiet", [{"id": "silence", "audio": "silence.wav"}])
    with pytest.raises(SourceError, match="has no cuts: its 1 recordings have no speech"):
        run_manifest(made[0], "quiet")
    assert "recordings without speech: 1 of 1 (silence)" in capsys.readouterr().out


def test_a_mended_recording_is_retried(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """Its size stays the same, so that a run does not see the change."""
    folder = made[0]
    sound = soundfile.read(folder / "mono.flac", dtype="float32")[0][: 20 * SAMPLE_RATE]
    soundfile.write(folder / "mended.wav", np.where(np.arange(len(sound)) == 99, np.nan, sound), SAMPLE_RATE, "FLOAT")
    lines = [{"id": name, "audio": f"{name}.{ending}"} for name, ending in (("mended", "wav"), ("mono", "flac"))]
    put_manifest(folder, "mended", lines)
    assert run_manifest(folder, "mended") == 0
    assert {row["recording_id"] for row in utterances(folder / "mended")} == {"mono"}
    soundfile.write(folder / "mended.wav", sound, SAMPLE_RATE, "FLOAT")
    assert run_manifest(folder, "mended") == 0
    assert {row["recording_id"] for row in utterances(folder / "mended")} == {"mono"}
    given = [f"manifest={folder}/mended.jsonl", f"root={folder}/mended"]
    capsys.readouterr()
    assert retry_command(str(folder / "config.yaml"), given) == 0
    assert "segment: 1 rows to retry" in capsys.readouterr().out
    assert {row["recording_id"] for row in utterances(folder / "mended")} == {"mono", "mended"}
    assert retry_command(str(folder / "config.yaml"), given, ["mono"]) == 0
    assert {row["recording_id"] for row in utterances(folder / "mended")} == {"mono", "mended"}
    with pytest.raises(UserError, match="--id nobody"):
        retry_command(str(folder / "config.yaml"), given, ["nobody"])


def test_a_retried_recording_has_its_new_sound_in_the_same_cuts(made: Made) -> None:
    folder = made[0]
    sound = soundfile.read(folder / "mono.flac", dtype="float32")[0][: 20 * SAMPLE_RATE]
    put_manifest(folder, "softer", [{"id": "softer", "audio": "softer.wav"}])
    given = [f"manifest={folder}/softer.jsonl", f"root={folder}/softer"]
    soundfile.write(folder / "softer.wav", sound, SAMPLE_RATE)
    assert run_manifest(folder, "softer") == 0
    before = utterances(folder / "softer")
    soundfile.write(folder / "softer.wav", sound * 0.99, SAMPLE_RATE)
    whole = np.rint(soundfile.read(folder / "softer.wav")[0] * 32768).astype(np.int16)
    assert retry_command(str(folder / "config.yaml"), given, ["softer"]) == 0
    after = utterances(folder / "softer")
    assert [row["utterance_id"] for row in after] == [row["utterance_id"] for row in before]
    for row in after:
        decoded = np.rint(decode_flac(row["audio"]["bytes"]) * 32768).astype(np.int16)
        assert (decoded == whole[row["start_sample"] : row["end_sample"]]).all()


@pytest.mark.slow
def test_speakers_of_one_channel_take_turns(made: Made, speech: list[dict[str, Any]]) -> None:
    """Two speakers in turn, a clip each; the first one to speak is the user."""
    if find_spec("resemblyzer") is None:
        pytest.skip("Resemblyzer, whose dependency has to be compiled, is not installed")
    folder = made[0]
    own: dict[str, list[dict[str, Any]]] = {}
    for row in speech:
        own.setdefault(row["speaker"], []).append(row)
    one, other = [rows for rows in own.values() if len(rows) > 3][:2]
    parts, truth, at = list[np.ndarray](), list[tuple[float, float]](), 0
    for row in (row for pair in zip(one[:4], other[:4], strict=True) for row in pair):
        waveform = soundfile.read(row["audio"], dtype="float32")[0][: 10 * SAMPLE_RATE]
        truth.append((at / SAMPLE_RATE, (at + len(waveform)) / SAMPLE_RATE))
        parts += [waveform, np.zeros(12_000, np.float32)]
        at += len(waveform) + 12_000
    soundfile.write(folder / "talk.flac", np.concatenate(parts), SAMPLE_RATE)
    put_manifest(folder, "talk", [{"id": "talk", "audio": "talk.flac"}])
    diarized = ("stages.segment.speakers=diarized", "stages.segment.diarization.num_speakers=2")
    assert run_manifest(folder, "talk", *diarized, "stages.segment.roles={0: user, 1: assistant}") == 0
    rows = sorted(utterances(folder / "talk"), key=lambda row: row["start_sample"])
    assert [row["turn"] for row in rows] == list(range(8))
    assert [row["speaker_id"] for row in rows] == ["talk-0", "talk-1"] * 4
    for row, (start, end) in zip(rows, truth, strict=True):
        assert abs(row["start_sample"] / SAMPLE_RATE - start) < 1 and abs(row["end_sample"] / SAMPLE_RATE - end) < 1
    for root in ("talk", "talk-recordings"):
        assert list(check_dataset(str(folder / root))) == []
    assert run_manifest(folder, "talk", *diarized) == 0
    rows = utterances(folder / "talk")
    assert {row["role"] for row in rows} == {"narrator"} and {row["speaker_id"] for row in rows} == {"talk-0", "talk-1"}
    assert list(check_dataset(str(folder / "talk-recordings"))) == []
