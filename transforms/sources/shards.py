"""Lists of files written with braces or wildcards, such as `train-{000000..000127}.tar` or `*.tar`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatchcase

from braceexpand import braceexpand

from echo_targets.schemas.dataset.storage import is_url
from echo_targets.transforms.sources.base import Files, SourceError
from echo_targets.transforms.sources.values import BadLine, place

WILD = re.compile(r"[*?\[]")


def braces(pattern: str) -> list[str]:
    """Return the names that braces stand for; NeMo also writes them `_OP_` and `_CL_`.

    Raises:
        SourceError: the braces are not closed.
    """
    try:
        return list(braceexpand(pattern.replace("_OP_", "{").replace("_CL_", "}"), escape=False))
    except ValueError as error:
        raise SourceError(f"{pattern}: {error}; close them, as in part-{{000..127}}.tar") from None


def listed(files: Files, patterns: str | list[str]) -> list[str]:
    """Return the locators of files that one or more patterns name, each once: braces first, then wildcards.

    A wildcard matches paths below the place of the files, so `*.tar` finds those of all folders.

    Raises:
        SourceError: a wildcard matches nothing, or a path is absolute, a URL, or leads out of the place.
        OSError: the files can't be listed.
    """
    names = [name for one in ([patterns] if isinstance(patterns, str) else patterns) for name in braces(one)]
    paths = list(_paths(files)) if any(map(WILD.search, names)) else []
    found: dict[str, None] = {}
    for name in names:
        if is_url(name) or os.path.isabs(name):
            raise SourceError(f"{name}: name it relative to {files.place}")
        try:
            name = place(("path", name))
        except BadLine:
            raise SourceError(f"{name}: leads out of {files.place}; name a file inside") from None
        matches = [path for path in paths if fnmatchcase(path, name)] if WILD.search(name) else [name]
        if not matches:
            raise SourceError(f"{files.place} has no file {name}; correct the pattern, or add the files")
        found |= dict.fromkeys(matches)
    return list(found)


def _paths(files: Files) -> Iterator[str]:
    for folder, names in files.walk(Counter()):
        yield from (os.path.join(folder, name) for name in names)
