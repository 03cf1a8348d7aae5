"""`echo-targets train reader`: train a unit reader on the published `training/t2c` shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from echo_targets.jobs.arguments import ModelOut, Overrides, Root
from echo_targets.jobs.config import ConfigError, find
from echo_targets.jobs.screen import open_console
from echo_targets.jobs.train_inputs import TrainConfig, chosen_config, counted, t2c_rows
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.models.readers.ctc_config import UnitReaderConfig
from echo_targets.transforms.training.reader import ReaderRecipe, train_unit_reader


def train_reader_command(
    root: Root,
    out: ModelOut,
    overrides: Overrides = None,
    config: Annotated[
        str, typer.Option(help="Model sizes and recipe: a YAML file or the name of a shipped configuration.")
    ] = "train-reader",
) -> int:
    """Train a unit reader (units to text) on `training/t2c`; rows of the `test` split are held out and evaluated.

    Example: echo-targets train reader out/nano out/nano-reader recipe.steps=5000
    """
    path = find(config)
    chosen = chosen_config(TrainConfig[ReaderRecipe], path, overrides or [])
    *spoken, codebook_id, size = t2c_rows(Dataset(root))
    rows, held_out = ([(row.text, row.units) for row in side] for side in spoken)
    try:
        sizes = UnitReaderConfig(codebook_id=codebook_id, codebook_size=size, **chosen.model)
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: model: {error}") from None
    console = open_console()
    console.print(counted(rows, held_out))
    report = train_unit_reader(rows, held_out, sizes, Path(out), chosen.recipe, chosen.half_precision, chosen.start_dir)
    console.print_json(json.dumps(report))
    return 0
