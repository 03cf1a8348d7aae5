"""Duplicates: rows that repeat another row of the set.

A shard's worker sees only that shard, so `echo-targets fit-duplicates` looks at all of them first; publish loads its
file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.errors import UserError
from echo_targets.schemas.tables.base import Mask
from echo_targets.transforms.sources.base import SourceError
from echo_targets.transforms.sources.lines import json_lines

Likeness = Literal["audio", "units", "text"]
"""What is alike: the samples, all equal; the units of the sound, nearly; the words of the text, nearly."""
KINDS: tuple[Likeness, ...] = get_args(Likeness)
HELD_OUT = "^(test|dev|valid|eval)"
"""Beginning of the names of splits that nothing is trained on, such as `test-other`."""
REMEDY = "make one with `echo-targets fit-duplicates`"


class DuplicatesError(UserError):
    """A file of duplicates can't be used."""


class Duplicate(NamedTuple):
    """A row, the row that it repeats and that is kept, and what is alike."""

    id: str
    duplicate_of: str
    by: Likeness


def held_out(split: pa.Array | pa.ChunkedArray) -> Mask:
    """Return a mask of the rows whose split is held out from training."""
    return pc.match_substring_regex(split.cast(pa.string()), HELD_OUT, ignore_case=True)


def save_duplicates(duplicates: Iterable[Duplicate], path: Path) -> None:
    """Write JSON Lines; equal duplicates in equal order give equal bytes."""
    lines = (json.dumps(duplicate._asdict(), ensure_ascii=False) + "\n" for duplicate in duplicates)
    path.write_text("".join(lines), encoding="utf-8")


def load_duplicates(path: Path) -> Iterator[Duplicate]:
    """Yield the duplicates of a file.

    Raises:
        DuplicatesError: the file is missing, or a line is not a duplicate.
    """
    try:
        with path.open("rb") as file:
            for number, line in json_lines(file, str(path)):
                found = line if isinstance(line, dict) else {}
                key, kept, kind = (found.get(name) for name in Duplicate._fields)
                if not (isinstance(key, str) and isinstance(kept, str) and isinstance(kind, str)):
                    raise DuplicatesError(f"{path}:{number}: expected strings `id`, `duplicate_of` and `by`; {REMEDY}")
                if kind not in KINDS:
                    raise DuplicatesError(f"{path}:{number}: `by` is {kind!r}; expected {', '.join(KINDS)}")
                yield Duplicate(key, kept, KINDS[KINDS.index(kind)])
    except OSError as error:
        raise DuplicatesError(f"{path}: {error.strerror}; {REMEDY}") from error
    except SourceError as error:
        raise DuplicatesError(f"{error}; {REMEDY}") from error
