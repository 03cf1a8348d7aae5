"""lhotse, Shar: cuts and their recordings by split.

train/cuts.000000.jsonl.gz       a MonoCut a line
train/recording.000000.tar       KEY.flac and KEY.json, lhotse's Recording, for each cut
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from echo_targets.jobs.export.base import OUT, Format, Tick, Wrote
from echo_targets.jobs.export.files import Tar, gzipped, json_line, part, writing
from echo_targets.jobs.export.names import safe_name
from echo_targets.jobs.export.record import Record, open_utterances, records
from echo_targets.jobs.export.source import Piece, Source
from echo_targets.schemas import ALIGNMENTS, KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.storage import Storage


class Lhotse(Format):
    """Utterances as cuts. A cut's `custom` has all that the tables know of it, such as `cut.custom["units"]`."""

    name: ClassVar[str] = "lhotse"

    def open(self, version: str | None, filters: Sequence[str]) -> list[Source]:
        return open_utterances(self.dataset, version, filters)

    def write(self, out: Storage, piece: Piece, tick: Tick) -> Wrote:
        folder, number = safe_name(piece.split), f"{piece.number:06d}"
        recordings, cuts = f"{folder}/recording.{number}.tar", part(folder, piece.number)
        with writing(out, recordings) as to_recordings, writing(out, cuts) as to_cuts, gzipped(to_cuts) as lines:
            tar = Tar(to_recordings)
            for row, flac in records(piece, tick):
                cut = _cut(row)
                lines.write(json_line(cut))
                tar.add(f"{cut['id']}.flac", flac)
                tar.add(f"{cut['id']}.json", json_line(cut["recording"]))
            tar.close()
        return Wrote(piece.rows)

    def finish(self, out: Storage, done: Sequence[tuple[Piece, Wrote]]) -> list[str]:
        folders = dict.fromkeys(safe_name(piece.split) for piece, _ in done)
        for piece, _ in done:  # without cuts, lhotse refuses the folder of an export that is not finished
            folder = safe_name(piece.split)
            out.write(f"{folder}/cuts.{piece.number:06d}.jsonl.gz", out.read(part(folder, piece.number)))
        return [f'CutSet.from_shar(in_dir="{OUT}/{folder}")' for folder in folders]


def _cut(row: Record) -> dict[str, Any]:
    """Return an utterance as lhotse's JSON of a MonoCut. The recording's source is a placeholder, as Shar wants it."""
    name, duration = safe_name(row[KEY]), row["num_samples"] / SAMPLE_RATE
    recording = {
        "id": name,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": SAMPLE_RATE,
        "num_samples": row["num_samples"],
        "duration": duration,
        "channel_ids": [0],
    }
    supervision = {
        "id": name,
        "recording_id": name,
        "start": 0,
        "duration": duration,
        "channel": 0,
        "text": row["text"],
        "language": row["language"],
        "speaker": row["speaker_id"],
        "alignment": _alignment(row),
    }
    return {
        "id": name,
        "start": 0,
        "duration": duration,
        "channel": 0,
        "supervisions": [{key: value for key, value in supervision.items() if value is not None}],
        "recording": recording,
        "custom": row,
        "type": "MonoCut",
    }


def _alignment(row: Record) -> dict[str, list[Any]] | None:
    """Return the items that have times as [symbol, start s, duration s, score], by tier; None without an alignment."""
    alignment = row.get(ALIGNMENTS.name)
    if alignment is None or alignment["status"] == "failed":
        return None
    return {
        alignment["tier"]: [
            [
                item["symbol"],
                item["start_sample"] / SAMPLE_RATE,
                (item["end_sample"] - item["start_sample"]) / SAMPLE_RATE,
                item["score"],
            ]
            for item in alignment["items"]
            if item["start_sample"] is not None
        ]
    }
