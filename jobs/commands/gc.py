"""`echo-targets gc`: delete shards that no kept version needs, and the leftovers of killed processes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from echo_targets.jobs.arguments import Root
from echo_targets.jobs.screen import open_console
from echo_targets.pipeline.attempt import NOTE
from echo_targets.pipeline.commit import write_whole
from echo_targets.pipeline.lease import FOLDER, held
from echo_targets.schemas import ENTRIES, TABLES
from echo_targets.schemas.dataset.layout import INDEX, RECIPE, SNAPSHOTS, VERSIONED, Dataset, Index, LayoutError
from echo_targets.schemas.dataset.storage import TEMPORARY
from echo_targets.schemas.dataset.versions import Version

REJECTS = "rejects/"


@dataclass(frozen=True)
class Garbage:
    """A group of unneeded files.

    Attributes:
        what: description for the user.
        files: bytes by path, in the order of deletion.
    """

    what: str
    files: dict[str, int]


def gc_command(
    root: Root,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only list what would be deleted.")] = False,
    grace_hours: Annotated[
        float, typer.Option(help="Keep versions that were current until less than this many hours ago.", min=0)
    ] = 24.0,
) -> int:
    """Delete shards of versions that are neither current nor labeled, and the leftovers of killed processes.

    Versions that others were made from are kept with them, and what a stopped job has committed of the current corpus,
    unless --grace-hours is 0. A training may read a version that was replaced a while ago: label it.

    Example: echo-targets gc out/calls --yes
    """
    console = open_console()
    dataset = Dataset(root)
    grace = timedelta(hours=grace_hours)
    if not yes:
        if _print(find_garbage(dataset, grace), console):
            console.print("Nothing was deleted. Run again with --yes to delete.")
        return 0
    with held(dataset) as lease:
        found = find_garbage(dataset, grace)  # listed under the lease, so no driver is writing any of these files
        _print(found, console)
        _forget_replaced(dataset, grace)
        for one in found:
            for path in one.files:
                lease.check()
                dataset.storage.delete(path)
            _remove_empty(dataset, one)
    if found:
        console.print("Deleted.")
    return 0


def find_garbage(dataset: Dataset, grace: timedelta) -> list[Garbage]:
    """Return shards that no kept version needs, snapshots of none, temporary files, and stale attempt notes.

    Kept are the current versions, the labeled ones, those that were current until less than `grace` ago, and all that
    they were made from; unless `grace` is 0, also what a stopped job has committed of the current corpus.

    Only files that a job writes are considered: those of recipes, snapshots and the lease, and temporary files in the
    root itself. Files behind a link that leads out of the root are never deleted.

    Raises:
        LayoutError: there is no index, or something that it names is missing, so unneeded files can't be determined.
    """
    kept = _kept(dataset, grace)
    needed = {(table, version.recipe): set[str]() for table, version in kept}
    for table, version in kept:
        needed[table, version.recipe] |= set(dataset.snapshot(version.snapshot).ids)
    if grace:
        _add_unfinished(dataset, needed)
    folders = {**needed}
    for table, recipe in needed:
        stage = dataset.read_json(table, recipe, RECIPE) or {}
        folders[f"{REJECTS}{stage.get('stage')}", recipe] = needed[table, recipe]
    snapshots = {version.snapshot for _, version in kept}
    files = {path: stat.size for path, stat in dataset.files().items() if _inside(dataset, path)}
    tables = TABLES.keys() | dataset.recipes(files).keys()  # stages of other packages have tables of their own
    groups: dict[str, dict[str, int]] = {}
    for path, size in files.items():
        match = VERSIONED.fullmatch(path)
        if match and (match[1] in tables or match[1].startswith(REJECTS)):
            what = _useless(match[1], match[2], match[3], folders, files, path)
        elif TEMPORARY in path and os.path.dirname(path) in ("", FOLDER, SNAPSHOTS):
            what = "temporary files"
        elif os.path.dirname(path) == SNAPSHOTS:
            unneeded = os.path.basename(path).removesuffix(".json") not in snapshots
            what = "snapshots of no kept version" if unneeded else None
        else:
            what = None
        if what:
            groups.setdefault(what, {})[path] = size
    # Tables go before their rejects: a shard's manifest covers both, and a shard counts while its manifest exists.
    ordered = sorted(groups.items(), key=lambda group: (group[0].startswith(REJECTS), group[0]))
    return [Garbage(what, dict(sorted(paths.items(), key=lambda item: _turn(item[0])))) for what, paths in ordered]


def _kept(dataset: Dataset, grace: timedelta) -> set[tuple[str, Version]]:
    tables = dataset.tables()  # fails if there is no index
    index = dataset.index() or Index()
    kept = [*tables.items(), *(item for labeled in index.labels.values() for item in labeled.items())]
    since = datetime.now(UTC) - grace
    for table, versions in index.replaced.items():
        kept += [(table, version) for version, when in versions.items() if datetime.fromisoformat(when) > since]
    for table, version in kept:
        if dataset.read_json(table, version.recipe, RECIPE) is None:
            raise LayoutError(f"{dataset.where(table, version.recipe, RECIPE)}: no such file")
    return dataset.lineage(kept)


def _add_unfinished(dataset: Dataset, needed: dict[tuple[str, str], set[str]]) -> None:
    """Add the shards of the current corpus to every recipe that has some of them, but not all."""
    if (entries := dataset.tables().get(ENTRIES.name)) is None:
        return
    shards = set(dataset.snapshot(entries.snapshot).ids)
    for table, recipes in dataset.recipes().items():
        for recipe in recipes:
            if shards & (there := dataset.there(table, recipe)) and not shards <= there:
                needed[table, recipe] = needed.get((table, recipe), set()) | shards


def _useless(
    folder: str,
    recipe: str,
    name: str,
    needed: dict[tuple[str, str], set[str]],
    files: dict[str, int],
    path: str,
) -> str | None:
    """Return why a recipe's file is not needed; None if it is."""
    if (folder, recipe) not in needed:
        return f"{folder}/{recipe} (a recipe of no kept version)"
    if TEMPORARY in name:
        return "temporary files"
    if name.endswith(NOTE):
        if path.removesuffix(NOTE) + ".json" in files:
            return "attempt notes of committed shards"
        return None if name.removesuffix(NOTE) in needed[folder, recipe] else "attempt notes of no kept version"
    if name != RECIPE and name.partition(".")[0] not in needed[folder, recipe]:
        return f"{folder}/{recipe} (shards of no kept version)"
    return None


def _forget_replaced(dataset: Dataset, grace: timedelta) -> None:
    """Drop from the index the dates of versions that are no longer spared."""
    index, since = dataset.index() or Index(), datetime.now(UTC) - grace
    left = {
        table: {version: when for version, when in versions.items() if datetime.fromisoformat(when) > since}
        for table, versions in index.replaced.items()
    }
    left = {table: versions for table, versions in left.items() if versions}
    if left != index.replaced:
        write_whole(dataset, INDEX, replace(index, replaced=left).to_json())


def _turn(path: str) -> int:
    """Return the deletion order: manifests first, so that a kill leaves no shard that counts; the recipe last."""
    name = path.rpartition("/")[2]
    return 2 if name == RECIPE else 0 if name.endswith(".json") and not name.endswith(NOTE) else 1


def _inside(dataset: Dataset, path: str) -> bool:
    if dataset.storage.remote:
        return True
    root = Path(dataset.storage.base).resolve()
    return Path(dataset.path(path)).parent.resolve().is_relative_to(root)


def _print(found: list[Garbage], console: Console) -> bool:
    """Print the garbage with its sizes; return True if there is any."""
    for one in found:
        size = sum(one.files.values())
        console.print(f"{size / 2**20:10.1f} MiB  {len(one.files):6} files  {one.what}", markup=False, highlight=False)
    total = sum(sum(one.files.values()) for one in found)
    console.print(f"{total / 2**20:10.1f} MiB in total" if found else "Nothing to delete.", highlight=False)
    return bool(found)


def _remove_empty(dataset: Dataset, one: Garbage) -> None:
    """Remove folders that became empty. Buckets have no folders."""
    if not dataset.storage.remote:
        for folder in {os.path.dirname(path) for path in one.files} - {"", FOLDER}:
            with suppress(OSError):
                os.removedirs(dataset.path(folder))  # also its empty parents; the root holds the index, so it stays
