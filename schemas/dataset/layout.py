"""What a dataset looks like on disk, and how it is read back.

    <root>/index.json                                    which fingerprint of each table is the current one
    <root>/<table>/<fingerprint>/stage.json              what made it: stage, parameters, weights, upstream, shards
    <root>/<table>/<fingerprint>/part-00003-of-00012.json     the shard's manifest, its commit mark
    <root>/<table>/<fingerprint>/part-00003-of-00012.parquet
    <root>/<table>/<fingerprint>/part-00003-of-00012.attempt.json     while it is worked on, and where it failed
    <root>/lease/000001.json                             the driver that is at work, if any
    <root>/retry/<table>/<fingerprint>/part-…             while `retry` is at work: the shards that it makes anew
    <root>/rejects/<stage>/<fingerprint>/part-00003-of-00012.parquet   only where rows were refused

A shard without a manifest does not exist. Names are computed from the index, never globbed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType

from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.storage import Storage, open_root, storage_of
from echo_targets.schemas.errors import UserError

INDEX = "index.json"
STAGE = "stage.json"
ASIDE = "retry"
"""Folder of what a retry has set aside until it ends: shards and manifests, by their paths below the root."""
VERSIONED = re.compile(r"(.+)/([0-9a-f]{16})/([^/]+)")
"""The path of a version's file: its table, or the folder of a stage's rejects; its fingerprint; its name."""
READERS = 16
"""Manifests that are read at once over a network."""


class LayoutError(UserError):
    """A file of the dataset that is missing or does not say what it should; the message names it."""


def shard_name(index: int, count: int) -> str:
    """Name of a shard without its extension: `part-00003-of-00012`."""
    return f"part-{index:05d}-of-{count:05d}"


@dataclass(frozen=True)
class FileEntry:
    """A file that a manifest vouches for: its path below the root, bytes, SHA-256 (hex) and rows."""

    path: str
    size: int
    sha256: str
    rows: int


@dataclass(frozen=True)
class Manifest:
    """What one committed shard holds.

    Attributes:
        table, fingerprint, shard, shards: which shard this is.
        rows_in: rows that came in; always the rows that went out plus the rejects.
        samples: 16 kHz samples of the rows that came in (0 where a stage sees no audio lengths).
        output: the shard's Parquet file.
        rejects: the file of refused rows, where there are any.
        reasons: refused rows by error class.
    """

    table: str
    fingerprint: str
    shard: int
    shards: int
    rows_in: int
    samples: int
    output: FileEntry
    rejects: FileEntry | None = None
    reasons: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Manifest:
        rejects = data.pop("rejects", None)
        output = FileEntry(**data.pop("output"))
        return cls(output=output, rejects=FileEntry(**rejects) if rejects else None, **data)


@dataclass(frozen=True)
class StageInfo:
    """What made a table: everything its fingerprint is computed from, and the number of its shards."""

    stage: str
    version: int
    table: str
    schema_version: str
    parameters: dict[str, Any]
    weights: dict[str, str]
    upstream: dict[str, str]
    shards: int
    fingerprint: str

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()


class Dataset:
    """Reads a dataset's root: a folder, or a URL of an object store such as `s3://bucket/folder`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.filesystem, self.base = open_root(root)

    @property
    def storage(self) -> Storage:
        """The files below the root."""
        return storage_of(self.filesystem, self.base)

    def path(self, *parts: str) -> str:
        """A path on the dataset's file system."""
        return self.storage.path(*parts)

    def where(self, *parts: str) -> str:
        """A file's place, for a message."""
        return self.storage.where(*parts)

    def read_json(self, *parts: str) -> dict[str, Any] | None:
        """A JSON object below the root, or None where there is no such file.

        Raises:
            LayoutError: the file is not a JSON object.
            OSError: it can't be read now.
        """
        path = "/".join(parts)
        try:
            value = json.loads(self.storage.read(path))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise LayoutError(f"{self.where(path)}: not readable as JSON ({error})") from error
        if not isinstance(value, dict):
            raise LayoutError(f"{self.where(path)}: expected a JSON object")
        return value

    def tables(self) -> dict[str, str]:
        """Current fingerprint of each table, in the order in which they were made.

        Raises:
            LayoutError: there is no index.
        """
        index = self.read_json(INDEX)
        if index is None:
            raise LayoutError(f"{self.where(INDEX)}: no such file; is this the root of a finished run?")
        tables = index.get("tables")
        if not isinstance(tables, dict):
            raise LayoutError(f"{self.where(INDEX)}: has no 'tables'")
        return tables

    def stage(self, table: str, fingerprint: str) -> StageInfo:
        """What made a version of a table.

        Raises:
            LayoutError: the version is not there, or its description is damaged.
        """
        data = self.read_json(table, fingerprint, STAGE)
        if data is None:
            raise LayoutError(f"{self.where(table, fingerprint, STAGE)}: no such file")
        try:
            return StageInfo(**data)
        except TypeError as error:
            raise LayoutError(f"{self.where(table, fingerprint, STAGE)}: {error}") from error

    def current(self, table: str) -> StageInfo:
        """What made a table's current version.

        Raises:
            LayoutError: the table is not there.
        """
        tables = self.tables()
        if table not in tables:
            raise LayoutError(f"{self.root}: no table {table!r}; it has {', '.join(tables)}")
        return self.stage(table, tables[table])

    def files(self) -> dict[str, int]:
        """Every file below the root, and its bytes: one listing."""
        selector = FileSelector(self.storage.base, allow_not_found=True, recursive=True)
        found = [file for file in self.filesystem.get_file_info(selector) if file.type == FileType.File]
        return dict(sorted((file.path.removeprefix(f"{self.storage.base}/"), file.size) for file in found))

    def versions(self, files: Iterable[str] | None = None) -> dict[str, list[str]]:
        """The fingerprints of each table's versions, current or not, finished or not.

        Args:
            files: what `files` gave, where that was asked for already.
        """
        found: dict[str, list[str]] = {}
        for path in self.files() if files is None else files:
            if (match := VERSIONED.fullmatch(path)) and match[3] == STAGE:
                found.setdefault(match[1], []).append(match[2])
        return found

    def in_use(self) -> set[str]:
        """Fingerprints of the current versions, and of those that they were made from.

        Raises:
            LayoutError: there is no index, or a description is damaged.
        """
        found, waiting = set[str](), list(self.tables().items())
        while waiting:
            table, fingerprint = waiting.pop()
            if fingerprint not in found:
                found.add(fingerprint)
                about = self.read_json(table, fingerprint, STAGE) or {}  # a copy may hold the last tables alone
                waiting += about.get("upstream", {}).items()
        return found

    def manifest(self, table: str, fingerprint: str, shard: int, shards: int) -> Manifest | None:
        """A shard's manifest, or None where the shard is not committed.

        Raises:
            LayoutError: the manifest is damaged.
        """
        name = f"{shard_name(shard, shards)}.json"
        data = self.read_json(table, fingerprint, name)
        try:
            return None if data is None else Manifest.from_json(data)
        except (TypeError, KeyError) as error:
            raise LayoutError(f"{self.where(table, fingerprint, name)}: {error}") from error

    def committed(self, table: str, fingerprint: str, shards: int) -> dict[int, Manifest]:
        """The manifests of a version that are there, by shard, in order: one listing, and a reading of each.

        Raises:
            LayoutError: a manifest is damaged.
        """
        there = set(self.storage.list(f"{table}/{fingerprint}"))
        numbers = [number for number in range(shards) if f"{shard_name(number, shards)}.json" in there]
        with ThreadPoolExecutor(READERS if self.storage.remote else 1) as pool:
            found = list(pool.map(lambda number: self.manifest(table, fingerprint, number, shards), numbers))
        return {number: manifest for number, manifest in zip(numbers, found, strict=True) if manifest}

    def manifests(self, table: str) -> Iterator[Manifest]:
        """The committed shards of a table's current version, in order.

        Raises:
            LayoutError: the table is not there.
        """
        info = self.current(table)
        yield from self.committed(table, info.fingerprint, info.shards).values()

    def open(self, path: str) -> pq.ParquetFile:
        """A Parquet file by its path below the root, page checksums verified as it is read."""
        storage = self.storage  # over a network, the columns of a row group are asked for in few requests
        return pq.ParquetFile(storage.open(path), page_checksum_verification=True, pre_buffer=storage.remote)

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """A table's current version as one Arrow table; `columns` as in `pyarrow.parquet.read_table`."""
        parts = [self.open(manifest.output.path).read(columns) for manifest in self.manifests(table)]
        return pa.concat_tables([part.unify_dictionaries() for part in parts])


def must_be_readable(dataset: Dataset, table: str) -> None:
    """Make sure that a table's current version is in the form that this code reads.

    Raises:
        LayoutError: it is not, or the table is not there.
    """
    there, wanted = dataset.current(table).schema_version, TABLES[table].version
    if there.split(".")[0] != wanted.split(".")[0]:
        raise LayoutError(
            f"{dataset.root}: {table} has schema version {there}, this echo-targets reads {wanted}: run the job again"
        )
