"""The plan: the sources' entries, cut into shards whose borders depend on the entries around them and on nothing else.

A shard's id is a digest of its entries. So a corpus that grows or changes keeps the shards that the change does not
touch, in this plan and in every table.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from echo_targets.pipeline.commit import ShardWriter, open_recipe, set_current, write_snapshot
from echo_targets.pipeline.spool import Spool
from echo_targets.schemas import ENTRIES, KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.layout import READERS, Dataset
from echo_targets.schemas.dataset.versions import (
    Recipe,
    ShardEntry,
    Snapshot,
    Version,
    entry_digest,
    shard_id,
)
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import table_of

CHUNK = 10_000


RECIPE = Recipe("plan", 2, ENTRIES.name, ENTRIES.version, parameters={}, weights={}, upstream={})
"""The recipe of `entries`: the same for every plan, whatever its sources."""


@dataclass(frozen=True)
class Plan:
    """Shards of entries, committed or not.

    Attributes:
        snapshot: ids and sizes of the shards.
        num_entries: number of entries.
        num_bad: number of entries that can't be read.
        seconds: estimated seconds of audio.
        order: for each entry in shard order, its position in the order of the sources.
        ends: exclusive end of each shard in `order`.
        spool: the entries, in the order of the sources.
        attempts: by key, how often a row was retried, also of rows that are no longer there.
    """

    snapshot: Snapshot
    num_entries: int
    num_bad: int
    seconds: float
    order: Sequence[int]
    ends: list[int]
    spool: Spool
    attempts: Mapping[str, int]

    @property
    def recipes(self) -> dict[str, str]:
        """Tables that the first stage can read: `entries`, with its recipe."""
        return {ENTRIES.name: RECIPE.fingerprint}

    @property
    def num_shards(self) -> int:
        return len(self.ends)

    def shards(self) -> Iterator[pa.Table]:
        """Yield the entries of each shard."""
        return map(self.entries, range(self.num_shards))

    def entries(self, position: int) -> pa.Table:
        """Return the entries of the shard at a position in the snapshot."""
        start = self.ends[position - 1] if position else 0
        return self.spool.take(self.order[start : self.ends[position]])

    def items(self) -> Iterator[dict[str, Any]]:
        """Yield the entries in the order of the sources."""
        for start in range(0, self.num_entries, CHUNK):
            yield from self.spool.take(range(start, min(start + CHUNK, self.num_entries))).to_pylist()

    def commit(self, dataset: Dataset) -> None:
        """Write the shards that are not committed yet and the snapshot, and make it current.

        Raises:
            UserError: there are no entries. An empty plan would replace the current version.
        """
        if not self.num_entries:
            raise UserError(f"{dataset.root}: there are no items to plan. Name sources that have items.")
        open_recipe(dataset, RECIPE)
        there = dataset.there(ENTRIES.name, RECIPE.fingerprint)
        missing = [position for position, shard in enumerate(self.snapshot.ids) if shard not in there]
        with ThreadPoolExecutor(READERS) as pool:
            for _ in pool.map(lambda position: self._write(dataset, position), missing):
                pass
        write_snapshot(dataset, self.snapshot)
        set_current(dataset, {ENTRIES.name: Version(RECIPE.fingerprint, self.snapshot.id)}, self.attempts)

    def _write(self, dataset: Dataset, position: int) -> None:
        rows, shard = self.entries(position), self.snapshot.shards[position]
        with ShardWriter(dataset, ENTRIES, RECIPE, shard.id) as writer:
            writer.write(rows[KEY].to_pylist(), shard.samples, rows, [])
            writer.commit()


@dataclass(frozen=True)
class Committed:
    """A committed table from which a job starts, instead of a plan.

    Attributes:
        recipes: recipe of the table, by its name.
        snapshot: its shards.
    """

    recipes: dict[str, str]
    snapshot: Snapshot

    @classmethod
    def of(cls, dataset: Dataset, table: str) -> Committed:
        """Return the current version of a table.

        Raises:
            LayoutError: the table does not exist.
        """
        version = dataset.current(table)
        return cls({table: version.recipe}, dataset.snapshot(version.snapshot))

    def commit(self, dataset: Dataset) -> None:
        """No-op: already committed."""


def plan(entries: Iterable[dict[str, Any]], shard_hours: float, attempts: Mapping[str, int] | None = None) -> Plan:
    """Cut entries into shards.

    Args:
        entries: rows of the `entries` table, in the order of the sources.
        shard_hours: wanted duration of a shard in hours; dialogues are never split.
        attempts: by key, how often a row was retried.
    """
    attempts = attempts or {}
    spool, groups, seconds, digests = Spool(ENTRIES, CHUNK), array("q"), array("d"), bytearray()
    num_bad = 0
    dialogues: dict[str, int] = {}
    for chunk in _chunks(entries):
        for entry in chunk:
            entry["attempt"] = attempts.get(entry[KEY], 0)
            entry["seconds"] = float(np.float32(entry["seconds"]))  # as it is stored, so that its digest can be checked
            digests += entry_digest(entry)
            place, dialogue = len(groups), entry["dialogue_id"]
            groups.append(dialogues.setdefault(dialogue, place) if dialogue else place)
            seconds.append(entry["seconds"])
            num_bad += entry["error"] is not None
        spool.add(table_of(chunk, ENTRIES))
    spool.close()
    size = hashlib.sha256().digest_size
    every = np.frombuffer(bytes(digests), np.uint8).reshape(-1, size)
    order, ends = cut(groups, seconds, every[:, :8].copy().view(">u8").ravel(), shard_hours * 3600)
    shards = []
    for start, end in zip([0, *ends], ends, strict=False):
        positions = order[start:end]
        name = shard_id(ENTRIES.version, (every[position].tobytes() for position in positions))
        samples = int(sum(seconds[position] for position in positions) * SAMPLE_RATE)
        shards.append(ShardEntry(name, len(positions), samples))
    return Plan(Snapshot(tuple(shards)), len(groups), num_bad, sum(seconds), order, ends, spool, attempts)


def cut(
    groups: Sequence[int], seconds: Sequence[float], digests: np.ndarray, shard_seconds: float
) -> tuple[Sequence[int], list[int]]:
    """Return where to cut entries into shards, by content-defined chunking.

    From the start of a shard, every group that begins between half and one and a half times the wanted duration is a
    candidate for the start of the next; the one with the smallest digest is it. After a change, the borders find
    together again at the first group that is the smallest candidate of both. What is left at the end, up to one and a
    half times the duration, is one shard, so an append changes no border before it.

    Args:
        groups: for each entry, the position of the first entry of its group. Groups are never split; their members need
            not be adjacent.
        seconds: duration of each entry.
        digests: (N,) uint64, part of each entry's digest.
        shard_seconds: wanted duration of a shard.

    Returns:
        Positions of the entries, with the members of each group moved next to its first, and the exclusive end of each
        shard in that order. There is at least one shard, and no shard is empty unless there are no entries.
    """
    order = array("q", sorted(range(len(groups)), key=groups.__getitem__))
    starts = np.array([place for place, position in enumerate(order) if groups[position] == position], np.int64)
    # Whole milliseconds, so that sums do not depend on what was added before.
    lengths = np.rint(np.array([seconds[position] for position in order]) * 1000).astype(np.int64)
    before = np.concatenate([[0], np.cumsum(lengths)])
    begins, total, wanted = before[starts], before[-1], shard_seconds * 1000
    drawn = np.asarray(digests)[[order[place] for place in starts]]
    ends: list[int] = []
    group = 0
    while len(starts) and total - begins[group] > 1.5 * wanted:
        first, last = np.searchsorted(begins, [begins[group] + 0.5 * wanted, begins[group] + 1.5 * wanted])
        first = max(first, group + 1)
        if first >= len(starts):  # one long group is left
            break
        group = first + int(np.argmin(drawn[first : max(last, first + 1)]))
        ends.append(int(starts[group]))
    return order, [*ends, len(order)]


def _chunks(entries: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    iterator = iter(entries)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
