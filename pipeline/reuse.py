"""Take over the outcomes of rows whose entries have not changed from shards that the same recipe has made before.

A recipe and a row's entry determine the row's outcome; in a dialogue, the entries of all its turns do. So when a corpus
grows, or when a row is retried, a new shard computes only the dialogues that are new or changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.pipeline.plan import RECIPE, Plan
from echo_targets.schemas import ENTRIES, KEY
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, Manifest
from echo_targets.schemas.dataset.versions import Recipe, entry_digest
from echo_targets.transforms.base import Output, Reject, Transform

Dialogues = dict[str, tuple[list[str], list[bytes]]]
"""Keys and digests of the entries of each dialogue, or of each entry that is in none, in order."""


@dataclass(frozen=True)
class Donors:
    """Earlier shards that hold rows of a new shard.

    Attributes:
        shards: ids of the earlier shards.
        rows: number of the new shard's entries that are unchanged.
    """

    shards: tuple[str, ...] = ()
    rows: int = 0


def find_donors(dataset: Dataset, plan: Plan) -> dict[str, Donors]:
    """Return the donors of each shard of a plan that is in none of the other current snapshots.

    Reads the entries of the shards that come and go, and no others.
    """
    index = dataset.index()
    current = {version.snapshot for version in index.tables.values()} if index else set()
    known = {shard for name in current - {plan.snapshot.id} for shard in dataset.snapshot(name).ids}
    gone = sorted((known - set(plan.snapshot.ids)) & dataset.there(ENTRIES.name, RECIPE.fingerprint))
    earlier: dict[str, list[tuple[str, list[bytes]]]] = {}
    for shard in gone:
        for dialogue, (_, digests) in _dialogues(_entries(dataset, shard)).items():
            earlier.setdefault(dialogue, []).append((shard, digests))
    found = {}
    for position, shard in enumerate(plan.snapshot.ids if earlier else []):
        if shard not in known:
            rows, donors = 0, dict[str, None]()
            for dialogue, (keys, digests) in _dialogues(plan.entries(position)).items():
                same = [donor for donor, others in earlier.get(dialogue, []) if others == digests]
                donors.update(dict.fromkeys(same))
                rows += len(keys) if same else 0
            found[shard] = Donors(tuple(donors), rows)
    return found


class TakenOver:
    """The outcomes that a recipe's earlier shards have for the unchanged rows of a new one."""

    def __init__(
        self, dataset: Dataset, recipe: Recipe, transform: Transform, shard: str, donors: Sequence[str]
    ) -> None:
        self._schema = transform.writes.schema
        self._donor_of: dict[str, _Donor] = {}
        wanted = _dialogues(_entries(dataset, shard)) if donors else {}
        for name in donors:
            manifest = dataset.manifest(recipe.table, recipe.fingerprint, name)
            if manifest and dataset.storage.size(manifest.output.path) == manifest.output.size:
                donor, before = _Donor(dataset, manifest), _dialogues(_entries(dataset, name))
                for dialogue, (keys, digests) in wanted.items():
                    if dialogue in before and before[dialogue][1] == digests:
                        self._donor_of.update(dict.fromkeys(keys, donor))

    def mask(self, keys: pa.ChunkedArray) -> pa.BooleanArray:
        """Return which of the keys have an outcome."""
        return pa.array(
            [key in self._donor_of and self._donor_of[key].has(key) for key in keys.to_pylist()], pa.bool_()
        )

    def outcomes(self, keys: Sequence[str]) -> Output:
        """Return the outcomes of those of the keys that have one."""
        by_donor: dict[_Donor, list[str]] = {}
        for key in keys:
            if key in self._donor_of and self._donor_of[key].has(key):
                by_donor.setdefault(self._donor_of[key], []).append(key)
        parts, rejects = [self._schema.empty_table()], list[Reject]()
        for donor, mine in by_donor.items():
            parts += [rows.cast(self._schema) for rows in donor.rows(mine)]
            rejects += [donor.rejects[key] for key in mine if key in donor.rejects]
        return Output(pa.concat_tables(parts), rejects)


class _Donor:
    """An earlier shard of a recipe."""

    def __init__(self, dataset: Dataset, manifest: Manifest) -> None:
        self._dataset, self._path = dataset, manifest.output.path
        self._groups: dict[str, int] = {}
        with dataset.open(manifest.output.path) as file:
            for group in range(file.num_row_groups):
                keys = file.read_row_group(group, [KEY])[KEY].to_pylist()
                self._groups.update(dict.fromkeys(keys, group))
        self.rejects = {reject.utterance_id: reject for reject in _rejects(dataset, manifest)}

    def has(self, key: str) -> bool:
        return key in self._groups or key in self.rejects

    def rows(self, keys: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows of the given keys, one row group at a time."""
        by_group: dict[int, list[str]] = {}
        for key in keys:
            if key in self._groups:
                by_group.setdefault(self._groups[key], []).append(key)
        with self._dataset.open(self._path) as file:
            for group, mine in sorted(by_group.items()):
                rows = _plain(file.read_row_group(group))
                yield rows.filter(pc.is_in(rows[KEY], value_set=pa.array(mine, pa.string())))


def _plain(rows: pa.Table) -> pa.Table:
    """Return rows whose schema has no metadata, so that it can equal a table's."""
    return rows.replace_schema_metadata(None).unify_dictionaries().combine_chunks()


def _rejects(dataset: Dataset, manifest: Manifest) -> Iterator[Reject]:
    if manifest.rejects is not None:
        with dataset.open(manifest.rejects.path) as file:
            for row in file.read().to_pylist():
                yield Reject(row[KEY], row["error_class"], row["message"], row["attempts"])


def _dialogues(entries: pa.Table) -> Dialogues:
    found: Dialogues = {}
    for entry in entries.to_pylist():
        dialogue = entry["dialogue_id"]
        name = f"entry {entry[KEY]}" if dialogue is None else f"dialogue {dialogue}"
        keys, digests = found.setdefault(name, ([], []))
        keys.append(entry[KEY])
        digests.append(entry_digest(entry))
    return found


def _entries(dataset: Dataset, shard: str) -> pa.Table:
    """Return the entries of a committed shard.

    Raises:
        LayoutError: the shard is not committed.
    """
    manifest = dataset.manifest(ENTRIES.name, RECIPE.fingerprint, shard)
    if manifest is None:
        raise LayoutError(f"{dataset.where(ENTRIES.name, RECIPE.fingerprint, shard)}.json: no such file")
    with dataset.open(manifest.output.path) as file:
        return file.read()
