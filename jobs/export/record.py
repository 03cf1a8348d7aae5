"""An utterance with all that the tables know of it, as one JSON object: what `lhotse` and `webdataset` get."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from echo_targets.jobs.export.base import Tick
from echo_targets.jobs.export.source import Piece, Source
from echo_targets.schemas import ALIGNMENTS, ECHO_TARGETS, KEY, MEASURES, TABLES, TRANSCRIPTS, UNITS, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset

JOINS = tuple(table.name for table in (ECHO_TARGETS, UNITS, MEASURES, ALIGNMENTS, TRANSCRIPTS))
"""Tables that are joined, each before those that it is made from."""
COLUMNS = [name for name in UTTERANCES.columns if name != "audio_sha256"]

Record = dict[str, Any]


def open_utterances(dataset: Dataset, version: str | None, filters: Sequence[str]) -> list[Source]:
    """Return the utterances, joined with the tables that exist."""
    return [Source(dataset, UTTERANCES.name, version, JOINS, filters)]


def records(piece: Piece, tick: Tick) -> Iterator[tuple[Record, bytes]]:
    """Yield each row of a piece and its audio, 16 kHz mono FLAC.

    A row has the columns of `utterances`, `text` (the reference, or else the transcript; null without both), and under
    the name of each joined table its row there, or null.
    """
    joins = {name: TABLES[name].columns for name in JOINS}
    for batch in piece.source.batches(piece, COLUMNS, joins):
        for row in batch.to_pylist():
            audio = row.pop("audio")
            row["source_file"] = audio["path"]
            for name in JOINS:
                if row.get(name) is not None:
                    del row[name][KEY]
            transcript = row.get(TRANSCRIPTS.name) or {}
            yield {"text": row["reference_text"] or transcript.get("text"), **row}, audio["bytes"]
        tick(len(batch))
