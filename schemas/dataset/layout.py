"""Layout of a dataset on disk, and how to read it.

    <root>/index.json                          current version of each table, and labeled versions
    <root>/snapshots/<snapshot>.json           shards of the corpus at one time, in order
    <root>/<table>/<recipe>/recipe.json        description: stage, parameters, weights, upstream recipes
    <root>/<table>/<recipe>/<shard>.json       manifest of the shard; its commit mark
    <root>/<table>/<recipe>/<shard>.parquet
    <root>/<table>/<recipe>/<shard>.attempt.json    attempts; exists while the shard is processed and after a failure
    <root>/rejects/<stage>/<recipe>/<shard>.parquet   only if rows were rejected
    <root>/lease/000001.json                   lease of the running driver, if any

A version of a table is `recipe@snapshot`: the shards that a snapshot lists, made by a recipe. A shard without a
manifest does not exist. Names of files are computed from the index and the snapshot, never globbed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import FileSelector, FileType

from echo_targets.schemas import REJECTS, TABLES
from echo_targets.schemas.dataset.storage import Storage, open_root, storage_of
from echo_targets.schemas.dataset.versions import ID, Recipe, Snapshot, Version
from echo_targets.schemas.errors import UserError

INDEX = "index.json"
RECIPE = "recipe.json"
SNAPSHOTS = "snapshots"
VERSIONED = re.compile(r"(.+)/([0-9a-f]{16})/([^/]+)")
"""Path of a file of a recipe. Groups: table or a stage's reject folder, recipe, file name."""
TABLE = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")
"""Name of a table. It can't lead out of the root."""
SHARD = re.compile(r"[0-9a-f]{16}\.json")
"""Name of a shard's manifest."""
READERS = 16
"""Number of manifests to read concurrently over a network."""


class LayoutError(UserError):
    """A file of the dataset is missing or invalid; the message names the file."""


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
        table, fingerprint, shard: identify the shard: its table, recipe and id.
        rows_in: number of input rows; always equals output rows plus rejects.
        samples: 16 kHz samples of the input rows; 0 if the stage does not read audio lengths.
        output: the shard's Parquet file.
        rejects: the file of rejected rows; None if there are none.
        reasons: number of rejected rows by error class.
    """

    table: str
    fingerprint: str
    shard: str
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
class Index:
    """Contents of `index.json`.

    Attributes:
        tables: current version of each table, in the order in which they were made.
        labels: by name, versions of tables that are kept.
        replaced: by table and version, when another version became current in its place: UTC, ISO 8601.
        attempts: by key, how often rows were retried, for rows that were. The attempt is part of a row's entry.
    """

    tables: dict[str, Version] = field(default_factory=dict)
    labels: dict[str, dict[str, Version]] = field(default_factory=dict)
    replaced: dict[str, dict[Version, str]] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> bytes:
        texts = {
            "tables": {table: str(version) for table, version in self.tables.items()},
            "labels": {
                label: {table: str(version) for table, version in tables.items()}
                for label, tables in self.labels.items()
            },
            "replaced": {
                table: {str(version): when for version, when in versions.items()}
                for table, versions in self.replaced.items()
            },
            "attempts": self.attempts,
        }
        return json.dumps(
            {name: value for name, value in texts.items() if value or name == "tables"}, indent=1
        ).encode()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Index:
        """Return the index that a file describes.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: the file does not describe one.
        """
        names = [
            *data["tables"],
            *data.get("replaced", {}),
            *(table for named in data.get("labels", {}).values() for table in named),
        ]
        if odd := [name for name in names if not TABLE.fullmatch(name)]:
            raise ValueError(f"{odd[0]!r} is not the name of a table")
        for when in (when for versions in data.get("replaced", {}).values() for when in versions.values()):
            if datetime.fromisoformat(when).tzinfo is None:
                raise ValueError(f"{when!r} has no time zone")
        return cls(
            {table: Version.parse(version) for table, version in data["tables"].items()},
            {
                label: {table: Version.parse(version) for table, version in tables.items()}
                for label, tables in data.get("labels", {}).items()
            },
            {
                table: {Version.parse(version): when for version, when in versions.items()}
                for table, versions in data.get("replaced", {}).items()
            },
            {key: int(attempts) for key, attempts in data.get("attempts", {}).items()},
        )


class Stat(NamedTuple):
    """Size of a file in bytes, and when it was last changed, as far as the storage knows."""

    size: int
    modified: datetime | None


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

    def index(self) -> Index | None:
        """Return the index, or None if there is none yet.

        Raises:
            LayoutError: it is invalid.
        """
        data = self.read_json(INDEX)
        try:
            return None if data is None else Index.from_json(data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LayoutError(
                f"{self.where(INDEX)}: does not name a version of each table as recipe@snapshot ({error}); run the "
                "job again, in a new root if another version of echo-targets made this one"
            ) from error

    def tables(self) -> dict[str, Version]:
        """Return the current version of each table, in the order in which they were made.

        Raises:
            LayoutError: there is no index, or it is invalid.
        """
        index = self.index()
        if index is None:
            raise LayoutError(f"{self.where(INDEX)}: no such file; is this the root of a finished run?")
        return index.tables

    def current(self, table: str) -> Version:
        """Return a table's current version.

        Raises:
            LayoutError: the table does not exist.
        """
        tables = self.tables()
        if table not in tables:
            raise LayoutError(f"{self.root}: no table {table!r}. Tables are {', '.join(tables)}.")
        return tables[table]

    def named(self, table: str, name: str) -> Version:
        """Return the version of a table that a name stands for.

        Args:
            table: name of the table.
            name: a label, `recipe@snapshot`, or a recipe; of ids, the first four digits are enough. A recipe stands for
                its current version, else for the only whole one.

        Raises:
            LayoutError: no version, or more than one, has this name.
        """
        index = self.index() or Index()
        if name in index.labels:
            if table not in index.labels[name]:
                raise LayoutError(f"{self.root}: the label {name} has no version of {table}")
            return index.labels[name][table]
        recipe, _, snapshot = name.partition("@")
        if ID.fullmatch(recipe) and ID.fullmatch(snapshot) and self.is_whole(table, Version(recipe, snapshot)):
            return Version(recipe, snapshot)
        found = [
            version
            for version in self.versions(table)
            if version.recipe.startswith(recipe) and version.snapshot.startswith(snapshot)
        ]
        current = [version for version in found if version == index.tables.get(table)]
        if len(name) < 4 or len(current or found) != 1:
            there = ", ".join(map(str, self.versions(table))) or "none"
            raise LayoutError(
                f"{self.root}: {len(found)} versions of {table} are named {name}, expected one. Whole versions: "
                f"{there}; labels: {', '.join(index.labels) or 'none'}"
            )
        return (current or found)[0]

    def is_whole(self, table: str, version: Version) -> bool:
        """Return True if all shards of a version are there."""
        if self.storage.size(f"{SNAPSHOTS}/{version.snapshot}.json") is None:
            return False
        return self.there(table, version.recipe).issuperset(self.snapshot(version.snapshot).ids)

    def versions(self, table: str) -> list[Version]:
        """Return the whole versions of a table, current or not."""
        snapshots = {name: set(self.snapshot(name).ids) for name in self.snapshots()}
        found = []
        for recipe in self.recipes_of(table):
            there = self.there(table, recipe)
            found += [Version(recipe, name) for name, shards in snapshots.items() if shards <= there]
        return found

    def recipe(self, table: str, fingerprint: str) -> Recipe:
        """Return a recipe of a table.

        Raises:
            LayoutError: it does not exist, or is invalid.
        """
        data = self.read_json(table, fingerprint, RECIPE)
        if data is None:
            raise LayoutError(f"{self.where(table, fingerprint, RECIPE)}: no such file")
        try:
            return Recipe(**data)
        except TypeError as error:
            raise LayoutError(f"{self.where(table, fingerprint, RECIPE)}: {error}") from error

    def snapshot(self, name: str) -> Snapshot:
        """Return a snapshot by its id.

        Raises:
            LayoutError: it does not exist, or is invalid.
        """
        path = f"{SNAPSHOTS}/{name}.json"
        data = self.read_json(path)
        if data is None:
            raise LayoutError(f"{self.where(path)}: no such file")
        try:
            snapshot = Snapshot.from_json(data)
            if snapshot.id != name or not snapshot.shards:
                raise ValueError(f"it lists {len(snapshot.shards)} shards of the digest {snapshot.id}")
            return snapshot
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise LayoutError(f"{self.where(path)}: was changed or damaged ({error}); restore it") from error

    def snapshots(self) -> list[str]:
        """Return the ids of all snapshots."""
        return [name.removesuffix(".json") for name in self.storage.list(SNAPSHOTS) if name.endswith(".json")]

    def files(self) -> dict[str, Stat]:
        """Return the size and date of every file below the root, by path, from one listing."""
        selector = FileSelector(self.storage.base, allow_not_found=True, recursive=True)
        found = [file for file in self.filesystem.get_file_info(selector) if file.type == FileType.File]
        stats = {file.path.removeprefix(f"{self.storage.base}/"): Stat(file.size, file.mtime) for file in found}
        return dict(sorted(stats.items()))

    def recipes(self, files: Iterable[str] | None = None) -> dict[str, list[str]]:
        """Return the fingerprints of each table's recipes, current or not, finished or not.

        Args:
            files: result of `files` to use instead of listing again.
        """
        found: dict[str, list[str]] = {}
        for path in self.files() if files is None else files:
            if (match := VERSIONED.fullmatch(path)) and match[3] == RECIPE:
                found.setdefault(match[1], []).append(match[2])
        return found

    def recipes_of(self, table: str) -> list[str]:
        """Return the fingerprints of a table's recipes, sorted."""
        return sorted(path.split("/")[-2] for path in self.storage.find(table) if path.endswith(f"/{RECIPE}"))

    def lineage(self, versions: Iterable[tuple[str, Version]]) -> set[tuple[str, Version]]:
        """Return versions with all versions that they were made from, each with its table.

        Raises:
            LayoutError: a recipe is invalid.
        """
        found, waiting = set[tuple[str, Version]](), list(versions)
        while waiting:
            table, version = waiting.pop()
            if (table, version) not in found:
                found.add((table, version))
                about = self.read_json(table, version.recipe, RECIPE) or {}  # a partial copy may lack upstream tables
                waiting += [
                    (name, Version(recipe, version.snapshot)) for name, recipe in about.get("upstream", {}).items()
                ]
        return found

    def manifest(self, table: str, fingerprint: str, shard: str) -> Manifest | None:
        """Return a shard's manifest, or None if the shard is not committed.

        Raises:
            LayoutError: the manifest is invalid.
        """
        data = self.read_json(table, fingerprint, f"{shard}.json")
        try:
            return None if data is None else Manifest.from_json(data)
        except (TypeError, KeyError) as error:
            raise LayoutError(f"{self.where(table, fingerprint, shard)}.json: {error}") from error

    def there(self, table: str, fingerprint: str) -> set[str]:
        """Return the ids of a recipe's committed shards whose files are there, from one listing."""
        return shards_among(self.storage.list(f"{table}/{fingerprint}"))

    def committed(self, table: str, fingerprint: str, shards: Iterable[str]) -> dict[str, Manifest]:
        """Return the manifests of those of the given shards that are committed, by id, in the given order.

        Raises:
            LayoutError: a manifest is invalid.
        """
        there = self.there(table, fingerprint)
        ids = [shard for shard in shards if shard in there]
        with ThreadPoolExecutor(READERS if self.storage.remote else 1) as pool:
            found = list(pool.map(lambda shard: self.manifest(table, fingerprint, shard), ids))
        return {shard: manifest for shard, manifest in zip(ids, found, strict=True) if manifest}

    def manifests(self, table: str, version: Version | None = None) -> list[Manifest]:
        """Return the manifests of a version of a table, in the snapshot's order.

        Args:
            version: None means the current one.

        Raises:
            LayoutError: the table does not exist, or the version is not whole.
        """
        version = version or self.current(table)
        shards = self.snapshot(version.snapshot).ids
        found = self.committed(table, version.recipe, shards)
        if lost := [shard for shard in shards if shard not in found]:
            raise LayoutError(
                f"{self.where(table, version.recipe)}: {len(lost)} of {len(shards)} shards of {version} are missing, "
                f"for example {lost[0]}. Run the job again to complete them."
            )
        return list(found.values())

    def open(self, path: str) -> pq.ParquetFile:
        """Open a Parquet file by its path below the root; page checksums are verified as it is read."""
        storage = self.storage  # pre_buffer fetches a row group's columns in few requests over a network
        return pq.ParquetFile(storage.open(path), page_checksum_verification=True, pre_buffer=storage.remote)

    def read(self, table: str, columns: Sequence[str] | None = None, version: Version | str | None = None) -> pa.Table:
        """Return a version of a table as one Arrow table.

        Args:
            table: a table, or `rejects`: the rows that the stages of all current tables rejected.
            columns: as in `pyarrow.parquet.read_table`.
            version: a version or its name, as in `named`; None means the current one.

        Raises:
            LayoutError: the table or the version does not exist, or is not whole.
        """
        if table == REJECTS.name and table not in self.tables():
            manifests = [manifest for name, made in self.tables().items() for manifest in self.manifests(name, made)]
            files = [manifest.rejects for manifest in manifests if manifest.rejects]
        else:
            made = self.named(table, version) if isinstance(version, str) else version
            files = [manifest.output for manifest in self.manifests(table, made)]
        parts = [self.open(file.path).read(columns) for file in files]
        if not parts:
            return REJECTS.schema.empty_table().select(columns or REJECTS.columns)
        return pa.concat_tables([part.unify_dictionaries() for part in parts])


def shards_among(names: Iterable[str]) -> set[str]:
    """Return the ids of the shards of which a folder holds both the manifest and the Parquet file."""
    known = set(names)
    shards = {name.removesuffix(".json") for name in known if SHARD.fullmatch(name)}
    return {shard for shard in shards if f"{shard}.parquet" in known}


def must_be_readable(dataset: Dataset, table: str, version: Version | None = None) -> None:
    """Check that this code can read the schema version of a version of a table; None means the current one.

    Raises:
        LayoutError: it can't, or the table does not exist.
    """
    version = version or dataset.current(table)
    there, wanted = dataset.recipe(table, version.recipe).schema_version, TABLES[table].version
    if there.split(".")[0] != wanted.split(".")[0]:
        raise LayoutError(
            f"{dataset.root}: {table} has schema version {there}, but this echo-targets reads {wanted}. Run the job "
            "again."
        )
