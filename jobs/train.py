"""`echo-targets train`: models from the published `training/t2c` shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.config import ConfigError, find, read_values
from jobs.screen import open_console
from schemas.layout import Dataset
from transforms.models.t2c import T2CConfig, character_tokenizer
from transforms.models.t2c_training import Recipe, Row, train_t2c
from transforms.models.training_run import RunRecipe
from transforms.models.unit_reader import UnitReaderConfig
from transforms.models.unit_reader_training import ReaderRecipe, train_unit_reader

HELD_OUT = "test"
AnyRecipe = TypeVar("AnyRecipe", bound=RunRecipe)
TEMPLATE = {"prefix": ["<user>"], "middle": ["<end>", "<assistant>"], "end": "<end>"}


class TrainConfig(BaseModel, Generic[AnyRecipe]):
    """Sizes of the network (see its config) and the recipe."""

    model_config = ConfigDict(extra="forbid")

    model: dict[str, Any]
    recipe: AnyRecipe


def train_t2c_command(root: str, out: str, config: str, overrides: list[str]) -> int:
    """Trains, measures on the held-out rows, and prints the report."""
    path = find(config)
    chosen = _chosen(TrainConfig[Recipe], path, overrides)
    rows, held_out, _, size = _rows(Dataset(root))
    tokenizer = character_tokenizer()
    ids = {name: [tokenizer.token_to_id(token) for token in TEMPLATE[name]] for name in ("prefix", "middle")}
    try:
        sizes = T2CConfig(
            text_vocab_size=tokenizer.get_vocab_size(),
            unit_vocab_size=size,
            prefix_ids=ids["prefix"],
            middle_ids=ids["middle"],
            end_id=tokenizer.token_to_id(str(TEMPLATE["end"])),
            **chosen.model,
        )
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: model: {error}") from None
    console = open_console()
    console.print(f"{len(rows)} rows to train on, {len(held_out)} of split {HELD_OUT!r} held out")
    report = train_t2c(rows, held_out, sizes, tokenizer, Path(out), chosen.recipe)
    console.print_json(json.dumps(report))
    return 0


def train_reader_command(root: str, out: str, config: str, overrides: list[str]) -> int:
    """Trains, measures on the held-out rows, and prints the report."""
    path = find(config)
    chosen = _chosen(TrainConfig[ReaderRecipe], path, overrides)
    rows, held_out, codebook_id, size = _rows(Dataset(root))
    try:
        sizes = UnitReaderConfig(codebook_id=codebook_id, codebook_size=size, **chosen.model)
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: model: {error}") from None
    console = open_console()
    console.print(f"{len(rows)} rows to train on, {len(held_out)} of split {HELD_OUT!r} held out")
    console.print_json(json.dumps(train_unit_reader(rows, held_out, sizes, Path(out), chosen.recipe)))
    return 0


def _chosen(kind: type[TrainConfig[AnyRecipe]], path: Path, overrides: list[str]) -> TrainConfig[AnyRecipe]:
    try:
        return kind.model_validate(read_values(path, overrides))
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def _rows(dataset: Dataset) -> tuple[list[Row], list[Row], str, int]:
    table = dataset.read("training/t2c", ["text", "units", "split", "codebook_id", "codebook_size"])
    books = set(table["codebook_id"].to_pylist())
    if len(books) != 1:
        raise ConfigError(f"{dataset.root}: training/t2c holds units of {len(books)} codebooks, expected one")
    rows: list[Row] = []
    held_out: list[Row] = []
    for text, units, split in zip(
        table["text"].to_pylist(), table["units"].to_pylist(), table["split"].to_pylist(), strict=True
    ):
        (held_out if split == HELD_OUT else rows).append((text, units))
    return rows, held_out, books.pop(), table["codebook_size"][0].as_py()
