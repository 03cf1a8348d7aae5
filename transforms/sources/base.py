"""What a source is, and where its files lie: in a folder of this machine or in a bucket."""

from __future__ import annotations

import errno
import io
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal
from urllib.parse import urlsplit

import pyarrow as pa
from pydantic import Field, PositiveFloat, PositiveInt, PrivateAttr, field_validator

from echo_targets.schemas.dataset.object_store import WEB
from echo_targets.schemas.dataset.storage import Storage, is_url, open_storage, split
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.audio.waveforms import MIX, Raw, header_seconds
from echo_targets.transforms.base import Parameters
from echo_targets.transforms.languages import code_of

PROBES, REMOTE_PROBES = 16, 32
"""Files that are looked at, at once, as items are listed."""
STREAM_BUFFER = 1 << 23
"""Bytes that are asked for at once of a file that is read from end to end."""
BYTES_PER_SECOND = 16_000
"""Of audio whose header does not tell how long it is: 128 kbit/s."""


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
        start_seconds, section_seconds: where the item begins in its file, and how long it is; None is the file's
            beginning, and its end.
        declared_seconds: how long the whole file is said to be, or a section that has no `section_seconds`. What
            differs by more than half a second is rejected.
        The rest as in the table `utterances`; None takes the source's default.
    """

    id: str
    where: str
    locator: str = ""
    seconds: float = 0.0
    start_seconds: float | None = None
    section_seconds: float | None = None
    declared_seconds: float | None = None
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


class Expected(Parameters):
    """What a source is known to hold: compared with what ingest stored, and counted with where the source is not there.

    Attributes:
        items, hours: as the corpus or a paper says.
        role: who speaks; what a user or an assistant says are turns of dialogues.
        tolerance: the share by which either may differ.
    """

    items: PositiveInt
    hours: PositiveFloat
    role: Literal["user", "assistant", "narrator"] = "narrator"
    tolerance: float = Field(0.02, ge=0, le=1)

    def __str__(self) -> str:
        return f"{self.items:,} items and {self.hours:,g} hours are expected"


class Source(Parameters):
    """Parameters of a source, and what it does with them.

    Attributes:
        corpus, split, language, license: defaults for the items' columns.
        channel: which channel of each file to take; -1 is the mean of all.
        expected: what it should come to; no part of a fingerprint.
    """

    corpus: str
    split: str = "train"
    language: str = "en"
    license: str = "unknown"
    channel: int = MIX
    expected: Expected | None = None

    @field_validator("language")
    @classmethod
    def _is_a_language(cls, language: str) -> str:
        if (code := code_of(language.strip())) is None:
            raise ValueError("expected a language's code (BCP 47), such as en or pt-BR")
        return code

    has_files: ClassVar[bool] = False
    """Whether a locator is the path of a file."""
    listed_in: ClassVar[str]
    """The parameter that says where the items are listed."""

    def fingerprint_parameters(self) -> dict[str, Any]:
        """What shapes an item's audio beside what the plan says of it."""
        return {"kind": self.kind}  # type: ignore[attr-defined]

    _ignored: Counter[str] = PrivateAttr(default_factory=Counter)

    @property
    def ignored(self) -> dict[str, int]:
        """Keys that no field has, and in how many of the records that `items` listed last."""
        return dict(self._ignored.most_common())

    @property
    def place(self) -> str:
        """Where the items are listed, for a message."""
        return str(getattr(self, self.listed_in))

    @property
    def synthetic(self) -> bool:
        """Whether the speech is made by a voice model."""
        return False

    def weight_digests(self) -> dict[str, str]:
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


class Files(ABC):
    """The files below a place. A locator is relative to it, or absolute: a path of this machine, or a URL.

    Raises:
        OSError: from any method, where a file can't be read; a network's faults are OSErrors too.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    @property
    def probes(self) -> int:
        """How many files to look at, at once."""
        return PROBES

    @abstractmethod
    def find(self, folder: str, depth: int, suffix: str) -> list[str]:
        """Locators of the files so many folders below a folder whose names end so, in order."""

    @abstractmethod
    def stream(self, locator: str) -> BinaryIO:
        """A file's bytes, from the first to the last."""

    @abstractmethod
    def open(self, locator: str) -> Raw:
        """A file, for `audio.waveforms.load`."""

    @abstractmethod
    def probe(self, locator: str, seconds: float | None) -> tuple[int | None, float]:
        """A file's bytes, None where there is none, and its seconds: those given, or else by its header or its size."""


def is_missing(error: OSError) -> bool:
    """Whether an error says that there is no such file to be read, and not that storage is at fault."""
    kinds = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, kinds) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP)


_read_stores = set[str]()
"""Buckets that this process has read a file of."""


def may_be_credentials(error: OSError) -> bool:
    """Return True if a file is denied by a store of which this process has not been able to read any other file.

    S3 and GCS answer 403 where the credentials are wrong, for one file that is private, and without the right to list
    for a file that is not there. As long as every file is denied, the credentials are at fault, and no row. Web
    addresses are read without credentials, and each of them may be denied for reasons of its own.
    """
    store = _store_of(str(error.filename))
    return isinstance(error, PermissionError) and store is not None and store not in _read_stores


def _store_of(url: str) -> str | None:
    """Return the bucket that a URL lies in; None for a web address or a path of this machine."""
    parts = urlsplit(url) if is_url(url) else None
    return f"{parts.scheme}://{parts.netloc}" if parts and parts.scheme not in ("", "file", *WEB) else None


def files(place: str) -> Files:
    """The files below a folder or a URL."""
    return BucketFiles(place.rstrip("/")) if is_url(place) else FolderFiles(place)


class FolderFiles(Files):
    """A folder of this machine."""

    def find(self, folder: str, depth: int, suffix: str) -> list[str]:
        found = Path(self.place, folder).glob("*/" * depth + f"*{suffix}")
        return [str(path.relative_to(self.place)) for path in sorted(found)]

    def stream(self, locator: str) -> BinaryIO:
        return Path(self.place, locator).open("rb")

    def open(self, locator: str) -> Raw:
        if is_url(locator):
            return BucketFiles(self.place).open(locator)
        path = Path(self.place, locator)
        if path.exists() and not path.is_file():  # a pipe or a device would be waited for, or read for ever
            raise IsADirectoryError(errno.EISDIR, "is not a file")
        return path

    def probe(self, locator: str, seconds: float | None) -> tuple[int | None, float]:
        if is_url(locator):
            return BucketFiles(self.place).probe(locator, seconds)
        path = Path(self.place, locator)
        try:
            size = path.stat().st_size if path.is_file() else None
            return size, seconds or (_estimated_seconds(path, size) if size else 0.0)
        except OSError as error:
            if not is_missing(error):
                raise
            return None, seconds or 0.0


class BucketFiles(Files):
    """A prefix of an object store; an absolute path is one of this machine."""

    @property
    def probes(self) -> int:
        return REMOTE_PROBES

    def find(self, folder: str, depth: int, suffix: str) -> list[str]:
        found = open_storage(self.place).find(folder)
        level = folder.count("/") + 1 + depth
        return [path for path in found if path.count("/") == level and path.endswith(suffix)]

    def stream(self, locator: str) -> BinaryIO:
        storage, name = self._locate(locator)
        return io.BufferedReader(storage.open(name), STREAM_BUFFER)

    def open(self, locator: str) -> Raw:
        if os.path.isabs(locator):
            return FolderFiles("/").open(locator)
        storage, name = self._locate(locator)
        data = storage.read(name)
        if store := _store_of(storage.where(name)):
            _read_stores.add(store)
        return data

    def probe(self, locator: str, seconds: float | None) -> tuple[int | None, float]:
        if os.path.isabs(locator):
            return FolderFiles("/").probe(locator, seconds)
        storage, name = self._locate(locator)
        try:
            with storage.open(name) as file:
                size = file.size()
                return size, seconds or (_estimated_seconds(file, size) if size else 0.0)
        except OSError as error:
            if not is_missing(error):
                raise
            return None, seconds or 0.0

    def _locate(self, locator: str) -> tuple[Storage, str]:
        folder, name = split(locator if is_url(locator) else f"{self.place}/{locator}")
        return open_storage(folder), name


def _estimated_seconds(file: Path | pa.NativeFile, size: int) -> float:
    """Return how long a file is by its header, or by its size where no header can be believed."""
    return header_seconds(file) or size / BYTES_PER_SECOND
