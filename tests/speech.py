"""Speech for tests and measurements: the recordings beside this repository, or what the embedded voice says.

Both folders hold a `manifest.jsonl`, one JSON object per line, and the 16 kHz mono FLAC files that it names.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from echo_targets.transforms.models.checkpoints.embedded import HIBARI_VOICE
from echo_targets.transforms.models.voices.delivery import Delivery, deliver
from echo_targets.transforms.models.voices.registry import open_voice

ROOT = Path(__file__).parents[1]
RECORDED = ROOT.parent / "shared" / "speech"
SENTENCES = ROOT / "jobs" / "corpora" / "nano_sentences.jsonl"

WORDS_A_CHAPTER = (36, 2, 8, 10, 13, 15, 17, 20, 26, 44)
"""Words that each utterance of a chapter has, or a few more: some 2 to 20 seconds."""
CHAPTERS = 6
OTHERS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 22, 24, 28, 32, 38, 42, 46, 50, 58, 66)
"""The same for speakers who are heard only once; the last says nearly 30 seconds."""
SPEEDS = (1.0, 1.1, 0.9, 1.2, 0.95, 1.05, 0.85)
PITCHES = (0.0, -2.0, 2.0, -1.0, 3.0)
GAINS = (0.0, -6.0, -12.0)
NOISES = (None, 40.0, 30.0, 25.0)


class Line(NamedTuple):
    """One utterance to speak: how it is named, what it says, and how."""

    id: str
    speaker: str
    text: str
    delivery: Delivery


def made_folder() -> Path:
    """Return the folder of made speech, and speak it first where it does not exist: half a minute.

    The folder is named by a digest of all that is spoken and how. Of several processes that need it, one makes it.
    """
    from filelock import FileLock

    lines = list(script())
    digest = hashlib.sha256(repr((HIBARI_VOICE.sha256, lines)).encode()).hexdigest()[:16]
    folder = ROOT / "out" / "speech" / digest
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
            speak(lines, unfinished)
            unfinished.rename(folder)
    return folder


def folder(made: bool = False) -> Path:
    """Return the folder of recorded speech where it exists, else (or if `made`) that of made speech."""
    return made_folder() if made or not recorded() else RECORDED


def recorded() -> bool:
    """Whether the recordings lie beside this repository."""
    return (RECORDED / "manifest.jsonl").is_file()


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the manifest's rows, with `audio` as an absolute path."""
    lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [row | {"audio": folder / row["audio"]} for row in map(json.loads, lines)]


def script() -> Iterator[Line]:
    """Yield what is spoken: chapters of one speaker each, then one utterance each of more speakers."""
    with SENTENCES.open(encoding="utf-8") as file:
        texts = iter([json.loads(line)["text"] for line in file])
    lengths = [WORDS_A_CHAPTER] * CHAPTERS + [(words,) for words in OTHERS]
    for number, chapter in enumerate(lengths):
        delivery = Delivery(
            speed=SPEEDS[number % len(SPEEDS)],
            pitch=PITCHES[number % len(PITCHES)],
            gain_db=GAINS[number % len(GAINS)],
            snr_db=NOISES[number % len(NOISES)],
            noise="pink" if number % 2 else "white",
        )
        for place, words in enumerate(chapter):
            text = next(text for text in texts if len(text.split()) < words + 4)
            while len(text.split()) < words:
                text = f"{text} {next(texts)}"
            speaker = str(1000 + number)
            yield Line(f"{speaker}-1-{place:04}", speaker, text, delivery)


def speak(lines: list[Line], folder: Path) -> None:
    """Write the speech and its manifest; texts there are in lower case and have no punctuation, as LibriSpeech's."""
    import soundfile

    voice = open_voice()
    voice.setup()
    (folder / "audio").mkdir()
    with (folder / "manifest.jsonl").open("w", encoding="utf-8") as manifest:
        for line in lines:
            sound = deliver(voice, line.text, line.delivery)
            name = f"audio/{line.id}.flac"
            soundfile.write(folder / name, sound, 16_000, subtype="PCM_16")
            row = {
                "id": line.id,
                "audio": name,
                "text": " ".join(re.findall(r"[a-z']+", line.text.lower())),
                "speaker": line.speaker,
                "duration": len(sound) / 16_000,
                "split": "made",
                "sample_rate": 16_000,
            }
            manifest.write(json.dumps(row) + "\n")
