"""What a source is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from schemas.base import UserError
from transforms.audio import MIX, Raw
from transforms.base import Parameters


class SourceError(UserError):
    """A source that can't be listed: its manifest, folder or data set is not there, or is not what it should be."""


@dataclass(frozen=True)
class Item:
    """One item of a source.

    Attributes:
        id: unique within the job.
        where: for a message: the manifest and its line, the file, the data set and its row.
        locator: what `Source.open` takes; a path is relative to the source where it can be, so that a moved corpus
            is the same.
        seconds: duration, an estimate is enough.
        size: bytes of the audio file.
        error_class, error: why the item can't be read at all.
        text: reference text.
        The rest as in the table `utterances`; None takes the source's default.
    """

    id: str
    where: str
    locator: str = ""
    seconds: float = 0.0
    size: int | None = None
    error_class: str | None = None
    error: str | None = None
    text: str | None = None
    dialogue_id: str | None = None
    turn: int | None = None
    role: str | None = None
    split: str | None = None
    language: str | None = None
    channel: int | None = None
    speaker_id: str | None = None


class Source(Parameters):
    """Parameters of a source, and what it does with them.

    Attributes:
        corpus, split, language, license: defaults for the items' columns.
        channel: which channel of each file to take; -1 is the mean of all.
    """

    corpus: str
    split: str = "train"
    language: str = "en"
    license: str = "unknown"
    channel: int = MIX

    has_files: ClassVar[bool] = False
    """Whether a locator is the path of a file."""

    def meaning(self) -> dict[str, Any]:
        """What shapes an item's audio beside what the plan says of it."""
        return {"kind": self.kind}  # type: ignore[attr-defined]

    @property
    def synthetic(self) -> bool:
        """Whether the speech is made by a voice model."""
        return False

    def weights(self) -> dict[str, str]:
        """Digests of the models that a source makes its audio with."""
        return {}

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """Lists the items, bad ones too, in a fixed order.

        Raises:
            SourceError: there is nothing to list.
        """

    @abstractmethod
    def open(self, locator: str) -> Raw:
        """The audio of an item.

        Raises:
            FileNotFoundError, PermissionError: the file can't be opened.
        """
