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
from schemas.layout import Dataset, FileEntry, LayoutError, Manifest, shard_name
from schemas.rejects import REJECTS

BATCH_ROWS = 10_000
SHOWN_PER_RULE = 3


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
        OSError, pa.ArrowInvalid: the file is damaged.
    """
    yield from _check_schema(file, table, shard, fingerprint)
    if file.schema_arrow.equals(table.schema):
        keys = []
        for rows in batches(file, table):
            keys.append(rows[KEY])
            yield from _check_rules(rows, table, table.rules, shard)
        yield from _check_unique(pa.chunked_array(keys, pa.string()), table, shard)


def batches(file: pq.ParquetFile, table: Table) -> Iterator[pa.RecordBatch]:
    """The checked columns of a shard, in bounded batches."""
    names = [file.schema.column(position).path for position in range(len(file.schema))]
    wanted = [name for name in names if name not in table.unchecked]
    yield from file.iter_batches(BATCH_ROWS, columns=wanted)


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
        LayoutError: the root has no index, or a file of it is damaged.
    """
    dataset = Dataset(root)
    current = dataset.tables()
    for name, fingerprint in current.items():
        table = TABLES.get(name)
        if table is None:
            yield Finding(name, "-", "known_table", "is not a table of this version")
            continue
        info = dataset.stage(name, fingerprint)
        if info.schema_version != table.version:
            yield Finding(name, "-", "schema_version", f"is {info.schema_version}, this version reads {table.version}")
        seen: list[pa.ChunkedArray] = []
        for shard in range(info.shards):
            yield from _check_shard(dataset, current, table, fingerprint, shard, info.shards, info.stage, seen)
        yield from _check_unique(pa.chunked_array([c for keys in seen for c in keys.chunks], pa.string()), table, "all")


def _check_shard(
    dataset: Dataset,
    current: dict[str, str],
    table: Table,
    fingerprint: str,
    shard: int,
    shards: int,
    stage: str,
    seen: list[pa.ChunkedArray],
) -> Iterator[Finding]:
    name = shard_name(shard, shards)
    manifest = dataset.manifest(table.name, fingerprint, shard, shards)
    if manifest is None:
        yield Finding(table.name, name, "committed", "has no manifest; run the same command again to finish it")
        return
    rejected = manifest.rejects.rows if manifest.rejects else 0
    if manifest.rows_in != manifest.output.rows + rejected:
        yield Finding(
            table.name,
            name,
            "rows_add_up",
            f"{manifest.rows_in} rows in, {manifest.output.rows} out and {rejected} rejected",
        )
    named = (manifest.table, manifest.fingerprint, manifest.shard, manifest.shards)
    if named != (table.name, fingerprint, shard, shards):
        yield Finding(table.name, name, "manifest", f"belongs to {named}")
    files = [(manifest.output, table, f"{table.name}/{fingerprint}/{name}.parquet")]
    if manifest.rejects:
        files.append((manifest.rejects, REJECTS, f"rejects/{stage}/{fingerprint}/{name}.parquet"))
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
                yield from check_file(file, kind, name, fingerprint)
                if kind is table and file.schema_arrow.equals(table.schema):
                    seen.append(file.read([KEY])[KEY])
                    yield from _check_references(dataset, current, table, file, manifest)
        except (OSError, pa.ArrowInvalid) as error:
            yield Finding(kind.name, name, "readable", str(error))


def _check_bytes(dataset: Dataset, entry: FileEntry, table: Table, shard: str) -> Iterator[Finding]:
    try:
        with dataset.filesystem.open_input_file(dataset.path(entry.path)) as file:
            size, digest = file.size(), hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        yield Finding(table.name, shard, "present", f"{entry.path} is gone")
        return
    if (size, digest) != (entry.size, entry.sha256):
        yield Finding(
            table.name, shard, "digest", f"{entry.path}: {size} bytes, sha256 {digest}; "
            f"manifest says {entry.size} bytes, {entry.sha256}"
        )


def _check_references(
    dataset: Dataset, current: dict[str, str], table: Table, file: pq.ParquetFile, manifest: Manifest
) -> Iterator[Finding]:
    """Rows against their utterances. Shards are cut once, at ingest: the utterances of shard 3 are in shard 3."""
    fingerprint = current.get("utterances")
    if fingerprint is None or table.name in ("entries", "utterances"):
        return
    shard = shard_name(manifest.shard, manifest.shards)
    upstream = dataset.manifest("utterances", fingerprint, manifest.shard, manifest.shards)
    if upstream is None:
        yield Finding(table.name, shard, "upstream", "its utterances are not committed")
        return
    utterances = dataset.open(upstream.output.path).read([KEY, "num_samples"]).combine_chunks()
    known = utterances[KEY].combine_chunks()
    for rows in batches(file, table):
        position = pc.index_in(rows[KEY], value_set=known)
        for key in pc.filter(rows[KEY], pc.is_null(position))[:SHOWN_PER_RULE].to_pylist():
            yield Finding(table.name, shard, "key_resolves", "has no utterance of this id", key)
        samples = pc.take(utterances["num_samples"].combine_chunks(), position)
        yield from _check_rules(
            rows.append_column("utterances.num_samples", samples), table, table.cross_rules, shard
        )
        if "user_audio_ids" in rows.schema.names:
            missing = pc.invert(pc.is_in(pc.list_flatten(rows["user_audio_ids"]), value_set=known))
            for key in pc.filter(pc.list_flatten(rows["user_audio_ids"]), missing)[:SHOWN_PER_RULE].to_pylist():
                yield Finding(table.name, shard, "user_audio_resolves", "has no utterance of this id", key)


__all__ = ["Finding", "LayoutError", "check_dataset", "check_file", "metadata"]
