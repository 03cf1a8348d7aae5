"""Notes about attempts at a shard, stored next to its future manifest, so that a retry knows how the last one ended.

A note with a reason means that the attempt failed with an exception; a note without one, that the process crashed or
hung. No note means that there was no attempt, that it committed the shard, or that it was stopped in an orderly way.
"""

from __future__ import annotations

import json
import os
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from echo_targets.pipeline.commit import write_whole
from echo_targets.pipeline.failures import is_machine_error
from echo_targets.schemas.dataset.layout import Dataset, LayoutError
from echo_targets.schemas.dataset.versions import Recipe

NOTE = ".attempt.json"


@dataclass(frozen=True)
class Attempt:
    """How an attempt at a shard ended.

    Attributes:
        id: unique id of the attempt.
        reason: the exception and where it was raised; None if the process crashed or hung.
        final: True if another attempt can't succeed.
    """

    id: str
    reason: str | None = None
    final: bool = False


def last_attempt(dataset: Dataset, recipe: Recipe, shard: str) -> Attempt | None:
    """Return the note of the last attempt at a shard, or None if there is none."""
    try:
        data = dataset.read_json(_path(recipe, shard))
        return None if data is None else Attempt(**data)
    except (LayoutError, TypeError):  # a partly written note: the machine crashed
        return Attempt("")


@contextmanager
def attempt(dataset: Dataset, recipe: Recipe, shard: str) -> Iterator[Attempt | None]:
    """Keep a note of an attempt at a shard during the block, with the reason if it fails. Yield the previous note.

    The block must call `forget` before it commits, so that no note remains next to a manifest.
    """
    last = last_attempt(dataset, recipe, shard)
    this = Attempt(uuid.uuid4().hex)
    _write(dataset, recipe, shard, this)
    try:
        yield last
    except Exception as error:
        _write(dataset, recipe, shard, replace(this, reason=error_text(error), final=not is_machine_error(error)))
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        forget(dataset, recipe, shard)
        raise


def forget(dataset: Dataset, recipe: Recipe, shard: str) -> None:
    """Delete the note of a shard."""
    dataset.storage.delete(_path(recipe, shard))


def failed_attempts(dataset: Dataset, recipe: Recipe) -> dict[str, str]:
    """Return why attempts at a recipe's shards failed, by shard."""
    names = dataset.storage.list(f"{recipe.table}/{recipe.fingerprint}")
    found = {}
    for shard in (name.removesuffix(NOTE) for name in names if name.endswith(NOTE)):
        note = last_attempt(dataset, recipe, shard)
        if note is not None and f"{shard}.json" not in names:
            found[shard] = note.reason or "its worker crashed or hung, or is still at work"
    return found


def forget_stopped(dataset: Dataset, recipe: Recipe) -> None:
    """Delete the notes of interrupted attempts. Call it when no worker is running any more."""
    for name in dataset.storage.list(f"{recipe.table}/{recipe.fingerprint}"):
        if name.endswith(NOTE):
            shard = name.removesuffix(NOTE)
            note = last_attempt(dataset, recipe, shard)
            if note is not None and note.reason is None:
                forget(dataset, recipe, shard)


def error_text(error: Exception) -> str:
    """Return an error's class, message and the last line outside of libraries that it passed, as one line."""
    frames = traceback.extract_tb(error.__traceback__)
    where = next((frame for frame in reversed(frames) if "site-packages" not in frame.filename), frames[-1])
    return f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"


def _path(recipe: Recipe, shard: str) -> str:
    return f"{recipe.table}/{recipe.fingerprint}/{shard}{NOTE}"


def _write(dataset: Dataset, recipe: Recipe, shard: str, note: Attempt) -> None:
    write_whole(dataset, _path(recipe, shard), json.dumps(asdict(note)).encode())
