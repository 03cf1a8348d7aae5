"""Compare two versions of a table: which rows differ, by how much, and which differ most."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import inf
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.jobs.versions.side_by_side import Part, Side, equal_shards, parts
from echo_targets.pipeline.compare import differing
from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.tables.targets import ORIGINS


class Track(NamedTuple):
    """Columns with units, with those of their durations; `segmented` if a row has a list of units for each segment."""

    units: str
    durations: str
    segmented: bool


TRACKS = {
    "units": {"units": Track("units", "durations", False)},
    "training/t2c": {"units": Track("units", "durations", False)},
    "training/echo": {"units": Track("unit_targets", "unit_durations", True)},
    "echo_targets": {origin: Track(f"{origin}.units", f"{origin}.durations", True) for origin in ORIGINS},
}
"""Units of the tables that have some, by name."""
PROVENANCE = ("echo_model_id", "model_id", "decode_id", "tokenizer_id", "codebook_id", "unit_language_id", "encoder")
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
WORST = 10


@dataclass
class Tally:
    """Counts over rows that both versions have: rows, units of A, and edits that turn A's units into B's."""

    rows: int = 0
    units: int = 0
    edits: int = 0

    def add(self, units: int, edits: int) -> None:
        self.rows, self.units, self.edits = self.rows + 1, self.units + units, self.edits + edits

    @property
    def rate(self) -> float | None:
        """Unit error rate of B against A; None if A has no units."""
        return self.edits / self.units if self.units else None


@dataclass
class UnitDifference:
    """Unit error rates of B against A.

    Attributes:
        total, by_corpus: a unit has one number for each codebook, and is wrong if one of them is.
        by_length: the same, by bit length of the number of A's units.
        by_codebook: of each codebook on its own, numbered from 0; empty if there is only one.
        frames: edits of frames instead of units, for rows whose durations are known in both.
    """

    total: Tally = field(default_factory=Tally)
    by_corpus: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    by_length: defaultdict[int, Tally] = field(default_factory=lambda: defaultdict(Tally))
    by_codebook: defaultdict[int, Tally] = field(default_factory=lambda: defaultdict(Tally))
    frames: Tally = field(default_factory=Tally)


@dataclass
class Difference:
    """Differences between versions A and B of a table.

    Attributes:
        added: number of rows that only B has.
        gone: number of rows that only A has.
        added_why, gone_why: why the other version rejected these rows, by error class.
        equal_shards: number of shards of which both have the same bytes. They are not read; only `same` counts them.
        same: number of rows that are equal in both, apart from columns that name the model or file they came from.
        changed: number of rows in both that differ.
        columns: number of rows in both that differ, by column.
        scores: all values of each score in A and in B; for a list of scores, its minimum.
        units: differences of units, by name: of `echo_targets` one for each origin.
        worst: (rate, key, name of the units, details) of the rows with the highest unit error rates, highest first.
    """

    added: int = 0
    gone: int = 0
    added_why: Counter[str] = field(default_factory=Counter)
    gone_why: Counter[str] = field(default_factory=Counter)
    equal_shards: int = 0
    same: int = 0
    changed: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    scores: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = field(default_factory=dict)
    units: defaultdict[str, UnitDifference] = field(default_factory=lambda: defaultdict(UnitDifference))
    worst: list[tuple[float, str, str, dict[str, Any]]] = field(default_factory=list)

    def quantiles(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return, for each score and side, the number of values and their quantiles by name (`50%`)."""
        return {
            name: {side: _quantiles(parts) for side, parts in zip("AB", both, strict=True)}
            for name, both in sorted(self.scores.items())
            if any(len(values) for parts in both for values in parts)
        }


def difference(a: Side, b: Side) -> Difference:
    """Compare two versions of a table, one part of the rows at a time.

    Memory holds one shard of each version, or `PASS_ROWS` rows of the shards that only one has; plus four bytes per
    score and row.
    """
    equal = equal_shards(a, b)
    found = Difference(equal_shards=len(equal), same=sum(a.manifests[shard].output.rows for shard in equal))
    table = TABLES[a.recipe.table]
    columns = [name for name in table.columns if f"{name}.bytes" not in table.unchecked and name != KEY]
    for one, other in parts(a, b, columns):
        _compare(found, one, other, TRACKS.get(table.name, {}))
    found.worst.sort(key=lambda item: (-item[0], *item[1:3]))
    return found


def _compare(found: Difference, one: Part, other: Part, tracks: Mapping[str, Track]) -> None:
    keys, others = (part.rows[KEY].combine_chunks() for part in (one, other))
    for only, part, rejected, why in (
        (pc.is_null(pc.index_in(keys, value_set=others)), one, other.rejected, found.gone_why),
        (pc.is_null(pc.index_in(others, value_set=keys)), other, one.rejected, found.added_why),
    ):
        unmatched = part.rows[KEY].filter(only).to_pylist()
        why.update(rejected.get(key, "not among its rows") for key in unmatched)
        if part is one:
            found.gone += len(unmatched)
        else:
            found.added += len(unmatched)
    columns = [name for name in dict.fromkeys([*one.rows.column_names, *other.rows.column_names]) if name != KEY]
    for name in columns:
        for number, part in enumerate((one, other)):
            if name in part.rows.column_names and (values := _scores(part.rows[name])) is not None:
                found.scores.setdefault(name, ([], []))[number].append(values)
    place = pc.index_in(others, value_set=keys)
    after = other.rows.filter(pc.is_valid(place))
    before = one.rows.take(pc.drop_null(place))
    differs = np.zeros(len(after), bool)
    for name in columns:
        mask = differing(before, after, name)
        found.columns[name] += int(mask.sum())
        if not _is_provenance(name):
            differs |= mask
    found.changed += int(differs.sum())
    found.same += len(after) - int(differs.sum())
    for name, track in tracks.items():
        if {track.units, track.durations} <= {*before.column_names} & {*after.column_names}:
            _compare_units(found, before, after, name, track)


def _is_provenance(column: str) -> bool:
    """Return True if a column names a model or file, so that a new one changes it in every row."""
    return column.rpartition(".")[2] in PROVENANCE


def _scores(values: pa.ChunkedArray) -> np.ndarray | None:
    """Return the (N,) float32 values of a score column, or the minima of a list of scores; None for other columns."""
    if pa.types.is_list(values.type) and pa.types.is_floating(values.type.value_type):
        return np.array([min(row) for row in values.to_pylist() if row], np.float32)
    if pa.types.is_floating(values.type):
        return np.asarray(pc.drop_null(values).to_numpy(), np.float32)
    return None


def _compare_units(found: Difference, before: pa.Table, after: pa.Table, name: str, track: Track) -> None:
    texts = after["response_text"].to_pylist() if "response_text" in after.column_names else [""] * len(after)
    corpora, keys, rates = after["corpus"].to_pylist(), after[KEY].to_pylist(), found.units[name]
    sides = [zip(*(rows[each].to_pylist() for each in track[:2]), strict=True) for rows in (before, after)]
    for key, corpus, text, (a, frames_a), (b, frames_b) in zip(keys, corpora, texts, *sides, strict=True):
        if a is None or b is None:
            continue
        old, new = (_runs(units, track.segmented) for units in (a, b))
        edits = _edits(old, new)
        for tally in (rates.total, rates.by_corpus[corpus], rates.by_length[len(old).bit_length()]):
            tally.add(len(old), edits)
        if old and new and len(old[0]) == len(new[0]) > 1:
            for number, (one, other) in enumerate(zip(zip(*old, strict=True), zip(*new, strict=True), strict=True)):
                rates.by_codebook[number].add(len(one), _edits(one, other))
        if frames_a is not None and frames_b is not None:
            was, now = _frames(old, frames_a, track.segmented), _frames(new, frames_b, track.segmented)
            rates.frames.add(len(was), _edits(was, now))
        if edits:
            rate = edits / len(old) if old else None
            row = {KEY: key, "corpus": corpus, "of": name, "units_a": len(old), "units_b": len(new), "edits": edits}
            item = (inf if rate is None else rate, key, name, row | {"rate": rate and round(rate, 4), "text": text})
            (heapq.heappush if len(found.worst) < WORST else heapq.heappushpop)(found.worst, item)


def _edits(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    from rapidfuzz.distance import Levenshtein

    return 0 if one == other else Levenshtein.distance(one, other)


def _runs(units: list[Any], segmented: bool) -> list[tuple[int, ...]]:
    """Return a row's units, each with one number for each codebook."""
    return [run for segment in (units if segmented else [units]) for run in zip(*segment, strict=True)]


def _frames(runs: list[tuple[int, ...]], durations: list[Any], segmented: bool) -> list[tuple[int, ...]]:
    counts = chain.from_iterable(durations) if segmented else durations
    return [run for run, count in zip(runs, counts, strict=True) for _ in range(count)]


def _quantiles(parts: list[np.ndarray]) -> dict[str, Any]:
    values = np.concatenate([np.zeros(0, np.float32), *parts])
    found = [round(float(value), 4) for value in np.quantile(values, QUANTILES)] if len(values) else []
    return {"values": len(values), **{f"{at:.0%}": value for at, value in zip(QUANTILES, found, strict=False)}}
