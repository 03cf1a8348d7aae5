"""Recordings whose truth is known, made of clips: one speaker after another, and a dialogue in two channels.

- Monologue: clips in random order, with pauses of 0.3 to 2.5 s and a noise floor.
- Dialogue, at 24 kHz: turns of one to three clips with pauses inside, which begin up to 0.6 s before the last one ends;
  "Yes, right." inside turns; each channel picks up the other 20 dB below, 3 ms later; one microphone is 9 dB quieter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.voices.delivery import deliver
from echo_targets.transforms.models.voices.registry import open_voice

PAUSES = (0.3, 0.6, 1.0, 2.5)
INNER_PAUSES = (0.3, 0.7, 1.2)
BETWEEN_TURNS = (-0.6, -0.3, 0.2, 0.5, 0.9)
"""Seconds from the end of a turn to the start of the next; below 0 both speak."""
DIALOGUE_RATE = 24_000
BLEED_DB, BLEED_SECONDS, QUIETER_DB = 20.0, 0.003, 9.0
FLOOR = 3e-4
PAUSE_SHARE = 0.03
"""Power of a fifth of a second, as a share of the clip's mean, below which it is a pause."""


@dataclass(frozen=True)
class Clip:
    """A clip in a recording: its channel, place in seconds, text, and the number of its turn, or None without one."""

    id: str
    channel: int
    start: float
    end: float
    text: str
    turn: int | None = None


def waveform_of(row: dict[str, Any]) -> np.ndarray:
    """Return a clip's samples at 16 kHz."""
    import soundfile

    return soundfile.read(row["audio"], dtype="float32")[0]


def monologue(rows: Sequence[dict[str, Any]], minutes: float, seed: int = 5) -> tuple[np.ndarray, list[Clip]]:
    """Return a recording at 16 kHz, (num_samples,) float32, and its clips."""
    rng = np.random.default_rng(seed)
    parts, clips, at = [], [], 0
    for place in rng.permutation(len(rows)):
        if at > minutes * 60 * SAMPLE_RATE:
            break
        row, waveform = rows[place], waveform_of(rows[place])
        silence = rng.standard_normal(int(rng.choice(PAUSES) * SAMPLE_RATE)).astype(np.float32) * np.float32(FLOOR)
        parts += [waveform, silence]
        clips.append(Clip(row["id"], -1, at / SAMPLE_RATE, (at + len(waveform)) / SAMPLE_RATE, row["text"]))
        at += len(waveform) + len(silence)
    return np.concatenate(parts), clips


def dialogue(rows: Sequence[dict[str, Any]], minutes: float, seed: int = 5) -> tuple[np.ndarray, list[Clip]]:
    """Return a recording in two channels, (num_samples, 2) float32 at `DIALOGUE_RATE`, and its clips.

    Channel 1 begins. Clips without a turn are said inside a turn of the other channel.
    """
    import soxr

    rng = np.random.default_rng(seed)
    speakers = list(dict.fromkeys(row["speaker"] for row in rows))
    sides = [[row for row in rows if speakers.index(row["speaker"]) % 2 == side] for side in (0, 1)]
    size = int((minutes + 2) * 60 * DIALOGUE_RATE)
    channels, clips, at, turn = np.zeros((2, size), np.float32), [], 1.0, 0
    left = [list(rng.permutation(len(side))) for side in sides]
    while at < minutes * 60 and min(map(len, left)) > 4:
        side = 1 - turn % 2
        for number in range(int(rng.integers(1, 4))):
            row = sides[side][left[side].pop()]
            waveform = soxr.resample(waveform_of(row), SAMPLE_RATE, DIALOGUE_RATE)
            at += float(rng.choice(INNER_PAUSES)) if number else 0.0
            first = int(at * DIALOGUE_RATE)
            channels[side, first : first + len(waveform)] += waveform
            seconds = len(waveform) / DIALOGUE_RATE
            clips.append(Clip(row["id"], side, at, at + seconds, row["text"], turn))
            at += seconds
            inside = _busiest(waveform) if seconds > 8 and rng.random() < 0.5 else None
            if inside is not None:
                _say_inside(channels[1 - side], clips, 1 - side, at - seconds + inside)
        at, turn = at + float(rng.choice(BETWEEN_TURNS)), turn + 1
    samples = int((at + 1) * DIALOGUE_RATE)
    spoken = channels[:, :samples]
    delayed = np.roll(spoken[::-1], int(BLEED_SECONDS * DIALOGUE_RATE), axis=1) * 10 ** (-BLEED_DB / 20)
    noise = rng.standard_normal(spoken.shape) * FLOOR
    gains = np.array([[1.0], [10 ** (-QUIETER_DB / 20)]])
    return ((spoken + delayed + noise) * gains).T.astype(np.float32), clips


@cache
def _voiced(text: str) -> np.ndarray:
    voice = open_voice()
    voice.setup()
    return deliver(voice, text)


def _busiest(waveform: np.ndarray) -> float | None:
    """Return the second of a clip at which the remark's length of speech is not interrupted; None if it always is."""
    step = DIALOGUE_RATE // 5
    power = np.square(waveform[: len(waveform) // step * step].reshape(-1, step)).mean(axis=1)
    least = [power[place : place + 9].min() for place in range(5, len(power) - 14)]
    return (5 + int(np.argmax(least))) / 5 if max(least) > PAUSE_SHARE * power.mean() else None


def _say_inside(channel: np.ndarray, clips: list[Clip], side: int, at: float) -> None:
    import soxr

    waveform = soxr.resample(_voiced("Yes, right."), SAMPLE_RATE, DIALOGUE_RATE)
    first = int(at * DIALOGUE_RATE)
    channel[first : first + len(waveform)] += waveform
    clips.append(Clip("inside", side, at, at + len(waveform) / DIALOGUE_RATE, "yes right"))


def as_srt(clips: Sequence[Clip]) -> str:
    """Return the clips as a SubRip file, a cue for each."""

    def clock(seconds: float) -> str:
        milliseconds = round(seconds * 1000)
        minutes = f"{milliseconds // 3_600_000:02d}:{milliseconds // 60_000 % 60:02d}"
        return f"{minutes}:{milliseconds // 1000 % 60:02d},{milliseconds % 1000:03d}"

    cues = [f"{clock(clip.start)} --> {clock(clip.end)}\n{clip.text}" for clip in clips]
    return "".join(f"{number}\n{cue}\n\n" for number, cue in enumerate(cues, 1))


def as_ctm(recording: str, clips: Sequence[Clip]) -> str:
    """Return the clips as a CTM file, with each clip's words spread over its time."""
    lines = []
    for clip in clips:
        words = clip.text.split()
        each = (clip.end - clip.start) / len(words)
        for number, word in enumerate(words):
            lines.append(f"{recording} {clip.channel + 1} {clip.start + number * each:.3f} {each:.3f} {word} 0.97\n")
    return "".join(lines)
