"""The interface of a stage: it declares the tables it reads and writes, loads its model, and maps rows to rows."""

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
        """Return the parameters with every `auto` replaced by a value, so that all workers compute alike.

        Args:
            device: a torch device. The choice must depend on nothing else about the machine; the driver and all workers
                pass the same device.
        """
        return self


@dataclass(frozen=True)
class Reject:
    """A row that a stage rejects.

    Attributes:
        utterance_id: the row's key.
        error_class: a short, stable word to count by, such as `too_short`.
        message: for a person: the file's name (and line), what is wrong, and what to do if that is known.
        attempts: how often the row failed when it was tried as a batch of one. Failures in larger batches are not
            counted: batches depend on memory, and shards must not.
        unexpected: the error and the line that raised it, if the transform did not say that the data are bad. A shard
            with more than a few of these fails. Not stored.
    """

    utterance_id: str
    error_class: str
    message: str
    attempts: int = 1
    unexpected: str = ""


FILTERED = "filtered"
"""Prefix of the error classes of rows that a threshold dropped. They are not failures of the data."""
NO_FAILURES = (FILTERED, "no_reply")
"""Prefixes of all classes that are not failures. `no_reply`: the last turn of a dialogue has no reply."""


@dataclass(frozen=True)
class Output:
    """The result of a batch: a row or a reject for each input row."""

    rows: pa.Table
    rejects: list[Reject] = field(default_factory=list)


class Transform(ABC):
    """One stage of the pipeline.

    The first table of `reads` gives the rows and their order. The other tables are joined to it by key, each as a
    nullable struct column with the table's name. A table that the job does not make is joined as nulls; `jobs.stages`
    allows this for stages of this package only.

    Attributes:
        name: the stage's name in configurations, manifests and messages.
        version: raised when the meaning of the output changes; part of the fingerprint.
        reads: the tables that the stage uses.
        writes: the table that it makes.
        wants_audio: True if the rows carry the `audio.bytes` of the first table.
        equal_costs: True if all rows of a batch must have equal cost.
        on_device: True if the stage has a model that runs on the device.
        window_rows: approximate number of rows that are loaded at once; batches are made from them.
        together: a column of the first table. Neighboring rows with the same value (not null) go into one window.
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
        """Return the parameters that shape the output. They hold no paths, so moving a corpus changes nothing."""
        return self.parameters.model_dump(mode="json")

    def weight_digests(self) -> dict[str, str]:
        """Return names and digests of all else that shapes the output, such as weights. Cheap; loads no model."""
        return {}

    def setup(self) -> None:  # noqa: B027 (a stage without a model has nothing to load)
        """Load the model, once per worker."""

    def check_entries(self, shards: Iterable[pa.Table]) -> None:  # noqa: B027 (most stages take any corpus)
        """Reject a corpus that does not suit the stage's model, before anything runs.

        Args:
            shards: rows of the table `entries`, shard by shard; loaded only as they are iterated.

        Raises:
            UserError: the corpus does not suit the model.
        """

    def wanted(self, rows: pa.Table) -> pa.BooleanArray | None:
        """Return a mask of the first table's rows that the stage works on, without their audio; None means all."""
        return None

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        """Return the input rows of a window of the first table.

        Args:
            window: consecutive rows of the first table.
            shard: the shard's tables by name, complete, but without audio bytes.

        Returns:
            The rows to work on, each key at most once.
        """
        for table in self.reads[1:]:
            window = joined(window, table, shard.get(table.name))
        return window

    def costs(self, rows: pa.Table) -> list[int]:
        """Return each row's cost in samples. A batch's longest cost x count stays within the worker's budget."""
        return rows["num_samples"].to_pylist()

    def prepare(self, batch: pa.Table) -> pa.Table:
        """Prepare a batch for the model: decode its audio. Runs in its own thread, in an instance without a model."""
        return batch

    @abstractmethod
    def __call__(self, batch: pa.Table) -> Output:
        """Process a prepared batch of `rows`.

        Returns:
            A row of `writes` or a reject for each row of the batch, in any order.
        """


def joined(rows: pa.Table, table: Table, other: pa.Table | None, key: str = KEY) -> pa.Table:
    """Return `rows` with the matching row of `other` as a struct column named after its table, null if none matches.

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
    """Convert rows given as dictionaries (lists may be numpy arrays) into an Arrow table of the schema.

    Raises:
        pa.ArrowInvalid, pa.ArrowTypeError: a value does not fit its column.
    """
    gathered = list(rows)
    arrays = [pa.array([row[name] for row in gathered], table.schema.field(name).type) for name in table.schema.names]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def rounded(value: float | None) -> float | None:
    """Round a score to 4 decimals, as it is stored, so that a device's last bits do not reach the file."""
    return None if value is None else round(float(value), 4)
