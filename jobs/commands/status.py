"""`echo-targets status`: show what a dataset holds, what was rejected, and what a run would do."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as RichTable

from echo_targets.jobs.arguments import Overrides, Root
from echo_targets.jobs.escapes import markup, one_line
from echo_targets.jobs.screen import open_console
from echo_targets.pipeline.attempt import failed_attempts
from echo_targets.schemas import ENTRIES, KEY, SAMPLE_RATE, UTTERANCES
from echo_targets.schemas.dataset.layout import SNAPSHOTS, Dataset, Index, LayoutError, Stat
from echo_targets.schemas.dataset.versions import Version

SHOWN = 20
SHOWN_BEFORE = 3
"""Versions that were current before, by table."""
COLUMNS = ("table", "version", "state", "changed", "stage", "shards", "rows", "hours", "rejected", "MiB")


def status_command(
    root: Root,
    config: Annotated[
        str | None,
        typer.Argument(help="A configuration of `echo-targets run`: also show what running it on ROOT would do."),
    ] = None,
    overrides: Overrides = None,
) -> int:
    """Show each table's versions with their hours and sizes, which ones are current, and what was rejected and why.

    Example: echo-targets status out/calls folder manifest=calls/manifest.jsonl stages.publish_s2t.max_wer=0.3
    """
    console = open_console()
    dataset = Dataset(root)
    files = dataset.files()
    index = dataset.index() or Index()
    if not dataset.recipes(files):
        raise LayoutError(f"{dataset.where()}: holds no table; is this the root of a run?")
    used = dataset.lineage(index.tables.items())
    latest = sorted(dataset.snapshots(), key=lambda name: _date(files, f"{SNAPSHOTS}/{name}.json"), reverse=True)
    snapshots = {name: dataset.snapshot(name).ids for name in latest}
    table = RichTable(*COLUMNS, title=markup(root))
    recipes = dataset.recipes(files)
    for name in sorted(recipes, key=[*index.tables, *recipes].index):
        for version in _versions(dataset, name, recipes[name], index, snapshots):
            about = _about(dataset, name, version, index, used, files)
            table.add_row(*map(markup, (name, version, *about)))
    console.print(table)
    for label, tables in index.labels.items():
        console.print(f"label {label}: {', '.join(tables)}", markup=False)
    show_rejects(dataset, console)
    show_failures(dataset, console, index, recipes)
    if config is not None:
        from echo_targets.jobs.commands.run import dry_run_command, sources_of
        from echo_targets.jobs.config import load
        from echo_targets.jobs.expected import print_differences

        console.print(f"\n[bold]Running {markup(config)} here would do this[/]")
        settings = load(config, [*(overrides or []), f"root={root}"])
        dry_run_command(settings, console)
        if UTTERANCES.name in index.tables:
            print_differences(sources_of(settings), dataset, console)
    return 0


def _versions(
    dataset: Dataset, table: str, recipes: list[str], index: Index, snapshots: dict[str, list[str]]
) -> list[Version]:
    """Return a table's versions to show.

    These are the current one, what a run has made of a newer corpus, the labeled ones, those that were current before,
    and the most complete one of each other recipe.
    """
    shown = dict.fromkeys([index.tables[table]] if table in index.tables else [])
    planned = index.tables.get(ENTRIES.name)
    if shown and planned:
        shown[Version(index.tables[table].recipe, planned.snapshot)] = None
    shown.update(dict.fromkeys(tables[table] for tables in index.labels.values() if table in tables))
    before = sorted(index.replaced.get(table, {}).items(), key=lambda item: item[1], reverse=True)
    shown.update(dict.fromkeys(version for version, _ in before[:SHOWN_BEFORE] if version.snapshot in snapshots))
    for recipe in recipes:
        if snapshots and not any(version.recipe == recipe for version in shown):
            there = dataset.there(table, recipe)
            best = max(snapshots, key=lambda name: len(there.intersection(snapshots[name])))
            shown[Version(recipe, best)] = None
    return list(shown)


def _about(
    dataset: Dataset,
    name: str,
    version: Version,
    index: Index,
    used: set[tuple[str, Version]],
    files: dict[str, Stat],
) -> tuple[str, ...]:
    recipe, ids = dataset.recipe(name, version.recipe), dataset.snapshot(version.snapshot).ids
    manifests = list(dataset.committed(name, version.recipe, ids).values())
    listed = [file for manifest in manifests for file in (manifest.output, manifest.rejects) if file]
    labels = [label for label, tables in index.labels.items() if tables.get(name) == version]
    is_current, is_whole = index.tables.get(name) == version, len(manifests) == len(ids)
    state = "current" if is_current else "read by current" if (name, version) in used and is_whole else "old"
    if not is_whole:
        state = "current, unfinished" if is_current else "unfinished"
    changed = max((_date(files, file.path) for file in listed), default="")
    return (
        ", ".join([state, *labels]),
        changed,
        f"{recipe.stage} v{recipe.version}",
        f"{len(manifests)}/{len(ids)}",
        str(sum(manifest.output.rows for manifest in manifests)),
        f"{sum(manifest.samples for manifest in manifests) / SAMPLE_RATE / 3600:.2f}",
        _reasons(sum((Counter(manifest.reasons) for manifest in manifests), Counter())),
        f"{sum(file.size for file in listed) / 2**20:.1f}",
    )


def _reasons(counts: Counter[str]) -> str:
    why = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    return f"{counts.total()}: {why}" if counts else "0"


def _date(files: dict[str, Stat], path: str) -> str:
    modified = files[path].modified if path in files else None
    return "" if modified is None else _local(modified)


def _local(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M")


def show_rejects(dataset: Dataset, console: Console) -> None:
    """Print the first rejects of each stage, and where to find the others."""
    index = dataset.index() or Index()
    for name, version in index.tables.items():
        ids = dataset.snapshot(version.snapshot).ids
        manifests = dataset.committed(name, version.recipe, ids).values()
        files = [manifest.rejects for manifest in manifests if manifest.rejects]
        total, left = sum(file.rows for file in files), SHOWN
        for file in files:
            for row in dataset.open(file.path).read().slice(0, left).to_pylist():
                stage, *words = (markup(row[name]) for name in ("stage", KEY, "error_class", "message"))
                console.print(f"[bold]{stage}[/] {': '.join(words)}", soft_wrap=True)
                left -= 1
        if total > SHOWN:
            folder = files[0].path.rsplit("/", 1)[0]
            console.print(
                f"and {total - SHOWN} more rejects of {name} in {one_line(dataset.where(folder))}", markup=False
            )


def show_failures(dataset: Dataset, console: Console, index: Index, recipes: dict[str, list[str]]) -> None:
    """Print why shards of the current corpus were not committed."""
    planned = index.tables.get(ENTRIES.name)
    shards = dataset.snapshot(planned.snapshot).ids if planned else []
    for table, fingerprints in recipes.items():
        for fingerprint in fingerprints:
            recipe = dataset.recipe(table, fingerprint)
            failed = failed_attempts(dataset, recipe)
            for shard in [shard for shard in shards if shard in failed][:SHOWN]:
                line = f"{recipe.stage}: shard {shard} is not committed: {failed[shard]}"
                console.print(one_line(line), style="red", markup=False, soft_wrap=True)
