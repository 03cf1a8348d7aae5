"""Lists a folder's files at any depth, folder by folder, so that memory holds the names of one folder at a time."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

HIDDEN = "hidden files and folders"
LISTED = "linked folders that are already listed"
JUNK = "__MACOSX"
"""The folder that macOS adds to ZIP archives; its files only have the names of the audio."""

Folder = tuple[str, list[str]]
"""A folder's path below the place that is listed (empty for that place), and the sorted names of its files."""


def is_hidden(name: str) -> bool:
    """Return True for a file or folder that a person does not see: `.git`, `._a.wav`, `__MACOSX`."""
    return name.startswith(".") or name == JUNK


def walk(place: Path, skipped: Counter[str]) -> Iterator[Folder]:
    """Yield the folders at and below a local one, in a fixed order.

    Links to folders are followed after everything else was listed, so that their files have the path without a link if
    there is one. A folder is listed once, even if links make a circle.

    Args:
        skipped: counts what is not listed, by reason.

    Raises:
        OSError: a folder can't be listed.
    """
    seen, folders, links = set[tuple[int, int]](), [""], deque[str]()
    while folders or links:
        folder = folders.pop() if folders else links.popleft()
        status = os.stat(place / folder)
        if (status.st_dev, status.st_ino) in seen:
            skipped[LISTED] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        files, inner, linked = list[str](), list[str](), list[str]()
        with os.scandir(place / folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    skipped[HIDDEN] += 1
                elif _is_folder(entry):
                    (linked if entry.is_symlink() else inner).append(os.path.join(folder, entry.name))
                else:
                    files.append(entry.name)
        folders += sorted(inner, reverse=True)
        links += sorted(linked)
        yield folder, sorted(files)


def by_folder(paths: Iterable[str], skipped: Counter[str]) -> Iterator[Folder]:
    """Yield the folders of an object store's files as `walk` does, from all of their paths."""
    folders: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        if any(map(is_hidden, path.split("/"))):
            skipped[HIDDEN] += 1
        else:
            folders.setdefault(folder, []).append(name)
    for folder in sorted(folders):
        yield folder, sorted(folders[folder])


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is a file that can't be opened
        return False
