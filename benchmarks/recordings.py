"""Cut recordings whose truth is known: words lost or cut through, turns found, time and memory, beside others.

The monologue is also cut by captions (SRT) and by words (CTM) with the true times, and by its text without times.

python -m benchmarks.recordings [--minutes 20] [--dialogue-minutes 10] [--hours 4] [--keep FOLDER] [--whisperx PYTHON]

`benchmarks.made_recordings` says what the two recordings hold. Every stage runs on both, through the command line. Time
and memory are those of a process that cuts the first recording, repeated up to `--hours`. The others are faster-whisper
and, with a Python in which it is installed (`uv pip install whisperx`), WhisperX.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from benchmarks.common import options, speech_rows
from benchmarks.made_recordings import DIALOGUE_RATE, Clip, as_ctm, as_srt, dialogue, monologue
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.stages.segment.stage import Segment, SegmentParameters
from echo_targets.transforms.text import normalize

CLIPS = """manifest: ???
root: ???
workers: 1
stages:
  ingest: {sources: [{kind: manifest, corpus: clips, manifest: "${manifest}"}]}
  transcribe: {language: en}
  align:
"""
TIMED = """manifest: ???
root: ???
workers: 1
stages:
  segment: {sources: [{kind: manifest, corpus: timed, manifest: "${manifest}"}]}
  ingest:
    sources: [{kind: cuts, root: "${root}-recordings", recordings: "${stages.segment.sources.0}"}]
  transcribe: {language: en}
"""
EDGE = 0.05
"""Seconds at a word's border in which a cut is not through the word: alignments are off by so much."""
NEAR = 0.5
"""Seconds by which a turn's start and end may differ from those of its clips, which begin and end with silence."""


def main(minutes: float, dialogue_minutes: float, hours: float, folder: Path, whisperx: str | None) -> None:
    import soundfile

    rows = speech_rows()
    sound, clips = monologue(rows, minutes)
    two, said = dialogue(rows, dialogue_minutes)
    for name, samples, rate in (("monologue", sound, SAMPLE_RATE), ("dialogue", two, DIALOGUE_RATE)):
        (folder / f"{name}-audio").mkdir(exist_ok=True)
        soundfile.write(folder / f"{name}-audio" / f"{name}.flac", samples, rate)
    used = {clip.id for clip in (*clips, *said)}
    lines = [json.dumps({"id": row["id"], "audio": row["audio"]}) for row in rows if row["id"] in used]
    (folder / "clips.jsonl").write_text("\n".join(lines))
    (folder / "clips.yaml").write_text(CLIPS)
    run(folder, str(folder / "clips.yaml"), "clips", f"manifest={folder}/clips.jsonl")
    run(folder, "recordings", "monologue", f"folder={folder}/monologue-audio")
    roles = "stages.segment.roles={0: assistant, 1: user}"
    run(folder, "recordings", "dialogue", f"folder={folder}/dialogue-audio", "stages.segment.speakers=channels", roles)
    own = transcripts(folder / "clips")
    report_texts(clips, own, folder)
    for name, truth in (("monologue", clips), ("dialogue", said)):
        report_words(name, truth, own, folder)
        report_cut_words(name, truth, cuts_of(folder, name), folder / "clips")
    report_cut_words("monologue, faster-whisper", clips, faster_whispers_cuts(sound), folder / "clips")
    if whisperx:
        soundfile.write(folder / "monologue.wav", sound, SAMPLE_RATE)
        spans = whisperx_run(whisperx, folder / "monologue.wav")["spans"]
        report_cut_words("monologue, WhisperX", clips, [as_cut(*span) for span in spans], folder / "clips")
    report_turns(said, folder)
    report_speed(sound, hours, folder, whisperx)


def run(folder: Path, config: str, name: str, *overrides: str) -> None:
    """Run a configuration into the root `NAME`."""
    command = [sys.executable, "-m", "echo_targets.jobs.cli", "run", config, f"root={folder}/{name}", "workers=2"]
    subprocess.run([*command, *overrides], check=True, stdout=subprocess.DEVNULL)


def transcripts(root: Path) -> dict[str, str]:
    """Return each utterance's transcript."""
    table = Dataset(str(root)).read("transcripts", ["utterance_id", "text"])
    return dict(zip(table["utterance_id"].to_pylist(), table["text"].to_pylist(), strict=True))


def cuts_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the cuts of a recording."""
    (row,) = Dataset(f"{folder}/{name}-recordings").read("cuts").to_pylist()
    return list(row["cuts"])


def report_words(name: str, clips: Sequence[Clip], own: dict[str, str], folder: Path) -> None:
    """Print the word error rate of the whole, channel by channel, and that of the same clips alone."""
    found, cuts = transcripts(folder / name), cuts_of(folder, name)
    whole, alone, lost = [], [], 0
    for side in sorted({clip.channel for clip in clips}):
        mine = sorted((clip for clip in clips if clip.channel == side), key=lambda clip: clip.start)
        text = normalize(" ".join(clip.text for clip in mine), "en")
        channel = "" if side < 0 else f"{side}-"
        keys = [f"{name}-{channel}{cut['start_sample']:010d}" for cut in cuts if cut["channel"] == side]
        whole.append(jiwer.process_words(text, normalize(" ".join(found.get(key, "") for key in keys), "en")))
        alone.append(jiwer.process_words(text, normalize(" ".join(own.get(clip.id, clip.text) for clip in mine), "en")))
        deleted = [chunk for chunk in whole[-1].alignments[0] if chunk.type == "delete"]
        lost += sum(chunk.ref_end_idx - chunk.ref_start_idx >= 3 for chunk in deleted)
    print(
        f"{name}: {error_rate(whole):.2%} word errors, {error_rate(alone):.2%} in the clips alone; "
        f"{lost} times 3 words or more in a row are lost"
    )


def report_texts(clips: Sequence[Clip], own: dict[str, str], folder: Path) -> None:
    """Print what becomes of the words of timed texts, and the word error rate against them, beside the clips alone."""
    (folder / "timed.yaml").write_text(TIMED)
    words = " ".join(clip.text for clip in clips).split()
    alone = [compared(clip.text, own.get(clip.id, clip.text)) for clip in clips]
    for ending, text in (("srt", as_srt(clips)), ("ctm", as_ctm("monologue", clips)), ("txt", " ".join(words))):
        (folder / f"timed.{ending}").write_text(text)
        named = {"text": text} if ending == "txt" else {"timed_text": f"timed.{ending}"}
        line = {"id": "monologue", "audio": "monologue-audio/monologue.flac"} | named
        (folder / f"{ending}.jsonl").write_text(json.dumps(line) + "\n")
        run(folder, str(folder / "timed.yaml"), ending, f"manifest={folder}/{ending}.jsonl")
        rows = Dataset(f"{folder}/{ending}").read("utterances", ["utterance_id", "reference_text"]).to_pylist()
        texts = {
            row["utterance_id"]: row["reference_text"] for row in sorted(rows, key=lambda row: row["utterance_id"])
        }
        found, with_text = transcripts(folder / ending), {key: text for key, text in texts.items() if text}
        in_order = " ".join(with_text.values()).split() == words
        cuts = [compared(text, found.get(key, "")) for key, text in with_text.items()]
        print(
            f"{ending}: each of {len(words)} words is in one cut, in order: {in_order}; {len(with_text)} cuts with "
            f"text, {len(texts) - len(with_text)} without; {error_rate(cuts):.2%} word errors, "
            f"{error_rate(alone):.2%} in clips"
        )


def compared(text: str, transcript: str) -> Any:
    """Return jiwer's comparison of a text and its transcript."""
    return jiwer.process_words(normalize(text, "en"), normalize(transcript, "en"))


def error_rate(compared: Sequence[Any]) -> float:
    """Return the word error rate over several texts."""
    errors = sum(each.substitutions + each.deletions + each.insertions for each in compared)
    return errors / sum(each.hits + each.substitutions + each.deletions for each in compared)


def report_cut_words(name: str, clips: Sequence[Clip], cuts: Sequence[dict[str, Any]], root: Path) -> None:
    """Print how many words lie across a border of a cut, or outside all cuts, by the alignment of the clips."""
    table = Dataset(str(root)).read("alignments", ["utterance_id", "tier", "items"]).to_pylist()
    aligned = {row["utterance_id"]: row["items"] for row in table if row["tier"] == "word"}
    words = through = outside = 0
    for clip in clips:
        mine = [cut for cut in cuts if cut["channel"] == clip.channel]
        spans = np.array([(cut["start_sample"], cut["end_sample"]) for cut in mine]) / SAMPLE_RATE
        for item in aligned.get(clip.id, ()):
            if item["score"] is None:  # its times are not of the alignment
                continue
            start, end = (clip.start + item[side] / SAMPLE_RATE for side in ("start_sample", "end_sample"))
            words += 1
            through += bool(((spans > start + EDGE) & (spans < end - EDGE)).any())
            outside += not ((spans[:, 0] <= (start + end) / 2) & ((start + end) / 2 < spans[:, 1])).any()
    seconds = [(cut["end_sample"] - cut["start_sample"]) / SAMPLE_RATE for cut in cuts]
    print(
        f"{name}: of {words} words, {through} are cut through and {outside} lie outside all cuts; {len(cuts)} cuts of "
        f"{min(seconds):.1f} to {max(seconds):.1f} s"
    )


def faster_whispers_cuts(waveform: np.ndarray) -> list[dict[str, Any]]:
    """Return the stretches of speech that faster-whisper's batched pipeline decodes, with its own settings."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    found = get_speech_timestamps(waveform, VadOptions(max_speech_duration_s=30, min_silence_duration_ms=160))
    return [as_cut(span["start"], span["end"]) for span in found]


def as_cut(start: int, end: int) -> dict[str, Any]:
    """Return a stretch of the only channel as a cut."""
    return {"channel": -1, "start_sample": start, "end_sample": end}


def whisperx_run(python: str, path: Path) -> dict[str, Any]:
    """Return what `whisperx_cuts.py` finds in a WAV file, in the other environment."""
    found = path.with_suffix(".whisperx.json")
    command = [python, "-I", str(Path(__file__).with_name("whisperx_cuts.py")), str(path), str(found)]
    subprocess.run(command, check=True)
    return dict(json.loads(found.read_text()))


def report_turns(said: Sequence[Clip], folder: Path) -> None:
    """Print how many turns were found in their place, and how many have an echo target."""
    cuts = cuts_of(folder, "dialogue")
    found = [cut for cut in cuts if cut["turn"] is not None]
    numbers = sorted({clip.turn for clip in said if clip.turn is not None})
    truth = [[clip for clip in said if clip.turn == number] for number in numbers]
    right = sum(any(_is_turn(cut, clips) for cut in found) for clips in truth)
    inside = [clip for clip in said if clip.turn is None]
    apart = sum(any(cut["turn"] is None and _meets(cut, clip) for cut in cuts) for clip in inside)
    answered = sum(one["role"] == "user" and other["role"] == "assistant" for one, other in pairwise(found))
    dataset = Dataset(str(folder / "dialogue"))
    targets, published = (len(dataset.read(table, ["utterance_id"])) for table in ("echo_targets", "training/echo"))
    print(
        f"dialogue: {right} of {len(truth)} turns found, {len(found)} in all; {apart} of {len(inside)} remarks inside "
        f"turns set apart; {answered} answered turns, {targets} echo targets, {published} published"
    )


def _is_turn(cut: dict[str, Any], clips: Sequence[Clip]) -> bool:
    starts = abs(cut["start_sample"] / SAMPLE_RATE - clips[0].start) < NEAR
    return (
        bool(cut["channel"] == clips[0].channel and starts)
        and abs(cut["end_sample"] / SAMPLE_RATE - clips[-1].end) < NEAR
    )


def _meets(cut: dict[str, Any], clip: Clip) -> bool:
    start, end = cut["start_sample"] / SAMPLE_RATE, cut["end_sample"] / SAMPLE_RATE
    return bool(cut["channel"] == clip.channel and start < clip.end and end > clip.start)


def report_speed(sound: np.ndarray, hours: float, folder: Path, whisperx: str | None) -> None:
    """Print the time and memory of processes that cut a long recording."""
    import soundfile

    path = folder / "long.wav"
    with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_16", format="WAV") as file:
        while file.tell() < hours * 3600 * SAMPLE_RATE:
            file.write(sound)
    for name in LONG:
        command = [sys.executable, "-m", "benchmarks.recordings", "--cut", name, "--keep", str(path)]
        print(
            f"{hours:g} hours, {name}: {subprocess.run(command, check=True, capture_output=True, text=True).stdout}",
            end="",
        )
    if whisperx:
        found = whisperx_run(whisperx, path)
        print(
            f"{hours:g} hours, WhisperX: {len(found['spans'])} cuts, real-time factor "
            f"{found['seconds'] / hours / 3600:.5f}, {found['gigabytes']:.2f} GB at most"
        )


def cut_long(name: str, path: Path) -> None:
    """Cut a recording in this process; print seconds per second of sound, and the peak of memory."""
    import soundfile

    began = time.perf_counter()
    if name == "segment":
        source = {"kind": "manifest", "corpus": "long", "manifest": str(path.parent / "none.jsonl")}
        stage = Segment(SegmentParameters.model_validate({"sources": [source]}))
        stage.setup()
        entry = dict.fromkeys(("start_seconds", "section_seconds", "timed_text", "reference_text", "speaker_id"))
        entry |= {"utterance_id": "long", "locator": str(path), "channel": -1}
        (row,) = stage.rows_of([entry], stage.sources["long/train"], "")
        assert isinstance(row, dict)
        count = len(row["cuts"])
    else:
        count = len(faster_whispers_cuts(soundfile.read(path, dtype="float32")[0]))
    seconds = time.perf_counter() - began
    # Not getrusage, whose peak a process inherits from the one that started it.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    factor = seconds / soundfile.info(path).duration
    print(f"{count} cuts, real-time factor {factor:.5f}, {int(peak) / 1e6:.2f} GB at most")


LONG = ("segment", "faster-whisper")

if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--minutes", type=float, default=20, help="of the monologue (default: %(default)s)")
    parser.add_argument("--dialogue-minutes", type=float, default=10, help="of the dialogue (default: %(default)s)")
    parser.add_argument("--hours", type=float, default=4, help="of the long recording (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="keep recordings and results in this folder")
    parser.add_argument("--whisperx", metavar="PYTHON", help="compare with WhisperX, installed in another environment")
    parser.add_argument("--cut", choices=LONG, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cut:
        cut_long(given.cut, given.keep)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            kept = given.keep or Path(temporary)
            kept.mkdir(parents=True, exist_ok=True)
            main(given.minutes, given.dialogue_minutes, given.hours, kept, given.whisperx)
