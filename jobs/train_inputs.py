"""What the `train` commands read: their configurations, the rows of training sets, and an EchoX model to go on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from echo_targets.jobs.config import ConfigError, read_values
from echo_targets.schemas.dataset.layout import Dataset, must_be_readable
from echo_targets.transforms.assets import asset
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.model import EchoX
from echo_targets.transforms.models.t2c.config import SPELLED
from echo_targets.transforms.segments.rule import Border
from echo_targets.transforms.training.loop import RunRecipe
from echo_targets.transforms.training.t2c import Row

HELD_OUT = "test"
AnyRecipe = TypeVar("AnyRecipe", bound=RunRecipe)
AnyRow = TypeVar("AnyRow")
TEMPLATE = {"prefix": ["<user>"], "middle": ["<end>", "<assistant>"], "end": "<end>"}


class RecipeConfig(BaseModel, Generic[AnyRecipe]):
    """A training recipe, without the sizes of the network.

    Attributes:
        half_precision: True to write 16-bit weights.
    """

    model_config = ConfigDict(extra="forbid")

    half_precision: bool = False
    recipe: AnyRecipe


class TrainConfig(RecipeConfig[AnyRecipe]):
    """A training recipe with the sizes of the network, whose keys are those of the network's config class.

    Attributes:
        start: a model to train further: a directory, or `embedded:NAME`. It must have the same sizes. Null starts from
            random weights.
    """

    model: dict[str, Any]
    start: str | None = None

    @property
    def start_dir(self) -> Path | None:
        """The directory of `start`."""
        return None if self.start is None else asset(self.start)


AnyConfig = TypeVar("AnyConfig", bound=BaseModel)


def chosen_config(kind: type[AnyConfig], path: Path, overrides: list[str]) -> AnyConfig:
    """Load a training configuration: a YAML file with `key=value` overrides.

    Raises:
        ConfigError: a key is unknown, missing or invalid.
    """
    try:
        return kind.model_validate(read_values(path, overrides))
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(f"{path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def table_of(dataset: Dataset, table: str, columns: list[str], stage: str) -> pa.Table:
    """Read columns of a training set.

    Args:
        dataset: the dataset.
        table: name of the training set.
        columns: columns to read.
        stage: name of the stage that writes the table, for the error message.

    Raises:
        ConfigError: the dataset does not have the table.
    """
    if table not in dataset.tables():
        raise ConfigError(f"{dataset.root}: no table {table}. Run a job with the stage {stage} first.")
    must_be_readable(dataset, table)
    return dataset.read(table, columns)


def split_rows(table: pa.Table, made: Callable[[dict[str, Any]], AnyRow]) -> tuple[list[AnyRow], list[AnyRow]]:
    """Return a training set's rows to train on and its held-out rows, each converted by `made`."""
    sides: tuple[list[AnyRow], list[AnyRow]] = [], []
    for batch in table.to_batches():  # by batch, to limit the copies of audio in memory
        for row in batch.to_pylist():
            sides[row["split"] == HELD_OUT].append(made(row))
    return sides


def t2c_rows(dataset: Dataset) -> tuple[list[Row], list[Row], str, int]:
    """Return the rows of training/t2c to train on, the held-out rows, and the codebook's id and size.

    Raises:
        ConfigError: there are no rows, units of several codebooks, or several units per frame.
    """
    columns = ["text", "units", "durations", "borders", "split", "codebook_id", "codebook_size", "num_codebooks"]
    table = table_of(dataset, "training/t2c", columns, "publish_t2c")
    if not len(table):
        raise ConfigError(f"{dataset.root}: training/t2c has no rows. `echo-targets status {dataset.root}` shows why.")
    books = set(table["codebook_id"].to_pylist())
    if len(books) != 1:
        raise ConfigError(f"{dataset.root}: training/t2c holds units of {len(books)} codebooks, expected one")
    if (codebooks := table["num_codebooks"][0].as_py()) != 1:
        raise ConfigError(
            f"{dataset.root}: training/t2c has {codebooks} units per frame, but this trainer supports one. Tokenize "
            "with num_codebooks=1."
        )
    rows, held_out = split_rows(table, _t2c_row)
    return rows, held_out, books.pop(), table["codebook_size"][0].as_py()


def counted(rows: list[Any], held_out: list[Any]) -> str:
    """Return a line with the number of rows."""
    return f"{len(rows)} rows to train on, {len(held_out)} of split {HELD_OUT!r} held out"


def counted_with_borders(rows: list[Row], held_out: list[Row]) -> str:
    """Return a line with the number of rows, and a warning if none has borders, so that rows can't be cut."""
    line = counted(rows, held_out)
    if any(row.borders for row in rows):
        return line
    return f"{line}. None has borders, so whole replies are learned: run the stage align before publish_t2c to cut them"


def load_echox(path: str) -> EchoX:
    """Load a checkpoint that can be trained on rows of single units."""
    if EchoXConfig.read(Path(path)).unit_spellings is not None:
        raise ConfigError(f"{path}: {SPELLED}")
    echox = EchoX.load(Path(path))
    if echox.tokenizer is None:
        raise ConfigError(f"{path}: no tokenizer.json. Name a directory that `train s2t` wrote.")
    return echox


def _t2c_row(row: dict[str, Any]) -> Row:
    return Row(row["text"], row["units"][0], row["durations"], [Border(**border) for border in row["borders"]])
