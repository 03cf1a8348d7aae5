"""The note of an attempt at a shard, beside where its manifest will be: the next attempt reads how the last one ended.

A note with a reason: the attempt failed, and said why. A note without one: the process died before it could. No note:
there was no attempt, or it committed the shard, or it was stopped in order.
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
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, StageInfo, shard_name


@dataclass(frozen=True)
class Attempt:
    """How an attempt at a shard ended.

    Attributes:
        id: unique to the attempt.
        reason: what was raised, and where; None for a process that died.
        final: whether another attempt can't help.
    """

    id: str
    reason: str | None = None
    final: bool = False


def last_attempt(dataset: Dataset, info: StageInfo, shard: int) -> Attempt | None:
    """The note that the last attempt at a shard left."""
    try:
        data = dataset.read_json(_path(info, shard))
        return None if data is None else Attempt(**data)
    except (LayoutError, TypeError):  # half a note is that of a machine that went down
        return Attempt("")


@contextmanager
def attempt(dataset: Dataset, info: StageInfo, shard: int) -> Iterator[Attempt | None]:
    """Notes an attempt at a shard for as long as the block lasts, and how it failed if it does; gives the last one's.

    The block calls `forget` before it commits, so that no note is left beside a manifest.
    """
    last = last_attempt(dataset, info, shard)
    this = Attempt(uuid.uuid4().hex)
    _write(dataset, info, shard, this)
    try:
        yield last
    except Exception as error:
        _write(dataset, info, shard, replace(this, reason=error_text(error), final=not is_machine_error(error)))
        raise
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        forget(dataset, info, shard)
        raise


def forget(dataset: Dataset, info: StageInfo, shard: int) -> None:
    """Removes the note."""
    dataset.storage.delete(_path(info, shard))


def forget_stopped(dataset: Dataset, info: StageInfo) -> None:
    """Removes the notes of attempts that were stopped in their midst, when nobody is at work any more."""
    there = set(dataset.storage.list(f"{info.table}/{info.fingerprint}"))
    for shard in range(info.shards):
        if _path(info, shard).rpartition("/")[2] in there:
            note = last_attempt(dataset, info, shard)
            if note is not None and note.reason is None:
                forget(dataset, info, shard)


def error_text(error: Exception) -> str:
    """An error in one line: its class, its message, and the line that raised it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})"


def _path(info: StageInfo, shard: int) -> str:
    return f"{info.table}/{info.fingerprint}/{shard_name(shard, info.shards)}.attempt.json"


def _write(dataset: Dataset, info: StageInfo, shard: int, note: Attempt) -> None:
    write_whole(dataset, _path(info, shard), json.dumps(asdict(note)).encode())
