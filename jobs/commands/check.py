"""`echo-targets check`. Imports only the schemas, so it starts in well under a second on a CI machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator

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


def check_command(path: str | None, against: str | None = None, level: str = "rows", style: str = "text") -> int:
    """Print findings and a summary.

    Args:
        path: a root or a Parquet file; None compares this version's own contract with `against`.
        against: a folder of contracts, a root or a Parquet file to report changes against; None skips this.
        level: metadata, rows or deep.
        style: text, json, junit or github.

    Returns:
        The exit code: 0 if no finding breaks the contract, 1 if any does, 130 if interrupted.

    Raises:
        UserError: there is nothing to check, or `deep` needs a library that is not installed.
    """
    if path is None and against is None:
        raise UserError("nothing to check: name a root or a Parquet file, or a contract to compare with (--against)")
    summary_stream = sys.stdout if style == "text" else sys.stderr  # stdout stays machine-readable
    try:
        broken = show(_findings(path, against, level), style, path)
        if broken:
            print(f"{broken} finding{'s' * (broken != 1)} in {one_line(path or 'the contract')}", file=sys.stderr)
            return 1
        print(f"{one_line(path or 'the contract')}: {_summary(path)}, no problems found", file=summary_stream)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED
    return 0


def _findings(path: str | None, against: str | None, level: str) -> Iterator[Finding]:
    if against is not None:
        yield from changes_since(against, path)
    if path is None:
        return
    file = path.endswith(".parquet")
    yield from _of_file(path, level != "metadata") if file else check_dataset(path, level != "metadata")
    if not file and level != "metadata":
        yield from check_copies(path)
    if level == "deep":
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
