"""The check that every shard must pass before it is committed, and that `echo-targets check` runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.layout import (
    READERS,
    RECIPE,
    Dataset,
    FileEntry,
    LayoutError,
    Manifest,
)
from echo_targets.schemas.dataset.versions import Recipe, Snapshot, entry_digest, shard_id
from echo_targets.schemas.tables.base import KEY, Rule, Table, column
from echo_targets.schemas.tables.cuts import CUTS
from echo_targets.schemas.tables.entries import ENTRIES
from echo_targets.schemas.tables.rejects import REJECTS
from echo_targets.schemas.tables.utterances import UTTERANCES

UTTERANCE_COLUMNS = ("num_samples", "reference_text", "system_text")
"""Columns of utterances that cross rules of other tables use."""
SHOWN_PER_RULE = 3
SHOWN_OF_VALUE = 100
BLOCK = 1 << 24
"""Bytes per read for a digest; over a network, each block is a request."""

UNREADABLE = (OSError, ValueError, NotImplementedError)
"""Exceptions raised for damaged Parquet files: pyarrow's errors, and names that are not UTF-8."""


@dataclass(frozen=True)
class Finding:
    """A violation of the contract, or a notice.

    Attributes:
        table, shard: where it was found; shard `-` means the whole table.
        rule: name of the violated rule.
        message: what is wrong.
        row: key of the row, if it concerns one.
        value: values of the columns that the rule uses, shortened.
        breaks: True if it makes the check fail; False for a notice.
    """

    table: str
    shard: str
    rule: str
    message: str
    row: str | None = None
    value: str | None = None
    breaks: bool = True

    def __str__(self) -> str:
        where = self.table + (f" {self.shard}" if self.shard != "-" else "") + (f" row {self.row}" if self.row else "")
        return f"{where}: {self.rule}: {self.message}" + (f": {self.value}" if self.value else "")


def check_file(
    file: pq.ParquetFile, table: Table, shard: str, fingerprint: str | None = None, rows: bool = True
) -> Iterator[Finding]:
    """Yield the findings of one shard file: schema, metadata, and if `rows` is True, row rules and duplicate keys.

    Raises:
        UNREADABLE: the file is damaged.
    """
    yield from _check_schema(file, table, shard, fingerprint)
    if rows and file.schema_arrow.equals(table.schema):
        yield from _check_rows(file, table, shard, [])


def _check_rows(
    file: pq.ParquetFile, table: Table, shard: str, keys: list[pa.Array], utterances: pa.Table | None = None
) -> Iterator[Finding]:
    """Yield the findings of all rows in one pass: rules, duplicate keys, then cross rules. Append keys to `keys`."""
    references: list[Finding] = []
    for rows in batches(file, table):
        keys.append(rows[KEY])
        yield from _check_rules(rows, table, table.rules, shard)
        if utterances is not None:
            references += _check_references(rows, table, shard, utterances)
    yield from _check_unique(pa.chunked_array(keys, pa.string()), table, shard)
    yield from references


def batches(file: pq.ParquetFile, table: Table) -> Iterator[pa.RecordBatch]:
    """Yield the checked columns of a shard by row group, reading the next row group in the background."""
    names = [file.schema.column(position).path for position in range(len(file.schema))]
    wanted = [name for name in names if name not in table.unchecked]
    reading = None
    with ThreadPoolExecutor(1) as reader:
        for group in [*range(file.num_row_groups), None]:
            before, reading = reading, None if group is None else reader.submit(file.read_row_group, group, wanted)
            if before is not None:
                yield from before.result().combine_chunks().to_batches()


def metadata(table: Table, fingerprint: str) -> dict[str, str]:
    """Return the metadata that every shard file must have, in addition to weight revisions."""
    return {"schema_name": table.name, "schema_version": table.version, "fingerprint": fingerprint}


def _check_schema(file: pq.ParquetFile, table: Table, shard: str, fingerprint: str | None) -> Iterator[Finding]:
    found = file.schema_arrow
    for name in table.schema.names:
        position = found.get_field_index(name)
        if position < 0:
            yield Finding(table.name, shard, "schema", f"column {name} is missing")
        elif not found.field(position).equals(table.schema.field(name)):
            yield Finding(
                table.name, shard, "schema", f"column {name} is {found.field(position)}, not {table.schema.field(name)}"
            )
    for name in found.names:
        if name not in table.schema.names:
            yield Finding(table.name, shard, "schema", f"column {name} is not in {table.name} {table.version}")
    if sorted(found.names) == sorted(table.schema.names) and found.names != table.schema.names:
        yield Finding(table.name, shard, "schema", "columns are not in the order of the schema")
    present = {key.decode(): value.decode() for key, value in (found.metadata or {}).items()}
    for key, value in metadata(table, fingerprint or present.get("fingerprint", "")).items():
        if present.get(key) != value or not value:
            yield Finding(table.name, shard, "metadata", f"{key} is {present.get(key)!r}, expected {value!r}")


def _check_rules(rows: pa.RecordBatch, table: Table, rules: tuple[Rule, ...], shard: str) -> Iterator[Finding]:
    for rule in rules:
        watched = _Watched(rows)
        broken = pc.indices_nonzero(pc.fill_null(rule.broken(cast(pa.RecordBatch, watched)), False))
        for row in broken[:SHOWN_PER_RULE].to_pylist():
            key, value = rows[KEY][row].as_py(), watched.value(row)
            yield Finding(table.name, shard, rule.name, f"violated: {rule.says}", key, value)
        if len(broken) > SHOWN_PER_RULE:
            yield Finding(table.name, shard, rule.name, f"and {len(broken) - SHOWN_PER_RULE} more rows")


def broken_rows(rows: pa.Table, table: Table) -> dict[int, str]:
    """Return the positions of rows that break a rule of their table, each with the first rule and the values."""
    found: dict[int, str] = {}
    for batch in rows.unify_dictionaries().combine_chunks().to_batches():
        for rule in table.rules:
            watched = _Watched(batch)
            broken = pc.indices_nonzero(pc.fill_null(rule.broken(cast(pa.RecordBatch, watched)), False))
            for row in broken.to_pylist():
                found.setdefault(row, f"{rule.name}: {rule.says}: {watched.value(row)}")
    return found


class _Watched:
    """A record batch that records which columns a rule has accessed."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        self._rows = rows
        self._names: dict[str, None] = {}

    def __getitem__(self, name: str) -> pa.Array:
        self._names[name] = None
        return self._rows[name]

    def value(self, row: int) -> str:
        return ", ".join(f"{name} = {shortened(self._rows[name][row].as_py())}" for name in self._names)


def shortened(value: object) -> str:
    """Return a value's repr, shortened."""
    text = repr(value)
    return text if len(text) <= SHOWN_OF_VALUE else f"{text[:SHOWN_OF_VALUE]}…"


def _check_unique(keys: pa.ChunkedArray, table: Table, shard: str) -> Iterator[Finding]:
    if len(keys.unique()) == len(keys):
        return
    counts = keys.value_counts()
    twice = pc.filter(counts, pc.greater(pc.struct_field(counts, "counts"), 1))
    for item in twice[:SHOWN_PER_RULE].to_pylist():
        yield Finding(table.name, shard, "key_unique", f"{KEY} occurs {item['counts']} times", item["values"])


def check_dataset(root: str, rows: bool = True) -> Iterator[Finding]:
    """Yield the findings of a whole root in a deterministic order.

    Compares manifests with files, schemas and metadata; if `rows` is True, also checks digests, every rule on every
    row, and references between tables. Shards are checked in parallel, one thread per processor; memory holds one row
    group per thread and the keys of one table.

    Raises:
        LayoutError: the index, or the description of a table that it names, is missing or invalid.
    """
    dataset = Dataset(root)
    threads = READERS if dataset.storage.remote and not rows else os.cpu_count() or 1
    snapshots: dict[str, Snapshot | Finding] = {}
    for name, version in dataset.tables().items():
        table = TABLES.get(name)
        if table is None and dataset.read_json(name, version.recipe, RECIPE) is None:
            yield Finding(name, "-", "known_table", f"is not a table of this version, and has no {RECIPE}")
            continue
        recipe = dataset.recipe(name, version.recipe)
        if version.snapshot not in snapshots:
            snapshots[version.snapshot] = _snapshot(dataset, version.snapshot)
        snapshot = snapshots[version.snapshot]
        if isinstance(snapshot, Finding):
            yield replace(snapshot, table=name)
            continue
        if table is None:
            said = "note: is not a table of this package; its files, schema and keys are checked, but not its rules"
            yield Finding(name, "-", "known_table", said, breaks=False)
            table = _foreign(dataset, recipe, snapshot)
        if recipe.schema_version != table.version:
            yield Finding(
                name, "-", "schema_version", f"is {recipe.schema_version}, this version reads {table.version}"
            )
        if (recipe.table, recipe.fingerprint) != (name, version.recipe):
            yield Finding(name, "-", "description", f"describes {recipe.table}/{recipe.fingerprint} instead")
        elif recipe.digest != recipe.fingerprint:
            yield Finding(name, "-", "description", f"its digest is {recipe.digest}, so it was changed")
        if not isinstance(recipe.upstream, dict):
            yield Finding(name, "-", "description", f"upstream is {recipe.upstream!r}, expected an object")
            continue
        seen: list[pa.Array] = []
        pool = ThreadPoolExecutor(threads)
        try:
            for found, keys in pool.map(_Shards(dataset, table, recipe, version.recipe, rows), snapshot.ids):
                yield from found
                seen += keys
        finally:
            pool.shutdown(cancel_futures=True)
        yield from _check_unique(pa.chunked_array(seen, pa.string()), table, "all")


def _snapshot(dataset: Dataset, name: str) -> Snapshot | Finding:
    try:
        return dataset.snapshot(name)
    except LayoutError as error:
        return Finding("", "-", "snapshot", str(error))


def _foreign(dataset: Dataset, recipe: Recipe, snapshot: Snapshot) -> Table:
    """Return a table that a stage of another package wrote, as its first shard has it, without rules.

    The stage's own `Table` is not imported: a dataset must not decide which code runs.
    """
    schema = pa.schema([column(KEY, pa.string())])
    for shard in snapshot.ids:
        try:
            manifest = dataset.manifest(recipe.table, recipe.fingerprint, shard)
            if manifest is not None:
                with dataset.open(manifest.output.path) as file:
                    schema = file.schema_arrow.remove_metadata()
                break
        except (OSError, *UNREADABLE, LayoutError):
            continue
    return Table(recipe.table, recipe.schema_version, schema, {})


@dataclass(frozen=True)
class _Shards:
    """Checks the shards of one version of a table: calling it with an id returns that shard's findings and keys."""

    dataset: Dataset
    table: Table
    recipe: Recipe
    fingerprint: str
    rows: bool

    def __call__(self, shard: str) -> tuple[list[Finding], list[pa.Array]]:
        keys: list[pa.Array] = []
        return list(self._check(shard, keys)), keys

    def _check(self, shard: str, keys: list[pa.Array]) -> Iterator[Finding]:
        table = self.table
        try:
            manifest = self.dataset.manifest(table.name, self.fingerprint, shard)
        except (LayoutError, OSError) as error:
            yield Finding(table.name, shard, "manifest", str(error))
            return
        if manifest is None:
            yield Finding(table.name, shard, "committed", "has no manifest. Run the same command again to finish it.")
            return
        named = (manifest.table, manifest.fingerprint, manifest.shard)
        if named != (table.name, self.fingerprint, shard):
            yield Finding(table.name, shard, "manifest", f"belongs to another shard: {named}")
        try:
            yield from self._check_counts(manifest, shard)
        except (TypeError, AttributeError) as error:
            yield Finding(table.name, shard, "manifest", f"a value has the wrong type: {error}")
            return
        place = f"{self.fingerprint}/{shard}.parquet"
        yield from self._check_file(manifest.output, table, f"{table.name}/{place}", manifest, shard, keys)
        if manifest.rejects:
            expected = f"{REJECTS.name}/{self.recipe.stage}/{place}"
            yield from self._check_file(manifest.rejects, REJECTS, expected, manifest, shard, keys)

    def _check_counts(self, manifest: Manifest, shard: str) -> Iterator[Finding]:
        rejected, reasons = manifest.rejects.rows if manifest.rejects else 0, sum(manifest.reasons.values())
        if manifest.rows_in != manifest.output.rows + rejected or rejected != reasons:
            message = (
                f"{manifest.rows_in} rows in, but {manifest.output.rows} out and {rejected} rejected; the reject "
                f"reasons add up to {reasons}"
            )
            yield Finding(self.table.name, shard, "rows_add_up", message)

    def _check_file(
        self, entry: FileEntry, kind: Table, expected: str, manifest: Manifest, shard: str, keys: list[pa.Array]
    ) -> Iterator[Finding]:
        """Yield the findings of one file that a manifest lists; the table's own file appends its keys to `keys`."""
        if entry.path != expected:
            yield Finding(kind.name, shard, "manifest", f"names {entry.path}, expected {expected}")
            return
        findings = list(check_bytes(self.dataset, entry, kind, shard, digest=self.rows))
        yield from findings
        if findings:
            return
        try:
            with self.dataset.open(entry.path) as file:
                if file.metadata.num_rows != entry.rows:
                    yield Finding(
                        kind.name, shard, "rows", f"{file.metadata.num_rows} rows, manifest says {entry.rows}"
                    )
                fits = self.rows and file.schema_arrow.equals(kind.schema)
                if kind is self.table and fits:
                    yield from _check_schema(file, kind, shard, self.fingerprint)
                    yield from self._check_against_upstream(file, manifest, shard, keys)
                else:
                    yield from check_file(file, kind, shard, self.fingerprint, self.rows)
                    if kind is REJECTS and fits:
                        yield from self._check_rejects(file, manifest, shard, keys)
        except UNREADABLE as error:
            yield Finding(kind.name, shard, "readable", str(error))

    def _check_against_upstream(
        self, file: pq.ParquetFile, manifest: Manifest, shard: str, keys: list[pa.Array]
    ) -> Iterator[Finding]:
        """Compare a shard with its utterances and entries, which are in the shards of the same id."""
        if self.table is ENTRIES:
            yield from _check_id(file, shard)
        utterances, missing = self._upstream(UTTERANCES, [KEY, *UTTERANCE_COLUMNS], shard)
        yield from _check_rows(file, self.table, shard, keys, utterances)
        yield from missing
        if self.table not in (CUTS, UTTERANCES):
            return
        entries, missing = self._upstream(ENTRIES, [KEY], shard)
        yield from missing
        if entries is not None:
            if manifest.rows_in != len(entries):
                yield Finding(
                    self.table.name, shard, "rows_in", f"{manifest.rows_in} rows in, but {len(entries)} entries"
                )
            yield from _unknown(pa.chunked_array(keys, pa.string()), entries[KEY], self.table, shard, ENTRIES)

    def _upstream(self, table: Table, columns: list[str], shard: str) -> tuple[pa.Table | None, list[Finding]]:
        """Return columns of this shard in an upstream table; None if the table is not upstream or can't be read."""
        fingerprint = self.recipe.upstream.get(table.name)
        if fingerprint is None:
            return None, []
        try:
            manifest = self.dataset.manifest(table.name, fingerprint, shard)
            if manifest is None:
                raise LayoutError(f"{table.name}/{fingerprint} has no manifest of {shard}")
            with self.dataset.open(manifest.output.path) as file:
                if not file.schema_arrow.equals(table.schema):
                    raise LayoutError(f"{manifest.output.path} does not have the schema of {table.name}")
                return file.read(columns), []
        except (LayoutError, TypeError, *UNREADABLE) as error:
            return None, [Finding(self.table.name, shard, "upstream", f"its {table.name} can't be read: {error}")]

    def _check_rejects(
        self, file: pq.ParquetFile, manifest: Manifest, shard: str, keys: list[pa.Array]
    ) -> Iterator[Finding]:
        """Check that rejects are of this stage, have the manifest's reason counts, and are not also output rows."""
        rejects = file.read([KEY, "stage", "error_class"])
        counted = {str(item["values"]): item["counts"] for item in _counts(rejects["error_class"])}
        if counted != manifest.reasons:
            message = f"{shortened(counted)}, manifest says {shortened(manifest.reasons)}"
            yield Finding(REJECTS.name, shard, "reasons", message)
        for item in _counts(rejects["stage"]):
            if item["values"] != self.recipe.stage:
                message = f"{item['counts']} rows are of {item['values']!r}, not {self.recipe.stage!r}"
                yield Finding(REJECTS.name, shard, "stage", message)
        both = pc.is_in(rejects[KEY], value_set=pa.chunked_array(keys, pa.string()).combine_chunks())
        for key in pc.filter(rejects[KEY], both)[:SHOWN_PER_RULE].to_pylist():
            yield Finding(REJECTS.name, shard, "key_once", f"is both rejected and in {self.table.name}", key)


def _check_id(file: pq.ParquetFile, shard: str) -> Iterator[Finding]:
    found = shard_id(ENTRIES.version, map(entry_digest, file.read().to_pylist()))
    if found != shard:
        yield Finding(ENTRIES.name, shard, "shard_id", f"the digest of its entries is {found}")


def _counts(categories: pa.ChunkedArray) -> list[dict[str, object]]:
    counts: list[dict[str, object]] = categories.cast(pa.string()).value_counts().to_pylist()
    return counts


def check_bytes(dataset: Dataset, entry: FileEntry, table: Table, shard: str, digest: bool) -> Iterator[Finding]:
    """Yield a finding if a file differs from its manifest entry: in size or, if `digest` is True, in SHA-256."""
    if not digest:
        size = dataset.storage.size(entry.path)
        if size is None:
            yield Finding(table.name, shard, "present", f"{entry.path} is missing")
        elif size != entry.size:
            message = f"{entry.path}: {size} bytes, manifest says {entry.size}"
            yield Finding(table.name, shard, "size", message)
        return
    sha256 = hashlib.sha256()
    try:
        with dataset.storage.open(entry.path) as file:
            size = file.size()
            while block := file.read(BLOCK):
                sha256.update(block)
    except FileNotFoundError:
        yield Finding(table.name, shard, "present", f"{entry.path} is missing")
        return
    found = sha256.hexdigest()
    if (size, found) != (entry.size, entry.sha256):
        message = f"{entry.path}: {size} bytes, sha256 {found}; manifest says {entry.size} bytes, {entry.sha256}"
        yield Finding(table.name, shard, "digest", message)


def _check_references(rows: pa.RecordBatch, table: Table, shard: str, utterances: pa.Table) -> Iterator[Finding]:
    known = utterances[KEY].combine_chunks()
    position = pc.index_in(rows[KEY], value_set=known)
    yield from _unknown(pa.chunked_array([rows[KEY]]), utterances[KEY], table, shard, UTTERANCES)
    joined = rows
    for name in UTTERANCE_COLUMNS:
        column = pc.take(utterances[name].combine_chunks(), position)
        joined = joined.append_column(f"{UTTERANCES.name}.{name}", column)
    yield from _check_rules(joined, table, table.cross_rules, shard)
    if "user_audio_ids" in rows.schema.names:
        audio_ids = pc.list_flatten(rows["user_audio_ids"])
        missing = pc.invert(pc.is_in(audio_ids, value_set=known))
        for key in pc.filter(audio_ids, missing)[:SHOWN_PER_RULE].to_pylist():
            yield Finding(table.name, shard, "user_audio_resolves", "no utterance has this id", key)


def _unknown(
    keys: pa.ChunkedArray, known: pa.ChunkedArray, table: Table, shard: str, where: Table
) -> Iterator[Finding]:
    missing = pc.invert(pc.is_in(keys, value_set=known.combine_chunks()))
    for key in pc.filter(keys, missing)[:SHOWN_PER_RULE].to_pylist():
        yield Finding(table.name, shard, "key_resolves", f"is not in {where.name}", key)


__all__ = ["UNREADABLE", "Finding", "LayoutError", "check_bytes", "check_dataset", "check_file", "metadata"]
