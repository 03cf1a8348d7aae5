"""Recordings with timed texts through the command line: every word is in one cut, and what is wrong is said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import soundfile

from benchmarks.made_recordings import Clip, as_ctm, as_srt
from echo_targets.jobs.commands.run import run_command
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.sources.base import SourceError
from echo_targets.transforms.text import normalize
from tests.jobs.recording_jobs import Made, make, put_manifest, run_manifest

CLIPS = """manifest: ???
root: ???
max_reject_fraction: 0.9
stages:
  ingest: {sources: [{kind: manifest, corpus: clips, manifest: "${manifest}"}]}
  transcribe: {language: en}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, speech: list[dict[str, Any]]) -> Made:
    """Recordings with texts, and a shorter one."""
    folder, clips, said = make(tmp_path_factory.mktemp("texts"), speech, 1)
    whole = soundfile.read(folder / "mono.flac")[0]
    soundfile.write(folder / "short.wav", whole[: 8 * SAMPLE_RATE], SAMPLE_RATE)
    (folder / "clips.yaml").write_text(CLIPS)
    (folder / "mono.srt").write_text(as_srt(clips))
    (folder / "two.ctm").write_text(as_ctm("two", said))
    return folder, clips, said


def run(folder: Path, name: str, lines: Sequence[dict[str, Any]], *overrides: str, config: str = "config") -> None:
    put_manifest(folder, name, lines)
    assert run_manifest(folder, name, *overrides, config=config) == 0


def rejects_of(root: Path) -> dict[str, str]:
    """The message of each reject, by its key."""
    dataset = Dataset(str(root))
    return {row["utterance_id"]: row["message"] for row in dataset.read("rejects").to_pylist()}


def error_rate(texts: Sequence[tuple[str, str]]) -> float:
    """The word error rate of pairs of a reference and a transcript."""
    references, transcripts = ([normalize(text, "en") for text in side] for side in zip(*texts, strict=True))
    return jiwer.wer(references, transcripts)


def test_every_word_of_the_text_is_in_one_cut(made: Made) -> None:
    """And Whisper, which hears the cuts, makes no more errors than with the clips alone."""
    folder, clips, _ = made
    lines = [{"id": "mono", "audio": "mono.flac", "timed_text": "mono.srt"}]
    transcribe = (folder / "config.yaml").read_text() + "  transcribe: {language: en}\n"
    (folder / "transcribe.yaml").write_text(transcribe)
    run(folder, "mono", lines, config="transcribe")
    rows = sorted(Dataset(str(folder / "mono")).read("utterances").to_pylist(), key=lambda row: row["start_sample"])
    said = " ".join(clip.text for clip in clips)
    assert " ".join(row["reference_text"] for row in rows if row["reference_text"]) == said
    assert all(row["num_samples"] <= 30 * SAMPLE_RATE for row in rows)
    for clip in clips:  # in time, too
        (own,) = [
            row for row in rows if row["start_sample"] <= (clip.start + clip.end) / 2 * SAMPLE_RATE < row["end_sample"]
        ]
        assert clip.text in own["reference_text"]
    for root in ("mono", "mono-recordings"):
        assert list(check_dataset(str(folder / root))) == []
    heard = {row["utterance_id"]: row["text"] for row in Dataset(str(folder / "mono")).read("transcripts").to_pylist()}
    cuts = [(row["reference_text"], heard.get(row["utterance_id"], "")) for row in rows if row["reference_text"]]
    alone = clips_alone(folder, clips)
    assert error_rate(cuts) < error_rate(alone) + 0.01


def clips_alone(folder: Path, clips: Sequence[Clip]) -> list[tuple[str, str]]:
    """The text and the transcript of each clip, cut from the recording at its true times."""
    whole = soundfile.read(folder / "mono.flac", dtype="float32")[0]
    lines = []
    for clip in clips:
        soundfile.write(folder / f"{clip.id}.wav", whole[round(clip.start * 16_000) : round(clip.end * 16_000)], 16_000)
        lines.append({"id": clip.id, "audio": f"{clip.id}.wav"})
    run(folder, "clips", lines, config="clips")
    rows = Dataset(str(folder / "clips")).read("transcripts").to_pylist()
    heard = {row["utterance_id"]: row["text"] for row in rows}
    return [(clip.text, heard.get(clip.id, "")) for clip in clips]


@pytest.mark.parametrize("roles", ["{}", "{0: assistant, 1: user}"])
def test_each_channel_has_its_own_words(made: Made, roles: str) -> None:
    folder, _, said = made
    name = f"two{len(roles)}"
    lines = [{"id": "two", "audio": "two.flac", "timed_text": "two.ctm"}]
    run(folder, name, lines, "stages.segment.speakers=channels", f"stages.segment.roles={roles}")
    rows = sorted(Dataset(str(folder / name)).read("utterances").to_pylist(), key=lambda row: row["start_sample"])
    for channel in (0, 1):
        mine = " ".join(row["reference_text"] for row in rows if row["channel"] == channel and row["reference_text"])
        true = sorted((clip for clip in said if clip.channel == channel), key=lambda clip: clip.start)
        assert mine == " ".join(clip.text for clip in true)
    assert list(check_dataset(str(folder / f"{name}-recordings"))) == []


BAD = {
    "reversed.srt": ("1\n00:00:04,000 --> 00:00:03,000\nyes\n", r"reversed\.srt:2: ends at 3\.00 s.*correct its times"),
    "arrow.srt": ("1\n00:00:01,000 --> 00:00:02,000\nyes\n\n2\n00:00:02,000 -> 00:00:03,000\nno\n", r"arrow\.srt:6: "),
    "latin.srt": (b"1\n00:00:01,000 --> 00:00:02,000\ncaf\xe9\n", r"latin\.srt:3: is not UTF-8: convert it"),
    "late.vtt": ("WEBVTT\n\n00:09.000 --> 00:10.000\nyes\n", r"late\.vtt:3: starts at 9\.00 s, but .* ends at 8\.00 s"),
    "other.ctm": ("else 1 0 1 yes\n", r"other\.ctm has no line of other\.ctm, but of else: name the recording alike"),
    "spaces.rttm": ("SPEAKER my call 1 0 1 <NA> <NA> a <NA> <NA>\n", r"spaces\.rttm:1: has more than ten words"),
    "short.stm": ("short 1 a 0\n", r"short\.stm:1: has 4 words; expected"),
    "tiers.TextGrid": (
        '"ooTextFile"\n"TextGrid"\n0\n8\n<exists>\n2\n"IntervalTier"\n"ann"\n0\n8\n1\n0\n8\n"yes"\n"IntervalTier"\n"bob"\n0\n8\n1\n0\n8\n"no"',
        r"has the tiers 'ann', 'bob': list those with the text in stages\.segment\.tiers",
    ),
    "lost.srt": (None, r"names the timed text lost\.srt: No such file"),
}  # fmt: skip


def test_a_bad_text_is_a_reject_that_says_where_and_what_to_do(made: Made) -> None:
    folder = made[0]
    for name, (text, _) in BAD.items():
        if text is not None:
            (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    good = {"id": "good", "audio": "short.wav"}
    lines = [{"id": name, "audio": "short.wav", "timed_text": name} for name in BAD]
    run(folder, "bad", [good, *lines])
    found = rejects_of(folder / "bad-recordings")
    assert set(found) == set(BAD)
    assert [name for name, (_, says) in BAD.items() if not re.search(says, found[name])] == [], found


@pytest.mark.parametrize(
    ("locator", "says"),
    [
        ("../secret.srt", "leads out of the manifest's folder"),
        ("notes.docx", r"ends with none of \.srt, "),
        (7, "is an integer"),
    ],
)
def test_a_text_that_is_no_file_of_the_corpus_is_a_bad_line(made: Made, locator: Any, says: str) -> None:
    folder = made[0]
    lines = [{"id": "good", "audio": "short.wav"}, {"id": "x", "audio": "short.wav", "timed_text": locator}]
    name = f"line{str(locator)[:2].strip('.')}"
    run(folder, name, lines)
    (message,) = rejects_of(folder / f"{name}-recordings").values()
    assert re.search(says, message) and "line 2: `timed_text`" in message


def test_a_text_on_the_web_needs_permission(made: Made) -> None:
    folder = made[0]
    with pytest.raises(SourceError, match="is a web address"):
        run(folder, "web", [{"id": "a", "audio": "short.wav", "timed_text": "http://localhost:1/a.srt"}])


def test_a_changed_text_is_cut_again_although_its_size_is_the_same(
    made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made[0]
    lines = [{"id": "a", "audio": "short.wav", "timed_text": "typo.srt"}]
    for word in ("helo!", "hello"):
        (folder / "typo.srt").write_text(f"1\n00:00:01,000 --> 00:00:04,000\n{word}\n")
        run(folder, "typo", lines)
        rows = Dataset(str(folder / "typo")).read("utterances").to_pylist()
        assert word in [row["reference_text"] for row in rows]


def test_without_segment_a_timed_text_is_not_ignored(made: Made) -> None:
    folder = made[0]
    good = {"id": "good", "audio": "short.wav"}
    run(folder, "plain", [good, good | {"id": "a", "timed_text": "mono.srt"}], config="clips")
    assert re.search("names a timed text, which only segment uses: .*run recordings", rejects_of(folder / "plain")["a"])


def test_channels_need_a_text_with_channels(made: Made) -> None:
    folder = made[0]
    good = {"id": "good", "audio": "two.flac"}
    (folder / "one.srt").write_text("1\n00:00:01,000 --> 00:00:02,000\nyes\n")
    (folder / "third.stm").write_text("third 3 ann 1 2 <o,f0,female> yes\n")
    named = [good | {"id": "one", "timed_text": "one.srt"}, good | {"id": "third", "timed_text": "third.stm"}]
    run(folder, "channels", [good, *named], "stages.segment.speakers=channels")
    found = rejects_of(folder / "channels-recordings")
    assert "one.srt:2: names no channel" in found["one"] and "use CTM or STM" in found["one"]
    assert "third.stm:1: names channel 3, but the recording has 2" in found["third"]


def test_speakers_are_named_after_their_recording(made: Made) -> None:
    folder = made[0]
    lines = ["SPEAKER b 1 0.2 2.8 <NA> <NA> ann <NA> <NA>", "SPEAKER b 1 3.0 3.5 <NA> <NA> bob <NA> <NA>"]
    (folder / "b.rttm").write_text("\n".join(["SPEAKER other 1 0 9 <NA> <NA> eve <NA> <NA>", *lines]))
    run(folder, "who", [{"id": "b", "audio": "short.wav", "timed_text": "b.rttm"}])
    rows = sorted(Dataset(str(folder / "who")).read("utterances").to_pylist(), key=lambda row: row["start_sample"])
    speakers = [row["speaker_id"] for row in rows]
    assert {"b-ann", "b-bob"} <= set(speakers) <= {"b-ann", "b-bob", None}
    assert all(row["reference_text"] is None for row in rows)
    ends = [row["end_sample"] for row in rows if row["speaker_id"] == "b-ann"]
    assert max(ends) <= min(row["start_sample"] for row in rows if row["speaker_id"] == "b-bob")
    assert np.isclose(max(ends) / SAMPLE_RATE, 3.0, atol=0.25)


def test_the_example_of_the_documentation(made: Made) -> None:
    folder = made[0]
    page = (Path(__file__).parents[2] / "docs" / "TIMED_TEXTS.md").read_text(encoding="utf-8")
    (line,), (captions,) = (re.findall(rf"^```{name}\n(.*?)^```$", page, re.M | re.S) for name in ("json", "srt"))
    (said,) = re.findall(r'reference text is "(.*?)"', page)
    (folder / "talks" / "captions").mkdir(parents=True)
    for name in ("talk-1.en.srt", "captions/1.srt"):
        (folder / "talks" / name).write_text(captions)
    (folder / "talks" / "talk-1.wav").write_bytes((folder / "short.wav").read_bytes())
    (folder / "talks" / "list.jsonl").write_text(line)
    sources = (
        f"{{kind: folder, corpus: calls, folder: {folder}/talks, timed_texts: true}}",
        f"{{kind: manifest, corpus: calls, manifest: {folder}/talks/list.jsonl}}",
    )
    for number, source in enumerate(sources):
        root = folder / f"talks-{number}"
        given = [f"root={root}", "manifest=none", f"stages.segment.sources=[{source}]"]
        assert run_command(str(folder / "config.yaml"), given, dry_run=False) == 0
        texts = [row["reference_text"] for row in Dataset(str(root)).read("utterances").to_pylist()]
        assert [text for text in texts if text] == [said]
