"""Formats of one user turn and its reply a row: the user's audio as a file, and the reply's units as frames."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from echo_targets.jobs.export import targets
from echo_targets.jobs.export.base import Format, Tick, Wrote
from echo_targets.jobs.export.files import FileWriter, json_line, part
from echo_targets.jobs.export.names import safe_name
from echo_targets.jobs.export.source import Piece, Source
from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.storage import Storage

ENCODER_SECONDS = 30
"""Window of the Whisper encoder: the loaders cut what is longer, so that the reply would answer half a question."""
TURN = (KEY, "dialogue_id", "turn", "user_audio_ids", "text", "response_text")
COLUMNS = (*TURN, "audio", "num_samples", *targets.COLUMNS)

Row = Mapping[str, Any]


class LeftOut(Exception):
    """A row that the format can't express; the message is the reason, the same for all such rows."""


class TurnFormat(Format):
    """Rows of `training/echo` with frames of one codebook, all of one system text, which the trainer is given."""

    def open(self, version: str | None, filters: Sequence[str]) -> list[Source]:
        source = Source(self.dataset, targets.TABLE, version, filters=filters)
        self.tokens = targets.one_codebook(source, self.name)
        self.system_text = targets.one_system_text(source, self.name)
        return [source]

    @abstractmethod
    def item(self, row: Row, audio: str, frames: list[int], earlier: list[Row]) -> dict[str, Any]:
        """Return a row as an item of the format's index.

        Args:
            row: the row.
            audio: path of the user's audio below the export.
            frames: the reply's units.
            earlier: the rows of the turns before this one in its dialogue.

        Raises:
            LeftOut: the format can't express it.
        """

    def write(self, out: Storage, piece: Piece, tick: Tick) -> Wrote:
        turns = {row[KEY]: row for row in piece.source.read(piece.shard, targets.TABLE, list(TURN)).to_pylist()}
        left_out, lines = Counter[str](), list[bytes]()
        split = safe_name(piece.split)
        with FileWriter(out) as files:
            for batch in piece.source.batches(piece, COLUMNS):
                for row in batch.to_pylist():
                    audio = f"audio/{split}-{piece.number:05d}/{safe_name(row[KEY])}.flac"
                    try:
                        item = self.item(row, audio, _frames(row), _earlier(row, turns))
                    except LeftOut as reason:
                        left_out[str(reason)] += 1
                        continue
                    files.put(audio, row["audio"]["bytes"])
                    lines.append(json_line(item))
                tick(len(batch))
        out.write(part(split, piece.number), b"".join(lines))
        return Wrote(len(lines), left_out)

    def prompt_line(self, place: str) -> list[str]:
        """Return the line that says where in the trainer to set the system text; none without one."""
        return [f"{place}: {json.dumps(self.system_text, ensure_ascii=False)}"] if self.system_text else []

    def parts(self, done: Sequence[tuple[Piece, Wrote]]) -> dict[str, list[str]]:
        """Return the files of lines that `write` wrote, by the name of their split; none of splits without rows."""
        found: dict[str, list[str]] = {}
        for piece, wrote in done:
            if wrote.rows:
                split = safe_name(piece.split)
                found.setdefault(split, []).append(part(split, piece.number))
        return found


def _frames(row: Row) -> list[int]:
    if row["num_samples"] > ENCODER_SECONDS * SAMPLE_RATE:
        raise LeftOut(f"the user's audio is longer than {ENCODER_SECONDS} s, the window of the encoder")
    frames = targets.frames_of(row)
    if frames is None:
        raise LeftOut("the frames of the reply's units are not known")
    if not frames:
        raise LeftOut("the reply has no units")
    return frames


def _earlier(row: Row, turns: Mapping[str, Row]) -> list[Row]:
    """Return the rows of the user turns before a row's own, in order."""
    keys = row["user_audio_ids"][:-1]
    if not all(key in turns for key in keys):
        raise LeftOut("an earlier turn of its dialogue was not published")
    return [turns[key] for key in keys]
