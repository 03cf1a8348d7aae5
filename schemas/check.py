"""The check that every shard must pass: before it is committed, and whenever CI asks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas import TABLES
from schemas.base import KEY, Rule, Table
from schemas.layout import Dataset, FileEntry, LayoutError, StageInfo, shard_name
from schemas.rejects import REJECTS
from schemas.utterances import UTTERANCES

SHOWN_PER_RULE = 3
BLOCK = 1 << 24
"""Bytes read at once for a digest: over a network, each block is a request."""

UNREADABLE = (OSError, ValueError, NotImplementedError)
"""What reading a damaged Parquet file raises: pyarrow's errors, and names that are not UTF-8."""


@dataclass(frozen=True)
class Finding:
    """One broken rule: where, which, and what was seen."""

    table: str
    shard: str
    rule: str
    message: str
    row: str | None = None

    def __str__(self) -> str:
        where = f"{self.table} {self.shard}" + (f" row {self.row}" if self.row else "")
        return f"{where}: {self.rule}: {self.message}"


def check_file(file: pq.ParquetFile, table: Table, shard: str, fingerprint: str | None = None) -> Iterator[Finding]:
    """Findings of one shard by itself: schema, metadata, row rules, keys that come twice.

    Raises:
        UNREADABLE: the file is damaged.
    """
    yield from _check_schema(file, table, shard, fingerprint)
    if file.schema_arrow.equals(table.schema):
        yield from _check_rows(file, table, shard, [])


def _check_rows(
    file: pq.ParquetFile, table: Table, shard: str, keys: list[pa.Array], utterances: pa.Table | None = None
) -> Iterator[Finding]:
    """Findings of all rows in one reading, by themselves and then against their utterances; gathers the keys."""
    references: list[Finding] = []
    for rows in batches(file, table):
        keys.append(rows[KEY])
        yield from _check_rules(rows, table, table.rules, shard)
        if utterances is not None:
            references += _check_references(rows, table, shard, utterances)
    yield from _check_unique(pa.chunked_array(keys, pa.string()), table, shard)
    yield from references


def batches(file: pq.ParquetFile, table: Table) -> Iterator[pa.RecordBatch]:
    """The checked columns of a shard, a row group at a time."""
    names = [file.schema.column(position).path for position in range(len(file.schema))]
    wanted = [name for name in names if name not in table.unchecked]
    for group in range(file.num_row_groups):
        yield from file.read_row_group(group, wanted).combine_chunks().to_batches()


def metadata(table: Table, fingerprint: str) -> dict[str, str]:
    """The file metadata that a shard must carry, beside the weights' revisions."""
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
        yield Finding(table.name, shard, "schema", "columns are not in the table's order")
    carried = {key.decode(): value.decode() for key, value in (found.metadata or {}).items()}
    for key, value in metadata(table, fingerprint or carried.get("fingerprint", "")).items():
        if carried.get(key) != value or not value:
            yield Finding(table.name, shard, "metadata", f"{key} is {carried.get(key)!r}, expected {value!r}")


def _check_rules(rows: pa.RecordBatch, table: Table, rules: tuple[Rule, ...], shard: str) -> Iterator[Finding]:
    for rule in rules:
        broken = pc.fill_null(rule.broken(rows), False)
        keys = pc.filter(rows[KEY], broken)
        for key in keys[:SHOWN_PER_RULE].to_pylist():
            yield Finding(table.name, shard, rule.name, f"does not hold: {rule.says}", key)
        if len(keys) > SHOWN_PER_RULE:
            yield Finding(table.name, shard, rule.name, f"and {len(keys) - SHOWN_PER_RULE} more rows")


def _check_unique(keys: pa.ChunkedArray, table: Table, shard: str) -> Iterator[Finding]:
    if len(keys.unique()) == len(keys):
        return
    counts = keys.value_counts()
    twice = pc.filter(counts, pc.greater(pc.struct_field(counts, "counts"), 1))
    for item in twice[:SHOWN_PER_RULE].to_pylist():
        yield Finding(table.name, shard, "key_unique", f"{KEY} comes {item['counts']} times", item["values"])


def check_dataset(root: str) -> Iterator[Finding]:
    """Findings of a whole root: each shard by itself, its manifest and digest, and the tables against each other.

    Raises:
        LayoutError: the index, or the description of a table that it names, is missing or damaged.
    """
    dataset = Dataset(root)
    for name, fingerprint in dataset.tables().items():
        table = TABLES.get(name)
        if table is None:
            yield Finding(name, "-", "known_table", "is not a table of this version")
            continue
        info = dataset.stage(name, fingerprint)
        if info.schema_version != table.version:
            yield Finding(name, "-", "schema_version", f"is {info.schema_version}, this version reads {table.version}")
        seen: list[pa.Array] = []
        for shard in range(info.shards):
            yield from _check_shard(dataset, table, info, fingerprint, shard, seen)
        yield from _check_unique(pa.chunked_array(seen, pa.string()), table, "all")


def _check_shard(
    dataset: Dataset, table: Table, info: StageInfo, fingerprint: str, shard: int, seen: list[pa.Array]
) -> Iterator[Finding]:
    name = shard_name(shard, info.shards)
    try:
        manifest = dataset.manifest(table.name, fingerprint, shard, info.shards)
    except (LayoutError, OSError) as error:
        yield Finding(table.name, name, "manifest", str(error))
        return
    if manifest is None:
        yield Finding(table.name, name, "committed", "has no manifest; run the same command again to finish it")
        return
    rejected, reasons = manifest.rejects.rows if manifest.rejects else 0, sum(manifest.reasons.values())
    if manifest.rows_in != manifest.output.rows + rejected or rejected != reasons:
        yield Finding(
            table.name,
            name,
            "rows_add_up",
            f"{manifest.rows_in} rows in, {manifest.output.rows} out and {rejected} rejected for {reasons} reasons",
        )
    named = (manifest.table, manifest.fingerprint, manifest.shard, manifest.shards)
    if named != (table.name, fingerprint, shard, info.shards):
        yield Finding(table.name, name, "manifest", f"belongs to {named}")
    files = [(manifest.output, table, f"{table.name}/{fingerprint}/{name}.parquet")]
    if manifest.rejects:
        files.append((manifest.rejects, REJECTS, f"rejects/{info.stage}/{fingerprint}/{name}.parquet"))
    for entry, kind, expected in files:
        if entry.path != expected:
            yield Finding(kind.name, name, "manifest", f"names {entry.path}, expected {expected}")
            continue
        findings = list(_check_bytes(dataset, entry, kind, name))
        yield from findings
        if findings:
            continue
        try:
            with dataset.open(entry.path) as file:
                if file.metadata.num_rows != entry.rows:
                    yield Finding(kind.name, name, "rows", f"{file.metadata.num_rows}, manifest says {entry.rows}")
                if kind is table and file.schema_arrow.equals(table.schema):
                    yield from _check_schema(file, table, name, fingerprint)
                    yield from _check_beside_utterances(dataset, table, file, info, shard, seen)
                else:
                    yield from check_file(file, kind, name, fingerprint)
        except UNREADABLE as error:
            yield Finding(kind.name, name, "readable", str(error))


def _check_bytes(dataset: Dataset, entry: FileEntry, table: Table, shard: str) -> Iterator[Finding]:
    sha256 = hashlib.sha256()
    try:
        with dataset.storage.open(entry.path) as file:
            size = file.size()
            while block := file.read(BLOCK):
                sha256.update(block)
    except FileNotFoundError:
        yield Finding(table.name, shard, "present", f"{entry.path} is gone")
        return
    digest = sha256.hexdigest()
    if (size, digest) != (entry.size, entry.sha256):
        yield Finding(
            table.name,
            shard,
            "digest",
            f"{entry.path}: {size} bytes, sha256 {digest}; manifest says {entry.size} bytes, {entry.sha256}",
        )


def _check_beside_utterances(
    dataset: Dataset, table: Table, file: pq.ParquetFile, info: StageInfo, shard: int, seen: list[pa.Array]
) -> Iterator[Finding]:
    """Shards are cut once, at ingest: the utterances of shard 3 are in shard 3."""
    name = shard_name(shard, info.shards)
    keys: list[pa.Array] = []
    utterances = None
    missing: list[Finding] = []
    if upstream := info.upstream.get(UTTERANCES.name):
        try:
            utterances = _utterances(dataset, upstream, shard, info.shards)
        except (LayoutError, *UNREADABLE) as error:
            missing.append(Finding(table.name, name, "upstream", f"its utterances are not readable: {error}"))
    yield from _check_rows(file, table, name, keys, utterances)
    yield from missing
    seen += keys


def _check_references(rows: pa.RecordBatch, table: Table, shard: str, utterances: pa.Table) -> Iterator[Finding]:
    known, samples = utterances[KEY].combine_chunks(), utterances["num_samples"].combine_chunks()
    position = pc.index_in(rows[KEY], value_set=known)
    for key in pc.filter(rows[KEY], pc.is_null(position))[:SHOWN_PER_RULE].to_pylist():
        yield Finding(table.name, shard, "key_resolves", "has no utterance of this id", key)
    beside = rows.append_column("utterances.num_samples", pc.take(samples, position))
    yield from _check_rules(beside, table, table.cross_rules, shard)
    if "user_audio_ids" in rows.schema.names:
        heard = pc.list_flatten(rows["user_audio_ids"])
        missing = pc.invert(pc.is_in(heard, value_set=known))
        for key in pc.filter(heard, missing)[:SHOWN_PER_RULE].to_pylist():
            yield Finding(table.name, shard, "user_audio_resolves", "has no utterance of this id", key)


def _utterances(dataset: Dataset, fingerprint: str, shard: int, shards: int) -> pa.Table:
    manifest = dataset.manifest(UTTERANCES.name, fingerprint, shard, shards)
    if manifest is None:
        raise LayoutError(f"{UTTERANCES.name}/{fingerprint} has no manifest of {shard_name(shard, shards)}")
    with dataset.open(manifest.output.path) as file:
        if not file.schema_arrow.equals(UTTERANCES.schema):
            raise LayoutError(f"{manifest.output.path} breaks its schema")
        return file.read([KEY, "num_samples"])


__all__ = ["UNREADABLE", "Finding", "LayoutError", "check_dataset", "check_file", "metadata"]
