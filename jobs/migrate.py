"""`echo-targets migrate`: what an earlier version of the code wrote becomes what this one reads; no model runs.

Of each stage of a configuration, in order, the version is looked for that the code wrote before: made from the same, by
the same weights and parameters, as `Transform.before` says. Its shards are rewritten, as `Table.migrations` says, by
the writer that a run commits with, to the version that this code would make; a run then finds them done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
from rich.console import Console
from rich.progress import track

from jobs.card import write_card
from jobs.config import load
from jobs.screen import open_console
from pipeline.commit import ShardWriter, open_stage, set_current, sweep
from pipeline.job import Job
from pipeline.lease import Lease
from pipeline.plan import Committed
from schemas import ENTRIES, KEY, REJECTS, TABLES, Table
from schemas.base import UserError
from schemas.check import check_bytes
from schemas.layout import INDEX, Dataset, FileEntry, Manifest, StageInfo
from transforms.base import Before, Reject, Transform


class MigrateError(UserError):
    """There is nothing to migrate, or it can't be read."""


@dataclass(frozen=True)
class Step:
    """A stage's version that was, the one that is to be, and the error classes of rows that it would not refuse."""

    old: StageInfo
    new: StageInfo
    anew: tuple[str, ...]


def migrate_command(root: str, config: str, overrides: list[str]) -> int:
    """Migrates what a configuration reads of a root; gives the exit code."""
    console = open_console()
    settings = load(config, [*overrides, f"root={root}"])
    dataset = Dataset(root)
    job = Job(root, Committed.of(dataset, ENTRIES.name), settings.specs(), settings.max_reject_fraction)
    found = list(steps(dataset, job))
    if not found:
        raise MigrateError(
            f"{root}: nothing to migrate: it holds no version that an earlier code made by this configuration; "
            f"`echo-targets status {root} {config}` says what it holds, and what a run would do and why"
        )
    with Lease(dataset) as lease:
        for driver in lease.take(settings.when_busy):
            console.print(f"waiting for another driver: {driver}", markup=False)
        for step in found:
            _migrate(dataset, step, lease, console)
    console.print(
        f"Shards are in {root}, described by {write_card(root)}; the old versions are left to `gc`", markup=False
    )
    return 0


def steps(dataset: Dataset, job: Job) -> Iterator[Step]:
    """The stages of which there is an earlier version, in order."""
    earlier: dict[str, str] = {}
    current = (dataset.read_json(INDEX) or {}).get("tables", {})
    versions = dataset.versions()
    for spec, new in job.describe():
        kind = spec.transform_class()
        before = kind.before or Before(new.version, new.schema_version)
        made_from = {table: earlier.get(table, fingerprint) for table, fingerprint in new.upstream.items()}
        known = sorted(versions.get(new.table, []), key=lambda fingerprint: fingerprint != current.get(new.table))
        for old in (dataset.stage(new.table, fingerprint) for fingerprint in known if fingerprint != new.fingerprint):
            same = (old.stage, old.version, old.schema_version, old.weights, old.upstream, old.shards)
            wanted = (new.stage, before.version, before.schema_version, new.weights, made_from, new.shards)
            if same == wanted and _same_parameters(kind, old, new):
                earlier[new.table] = old.fingerprint
                yield Step(old, new, before.anew)
                break


def _same_parameters(kind: type[Transform], old: StageInfo, new: StageInfo) -> bool:
    """Whether two versions were told the same; a parameter that the old code lacked stands at its default."""
    added = new.parameters.keys() - old.parameters.keys()
    fields = kind.Parameters.model_fields
    return all(name in fields and new.parameters[name] == fields[name].default for name in added) and all(
        name in new.parameters and new.parameters[name] == value for name, value in old.parameters.items()
    )


def _migrate(dataset: Dataset, step: Step, lease: Lease, console: Console) -> None:
    old, new = step.old, step.new
    shards = dataset.committed(old.table, old.fingerprint, old.shards)
    done = dataset.committed(new.table, new.fingerprint, new.shards)
    ready = [set(dataset.committed(table, made, new.shards)) for table, made in new.upstream.items()]
    left = {shard for shard, manifest in shards.items() if manifest.reasons.keys() & set(step.anew)}
    todo = sorted(set(shards).intersection(*ready) - left - set(done))
    open_stage(dataset, new)
    name = f"{new.stage}: {old.table}/{old.fingerprint}"
    for shard in track(todo, name, console=console, transient=True, disable=not console.is_terminal):
        lease.check()
        _migrate_shard(dataset, step, shards[shard])
    sweep(dataset, new)
    missing = new.shards - len(done) - len(todo)
    if not missing and dataset.tables().get(old.table) == old.fingerprint:
        set_current(dataset, new)
    said = f"{len(todo)} shards rewritten as {new.fingerprint}, {len(done)} were there"
    console.print(f"{name}: {said}" + (f", {missing} are left to a run" if missing else ""), markup=False)


def _migrate_shard(dataset: Dataset, step: Step, manifest: Manifest) -> None:
    table = TABLES[step.new.table]
    change = table.migrations[step.old.schema_version] if step.old.schema_version != table.version else None
    with ShardWriter(dataset, step.new, manifest.shard) as writer:
        for rows in _row_groups(dataset, manifest.output, table):
            rows = (change(rows) if change else rows).select(table.columns).cast(table.schema)
            writer.write(rows[KEY].to_pylist(), 0, rows, [])
        groups = _row_groups(dataset, manifest.rejects, REJECTS) if manifest.rejects else ()
        refused = [Reject(**row) for rows in groups for row in rows.drop_columns(["stage"]).to_pylist()]
        keys = [reject.utterance_id for reject in refused]
        writer.write(keys, manifest.samples, table.schema.empty_table(), refused)
        writer.commit()


def _row_groups(dataset: Dataset, entry: FileEntry, table: Table) -> Iterator[pa.Table]:
    """What is in a file, if it is the one that the manifest vouches for."""
    if found := next(check_bytes(dataset, entry, table, "-", digest=True), None):
        raise MigrateError(
            f"{found}; delete its shard's manifest: the others are migrated, and a run makes this one anew"
        )
    with dataset.open(entry.path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)
