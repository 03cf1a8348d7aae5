"""Commit a shard so that it appears complete and checked, or not at all.

A shard is written to a temporary file, closed, reopened, checked, hashed and moved into place; its manifest comes last.
A kill at any moment leaves only temporary files, and shards without a manifest, which readers ignore.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from echo_targets.schemas import KEY, REJECTS, Table
from echo_targets.schemas.dataset.check import check_file, metadata
from echo_targets.schemas.dataset.layout import INDEX, RECIPE, SNAPSHOTS, Dataset, FileEntry, Index, Manifest
from echo_targets.schemas.dataset.storage import Writing
from echo_targets.schemas.dataset.versions import Recipe, Snapshot, Version
from echo_targets.transforms.base import Reject, table_of


class CommitError(Exception):
    """A shard that must not be committed, because its rows don't add up or it violates the contract."""


class ShardWriter:
    """Writes one shard of a stage, row group by row group, and commits it.

    Use it as a context manager: leaving the block before `commit` deletes the temporary files.
    """

    def __init__(self, dataset: Dataset, table: Table, recipe: Recipe, shard: str) -> None:
        self.dataset, self.table, self.recipe, self.shard = dataset, table, recipe, shard
        place = f"{recipe.fingerprint}/{shard}.parquet"
        self._output = _File(dataset, table, f"{recipe.table}/{place}", recipe)
        self._rejects = _File(dataset, REJECTS, f"rejects/{recipe.stage}/{place}", recipe)
        self._reasons: Counter[str] = Counter()
        self._rows_in = 0
        self._samples = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._output.discard()
        self._rejects.discard()

    def write(self, keys: list[str], samples: int, rows: pa.Table, rejects: Iterable[Reject]) -> None:
        """Add the outcome of some input rows.

        Args:
            keys: keys of the input rows; the output is sorted into their order.
            samples: 16 kHz samples of the input rows.
            rows: output rows, in any order.
            rejects: rejected rows.

        Raises:
            CommitError: a key does not have exactly one row or reject, or the rows do not have the table's schema.
        """
        place = {key: position for position, key in enumerate(keys)}
        rejected = sorted(rejects, key=lambda reject: place.get(reject.utterance_id, -1))
        out = rows[KEY].to_pylist()
        outcome = Counter(out)
        outcome.update(reject.utterance_id for reject in rejected)
        expected = Counter(keys)
        if outcome != expected:
            odd = sorted(key for key in outcome.keys() | expected.keys() if outcome[key] != expected[key])
            raise CommitError(
                f"{self.recipe.stage} {self.shard}: {len(keys)} rows in, {len(out)} out and {len(rejected)} rejected; "
                f"each row must have exactly one outcome, but not {odd[:3]}"
            )
        self._rows_in += len(keys)
        self._samples += samples
        order = sorted(range(len(out)), key=lambda position: place[out[position]])
        in_order = order == list(range(len(out)))
        self._output.write(rows if in_order else rows.take(pa.array(order, pa.int64())))
        if rejected:
            self._rejects.write(table_of((_reject_row(reject, self.recipe.stage) for reject in rejected), REJECTS))
            self._reasons.update(reject.error_class for reject in rejected)

    def commit(self) -> Manifest:
        """Close, check and hash the files, put them in place, and write the manifest.

        Raises:
            CommitError: the shard violates its schema or its rules.
        """
        self._output.open()
        entries = [file.close() for file in (self._output, self._rejects) if file.is_open]
        manifest = Manifest(
            table=self.recipe.table,
            fingerprint=self.recipe.fingerprint,
            shard=self.shard,
            rows_in=self._rows_in,
            samples=self._samples,
            output=entries[0],
            rejects=entries[1] if len(entries) > 1 else None,
            reasons=dict(sorted(self._reasons.items())),
        )
        rejected = manifest.rejects.rows if manifest.rejects else 0
        if manifest.rows_in != manifest.output.rows + rejected:
            raise CommitError(f"{self.recipe.stage} {self.shard}: {self._rows_in} rows in, {entries} out")
        self._rejects.put()
        self._output.put()
        write_whole(
            self.dataset, f"{self.recipe.table}/{self.recipe.fingerprint}/{self.shard}.json", manifest.to_json()
        )
        return manifest


class _File:
    """One Parquet file of a shard, temporary until `put`."""

    def __init__(self, dataset: Dataset, table: Table, path: str, recipe: Recipe) -> None:
        self.dataset, self.table, self.path, self.recipe = dataset, table, path, recipe
        self._writing: Writing | None = None
        self._sink: pa.NativeFile | None = None
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []

    @property
    def is_open(self) -> bool:
        return self._writing is not None

    def open(self) -> None:
        if self.is_open:
            return
        about = metadata(self.table, self.recipe.fingerprint) | {
            f"weights.{name}": digest for name, digest in sorted(self.recipe.weights.items())
        }
        self._writing = self.dataset.storage.writing(self.path)
        self._sink = self._writing.sink()
        self._writer = pq.ParquetWriter(
            self._sink,
            self.table.schema.with_metadata(about),
            compression="zstd",
            write_page_index=True,
            write_page_checksum=True,
            use_content_defined_chunking=True,
        )

    def write(self, rows: pa.Table) -> None:
        self.open()
        if not rows.schema.equals(self.table.schema):
            raise CommitError(f"{self.path}: rows do not have the schema of {self.table.name}, but {rows.schema}")
        if nulls := sorted({name for part in rows.to_batches() for name in _forbidden_nulls(part)}):
            raise CommitError(f"{self.path}: {', '.join(nulls)} must not be null")
        self._waiting.append(rows)
        group = self.table.row_group_rows
        while sum(len(part) for part in self._waiting) >= group:
            gathered = pa.concat_tables(self._waiting)
            self._write_group(gathered[:group])
            self._waiting = [gathered[group:]]

    def _write_group(self, rows: pa.Table) -> None:
        assert self._writer is not None
        schema = self.table.schema
        plain = pa.schema(
            [field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field for field in schema]
        )
        # Re-encode dictionaries, so that their order depends only on the rows and not on how they were batched.
        rows = rows.cast(plain).combine_chunks().cast(schema)
        self._writer.write_table(rows, row_group_size=self.table.row_group_rows)

    def close(self) -> FileEntry:
        assert self._writing is not None and self._writer is not None and self._sink is not None
        rows = pa.concat_tables(self._waiting) if self._waiting else self.table.schema.empty_table()
        if len(rows):
            self._write_group(rows)
        self._writer.close()
        self._sink.close()
        self._writer = None
        with (
            self._writing.source() as source,
            pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False) as file,
        ):
            findings = list(check_file(file, self.table, os.path.basename(self.path), self.recipe.fingerprint))
            count = file.metadata.num_rows
        if findings:
            more = f" (and {len(findings) - 3} more)" if len(findings) > 3 else ""
            raise CommitError("; ".join(map(str, findings[:3])) + more)
        with self._writing.source() as source:
            return FileEntry(self.path, source.size(), hashlib.file_digest(source, "sha256").hexdigest(), count)

    def put(self) -> None:
        if self._writing is not None:
            self._writing.put()
            self._writing = None

    def discard(self) -> None:
        if self._writing is None:
            return
        if self._writer is not None:
            self._writer.is_open = False  # otherwise it writes its footer when it is garbage-collected
            self._writer = None
        if self._sink is not None:
            with suppress(OSError, ValueError):  # the original error is already being raised
                self._sink.close()
        self._writing.discard()
        self._writing = None


def _forbidden_nulls(rows: pa.RecordBatch) -> Iterator[str]:
    """Yield non-nullable columns that have nulls; pyarrow would write a null list or struct as an empty one."""
    for column, field in zip(rows.columns, rows.schema, strict=True):
        yield from _nulls_in(column, field, field.name)


def _nulls_in(array: pa.Array, field: pa.Field, name: str) -> Iterator[str]:
    if array.null_count and not field.nullable:
        yield name
    elif pa.types.is_list(field.type):
        yield from _nulls_in(array.flatten(), field.type.value_field, f"{name}.{field.type.value_field.name}")
    elif pa.types.is_struct(field.type):
        for values, child in zip(array.drop_null().flatten(), field.type, strict=True):
            yield from _nulls_in(values, child, f"{name}.{child.name}")


def _reject_row(reject: Reject, stage: str) -> dict[str, object]:
    return {
        KEY: reject.utterance_id,
        "stage": stage,
        "error_class": reject.error_class,
        "message": reject.message.encode(errors="backslashreplace").decode(),  # file names may not be valid UTF-8
        "attempts": reject.attempts,
    }


def write_whole(dataset: Dataset, path: str, data: bytes) -> None:
    """Write a small file atomically: a reader sees the old contents or the new."""
    dataset.storage.write(path, data)


def open_recipe(dataset: Dataset, recipe: Recipe) -> None:
    """Write a recipe's description, and delete temporary files in its folders and in the root."""
    write_whole(dataset, f"{recipe.table}/{recipe.fingerprint}/{RECIPE}", recipe.to_json())
    sweep(dataset, recipe)


def sweep(dataset: Dataset, recipe: Recipe) -> None:
    """Delete temporary files that killed workers left in a recipe's folders, and a killed driver in the root."""
    for folder in (f"{recipe.table}/{recipe.fingerprint}", f"rejects/{recipe.stage}/{recipe.fingerprint}", ""):
        dataset.storage.sweep(folder)


def write_snapshot(dataset: Dataset, snapshot: Snapshot) -> None:
    """Write a snapshot, unless it is there."""
    path = f"{SNAPSHOTS}/{snapshot.id}.json"
    if dataset.storage.size(path) is None:
        write_whole(dataset, path, snapshot.to_json())


def set_current(dataset: Dataset, versions: Mapping[str, Version], attempts: Mapping[str, int] | None = None) -> None:
    """Make whole versions of tables the current ones, with one change of the index; remember attempts at rows."""
    index = dataset.index() or Index()
    changed = {table: version for table, version in versions.items() if index.tables.get(table) != version}
    tried = {**index.attempts, **(attempts or {})}
    if not changed and tried == index.attempts:
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    tables = {table: version for table, version in index.tables.items() if table not in changed} | changed
    replaced = {table: dict(times) for table, times in index.replaced.items()}
    for table, version in changed.items():
        times = replaced.setdefault(table, {})
        times.pop(version, None)
        if before := index.tables.get(table):
            times[before] = now
    kept = {table: times for table, times in replaced.items() if times}
    write_whole(dataset, INDEX, Index(tables, index.labels, kept, tried).to_json())
