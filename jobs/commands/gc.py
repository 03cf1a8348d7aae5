"""`echo-targets gc`: removes the versions that no reader sees, and what killed processes left behind."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from echo_targets.jobs.screen import open_console
from echo_targets.pipeline.lease import FOLDER, Lease
from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.layout import ASIDE, STAGE, VERSIONED, Dataset
from echo_targets.schemas.dataset.storage import TEMPORARY

REJECTS = "rejects/"
NOTE = ".attempt.json"


@dataclass(frozen=True)
class Garbage:
    """Files that belong together and that nothing needs: what they are, and their bytes by path, in deleting order."""

    what: str
    files: dict[str, int]


def gc_command(root: str, yes: bool) -> int:
    """Says what would be deleted; deletes it with `yes`."""
    console = open_console()
    dataset = Dataset(root)
    if not yes:
        if _say(rubbish(dataset), console):
            console.print("Nothing is deleted yet; --yes deletes it.")
        return 0
    dataset.tables()  # where there is no index, nothing is touched, not even for the lease
    with Lease(dataset) as lease:
        for _ in lease.take("refuse"):
            pass
        found = rubbish(dataset)  # seen under the lease, so that no driver is at work on any of it
        _say(found, console)
        for one in found:
            for path in one.files:
                lease.check()
                dataset.storage.delete(path)
            _remove_empty(dataset, one)
    if found:
        console.print("Deleted.")
    return 0


def rubbish(dataset: Dataset) -> list[Garbage]:
    """What nothing needs: versions that are neither current nor read by a current one, temporary files, stale notes.

    Only what a job writes is looked at: files of versions, of the lease, and temporary files in the root itself. What
    lies behind a link that leads out of the root is left alone.

    Raises:
        LayoutError: there is no index, or a version that it names is not there: then nothing can be told.
    """
    used = dataset.in_use()
    current = dataset.tables()
    files = {path: size for path, size in dataset.files().items() if _inside(dataset, path)}
    tables = TABLES.keys() | dataset.versions(files).keys()  # stages of other packages have tables of their own
    old: dict[tuple[str, str], dict[str, int]] = {}
    temporary: dict[str, int] = {}
    notes: dict[str, int] = {}
    aside: dict[str, int] = {}
    for path, size in files.items():
        match = VERSIONED.fullmatch(path)
        if match and (match[1] in tables or match[1].startswith(REJECTS)):
            if match[2] not in used:
                old.setdefault((match[1], match[2]), {})[path] = size
            elif TEMPORARY in match[3]:
                temporary[path] = size
            elif match[3].endswith(NOTE) and path.removesuffix(NOTE) + ".json" in files:
                notes[path] = size
        elif path.startswith(f"{ASIDE}/"):
            aside[path] = size
        elif TEMPORARY in path and os.path.dirname(path) in ("", FOLDER):
            temporary[path] = size
    found = []
    # tables before their rejects: a shard counts as long as its manifest, which vouches for both, is there
    for (folder, fingerprint), parts in sorted(old.items(), key=lambda item: item[0][0].startswith(REJECTS)):
        ordered = dict(sorted(parts.items(), key=lambda item: _turn(item[0])))
        found.append(Garbage(f"{folder}/{fingerprint} ({_state(dataset, folder, fingerprint, current)})", ordered))
    kinds = {
        "temporary files": temporary,
        "notes of attempts whose shard is committed": notes,
        "shards that a stopped retry has set aside; another would spare their models work": aside,
    }
    return [*found, *(Garbage(what, paths) for what, paths in kinds.items() if paths)]


def _turn(path: str) -> int:
    """Manifests go first, so that a kill in the midst leaves no shard that counts; the description goes last."""
    name = path.rpartition("/")[2]
    return 2 if name == STAGE else 0 if name.endswith(".json") and not name.endswith(NOTE) else 1


def _state(dataset: Dataset, folder: str, fingerprint: str, current: dict[str, str]) -> str:
    if folder.startswith(REJECTS):
        return "rejects of a version that is not current"
    if f"{folder}/{fingerprint}/{STAGE}" not in dataset.storage.find(f"{folder}/{fingerprint}"):
        return "half deleted"
    info = dataset.stage(folder, fingerprint)
    done = len(dataset.committed(folder, fingerprint, info.shards))
    if done < info.shards:
        return f"unfinished: {done} of {info.shards} shards; a run of its configuration would go on here"
    return f"not current; {current[folder]} is" if folder in current else "not current"


def _inside(dataset: Dataset, path: str) -> bool:
    if dataset.storage.remote:
        return True
    root = Path(dataset.storage.base).resolve()
    return Path(dataset.path(path)).parent.resolve().is_relative_to(root)


def _say(found: list[Garbage], console: Console) -> bool:
    for one in found:
        size = sum(one.files.values())
        console.print(f"{size / 2**20:10.1f} MiB  {len(one.files):6} files  {one.what}", markup=False, highlight=False)
    total = sum(sum(one.files.values()) for one in found)
    console.print(f"{total / 2**20:10.1f} MiB in all" if found else "Nothing to delete.", highlight=False)
    return bool(found)


def _remove_empty(dataset: Dataset, one: Garbage) -> None:
    """Removes the folders that a version leaves empty; a bucket has none."""
    if not dataset.storage.remote:
        for folder in {os.path.dirname(path) for path in one.files} - {"", FOLDER}:
            with suppress(OSError):
                os.removedirs(dataset.path(folder))  # and those above it; never the root, which has its index
