"""`echo-targets train`: models from the published `training/t2c` shards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from echo_targets.jobs.config import ConfigError, find, read_values
from echo_targets.jobs.screen import open_console
from echo_targets.schemas.dataset.layout import Dataset, must_be_readable
from echo_targets.transforms.models.readers.ctc_config import UnitReaderConfig
from echo_targets.transforms.models.t2c.config import T2CConfig
from echo_targets.transforms.models.t2c.model import character_tokenizer
from echo_targets.transforms.segments.rule import Border
from echo_targets.transforms.training.reader import ReaderRecipe, train_unit_reader
from echo_targets.transforms.training.run import RunRecipe
from echo_targets.transforms.training.t2c import Recipe, Row, train_t2c

HELD_OUT = "test"
AnyRecipe = TypeVar("AnyRecipe", bound=RunRecipe)
AnyRow = TypeVar("AnyRow")
TEMPLATE = {"prefix": ["<user>"], "middle": ["<end>", "<assistant>"], "end": "<end>"}


class RecipeConfig(BaseModel, Generic[AnyRecipe]):
    """A recipe for a network whose sizes stand elsewhere.

    Attributes:
        half_precision: whether the weights are written in 16 bits a number.
    """

    model_config = ConfigDict(extra="forbid")

    half_precision: bool = False
    recipe: AnyRecipe


class TrainConfig(RecipeConfig[AnyRecipe]):
    """Sizes of the network (see its config) and the recipe."""

    model: dict[str, Any]


AnyConfig = TypeVar("AnyConfig", bound=BaseModel)


def train_t2c_command(root: str, out: str, config: str, overrides: list[str]) -> int:
    """Trains, measures on the held-out rows, and prints the report."""
    path = find(config)
    chosen = chosen_config(TrainConfig[Recipe], path, overrides)
    rows, held_out, _, size = t2c_rows(Dataset(root))
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
    console.print(counted(rows, held_out))
    report = train_t2c(rows, held_out, sizes, tokenizer, Path(out), chosen.recipe, chosen.half_precision)
    console.print_json(json.dumps(report))
    return 0


def train_reader_command(root: str, out: str, config: str, overrides: list[str]) -> int:
    """Trains, measures on the held-out rows, and prints the report."""
    path = find(config)
    chosen = chosen_config(TrainConfig[ReaderRecipe], path, overrides)
    *spoken, codebook_id, size = t2c_rows(Dataset(root))
    rows, held_out = ([(row.text, row.units) for row in side] for side in spoken)
    try:
        sizes = UnitReaderConfig(codebook_id=codebook_id, codebook_size=size, **chosen.model)
    except (ValidationError, TypeError) as error:
        raise ConfigError(f"{path}: model: {error}") from None
    console = open_console()
    console.print(f"{len(rows)} rows to train on, {len(held_out)} of split {HELD_OUT!r} held out")
    report = train_unit_reader(rows, held_out, sizes, Path(out), chosen.recipe, chosen.half_precision)
    console.print_json(json.dumps(report))
    return 0


def chosen_config(kind: type[AnyConfig], path: Path, overrides: list[str]) -> AnyConfig:
    """A training's YAML file with `key=value` on top.

    Raises:
        ConfigError: a key is unknown, missing or wrong.
    """
    try:
        return kind.model_validate(read_values(path, overrides))
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def table_of(dataset: Dataset, table: str, columns: list[str], stage: str) -> pa.Table:
    """A training set.

    Raises:
        ConfigError: the dataset has none; `stage` is what makes it.
    """
    if table not in dataset.tables():
        raise ConfigError(f"{dataset.root} has no {table}: run a job with the stage {stage} on it first")
    must_be_readable(dataset, table)
    return dataset.read(table, columns)


def split_rows(table: pa.Table, made: Callable[[dict[str, Any]], AnyRow]) -> tuple[list[AnyRow], list[AnyRow]]:
    """A training set's rows to train on, and those held out."""
    sides: tuple[list[AnyRow], list[AnyRow]] = [], []
    for batch in table.to_batches():  # row by row, audio would be in memory three times
        for row in batch.to_pylist():
            sides[row["split"] == HELD_OUT].append(made(row))
    return sides


def t2c_rows(dataset: Dataset) -> tuple[list[Row], list[Row], str, int]:
    """Texts and units to train on, those held out, and the codebook's id and size.

    Raises:
        ConfigError: there are none, or they are of several codebooks.
    """
    columns = ["text", "units", "durations", "borders", "split", "codebook_id", "codebook_size", "num_codebooks"]
    table = table_of(dataset, "training/t2c", columns, "publish_t2c")
    books = set(table["codebook_id"].to_pylist())
    if len(books) != 1:
        raise ConfigError(f"{dataset.root}: training/t2c holds units of {len(books)} codebooks, expected one")
    if (codebooks := table["num_codebooks"][0].as_py()) != 1:
        raise ConfigError(
            f"{dataset.root}: training/t2c holds {codebooks} units a frame, and the models here learn single ones: "
            "tokenize with num_codebooks=1"
        )
    rows, held_out = split_rows(table, _t2c_row)
    return rows, held_out, books.pop(), table["codebook_size"][0].as_py()


def counted(rows: list[Row], held_out: list[Row]) -> str:
    """How many rows of training/t2c there are to learn, and that they are learned whole where they have no borders."""
    said = f"{len(rows)} rows to train on, {len(held_out)} of split {HELD_OUT!r} held out"
    if any(row.borders for row in rows):
        return said
    return f"{said}. None has borders, so replies are learned whole: run the stage align before publish_t2c"


def _t2c_row(row: dict[str, Any]) -> Row:
    return Row(row["text"], row["units"][0], row["durations"], [Border(**border) for border in row["borders"]])
