"""What a stage is: it says what it reads and writes, loads its model once a worker, and maps rows to rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from echo_targets.schemas import KEY, Table


class Parameters(BaseModel):
    """A stage's parameters. All of them are part of the fingerprint; unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def resolved(self, device: str) -> Self:
        """Return the parameters with a value in place of each `auto`, so that all workers compute alike.

        Args:
            device: a torch device. Nothing else about a machine may decide: the driver and every worker get the same.
        """
        return self


@dataclass(frozen=True)
class Reject:
    """A row that a stage refuses.

    Attributes:
        utterance_id: the row's key.
        error_class: a short, stable word to count by, such as `too_short`.
        message: for a person: the file's name (and line), what is wrong, what to do where that is known.
        attempts: how often the row failed by itself. In what company it was tried before is not counted: batches
            depend on memory, and shards do not.
        unexpected: the error and the line that raised it, if the transform did not say that the data are bad. A shard
            with more than a few of these fails. Not stored.
    """

    utterance_id: str
    error_class: str
    message: str
    attempts: int = 1
    unexpected: str = ""


FILTERED = "filtered"
"""Prefix of the error classes of rows that a threshold held back. They are not failures of the data."""
NO_FAILURES = (FILTERED, "no_reply")
"""Prefixes of all classes that are no failures: the last turn of a dialogue has no reply."""


@dataclass(frozen=True)
class Output:
    """What became of a batch: a row or a reject for each row that came in."""

    rows: pa.Table
    rejects: list[Reject] = field(default_factory=list)


class Transform(ABC):
    """One stage of the pipeline.

    The first of `reads` gives the rows, in its order; the others are joined to them by key, each as a nullable
    struct column of its name. A table that the job does not make is joined as nulls.

    Attributes:
        name: the stage's name in a configuration, in manifests and in messages.
        version: raised when the meaning of the output changes; part of the fingerprint.
        reads: tables that the stage uses.
        writes: the table that it makes.
        wants_audio: whether the rows carry the `audio.bytes` of the first table.
        equal_costs: whether a batch may only hold rows of equal cost.
        on_device: whether it has a model that runs on the device.
        window_rows: about how many rows are read, and held, together; batches are made from them.
        together: column of the first table; neighbouring rows of one value (not null) are held together.
        Parameters: the pydantic model of the stage's parameters.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    reads: ClassVar[tuple[Table, ...]]
    writes: ClassVar[Table]
    wants_audio: bool = False
    equal_costs: ClassVar[bool] = False
    on_device: ClassVar[bool] = False
    window_rows: ClassVar[int] = 800
    together: ClassVar[str | None] = None
    Parameters: ClassVar[type[Parameters]] = Parameters

    def __init__(self, parameters: Any, device: str = "cpu") -> None:
        self.parameters = parameters.resolved(device)
        self.device = device

    def fingerprint_parameters(self) -> dict[str, Any]:
        """The parameters that shape the output, for the fingerprint: no paths, so that a moved corpus is the same."""
        meaning: dict[str, Any] = self.parameters.model_dump(mode="json")
        return meaning

    def weight_digests(self) -> dict[str, str]:
        """Names and digests of everything outside the parameters that shapes the output. Cheap; loads no model."""
        return {}

    def setup(self) -> None:  # noqa: B027 (a stage without a model has nothing to load)
        """Loads the model, once per worker."""

    def check_entries(self, shards: Iterable[pa.Table]) -> None:  # noqa: B027 (most stages take any corpus)
        """Refuse, before anything runs, a corpus that the stage's model cannot be meant for.

        Args:
            shards: rows of the table `entries`, shard by shard; read only as far as they are iterated.

        Raises:
            UserError: it is such a corpus.
        """

    def wanted(self, rows: pa.Table) -> pa.BooleanArray | None:
        """Which rows of the first table the stage works on, seen without their audio; None for all of them."""
        return None

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        """The input rows of a window of the first table.

        Args:
            window: consecutive rows of the first table.
            shard: the shard's tables by name, whole, without audio bytes.

        Returns:
            The rows to work on, each key at most once.
        """
        for table in self.reads[1:]:
            window = joined(window, table, shard.get(table.name))
        return window

    def costs(self, rows: pa.Table) -> list[int]:
        """What each row costs, in samples; a batch holds at most longest x count of the worker's budget."""
        costs: list[int] = rows["num_samples"].to_pylist()
        return costs

    def prepare(self, batch: pa.Table) -> pa.Table:
        """Makes a batch ready for the model: decodes it. Runs in a thread of its own, ahead of the model."""
        return batch

    @abstractmethod
    def __call__(self, batch: pa.Table) -> Output:
        """Works on a batch of `rows` that was prepared.

        Returns:
            A row of `writes` or a reject for each row of the batch, in any order.
        """


def joined(rows: pa.Table, table: Table, other: pa.Table | None, key: str = KEY) -> pa.Table:
    """`rows` with the other table's matching row as a struct column of its name, null where there is none.

    Args:
        key: the column of `rows` that holds the other table's key.
    """
    if other is None:
        return rows.append_column(table.name, pa.nulls(len(rows), pa.struct(list(table.schema))))
    other = other.combine_chunks()
    keys = other[KEY].combine_chunks() if other.num_rows else pa.array([], pa.string())
    position = pc.index_in(rows[key].combine_chunks(), value_set=keys)
    taken = other.take(position).combine_chunks()
    columns = [column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in taken.columns]
    fields = [field.with_nullable(True) for field in taken.schema]
    struct = pa.StructArray.from_arrays(columns, fields=fields, mask=pc.is_null(position))
    return rows.append_column(table.name, struct)


def table_of(rows: Iterable[Mapping[str, Any]], table: Table) -> pa.Table:
    """Rows as dictionaries (lists may be numpy arrays) into an Arrow table of the schema.

    Raises:
        pa.ArrowInvalid, pa.ArrowTypeError: a value does not fit its column.
    """
    gathered = list(rows)
    arrays = [pa.array([row[name] for row in gathered], table.schema.field(name).type) for name in table.schema.names]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def rounded(value: float | None) -> float | None:
    """A score as it is stored: 4 decimals, so that the last bits of a device do not reach the file."""
    return None if value is None else round(float(value), 4)
