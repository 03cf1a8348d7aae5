"""Small roots of real speech to export, written by the stand-ins for shards, and what is known to be in them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from echo_targets.schemas.tables.base import AUDIO
from tests.schemas.samples import Root, Row, sample

RATE = 16_000
SIZE = 4096
LISTS = pa.list_(pa.list_(pa.list_(pa.int32())))
ECHO = pa.schema(
    [
        ("utterance_id", pa.string()),
        ("dialogue_id", pa.string()),
        ("turn", pa.int16()),
        ("user_audio_ids", pa.list_(pa.string())),
        ("system_text", pa.string()),
        ("response_text", pa.string()),
        ("target", pa.dictionary(pa.int32(), pa.string())),
        ("codebook_id", pa.dictionary(pa.int32(), pa.string())),
        ("codebook_size", pa.int32()),
        ("num_codebooks", pa.int8()),
        ("sampling_rate", pa.int32()),
        ("hop_samples", pa.int16()),
        ("unit_targets", LISTS),
        ("unit_durations", pa.list_(pa.list_(pa.int32()))),
        ("target_cer", pa.float32()),
        ("corpus", pa.dictionary(pa.int32(), pa.string())),
        ("split", pa.dictionary(pa.int32(), pa.string())),
        ("language", pa.dictionary(pa.int32(), pa.string())),
        ("audio", AUDIO),
        ("num_samples", pa.int64()),
        ("text", pa.string()),
    ]
)
"""Columns of training/echo that an export reads. The table has more."""


def pcm_of(flac: bytes) -> np.ndarray:
    samples, rate = soundfile.read(io.BytesIO(flac), dtype="int16")
    assert rate == RATE
    return np.asarray(samples)


class Turns:
    """Dialogues of two users' turns and two replies each, of recorded speech: (utterance, alignment) rows by dialogue.

    Args:
        speech: rows of the speech's manifest, short ones first come first.
        names: the dialogues' ids.
        split: gives a dialogue's split.
    """

    def __init__(
        self, speech: Sequence[Row], names: Sequence[str], split: Callable[[str], str] = lambda name: "train"
    ) -> None:
        clips = iter(sorted(speech, key=lambda row: row["duration"]))
        self.dialogues: dict[str, list[Row]] = {}
        for name in names:
            self.dialogues[name] = [self._turn(name, turn, next(clips), split(name)) for turn in range(4)]

    def _turn(self, dialogue: str, turn: int, clip: Row, split: str) -> Row:
        flac = Path(clip["audio"]).read_bytes()
        own = {"utterance_id": f"{dialogue}-{turn}", "dialogue_id": dialogue, "turn": turn}
        about = {"role": ("user", "assistant")[turn % 2], "split": split, "reference_text": clip["text"]}
        sound = {"audio": {"bytes": flac, "path": "a.flac"}, "num_samples": len(pcm_of(flac))}
        return (
            sample("utterances") | own | about | sound | {"speaker_id": str(clip.get("speaker")), "system_text": None}
        )

    @property
    def rows(self) -> list[Row]:
        return [row for rows in self.dialogues.values() for row in rows]


def alignment(row: Row) -> Row:
    """Words at equal distances, each with a pause after it."""
    words, place, items = row["reference_text"].split(), 0, list[Row]()
    step = row["num_samples"] // len(words)
    for number, word in enumerate(words):
        place = row["reference_text"].index(word, place)
        spelled = word.strip(",.;:!?\"'") or word
        start = place + word.index(spelled)
        item = {"symbol": spelled, "char_start": start, "char_end": start + len(spelled), "score": 0.5}
        times = {"start_sample": number * step, "end_sample": number * step + step * 3 // 4, "interpolated": False}
        items.append(item | times)
        place += len(word)
    status = {"coverage": 1.0, "status": "ok", "reason": None}
    return {"utterance_id": row["utterance_id"], "tier": "word", "text_source": "reference", "items": items, **status}


def frames(number: int) -> tuple[list[list[list[int]]], list[list[int]]]:
    """Two segments of units of one codebook, the second of one run, and their durations."""
    rng = np.random.default_rng(number)
    units = [[int(unit) for unit in rng.choice(SIZE, 9, replace=False)], [number % SIZE]]
    durations = [[int(count) for count in rng.integers(1, 5, 9)], [3]]
    return [[segment] for segment in units], durations


def echo_rows(turns: Turns) -> list[Row]:
    """Rows of training/echo: each user turn with the reply that follows."""
    rows = []
    for dialogue in turns.dialogues.values():
        for place in range(0, len(dialogue), 2):
            user, reply = dialogue[place], dialogue[place + 1]
            units, durations = frames(len(rows))
            earlier = [row["utterance_id"] for row in dialogue[: place + 1 : 2]]
            about = {
                name: user[name] for name in ("utterance_id", "dialogue_id", "turn", "corpus", "split", "language")
            }
            codebook = {"codebook_id": "c4096", "codebook_size": SIZE, "num_codebooks": 1}
            rows.append(
                {
                    **about,
                    **codebook,
                    "user_audio_ids": earlier,
                    "response_text": reply["reference_text"],
                    "target": "recorded",
                    "sampling_rate": RATE,
                    "hop_samples": 640,
                    "unit_targets": units,
                    "unit_durations": durations,
                    "target_cer": 0.125 * len(rows),
                    "audio": user["audio"],
                    "num_samples": user["num_samples"],
                    "text": user["reference_text"],
                }
            )
    return rows


def echo_table(rows: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ECHO)


def root_of_turns(folder: Path, turns: Turns, **changes: Any) -> Root:
    """A root of two shards: utterances with alignments, and training/echo.

    Args:
        changes: `entry` gives the entry of an utterance; without it, there are no entries.
        changes: `echo` or `align` change a row of training/echo or of alignments, or drop it by returning None.
    """
    root = Root(folder)
    names = list(turns.dialogues)
    halves = [set(names[: len(names) // 2]), set(names[len(names) // 2 :])]
    change_echo, change_alignment = (changes.get(name, lambda row: row) for name in ("echo", "align"))
    echo = [row for row in map(change_echo, echo_rows(turns)) if row]
    aligned = {row["utterance_id"]: change_alignment(alignment(row)) for row in turns.rows}
    utterances = [[row for row in turns.rows if row["dialogue_id"] in half] for half in halves]
    if "entry" in changes:
        root.put("entries", *[[changes["entry"](row) for row in rows] for rows in utterances])
    root.put("utterances", *utterances)
    root.put("alignments", *[[a for row in rows if (a := aligned[row["utterance_id"]])] for rows in utterances])
    root.put("training/echo", *[echo_table(row for row in echo if row["dialogue_id"] in half) for half in halves])
    return root


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def root_of_tables(folder: Path, turns: Turns) -> tuple[Root, dict[str, dict[str, Row]]]:
    """A root of two shards of all tables that an utterance may have rows in, and these rows by table and key.

    Half of the utterances have no transcript, and only users' first turns have an echo target.
    """
    root = Root(folder)
    numbered = list(enumerate(turns.rows))

    def of(table: str, number: int, row: Row, **more: Any) -> Row:
        return sample(table, number) | {"utterance_id": row["utterance_id"]} | more

    tables = {
        "utterances": turns.rows,
        "transcripts": [of("transcripts", n, row, segments=[]) for n, row in numbered if n % 2],
        "measures": [of("measures", n, row) for n, row in numbered],
        "units": [of("units", n, row) for n, row in numbered],
        "alignments": [alignment(row) for row in turns.rows],
        "echo_targets": [
            of("echo_targets", n, row, dialogue_id=row["dialogue_id"], user_audio_ids=[row["utterance_id"]])
            for n, row in numbered
            if row["turn"] == 0
        ],
    }
    names = list(turns.dialogues)
    first = {row["utterance_id"] for name in names[:2] for row in turns.dialogues[name]}
    for table, rows in tables.items():
        root.put(
            table, [r for r in rows if r["utterance_id"] in first], [r for r in rows if r["utterance_id"] not in first]
        )
    read = {table: {row["utterance_id"]: row for row in root.dataset.read(table).to_pylist()} for table in tables}
    return root, read
