"""A small root for the page: spoken by sines, two versions of echo targets, and ids and texts that mean ill."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from echo_targets.transforms.audio.waveforms import encode_flac
from tests.schemas.samples import Root, Row, arrow, key, num_samples, put_target, sample

ROWS = 70
ILL_ID = "../../<script>ill()</script>'\"&#%2F?"
ILL_TEXT = "</script><script>window.ill = true</script><img src=x onerror=ill()> & so on"
RECORDING, INSIDE, RECORDED = range(40, 50), 43, "call <b>17</b> & more"
OLD, NEW = "old", "new"
"""Variants of the echo targets; the second is current."""


def name(number: int) -> str:
    """A row's id: 2 and 3 mean ill."""
    return key(number) + ILL_ID if number in (2, 3) else key(number)


def sound(number: int) -> np.ndarray:
    """(num_samples,) int16: a tone of the row's own, which gets louder."""
    count = num_samples(number)
    tone = np.sin(2 * np.pi * (200 + 50 * (number % 20)) * np.arange(count) / 16_000)
    return (tone * np.linspace(0, 20_000, count)).astype(np.int16)


def _row(table: str, number: int, **changes: object) -> Row:
    return sample(table, number) | {"utterance_id": name(number)} | changes


def _utterance(number: int) -> Row:
    audio = {"bytes": encode_flac(sound(number)), "path": f"{number}.flac"}
    said = ILL_TEXT if number == 2 else f"well, hello there number {number}"
    corpus = "even" if number % 4 < 2 else "odd"
    return _row("utterances", number, audio=audio, reference_text=said, corpus=corpus) | _place(number)


def _place(number: int) -> Row:
    """Rows 40 to 49 are a recording of two channels, in which 43 is said inside 42; the others are no cuts."""
    if number not in RECORDING:
        return dict.fromkeys(("recording_id", "start_sample", "end_sample"))
    start = 20_000 * (number - RECORDING[0]) - (12_000 if number == INSIDE else 0)
    place = {"recording_id": RECORDED, "start_sample": start, "end_sample": start + num_samples(number)}
    inside = {"dialogue_id": None, "turn": None} if number == INSIDE else {}
    return place | {"channel": 1 - number % 2} | inside


def _transcript(number: int) -> Row:
    heard = ILL_TEXT + " misheard" if number == 2 else f"Hello where number {number}"
    return _row("transcripts", number, text=heard, wer_vs_reference=round((number * 37 % ROWS) / 100, 4))


def _units(number: int) -> Row:
    row = _row("units", number)
    frames = row["num_frames"]
    runs = -(-frames // 4)
    durations = [4] * (runs - 1) + [frames - 4 * (runs - 1)]
    first = [(number + 7 * run) % 100 for run in range(runs)]
    return row | {"units": [first, [5] * runs][: row["num_codebooks"]], "durations": durations}


def _alignment(number: int) -> Row:
    """Of 11, the reply to 10, every word has a time."""
    row = _row("alignments", number)
    if number == 11:
        row["items"][1] |= {"start_sample": 7_400, "end_sample": 9_000}
        row["items"][2] |= {"start_sample": 9_000}
    return row


def _target(number: int, version: int) -> Row:
    own = [7 * run % 100 for run in range(12)]
    targets = [[number % 100, *own[1:6]], own[6:]] if version else [own[:6], [*own[6:], 99]]
    recorded = [own[:6], own[6:9]]
    texts = {"response_text": "hello there you", "segment_char_ends": [5, 15], "user_audio_ids": [name(number)]}
    row = put_target(_row("echo_targets", number, **texts), unit_error_rate=number / 100, durations=None)
    row["t2c"]["units"] = [[segment] for segment in targets]
    said = {"units": [[segment] for segment in recorded], "durations": [[4] * len(segment) for segment in recorded]}
    return row | {"echo": None, "recorded": put_target({"t2c": None}, **said)["t2c"]}


def current_first(root: Root) -> list[str]:
    """The recipes of the echo targets."""
    current = root.tables["echo_targets"]
    return sorted(root.dataset.recipes_of("echo_targets"), key=lambda recipe: recipe != current)


def write_root(folder: Path) -> Root:
    """Writes 70 utterances in two shards, with all that the page reads."""
    root = Root(folder)
    halves = range(40), range(40, ROWS)
    root.put("entries", *([_row("entries", number) for number in half] for half in halves))
    for table, make in (("utterances", _utterance), ("transcripts", _transcript), ("units", _units)):
        root.put(table, *(arrow(table, [make(number) for number in half]) for half in halves))
    root.put("alignments", *([_alignment(number) for number in half if number != 5] for half in halves))
    for version, fingerprint in enumerate((OLD, NEW)):
        shards = [[_target(number, version) for number in half if number % 2 == 0] for half in halves]
        root.put("echo_targets", *shards, variant=fingerprint)
    refused = [_row("rejects", 2, message=f"{ILL_TEXT} {place}") for place in range(5)]
    root.put_rejects("utterances", refused, 0, 2)
    return root
