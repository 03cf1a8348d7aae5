"""Read two versions of a table side by side, so that their rows can be compared."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.pipeline.compare import plain_strings, with_fields
from echo_targets.schemas import KEY, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset, Manifest
from echo_targets.schemas.dataset.versions import Recipe, Version

AT = re.compile(r"(.*?)@([0-9a-f]+@[0-9a-f]+|[\w.-]+)")
PASS_ROWS = 100_000
"""Rows of shards that only one version has that are held in memory at once."""


@dataclass(frozen=True)
class Side:
    """A version of a table.

    Attributes:
        dataset: dataset that holds it.
        recipe, version: what identifies it.
        manifests: manifests of its shards, by id.
    """

    dataset: Dataset
    recipe: Recipe
    version: Version
    manifests: dict[str, Manifest]

    @property
    def rows(self) -> int:
        return sum(manifest.output.rows for manifest in self.manifests.values())

    def __str__(self) -> str:
        return f"{self.dataset.root}@{self.version}"


def side(place: str, table: str, root: str) -> Side:
    """Return the version of a table that `ROOT` (its current version) or `ROOT@VERSION` names.

    Args:
        place: `ROOT`, `ROOT@VERSION`, or `@VERSION` for a version in `root`; `Dataset.named` says what names a version.
        table: name of the table.
        root: root that `@VERSION` refers to.

    Raises:
        LayoutError: no version, or more than one, matches, or it is not whole.
    """
    match = AT.fullmatch(place)
    dataset = Dataset((match[1] if match else place) or root)
    version = dataset.named(table, match[2]) if match else dataset.current(table)
    manifests = {manifest.shard: manifest for manifest in dataset.manifests(table, version)}
    return Side(dataset, dataset.recipe(table, version.recipe), version, manifests)


@dataclass(frozen=True)
class Part:
    """Some rows of a version with their `corpus`, and the error classes of its rejects by key."""

    rows: pa.Table
    rejected: dict[str, str]


def equal_shards(a: Side, b: Side) -> list[str]:
    """Return the ids of the shards of which both versions have the same bytes."""
    return [
        shard
        for shard in _shared(a, b)
        if a.manifests[shard].output.sha256 == b.manifests[shard].output.sha256
        and a.manifests[shard].reasons == b.manifests[shard].reasons
    ]


def parts(a: Side, b: Side, columns: list[str]) -> Iterator[tuple[Part, Part]]:
    """Yield corresponding rows of the shards that are not equal.

    Shards that both versions have are read side by side, all others in passes, partitioned by key.
    """
    equal, shared = set(equal_shards(a, b)), _shared(a, b)
    for shard in shared:
        if shard not in equal:
            yield _read(a, [shard], columns), _read(b, [shard], columns)
    others = [[shard for shard in one.manifests if shard not in set(shared)] for one in (a, b)]
    rows = max(
        sum(one.manifests[shard].output.rows for shard in mine) for one, mine in zip((a, b), others, strict=True)
    )
    passes = -(-rows // PASS_ROWS) if rows else 0
    for number in range(passes):
        yield _read(a, others[0], columns, (number, passes)), _read(b, others[1], columns, (number, passes))


def _shared(a: Side, b: Side) -> list[str]:
    return [shard for shard in a.manifests if shard in b.manifests]


def _read(one: Side, shards: Iterable[str], columns: list[str], of: tuple[int, int] = (0, 1)) -> Part:
    """Return the rows of some shards, limited to one key partition: `of` is (number, count of partitions)."""
    number, passes = of
    read, rejected = list[pa.Table](), dict[str, str]()
    for shard in shards:
        manifest = one.manifests[shard]
        with one.dataset.open(manifest.output.path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            rows = with_fields(plain_strings(file.read([KEY, *there])))
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


def _corpora(one: Side, shard: str, keys: pa.ChunkedArray) -> pa.Array:
    """Return the corpus of each row, from the utterances of its shard; `?` if they are missing."""
    fingerprint = one.recipe.upstream.get(UTTERANCES.name)
    manifest = fingerprint and one.dataset.manifest(UTTERANCES.name, fingerprint, shard)
    if not manifest:
        return pa.repeat("?", len(keys))
    with one.dataset.open(manifest.output.path) as file:
        utterances = plain_strings(file.read([KEY, "corpus"])).combine_chunks()
    places = pc.index_in(keys.combine_chunks(), value_set=utterances[KEY].combine_chunks())
    return pc.fill_null(utterances["corpus"].combine_chunks().take(places), "?")
