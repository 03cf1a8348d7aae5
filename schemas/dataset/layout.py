"""Layout of a dataset on disk, and how to read it.

    <root>/index.json                                    current fingerprint of each table
    <root>/<table>/<fingerprint>/stage.json              description: stage, parameters, weights, upstream, shards
    <root>/<table>/<fingerprint>/part-00003-of-00012.json     manifest of the shard; its commit mark
    <root>/<table>/<fingerprint>/part-00003-of-00012.parquet
    <root>/<table>/<fingerprint>/part-00003-of-00012.attempt.json     attempts; exists while the shard is processed
                                                                      and after a failure
    <root>/lease/000001.json                             lease of the running driver, if any
    <root>/retry/<table>/<fingerprint>/part-…            previous shards, while `retry` recomputes them
    <root>/rejects/<stage>/<fingerprint>/part-00003-of-00012.parquet   only if rows were rejected

A shard without a manifest does not exist. File names are computed from the index, never globbed.
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
"""Folder in which a retry keeps the previous shards and manifests until it ends, under their paths below the root."""
VERSIONED = re.compile(r"(.+)/([0-9a-f]{16})/([^/]+)")
"""Path of a version's file. Groups: table or a stage's reject folder, fingerprint, file name."""
READERS = 16
"""Number of manifests to read concurrently over a network."""


class LayoutError(UserError):
    """A file of the dataset is missing or invalid; the message names the file."""


def shard_name(index: int, count: int) -> str:
    """Return the name of a shard without its extension, like `part-00003-of-00012`."""
    return f"part-{index:05d}-of-{count:05d}"


@dataclass(frozen=True)
class FileEntry:
    """A file listed in a manifest: its path below the root, size in bytes, SHA-256 (hex) and number of rows."""

    path: str
    size: int
    sha256: str
    rows: int


@dataclass(frozen=True)
class Manifest:
    """Contents of one committed shard.

    Attributes:
        table, fingerprint, shard, shards: identify the shard.
        rows_in: number of input rows; always equals output rows plus rejects.
        samples: 16 kHz samples of the input rows; 0 if the stage does not read audio lengths.
        output: the shard's Parquet file.
        rejects: the file of rejected rows; None if there are none.
        reasons: number of rejected rows by error class.
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
    """Description of a version of a table: everything its fingerprint is computed from, and the number of shards."""

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
    """Reads a dataset at a root: a folder, or a URL of an object store such as `s3://bucket/folder`."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.filesystem, self.base = open_root(root)

    @property
    def storage(self) -> Storage:
        """The files below the root."""
        return storage_of(self.filesystem, self.base)

    def path(self, *parts: str) -> str:
        """Return a path on the dataset's file system."""
        return self.storage.path(*parts)

    def where(self, *parts: str) -> str:
        """Return a file's path or URL for a message."""
        return self.storage.where(*parts)

    def read_json(self, *parts: str) -> dict[str, Any] | None:
        """Return a JSON object below the root, or None if there is no such file.

        Raises:
            LayoutError: the file is not a JSON object.
            OSError: the file can't be read at the moment.
        """
        path = "/".join(parts)
        try:
            value = json.loads(self.storage.read(path))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise LayoutError(f"{self.where(path)}: invalid JSON ({error})") from error
        if not isinstance(value, dict):
            raise LayoutError(f"{self.where(path)}: expected a JSON object")
        return value

    def tables(self) -> dict[str, str]:
        """Return the current fingerprint of each table, in the order in which they were made.

        Raises:
            LayoutError: there is no index, or it is invalid.
        """
        index = self.read_json(INDEX)
        if index is None:
            raise LayoutError(f"{self.where(INDEX)}: no such file; is this the root of a finished run?")
        tables = index.get("tables")
        if not isinstance(tables, dict):
            raise LayoutError(f"{self.where(INDEX)}: 'tables' is missing or not an object")
        return tables

    def stage(self, table: str, fingerprint: str) -> StageInfo:
        """Return the description of a version of a table.

        Raises:
            LayoutError: the version does not exist, or its description is invalid.
        """
        data = self.read_json(table, fingerprint, STAGE)
        if data is None:
            raise LayoutError(f"{self.where(table, fingerprint, STAGE)}: no such file")
        try:
            return StageInfo(**data)
        except TypeError as error:
            raise LayoutError(f"{self.where(table, fingerprint, STAGE)}: {error}") from error

    def current(self, table: str) -> StageInfo:
        """Return the description of a table's current version.

        Raises:
            LayoutError: the table does not exist.
        """
        tables = self.tables()
        if table not in tables:
            raise LayoutError(f"{self.root}: no table {table!r}. Tables are {', '.join(tables)}.")
        return self.stage(table, tables[table])

    def files(self) -> dict[str, int]:
        """Return the size in bytes of every file below the root, by path, from one listing."""
        selector = FileSelector(self.storage.base, allow_not_found=True, recursive=True)
        found = [file for file in self.filesystem.get_file_info(selector) if file.type == FileType.File]
        return dict(sorted((file.path.removeprefix(f"{self.storage.base}/"), file.size) for file in found))

    def versions(self, files: Iterable[str] | None = None) -> dict[str, list[str]]:
        """Return the fingerprints of each table's versions, current or not, finished or not.

        Args:
            files: result of `files` to use instead of listing again.
        """
        found: dict[str, list[str]] = {}
        for path in self.files() if files is None else files:
            if (match := VERSIONED.fullmatch(path)) and match[3] == STAGE:
                found.setdefault(match[1], []).append(match[2])
        return found

    def in_use(self) -> set[str]:
        """Return the fingerprints of the current versions and of all versions that they were made from.

        Raises:
            LayoutError: there is no index, or a description is invalid.
        """
        found, waiting = set[str](), list(self.tables().items())
        while waiting:
            table, fingerprint = waiting.pop()
            if fingerprint not in found:
                found.add(fingerprint)
                about = self.read_json(table, fingerprint, STAGE) or {}  # a partial copy may lack upstream tables
                waiting += about.get("upstream", {}).items()
        return found

    def manifest(self, table: str, fingerprint: str, shard: int, shards: int) -> Manifest | None:
        """Return a shard's manifest, or None if the shard is not committed.

        Raises:
            LayoutError: the manifest is invalid.
        """
        name = f"{shard_name(shard, shards)}.json"
        data = self.read_json(table, fingerprint, name)
        try:
            return None if data is None else Manifest.from_json(data)
        except (TypeError, KeyError) as error:
            raise LayoutError(f"{self.where(table, fingerprint, name)}: {error}") from error

    def committed(self, table: str, fingerprint: str, shards: int) -> dict[int, Manifest]:
        """Return the manifests of a version's committed shards by shard number, in order.

        Raises:
            LayoutError: a manifest is invalid.
        """
        there = set(self.storage.list(f"{table}/{fingerprint}"))
        numbers = [number for number in range(shards) if f"{shard_name(number, shards)}.json" in there]
        with ThreadPoolExecutor(READERS if self.storage.remote else 1) as pool:
            found = list(pool.map(lambda number: self.manifest(table, fingerprint, number, shards), numbers))
        return {number: manifest for number, manifest in zip(numbers, found, strict=True) if manifest}

    def manifests(self, table: str) -> Iterator[Manifest]:
        """Yield the manifests of a table's current version, in shard order.

        Raises:
            LayoutError: the table does not exist.
        """
        info = self.current(table)
        yield from self.committed(table, info.fingerprint, info.shards).values()

    def open(self, path: str) -> pq.ParquetFile:
        """Open a Parquet file by its path below the root; page checksums are verified as it is read."""
        storage = self.storage  # pre_buffer fetches a row group's columns in few requests over a network
        return pq.ParquetFile(storage.open(path), page_checksum_verification=True, pre_buffer=storage.remote)

    def read(self, table: str, columns: list[str] | None = None) -> pa.Table:
        """Return a table's current version as one Arrow table; `columns` as in `pyarrow.parquet.read_table`."""
        parts = [self.open(manifest.output.path).read(columns) for manifest in self.manifests(table)]
        return pa.concat_tables([part.unify_dictionaries() for part in parts])


def must_be_readable(dataset: Dataset, table: str) -> None:
    """Check that this code can read the schema version of a table's current version.

    Raises:
        LayoutError: it can't, or the table does not exist.
    """
    there, wanted = dataset.current(table).schema_version, TABLES[table].version
    if there.split(".")[0] != wanted.split(".")[0]:
        raise LayoutError(
            f"{dataset.root}: {table} has schema version {there}, but this echo-targets reads {wanted}. Run the job "
            "again."
        )
