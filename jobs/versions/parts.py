"""A version of a table, and its rows beside those of another."""

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
"""Rows that are held at once where shards can't be joined one by one."""


@dataclass(frozen=True)
class Side:
    """A version of a table: what made it, its committed shards, and the plan that they were cut by, if it is known."""

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
    """The version of a table that `ROOT` (the current one) or `ROOT@FINGERPRINT` names.

    Args:
        place: the fingerprint may be its first four digits or more; `@FINGERPRINT` alone is a version in `root`.

    Raises:
        LayoutError: there is no such version, or more than one.
    """
    match = AT.fullmatch(place)
    dataset = Dataset((match[1] if match else place) or root)
    if match:
        known = dataset.versions().get(table, [])
        found = [fingerprint for fingerprint in known if fingerprint.startswith(match[2])]
        if len(found) != 1:
            there = ", ".join(known) or "none"
            raise LayoutError(f"{place}: {len(found)} versions of {table} begin with {match[2]}; there are: {there}")
        info = dataset.stage(table, found[0])
    else:
        info = dataset.current(table)
    return Side(dataset, info, dataset.committed(table, info.fingerprint, info.shards), _plan_of(dataset, info))


@dataclass(frozen=True)
class Part:
    """Some rows of a version, with their `corpus`, and why others were refused, by key."""

    rows: pa.Table
    refused: dict[str, str]


def together(a: Side, b: Side) -> bool:
    """Whether shard 7 of both holds the same utterances."""
    return a.plan is not None and a.plan == b.plan


def parts(a: Side, b: Side, columns: list[str]) -> Iterator[tuple[Part, Part]]:
    """The rows of two versions, those of one key together: shard by shard, or in passes over all of them."""
    if together(a, b):
        for shard in sorted(a.manifests.keys() & b.manifests.keys()):
            yield _read(a, [shard], columns), _read(b, [shard], columns)
        return
    passes = max(1, -(-max(a.rows, b.rows) // PASS_ROWS))
    for number in range(passes):
        yield tuple(_read(one, one.manifests, columns, (number, passes)) for one in (a, b))  # type: ignore[misc]


def _read(one: Side, shards: Iterable[int], columns: list[str], of: tuple[int, int] = (0, 1)) -> Part:
    """The rows of some shards, or those of their keys that fall into one of several classes."""
    number, passes = of
    read, refused = list[pa.Table](), dict[str, str]()
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
                    refused[key] = reason
    empty = pa.table({KEY: pa.array([], pa.string())})
    return Part(pa.concat_tables(read or [empty], promote_options="default").combine_chunks(), refused)


def _corpora(one: Side, shard: int, keys: pa.ChunkedArray) -> pa.Array:
    """The corpus of each row, from the utterances of its shard; `?` where they are not there."""
    fingerprint = one.info.upstream.get(UTTERANCES.name)
    manifest = fingerprint and one.dataset.manifest(UTTERANCES.name, fingerprint, shard, one.info.shards)
    if not manifest:
        return pa.repeat("?", len(keys))
    with one.dataset.open(manifest.output.path) as file:
        utterances = plain_strings(file.read([KEY, "corpus"])).combine_chunks()
    places = pc.index_in(keys.combine_chunks(), value_set=utterances[KEY].combine_chunks())
    return pc.fill_null(utterances["corpus"].combine_chunks().take(places), "?")


def _plan_of(dataset: Dataset, info: StageInfo) -> str | None:
    """The fingerprint of the entries that a version's shards were cut from."""
    while info.table != ENTRIES.name:
        table = next((name for name in (ENTRIES.name, UTTERANCES.name) if name in info.upstream), None)
        try:
            if table is None or table == info.table:
                return None
            info = dataset.stage(table, info.upstream[table])
        except LayoutError:  # an older version, and deleted
            return None
    return info.fingerprint
