"""Evaluate a text-to-codec model and a unit reader on English that no one here wrote, spoken by the embedded voice.

python -m benchmarks.english [--t2c DIR] [--reader DIR] [--texts FILE.jsonl] [--limit N] [--beams N]

The texts are those of ../shared/speech, or of a JSON Lines file with `id` and `text`. The voice speaks each whole text;
recorded units are cut where its durations say. The model decodes the same segments from their text alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rapidfuzz.distance import Levenshtein

from benchmarks.common import speech_rows
from echo_targets.jobs.commands.run import run_command
from echo_targets.jobs.train_inputs import t2c_rows
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.readers.ctc import UnitReader, readable
from echo_targets.transforms.models.t2c.config import Decoded
from echo_targets.transforms.models.t2c.model import T2C
from echo_targets.transforms.training.t2c import Row, Said, segments_of

BATCH = 64
CONFIG = """texts: ???
root: ???
workers: 2
stages:
  ingest: {sources: [{kind: spoken, corpus: english, texts: "${texts}"}]}
  align: {method: voice}
  tokenize:
  publish_t2c: {roles: [narrator]}
"""


def main(t2c: str, reader: str, texts: Path | None, limit: int | None, beams: int) -> None:
    lines = [json.loads(line) for line in texts.read_text().splitlines()] if texts else speech_rows()
    rows = spoken([{"id": line["id"], "text": line["text"]} for line in lines[:limit]])
    model, reading = T2C.load(asset(t2c)), UnitReader.load(asset(reader))
    cut = [segments_of([row], model.config, model.tokenizer) for row in rows]
    decoded = decode(model, [segment for segments in cut for segment in segments], beams)
    said = iter(decoded)
    replies = [[next(said).units for _ in segments] for segments in cut]
    recorded = [[segment.collapsed for segment in segments] for segments in cut]
    rates = np.array([unit_error_rate(*pair) for pair in zip(replies, recorded, strict=True)])
    edits = [sum(map(Levenshtein.distance, *pair)) for pair in zip(replies, recorded, strict=True)]
    total = sum(len(units) for row in recorded for units in row)
    print(f"{len(rows)} texts, {sum(map(len, cut))} segments, {total:,} recorded units")
    print(f"unit error rate: {sum(edits) / total:.1%}; by text, 10th, 50th and 90th percentile: ", end="")
    print(" ".join(f"{rate:.1%}" for rate in np.percentile(rates, [10, 50, 90])))
    print(f"segments ended by: {dict(Counter(each.stop_reason for each in decoded))}")
    wanted = [row.text for row in rows]
    print(f"reader on recorded units: {read_error_rate(reading, [row.units for row in rows], wanted):.1%} characters")
    joined = [[unit for segment in reply for unit in segment] for reply in replies]
    print(f"reader on decoded units (target_cer): {read_error_rate(reading, joined, wanted):.1%}")


def spoken(lines: Sequence[dict[str, str]]) -> list[Row]:
    """Return the lines as spoken, aligned and tokenized by a job."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        Path(folder, "english.yaml").write_text(CONFIG)
        given = [f"texts={folder}/texts.jsonl", f"root={folder}/root"]
        if code := run_command(f"{folder}/english.yaml", given, dry_run=False):
            raise SystemExit(code)
        rows, held_out, *_ = t2c_rows(Dataset(f"{folder}/root"))
    return [*rows, *held_out]


def decode(model: T2C, segments: Sequence[Said], beams: int) -> list[Decoded]:
    """Decode segments in batches of like lengths; the result is in their order."""
    order = sorted(range(len(segments)), key=lambda place: len(segments[place].ids))
    found: dict[int, Decoded] = {}
    for first in range(0, len(order), BATCH):
        places = order[first : first + BATCH]
        found |= dict(zip(places, model.generate([segments[place].ids for place in places], beams=beams), strict=True))
    return [found[place] for place in range(len(segments))]


def unit_error_rate(decoded: Sequence[Sequence[int]], recorded: Sequence[Sequence[int]]) -> float:
    """Return the edits of a row's segments per recorded unit."""
    return sum(map(Levenshtein.distance, decoded, recorded)) / sum(map(len, recorded))


def read_error_rate(reader: UnitReader, units: Sequence[Sequence[int]], texts: Sequence[str]) -> float:
    """Return the reader's character errors per character, over all rows."""
    read = reader.read(units)
    wanted = [readable(text) or "" for text in texts]
    return sum(map(Levenshtein.distance, read, wanted)) / sum(map(len, wanted))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--t2c", default="embedded:english-t2c", help="the model (default: %(default)s)")
    parser.add_argument("--reader", default="embedded:english-reader", help="the reader (default: %(default)s)")
    parser.add_argument("--texts", type=Path, help="JSON Lines file to read the texts from")
    parser.add_argument("--limit", type=int, help="use only the first N texts")
    parser.add_argument("--beams", type=int, default=1, help="as `stages.echo.beams` (default: %(default)s)")
    given = parser.parse_args()
    main(given.t2c, given.reader, given.texts, given.limit, given.beams)
