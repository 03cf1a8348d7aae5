"""The interface of a format: what it reads, what it can't express, and the files it writes for each piece of rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from echo_targets.jobs.export.source import Piece, Source
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.storage import Storage

OUT = "{OUT}"
"""What stands for the folder in lines for the user, since files of an export don't name their place."""

Tick = Callable[[int], None]
"""Called with the number of rows that were just read, to show progress."""


@dataclass(frozen=True)
class Wrote:
    """What became of a piece.

    Attributes:
        rows: rows that were written.
        left_out: rows that the format can't express, by reason.
        about: what `finish` has to know about the piece. JSON values.
    """

    rows: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


class Format(ABC):
    """A format to export to. Files depend on the rows and the filters only, so that an export can be resumed.

    Args:
        dataset, version, filters: as for `Source`.

    Attributes:
        name: its name on the command line.
        sources: what it exports.

    Raises:
        UserError: as `Source`; or the rows can't be expressed in the format, and the message says what to do.
    """

    name: ClassVar[str]

    def __init__(self, dataset: Dataset, version: str | None, filters: Sequence[str]) -> None:
        self.dataset = dataset
        self.sources = self.open(version, filters)

    @abstractmethod
    def open(self, version: str | None, filters: Sequence[str]) -> list[Source]:
        """Return the sources to export."""

    def begin(self, out: Storage, pieces: Sequence[Piece]) -> None:  # noqa: B027 (most formats need nothing)
        """Write what must be there before the first piece."""

    @abstractmethod
    def write(self, out: Storage, piece: Piece, tick: Tick) -> Wrote:
        """Write the files of a piece. Writing them again gives the same bytes."""

    @abstractmethod
    def finish(self, out: Storage, done: Sequence[tuple[Piece, Wrote]]) -> list[str]:
        """Write the files that loaders open first, once all pieces are there.

        Returns:
            Lines for the user: what to load, and what to configure, with OUT for the folder.
        """
