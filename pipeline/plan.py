"""The plan: the sources' entries, cut into shards of about equal audio duration without splitting dialogues."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from echo_targets.pipeline.commit import ShardWriter, open_stage, set_current
from echo_targets.pipeline.spool import Spool
from echo_targets.pipeline.stage import fingerprint_of
from echo_targets.schemas import ENTRIES, KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset, StageInfo
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import table_of

STAGE = "plan"
CHUNK = 10_000


@dataclass(frozen=True)
class Plan:
    """Shards of entries that are not yet committed.

    Attributes:
        info: description of the `entries` table.
        num_entries: number of entries.
        num_bad: number of entries that can't be read.
        seconds: estimated seconds of audio.
        order: for each entry in shard order, its position in the order of the sources.
        ends: exclusive end of each shard in `order`.
        spool: the entries, in the order of the sources.
    """

    info: StageInfo
    num_entries: int
    num_bad: int
    seconds: float
    order: Sequence[int]
    ends: list[int]
    spool: Spool

    @property
    def tables(self) -> dict[str, str]:
        """Tables that the first stage can read: `entries`, with its fingerprint."""
        return {ENTRIES.name: self.info.fingerprint}

    @property
    def num_shards(self) -> int:
        return self.info.shards

    def shards(self) -> Iterator[pa.Table]:
        """Yield the entries of each shard."""
        for start, end in zip([0, *self.ends], self.ends, strict=False):
            yield self.spool.take(self.order[start:end])

    def commit(self, dataset: Dataset) -> None:
        """Write the shards that are not committed yet, and make the version current.

        Raises:
            UserError: there are no entries. An empty plan would replace the current version.
        """
        if not self.num_entries:
            raise UserError(f"{dataset.root}: there are no items to plan. Name sources that have items.")
        open_stage(dataset, self.info)
        for shard, rows in enumerate(self.shards()):
            if dataset.manifest(ENTRIES.name, self.info.fingerprint, shard, self.info.shards) is None:
                with ShardWriter(dataset, ENTRIES, self.info, shard) as writer:
                    writer.write(rows[KEY].to_pylist(), samples_of(rows), rows, [])
                    writer.commit()
        set_current(dataset, self.info)


@dataclass(frozen=True)
class Committed:
    """A committed table from which a job starts, instead of a plan.

    Attributes:
        tables: fingerprint of the table, by its name.
        num_shards: number of its shards.
    """

    tables: dict[str, str]
    num_shards: int

    @classmethod
    def of(cls, dataset: Dataset, table: str) -> Committed:
        """Return the current version of a table.

        Raises:
            LayoutError: the table does not exist.
        """
        info = dataset.current(table)
        return cls({table: info.fingerprint}, info.shards)

    def commit(self, dataset: Dataset) -> None:
        """No-op: already committed."""


def samples_of(entries: pa.Table) -> int:
    """Return the estimated number of samples of entries, at 16 kHz."""
    return int(sum(entries["seconds"].to_pylist()) * SAMPLE_RATE)


def plan(entries: Iterable[dict[str, Any]], shard_hours: float) -> Plan:
    """Cut entries into shards.

    Args:
        entries: rows of the `entries` table, in the order of the sources.
        shard_hours: target duration of a shard in hours; dialogues are never split.

    Returns:
        The plan. Its fingerprint covers every entry, so a changed source gives a new plan.
    """
    digest = hashlib.sha256()
    spool, groups, seconds = Spool(ENTRIES, CHUNK), array("q"), array("d")
    num_bad = 0
    dialogues: dict[str, int] = {}
    for chunk in _chunks(entries):
        for entry in chunk:
            digest.update(json.dumps(entry, sort_keys=True).encode())
            place, dialogue = len(groups), entry["dialogue_id"]
            groups.append(dialogues.setdefault(dialogue, place) if dialogue else place)
            seconds.append(entry["seconds"])
            num_bad += entry["error"] is not None
        spool.add(table_of(chunk, ENTRIES))
    spool.close()
    order, ends = cut(groups, seconds, shard_hours * 3600)
    parameters = {"entries": digest.hexdigest(), "shard_hours": shard_hours}
    info = StageInfo(
        stage=STAGE,
        version=1,
        table=ENTRIES.name,
        schema_version=ENTRIES.version,
        parameters=parameters,
        weights={},
        upstream={},
        shards=len(ends),
        fingerprint=fingerprint_of({"stage": STAGE, "schema_version": ENTRIES.version, "parameters": parameters}),
    )
    return Plan(info, len(groups), num_bad, sum(seconds), order, ends, spool)


def cut(groups: Sequence[int], seconds: Sequence[float], shard_seconds: float) -> tuple[Sequence[int], list[int]]:
    """Return where to cut entries into shards of about equal duration.

    Args:
        groups: for each entry, the position of the first entry of its group. Groups are never split; their members need
            not be adjacent.
        seconds: duration of each entry.
        shard_seconds: target duration of a shard.

    Returns:
        Positions of the entries, with the members of each group moved next to its first, and the exclusive end of each
        shard in that order. There is at least one shard, and no shard is empty unless there are no entries.
    """
    order = array("q", sorted(range(len(groups)), key=groups.__getitem__))
    left = sum(place == position for place, position in enumerate(groups))
    total = sum(seconds)
    shards = max(1, min(left, round(total / shard_seconds + 0.499)))
    ends: list[int] = []
    done = of_group = 0.0
    for place, position in enumerate(order):
        if groups[position] == position:  # a group starts
            done, of_group = done + of_group, 0.0
            cut_here = done >= total * (len(ends) + 1) / shards or left == shards - len(ends) - 1
            if place and cut_here and len(ends) < shards - 1:
                ends.append(place)
            left -= 1
        of_group += seconds[position]
    return order, [*ends, len(order)]


def _chunks(entries: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(entries)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
