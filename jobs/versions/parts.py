"""Read two versions of a table side by side, so that their rows can be compared."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.pipeline.compare import plain_strings
from echo_targets.schemas import ENTRIES, KEY, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, Manifest, StageInfo

AT = re.compile(r"(.*)@([0-9a-f]{4,16})")
PASS_ROWS = 100_000
"""Rows held in memory at once if the versions can't be compared shard by shard."""


@dataclass(frozen=True)
class Side:
    """A version of a table.

    Attributes:
        dataset: dataset that holds it.
        info: description of the stage that made it.
        manifests: manifests of its committed shards, by shard number.
        plan: fingerprint of the entries that its shards were cut from; None if unknown.
    """

    dataset: Dataset
    info: StageInfo
    manifests: dict[int, Manifest]
    plan: str | None

    @property
    def rows(self) -> int:
        return sum(manifest.output.rows for manifest in self.manifests.values())

    def __str__(self) -> str:
        return f"{self.dataset.root}@{self.info.fingerprint}"


def side(place: str, table: str, root: str) -> Side:
    """Return the version of a table that `ROOT` (its current version) or `ROOT@FINGERPRINT` names.

    Args:
        place: `ROOT`, `ROOT@FINGERPRINT`, or `@FINGERPRINT` for a version in `root`; the first four digits or more of
            the fingerprint.
        table: name of the table.
        root: root that `@FINGERPRINT` refers to.

    Raises:
        LayoutError: no version, or more than one, matches.
    """
    match = AT.fullmatch(place)
    dataset = Dataset((match[1] if match else place) or root)
    if match:
        known = dataset.versions().get(table, [])
        found = [fingerprint for fingerprint in known if fingerprint.startswith(match[2])]
        if len(found) != 1:
            there = ", ".join(known) or "none"
            raise LayoutError(
                f"{place}: {len(found)} versions of {table} start with {match[2]}, expected one. Versions: {there}"
            )
        info = dataset.stage(table, found[0])
    else:
        info = dataset.current(table)
    return Side(dataset, info, dataset.committed(table, info.fingerprint, info.shards), _plan_of(dataset, info))


@dataclass(frozen=True)
class Part:
    """Some rows of a version with their `corpus`, and the error classes of its rejects by key."""

    rows: pa.Table
    rejected: dict[str, str]


def together(a: Side, b: Side) -> bool:
    """Return True if both have the same plan, so that equal shard numbers hold the same utterances."""
    return a.plan is not None and a.plan == b.plan


def parts(a: Side, b: Side, columns: list[str]) -> Iterator[tuple[Part, Part]]:
    """Yield corresponding rows of two versions: shard by shard, or in passes over all shards, partitioned by key."""
    if together(a, b):
        for shard in sorted(a.manifests.keys() & b.manifests.keys()):
            yield _read(a, [shard], columns), _read(b, [shard], columns)
        return
    passes = max(1, -(-max(a.rows, b.rows) // PASS_ROWS))
    for number in range(passes):
        yield tuple(_read(one, one.manifests, columns, (number, passes)) for one in (a, b))  # type: ignore[misc]


def _read(one: Side, shards: Iterable[int], columns: list[str], of: tuple[int, int] = (0, 1)) -> Part:
    """Return the rows of some shards, limited to one key partition: `of` is (number, count of partitions)."""
    number, passes = of
    read, rejected = list[pa.Table](), dict[str, str]()
    for shard in shards:
        manifest = one.manifests[shard]
        with one.dataset.open(manifest.output.path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            rows = plain_strings(file.read([KEY, *there]))
        if "corpus" not in rows.column_names:
            rows = rows.append_column("corpus", _corpora(one, shard, rows[KEY]))
        if passes > 1:
            rows = rows.filter(pa.array([zlib.crc32(key.encode()) % passes == number for key in rows[KEY].to_pylist()]))
        read.append(rows)
        if manifest.rejects:
            with one.dataset.open(manifest.rejects.path) as file:
                rejects = file.read([KEY, "error_class"])
            for key, reason in zip(rejects[KEY].to_pylist(), rejects["error_class"].to_pylist(), strict=True):
                if zlib.crc32(key.encode()) % passes == number:
                    rejected[key] = reason
    empty = pa.table({KEY: pa.array([], pa.string())})
    return Part(pa.concat_tables(read or [empty], promote_options="default").combine_chunks(), rejected)


def _corpora(one: Side, shard: int, keys: pa.ChunkedArray) -> pa.Array:
    """Return the corpus of each row, from the utterances of its shard; `?` if they are missing."""
    fingerprint = one.info.upstream.get(UTTERANCES.name)
    manifest = fingerprint and one.dataset.manifest(UTTERANCES.name, fingerprint, shard, one.info.shards)
    if not manifest:
        return pa.repeat("?", len(keys))
    with one.dataset.open(manifest.output.path) as file:
        utterances = plain_strings(file.read([KEY, "corpus"])).combine_chunks()
    places = pc.index_in(keys.combine_chunks(), value_set=utterances[KEY].combine_chunks())
    return pc.fill_null(utterances["corpus"].combine_chunks().take(places), "?")


def _plan_of(dataset: Dataset, info: StageInfo) -> str | None:
    """Return the fingerprint of the entries that a version's shards were cut from; None if unknown."""
    while info.table != ENTRIES.name:
        table = next((name for name in (ENTRIES.name, UTTERANCES.name) if name in info.upstream), None)
        try:
            if table is None or table == info.table:
                return None
            info = dataset.stage(table, info.upstream[table])
        except LayoutError:  # the upstream version was deleted
            return None
    return info.fingerprint
