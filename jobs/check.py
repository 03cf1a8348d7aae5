"""`echo-targets check`: imports the schemas alone, so that it starts in well under a second on a CI box."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pyarrow.parquet as pq

from schemas import TABLES
from schemas.check import UNREADABLE, Finding, check_dataset, check_file
from schemas.layout import Dataset
from schemas.storage import split


def check_command(path: str) -> int:
    """Prints findings; 1 where there is any, 2 where there is nothing to check."""
    findings = 0
    for finding in _findings(path):
        findings += 1
        print(finding)
    if findings:
        print(f"{findings} finding{'s' * (findings != 1)} in {path}", file=sys.stderr)
        return 1
    print(f"{path}: {_summary(path)}, nothing to complain about")
    return 0


def _findings(path: str) -> Iterator[Finding]:
    if not path.endswith(".parquet"):
        yield from check_dataset(path)
        return
    name = split(path)[1]
    try:
        with _parquet(path) as file:
            kind = (file.schema_arrow.metadata or {}).get(b"schema_name", b"").decode()
            if kind in TABLES:
                yield from check_file(file, TABLES[kind], name)
            else:
                yield Finding(kind or "?", name, "known_table", f"schema_name is none of {', '.join(TABLES)}")
    except UNREADABLE as error:
        yield Finding("?", name, "readable", str(error))


def _summary(path: str) -> str:
    if path.endswith(".parquet"):
        with _parquet(path) as file:
            return f"{file.metadata.num_rows} rows"
    dataset = Dataset(path)
    manifests = [manifest for table in dataset.tables() for manifest in dataset.manifests(table)]
    rows = sum(manifest.output.rows for manifest in manifests)
    return f"{len(dataset.tables())} tables, {len(manifests)} shards, {rows} rows"


def _parquet(path: str) -> pq.ParquetFile:
    folder, name = split(path)
    return Dataset(folder).open(name)
