"""`echo-targets check`. Imports only the schemas, so it starts in well under a second on a CI machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated

import typer

from echo_targets.jobs.checking.agreement import check_copies
from echo_targets.jobs.checking.findings import show
from echo_targets.jobs.escapes import one_line
from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.check import UNREADABLE, Finding, check_dataset, check_file
from echo_targets.schemas.dataset.contract import changes_since
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.storage import split
from echo_targets.schemas.errors import UserError

STOPPED = 130


class Level(StrEnum):
    """How much data a check reads."""

    METADATA = "metadata"
    ROWS = "rows"
    DEEP = "deep"


class Format(StrEnum):
    """Output format of findings."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"
    GITHUB = "github"


def check_command(
    path: Annotated[
        str | None,
        typer.Argument(help="Dataset root or one Parquet shard. Without it, --against compares the contract itself."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Report what changed since this reference: a folder of contracts (schemas/contract), a dataset root, "
            "or a Parquet shard."
        ),
    ] = None,
    level: Annotated[
        Level,
        typer.Option(
            help="metadata: manifests and footers; rows: also every rule on every row; deep: also audio and units."
        ),
    ] = Level.ROWS,
    format: Annotated[Format, typer.Option(help="Output format of findings.")] = Format.TEXT,
) -> int:
    """Check shards against the contract: schema, rules, digests, and keys across tables.

    Prints one finding per line; the exit code is 1 if any finding breaks the contract. --level deep also decodes and
    hashes all audio and recomputes the units of a sample.

    Example: echo-targets check s3://bucket/calls --level metadata --format github

    Example: echo-targets check --against old/schemas/contract
    """
    if path is None and against is None:
        raise UserError("nothing to check: name a root or a Parquet file, or a contract to compare with (--against)")
    summary_stream = sys.stdout if format == Format.TEXT else sys.stderr  # stdout stays machine-readable
    try:
        broken = show(_findings(path, against, level), format, path)
        if broken:
            print(f"{broken} finding{'s' * (broken != 1)} in {one_line(path or 'the contract')}", file=sys.stderr)
            return 1
        print(f"{one_line(path or 'the contract')}: {_summary(path)}, no problems found", file=summary_stream)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    return 0


def _findings(path: str | None, against: str | None, level: Level) -> Iterator[Finding]:
    if against is not None:
        yield from changes_since(against, path)
    if path is None:
        return
    file = path.endswith(".parquet")
    rows = level != Level.METADATA
    yield from _of_file(path, rows) if file else check_dataset(path, rows)
    if rows and not file:
        yield from check_copies(path)
    if level == Level.DEEP:
        try:
            from echo_targets.jobs.checking.deep import check_deep, check_deep_file

            yield from check_deep_file(path) if file else check_deep(path)
        except ImportError as error:
            raise UserError(
                f"--level deep needs {error.name}. Install it: pip install 'echo-targets[ingest,transcribe]'"
            ) from error


def _of_file(path: str, rows: bool) -> Iterator[Finding]:
    folder, name = split(path)
    try:
        with Dataset(folder).open(name) as file:
            kind = (file.schema_arrow.metadata or {}).get(b"schema_name", b"").decode()
            if kind in TABLES:
                yield from check_file(file, TABLES[kind], name, rows=rows)
            else:
                yield Finding(kind or "?", name, "known_table", f"schema_name is none of {', '.join(TABLES)}")
    except UNREADABLE as error:
        yield Finding("?", name, "readable", str(error))


def _summary(path: str | None) -> str:
    if path is None:
        return f"{len(TABLES)} tables"
    if path.endswith(".parquet"):
        folder, name = split(path)
        with Dataset(folder).open(name) as file:
            return f"{file.metadata.num_rows} rows"
    dataset = Dataset(path)
    manifests = [
        manifest for table, version in dataset.tables().items() for manifest in dataset.manifests(table, version)
    ]
    rows = sum(manifest.output.rows for manifest in manifests)
    return f"{len(dataset.tables())} tables, {len(manifests)} shards, {rows} rows"
