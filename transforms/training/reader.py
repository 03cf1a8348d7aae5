"""Train a small unit reader on recorded units, with CTC (Graves et al. 2006) over the letters of their text.

The reader is meant for a decoder's units, which are never as clean as recorded ones. So in training a part of the
recorded units is dropped, replaced by a random unit, or followed by one, equally often. A wrong unit then costs its own
letter but not the neighboring ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from echo_targets.transforms.models.aligners.ctc import frames_needed
from echo_targets.transforms.models.readers.ctc import UnitReader, readable
from echo_targets.transforms.models.readers.ctc_config import ALPHABET, BLANK, UnitReaderConfig
from echo_targets.transforms.training.loop import (
    NO_ROWS,
    Batches,
    RunRecipe,
    Step,
    TrainingError,
    run_of,
    run_steps,
    share_of,
    start_from,
)
from echo_targets.transforms.units.codebook import check_units, collapse

if TYPE_CHECKING:
    from echo_targets.transforms.models.readers.ctc_network import UnitReaderModule

Row = tuple[str, Sequence[int]]  # a text, and its units without equal neighbors


@dataclass(frozen=True)
class ReaderRecipe(RunRecipe):
    """Parameters of the training; `batch_tokens` counts units.

    Attributes:
        edited_units: share of the units that is dropped, replaced, or followed by a random unit.
    """

    dropout: float = 0.1
    edited_units: float = 0.1


def train_unit_reader(
    rows: Sequence[Row],
    held_out: Sequence[Row],
    config: UnitReaderConfig,
    out_dir: Path,
    recipe: ReaderRecipe,
    half: bool = False,
    start: Path | None = None,
) -> dict:
    """Train a model and write it, its curve and its report. An interrupted run resumes from its last checkpoint.

    Args:
        rows: texts and the units of their recordings. Skipped are texts without `readable` characters or with more
            letters than CTC can place in the frames of their units.
        held_out: rows of the same kind to read at the end, not trained on.
        config: the network's sizes and codebook.
        out_dir: where to write the model.
        recipe: how to train.
        half: True writes the weights in float16; measurements are made on the written weights.
        start: model directory of the same sizes whose weights are trained further; None starts from random ones.

    Returns:
        The report: rows, final loss, character error rate on `held_out`, sizes and the recipe.

    Raises:
        TrainingError: no rows, a unit outside the codebook, or a checkpoint of another recipe in `out_dir`.
        ModelError: `start` is no model, or has other sizes.
    """
    import torch

    from echo_targets.transforms.models.readers.ctc_network import UnitReaderModule

    check_units([units for _, units in (*rows, *held_out)], config.codebook_size)
    examples = [example for row in rows if (example := _example(row, config))]
    if not examples:
        raise TrainingError(NO_ROWS)
    torch.manual_seed(recipe.seed)
    module = UnitReaderModule(config, recipe.dropout)
    started = start_from(module, start)
    batches = Batches([len(example.units) for example in examples], recipe)

    def step_loss(step: int) -> Step:
        return _loss(module, [examples[row] for row in batches.at(step)], recipe, step)

    run = run_of(config, recipe, len(examples)) + started
    final_loss = run_steps(out_dir, module, module.blocks, recipe, run, step_loss)
    UnitReader(config, module).save(out_dir, half)
    report = {
        "rows": len(examples),
        "rows_left_out": len(rows) - len(examples),
        "units": sum(len(example.units) for example in examples),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "held_out_rows": len(held_out),
        "held_out_character_error_rate": reading_error_rate(UnitReader.load(out_dir), held_out),
        "final_loss": final_loss,
        "recipe": asdict(recipe),
    }
    (out_dir / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def reading_error_rate(model: UnitReader, rows: Sequence[Row]) -> float | None:
    """Return character errors per character, summed over all rows; texts with nothing `readable` are skipped.

    None if no text is left.
    """
    from rapidfuzz.distance import Levenshtein

    wanted = [readable(text) for text, _ in rows]
    read = model.read([units if text else [] for text, (_, units) in zip(wanted, rows, strict=True)])
    return share_of(sum(map(Levenshtein.distance, read, wanted)), sum(map(len, wanted)))


class _Example(NamedTuple):
    units: np.ndarray  # (units,) int64
    letters: list[int]  # ids of ALPHABET


def _example(row: Row, config: UnitReaderConfig) -> _Example | None:
    text, units = row
    letters = [ALPHABET.index(character) for character in readable(text)]
    if not letters or frames_needed(letters) > len(units) * config.frames_per_unit:
        return None
    return _Example(np.array(units, np.int64), letters)


def _loss(module: UnitReaderModule, batch: list[_Example], recipe: ReaderRecipe, step: int) -> Step:
    import torch
    import torch.nn.functional as functional

    from echo_targets.transforms.models.readers.ctc_network import padded

    config = module.config
    random = np.random.default_rng([recipe.seed, step])
    units, lengths = padded([_edited(example.units, recipe, config, random) for example in batch])
    letters = torch.tensor([letter for example in batch for letter in example.letters])
    counts = torch.tensor([len(example.letters) for example in batch])
    with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
        log_probs = module(units, lengths)
    frames = lengths * config.frames_per_unit
    loss = functional.ctc_loss(
        log_probs.transpose(0, 1), letters, frames, counts, BLANK, reduction="sum", zero_infinity=True
    )
    return Step(loss / counts.sum(), int(lengths.sum()))


def _edited(
    units: np.ndarray, recipe: ReaderRecipe, config: UnitReaderConfig, random: np.random.Generator
) -> np.ndarray:
    """Return units with some dropped, replaced or followed by a random one; at least one, without equal neighbors."""
    share = recipe.edited_units / 3
    keep, drop, replace, follow = range(4)
    edits = random.choice([keep, drop, replace, follow], len(units), p=[1 - 3 * share, share, share, share])
    copies = np.array([1, 0, 1, 2])[edits]
    edited = np.repeat(units, copies)
    places = copies.cumsum()[edits >= replace] - 1  # the last copy of each
    edited[places] = random.integers(config.codebook_size, size=len(places))
    return collapse(edited)[0].astype(np.int64) if len(edited) else units
