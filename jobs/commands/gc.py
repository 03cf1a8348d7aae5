"""`echo-targets gc`: delete versions that no reader needs, and the leftovers of killed processes."""

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
    """A group of unneeded files.

    Attributes:
        what: description for the user.
        files: bytes by path, in the order of deletion.
    """

    what: str
    files: dict[str, int]


def gc_command(root: str, yes: bool) -> int:
    """Print what is unneeded; also delete it if `yes` is True."""
    console = open_console()
    dataset = Dataset(root)
    if not yes:
        if _print(find_garbage(dataset), console):
            console.print("Nothing was deleted. Run again with --yes to delete.")
        return 0
    dataset.tables()  # fails if there is no index, before the lease writes anything to the folder
    with Lease(dataset) as lease:
        for _ in lease.take("refuse"):
            pass
        found = find_garbage(dataset)  # listed under the lease, so no driver is writing any of these files
        _print(found, console)
        for one in found:
            for path in one.files:
                lease.check()
                dataset.storage.delete(path)
            _remove_empty(dataset, one)
    if found:
        console.print("Deleted.")
    return 0


def find_garbage(dataset: Dataset) -> list[Garbage]:
    """Return versions that are neither current nor inputs of a current one, temporary files, and stale attempt notes.

    Only files that a job writes are considered: those of versions and of the lease, and temporary files in the root
    itself. Files behind a link that leads out of the root are never deleted.

    Raises:
        LayoutError: there is no index, or a version that it names is missing, so unneeded files can't be determined.
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
    # Tables go before their rejects: a shard's manifest covers both, and a shard counts while its manifest exists.
    for (folder, fingerprint), parts in sorted(old.items(), key=lambda item: item[0][0].startswith(REJECTS)):
        ordered = dict(sorted(parts.items(), key=lambda item: _turn(item[0])))
        found.append(Garbage(f"{folder}/{fingerprint} ({_state(dataset, folder, fingerprint, current)})", ordered))
    kinds = {
        "temporary files": temporary,
        "attempt notes of committed shards": notes,
        "shards that an interrupted retry set aside; running retry again would reuse them": aside,
    }
    return [*found, *(Garbage(what, paths) for what, paths in kinds.items() if paths)]


def _turn(path: str) -> int:
    """Return the deletion order: manifests first, so that a kill leaves no shard that counts; the description last."""
    name = path.rpartition("/")[2]
    return 2 if name == STAGE else 0 if name.endswith(".json") and not name.endswith(NOTE) else 1


def _state(dataset: Dataset, folder: str, fingerprint: str, current: dict[str, str]) -> str:
    if folder.startswith(REJECTS):
        return "rejects of a version that is not current"
    if f"{folder}/{fingerprint}/{STAGE}" not in dataset.storage.find(f"{folder}/{fingerprint}"):
        return "partly deleted"
    info = dataset.stage(folder, fingerprint)
    done = len(dataset.committed(folder, fingerprint, info.shards))
    if done < info.shards:
        return f"unfinished: {done} of {info.shards} shards; running its configuration again would resume it"
    return f"not current; the current version is {current[folder]}" if folder in current else "not current"


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
