"""T2C on collapsed units, with and without their durations, and on frames: units, frames and words on held-out text.

    echo-targets run nano-t2c root=ROOT
    python -m benchmarks.frames ROOT OUT [--steps 600] [--kinds collapsed durations frames]

Each model has the sizes and the recipe of `train-t2c`, apart from the steps; one of frames sees twice as many ids in a
batch, since a run lasts about two frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.dialogues import spoken_error_rate
from echo_targets.jobs.commands.train_t2c import train_t2c_command
from echo_targets.jobs.train_inputs import t2c_rows
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.readers.ctc import UnitReader
from echo_targets.transforms.models.t2c.model import T2C
from echo_targets.transforms.training.t2c import Row, unit_errors

READER = "embedded:unit-reader"
FRAMES_PER_UNIT = 2
KINDS: dict[str, list[str]] = {
    "collapsed": [],
    "durations": ["model.max_duration=40"],
    "frames": [
        "model.frames=true",
        "model.max_positions=2048",
        "model.max_units_per_text_token=8",
        "model.units_per_text_token=3.4",
        "recipe.batch_tokens=4000",
    ],
}
"""Overrides of `train-t2c` by kind of model."""


def line(kind: str, model: T2C, rows: Sequence[Row], reader: UnitReader) -> str:
    """Return the table's line of a model."""
    said = model.generate([model.encode(row.text) for row in rows])
    errors = unit_errors(model, rows)
    words = spoken_error_rate(reader, [(row.text, [each.units]) for row, each in zip(rows, said, strict=True)])
    ended = sum(each.stop_reason == "end" for each in said)
    rates = (f"{rate:.1%}" if rate is not None else "" for rate in (errors.rate, errors.frame_rate, words))
    return f"| {kind} | {' | '.join(rates)} | {ended} of {len(rows)} |"


def main(root: str, out: str, steps: int, kinds: Sequence[str]) -> None:
    """Train the models that are not there yet, and print the table."""
    reader = UnitReader.load(asset(READER))
    _, held_out, codebook_id, codebook_size = t2c_rows(Dataset(root))
    reader.check_codebook(codebook_id, codebook_size)
    recorded = spoken_error_rate(reader, [(row.text, [list(row.units)]) for row in held_out])
    lines = [f"| recorded | | | {recorded:.1%} | |"]
    for kind in kinds:
        folder = Path(out) / kind
        if not (folder / "report.json").exists():
            given = [f"recipe.steps={steps}", f"recipe.decay_steps={steps // 3}", *KINDS[kind]]
            train_t2c_command(root, str(folder), given)
        lines.append(line(kind, T2C.load(folder), held_out, reader))
    print("| T2C on | unit error rate | frame error rate | target_cer | ended by itself |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("root")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    main(given.root, given.out, given.steps, given.kinds)
