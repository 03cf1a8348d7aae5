"""The interface of a source, and access to its files in a local folder or an object store."""

from __future__ import annotations

import errno
import io
import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, PositiveFloat, PositiveInt, PrivateAttr, field_validator

from echo_targets.schemas.dataset.object_store import NoSuchBucket
from echo_targets.schemas.dataset.storage import Storage, is_url, open_storage, split
from echo_targets.schemas.dataset.urls import WEB, as_path, without_secrets
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.audio.waveforms import MIX, Raw, header_seconds
from echo_targets.transforms.base import Parameters
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.languages import code_of
from echo_targets.transforms.sources.walk import Folder, by_folder, walk

PROBES, REMOTE_PROBES = 16, 32
"""Files to probe at the same time while items are listed."""
STREAM_BUFFER = 1 << 23
"""Bytes per request when a file is streamed from end to end."""
BYTES_PER_SECOND = 16_000
"""Assumed for audio whose header does not give a duration: 128 kbit/s."""


class SourceError(UserError):
    """A source can't be listed: its manifest, folder or data set is missing or malformed."""


@dataclass(frozen=True)
class Item:
    """One item of a source.

    Attributes:
        id: unique within the job.
        where: position to show in messages: the manifest and its line, the file, or the data set and its row.
        locator: the argument of `Source.open`; a path is relative to the source if possible, so that moving a corpus
            changes nothing.
        seconds: duration; an estimate is enough.
        size: bytes of the audio file.
        timed_text: a text with times that comes with a recording, as the argument of `Source.read`; None without one.
        timed_text_sha256: the digest of its bytes, in hexadecimal; None if it is missing.
        error_class, error: why the item can't be ingested.
        text: reference text.
        system: system text of the dialogue, or of an item without one.
        start_seconds, section_seconds: where the item begins in its file, and its duration; None means the file's
            beginning, and its end.
        declared_seconds: declared duration of the whole file, or of a section without `section_seconds`. Audio that
            differs by more than half a second is rejected.
        The others are those of the table `utterances`; None uses the source's default.
    """

    id: str
    where: str
    locator: str = ""
    seconds: float = 0.0
    start_seconds: float | None = None
    section_seconds: float | None = None
    declared_seconds: float | None = None
    size: int | None = None
    timed_text: str | None = None
    timed_text_sha256: str | None = None
    error_class: str | None = None
    error: str | None = None
    text: str | None = None
    recording_id: str | None = None
    overlap: float | None = None
    dialogue_id: str | None = None
    turn: int | None = None
    role: str | None = None
    system: str | None = None
    split: str | None = None
    language: str | None = None
    channel: int | None = None
    speaker_id: str | None = None


def bad_line(where: str, message: str) -> Item:
    """Return the item of a line that can't be used, which ingest rejects with this message."""
    return Item(id=where, where=where, error_class="bad_line", error=message)


class Expected(Parameters):
    """A source's expected size: compared with what ingest stored, or used for a preview if the source is missing.

    Attributes:
        items, hours: as the corpus or a paper states them.
        role: who speaks. User and assistant utterances are turns of dialogues.
        tolerance: relative deviation allowed for both.
    """

    items: PositiveInt
    hours: PositiveFloat
    role: Literal["user", "assistant", "narrator"] = "narrator"
    tolerance: float = Field(0.02, ge=0, le=1)

    def __str__(self) -> str:
        return f"{self.items:,} items and {self.hours:,g} hours are expected"


class Source(Parameters):
    """Parameters and interface of a source.

    Attributes:
        corpus, split, language, license: defaults for the items' columns.
        channel: the channel to take from each file; -1 is the mean of all.
        allow_http: True loads audio and lists from web addresses, `http://` and `https://`.
        expected: the source's expected size; not part of a fingerprint.
    """

    corpus: str
    split: str = "train"
    language: str = "en"
    license: str = "unknown"
    channel: int = MIX
    allow_http: bool = False
    expected: Expected | None = None

    @field_validator("language")
    @classmethod
    def _is_a_language(cls, language: str) -> str:
        if (code := code_of(language.strip())) is None:
            raise ValueError("expected a language's code (BCP 47), such as en or pt-BR")
        return code

    of_rows: ClassVar[tuple[str, ...]] = ("corpus", "split", "language", "license", "channel")
    """Names of the parameters that are written to the rows."""
    has_files: ClassVar[bool] = False
    """True if a locator is the path of a file."""
    listed_in: ClassVar[str]
    """Name of the parameter that says where the items are listed."""

    def fingerprint_parameters(self) -> dict[str, Any]:
        """Return what shapes an item's audio, apart from what the plan records about it."""
        return {"kind": self.kind}  # type: ignore[attr-defined]

    _ignored: Counter[str] = PrivateAttr(default_factory=Counter)

    @property
    def ignored(self) -> dict[str, int]:
        """Keys without a field, and in how many records they occur. Set by the last `items`."""
        return dict(self._ignored.most_common())

    @property
    def remarks(self) -> list[str]:
        """What the last `items` left out and the user should look at, such as keys that may be misspelled."""
        found = [f"{name} ({count:,} line{'s' * (count > 1)})" for name, count in self.ignored.items()]
        are = "these keys are" if len(found) > 1 else "this key is"
        said = f"{are} ignored: {', '.join(found)}; docs/MANIFESTS.md lists the recognized keys"
        return [said] if found else []

    @property
    def place(self) -> str:
        """Where the items are listed, for messages."""
        return str(getattr(self, self.listed_in))

    def files(self, place: str) -> Files:
        """Return the files below a folder or a URL, with web addresses only if the source allows them."""
        return BucketFiles(place.rstrip("/"), self) if is_url(place) else FolderFiles(as_path(place), self)

    @property
    def synthetic(self) -> bool:
        """True if the speech is made by a voice model."""
        return False

    def weight_digests(self) -> dict[str, str]:
        """Return digests of the models with which the source makes its audio."""
        return {}

    def spoken_text(self, locator: str) -> str | None:
        """Return what a voice speaks for an item's text; None for a recording."""
        return None

    @abstractmethod
    def items(self) -> Iterator[Item]:
        """List the items, including bad ones, in a fixed order.

        Raises:
            SourceError: the source can't be listed.
        """

    @abstractmethod
    def open(self, locator: str) -> Raw:
        """Return the audio of an item.

        Raises:
            FileNotFoundError, PermissionError: the file can't be opened.
        """

    def read(self, locator: str) -> bytes:
        """Return the bytes of an item's timed text.

        Raises:
            BadData: the source's items have no timed texts.
            OSError: the file can't be read.
        """
        raise BadData("timed_text", "names a timed text, which its source does not take: list it in a manifest")


class Files(ABC):
    """The files below a place. A locator is relative to it, or absolute: a local path, or a URL.

    Raises:
        OSError: from any method, if a file can't be read. Network errors are OSErrors too.
    """

    def __init__(self, place: str, source: Source) -> None:
        self.place, self.source = place, source

    @property
    def probes(self) -> int:
        """Number of files to probe at the same time."""
        return PROBES

    @abstractmethod
    def find(self, folder: str, depth: int, suffix: str) -> list[str]:
        """Return the sorted locators of the files with a suffix, `depth` folders below a folder."""

    @abstractmethod
    def walk(self, skipped: Counter[str]) -> Iterator[Folder]:
        """Yield the folders at any depth with their files, and count what is skipped, as `walk.walk` does."""

    @abstractmethod
    def stream(self, locator: str) -> BinaryIO:
        """Open a file to read its bytes from first to last, or a few of them."""

    @abstractmethod
    def read(self, locator: str, start: int, size: int) -> bytes:
        """Return up to `size` bytes of a file, from a position."""

    @abstractmethod
    def open(self, locator: str) -> Raw:
        """Return a file's audio for `audio.waveforms.load`."""

    def read_whole(self, locator: str) -> bytes:
        """Return a file's bytes."""
        raw = self.open(locator)
        assert not isinstance(raw, tuple)
        return raw if isinstance(raw, bytes) else raw.read_bytes()

    @abstractmethod
    def probe(self, locator: str, seconds: float | None) -> tuple[int | None, float]:
        """Return a file's bytes (None if it is missing) and its seconds: as given, or by its header or size."""


def is_missing(error: OSError) -> bool:
    """Return True if an error means that a file is missing or unreadable, not that storage failed."""
    kinds = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
    return isinstance(error, kinds) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP)


def check_url(url: str, source: Source) -> None:
    """Check that a source may load a URL.

    Raises:
        SourceError: it is a web address, and the source does not allow these.
        UserError: it is in a store of another kind than the source's own, and than buckets and the web.
    """
    scheme, own = _scheme(url), _scheme(source.place)
    if scheme in WEB and not source.allow_http:
        raise SourceError(
            f"{source.corpus}: {without_secrets(url)} is a web address. To load it, set allow_http: true in the source "
            f"of {without_secrets(source.place)}; or copy its audio to a folder or bucket."
        )
    if scheme not in (*STORES, own):
        raise UserError(f"{without_secrets(url)}: {scheme}:// is not one of {', '.join(STORES)}; copy the file there")
    if scheme in STORES and not url.partition("://")[2].partition("/")[0]:
        raise UserError(f"{without_secrets(url)!r} names no host or bucket; write {scheme}://NAME/PATH")


MEMBER = re.compile(r"(.*?)::(\d+)\+(\d+)::(.*)", re.DOTALL)
"""Locator of a file inside a tar archive: the archive, the offset and number of its bytes, its name (see `tar.py`)."""


def file_name(locator: str) -> str:
    """Return a file's name, to be stored and shown: the last part of its path, without the query of a web address."""
    if member := MEMBER.fullmatch(locator):
        return Path(member[4]).name
    return Path(locator.partition("?")[0] if _scheme(locator) in WEB else locator).name


def _scheme(place: str) -> str:
    return place.partition("://")[0].lower() if is_url(place) else ""


STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", *WEB)
"""URL schemes that a line of a manifest may name. fsspec knows many others, some of which reach any host."""
_read_stores = set[str]()
"""Buckets from which this process has read a file."""


def may_be_credentials(error: OSError) -> bool:
    """Return True if access was denied by a store from which this process has not read any file yet.

    S3 and GCS answer 403 to wrong credentials, for a private file, and (without permission to list) for a missing file.
    As long as every file is denied, the credentials are to blame, not the rows. Web addresses are read without
    credentials, and each may be denied for its own reasons.
    """
    store = _store_of(str(error.filename))
    return isinstance(error, PermissionError) and store is not None and store not in _read_stores


def _store_of(url: str) -> str | None:
    """Return the bucket of a URL; None for a web address or a local path."""
    scheme = _scheme(url)
    return "/".join(url.split("/")[:3]) if scheme not in ("", *WEB) else None


class FolderFiles(Files):
    """The files below a local folder."""

    def find(self, folder: str, depth: int, suffix: str) -> list[str]:
        found = Path(self.place, folder).glob("*/" * depth + f"*{suffix}")
        return [str(path.relative_to(self.place)) for path in sorted(found)]

    def walk(self, skipped: Counter[str]) -> Iterator[Folder]:
        return walk(Path(self.place), skipped)

    def stream(self, locator: str) -> BinaryIO:
        return self._file(locator).open("rb")

    def read(self, locator: str, start: int, size: int) -> bytes:
        with self.stream(locator) as file:
            file.seek(start)
            return file.read(size)

    def open(self, locator: str) -> Raw:
        if is_url(locator):
            return BucketFiles(self.place, self.source).open(locator)
        return self._file(locator)

    def probe(self, locator: str, seconds: float | None) -> tuple[int | None, float]:
        if is_url(locator):
            return BucketFiles(self.place, self.source).probe(locator, seconds)
        path = Path(self.place, locator)
        try:
            size = path.stat().st_size if path.is_file() else None
            return size, seconds or (_estimated_seconds(path, size) if size else 0.0)
        except OSError as error:
            if not is_missing(error):
                raise
            return None, seconds or 0.0

    def _file(self, locator: str) -> Path:
        path = Path(self.place, locator)
        if path.exists() and not path.is_file():  # reading a pipe or a device could block or never end
            raise IsADirectoryError(errno.EISDIR, "is not a file", locator)
        return path


class BucketFiles(Files):
    """The files below a prefix of an object store. An absolute path is a local one."""

    @property
    def probes(self) -> int:
        return REMOTE_PROBES

    def find(self, folder: str, depth: int, suffix: str) -> list[str]:
        check_url(self.place, self.source)
        with _missing_buckets(self.place):
            found = open_storage(self.place).find(folder)
        level = (folder.count("/") + 1 if folder else 0) + depth
        return [path for path in found if path.count("/") == level and path.endswith(suffix)]

    def walk(self, skipped: Counter[str]) -> Iterator[Folder]:
        check_url(self.place, self.source)
        with _missing_buckets(self.place):
            found = open_storage(self.place).find("")
        return by_folder(found, skipped)

    def stream(self, locator: str) -> BinaryIO:
        storage, name = self._locate(locator)
        with _missing_buckets(storage.where(name)):
            return io.BufferedReader(storage.open(name), STREAM_BUFFER)

    def read(self, locator: str, start: int, size: int) -> bytes:
        storage, name = self._locate(locator)
        with _missing_buckets(locator), storage.open(name) as file:
            file.seek(start)
            data: bytes = file.read(size)
        return self._noted(storage, name, data)

    def open(self, locator: str) -> Raw:
        if os.path.isabs(locator):
            return FolderFiles("/", self.source).open(locator)
        storage, name = self._locate(locator)
        with _missing_buckets(locator):
            return self._noted(storage, name, storage.read(name))

    def _noted(self, storage: Storage, name: str, data: bytes) -> bytes:
        """Return the data of a file, and note that its bucket can be read."""
        if store := _store_of(storage.where(name)):
            _read_stores.add(store)
        return data

    def probe(self, locator: str, seconds: float | None) -> tuple[int | None, float]:
        if os.path.isabs(locator):
            return FolderFiles("/", self.source).probe(locator, seconds)
        storage, name = self._locate(locator)
        try:
            with _missing_buckets(locator), storage.open(name) as file:
                size = file.size()
                return size, seconds or (_estimated_seconds(file, size) if size else 0.0)
        except OSError as error:
            if not is_missing(error):
                raise
            return None, seconds or 0.0

    def _locate(self, locator: str) -> tuple[Storage, str]:
        url = locator if is_url(locator) else f"{self.place}/{locator}"
        check_url(url, self.source)
        folder, name = split(url)
        return open_storage(folder), name


@contextmanager
def _missing_buckets(locator: str) -> Iterator[None]:
    """Report a missing bucket as a missing file, which rejects a line, or is an error of the source that lists it."""
    try:
        yield
    except NoSuchBucket as error:
        raise FileNotFoundError(errno.ENOENT, str(error), locator) from error


def _estimated_seconds(file: Path | pa.NativeFile, size: int) -> float:
    """Return a file's duration from its header, or from its size if the header is not credible."""
    return header_seconds(file) or size / BYTES_PER_SECOND
