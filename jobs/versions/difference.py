"""What differs between two versions of a table: whose rows, by how much, and which differ most."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.jobs.versions.parts import Part, Side, parts
from echo_targets.pipeline.compare import differing
from echo_targets.schemas import KEY, TABLES

UNITS = {"echo_targets": "unit_targets", "training/echo": "unit_targets", "units": "units", "training/t2c": "units"}
"""The column of units of each table that has one."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
WORST = 10


@dataclass
class Tally:
    """Rows that are in both versions, units of A, and the edits that turn them into those of B."""

    rows: int = 0
    units: int = 0
    edits: int = 0

    def add(self, units: int, edits: int) -> None:
        self.rows, self.units, self.edits = self.rows + 1, self.units + units, self.edits + edits

    @property
    def rate(self) -> float | None:
        """Unit error rate of B against A; None without units in A."""
        return self.edits / self.units if self.units else None


@dataclass
class Difference:
    """What differs between two versions.

    Attributes:
        added, gone: rows that only B has, and only A.
        added_why, gone_why: what the other version refused them for, by error class.
        same, changed: rows of both; `changed` differ in more than the names of what made them.
        columns: rows of both that differ, by column.
        scores: every value of a score in A, and in B; of a list of scores the least.
        total, by_corpus, by_length: unit error rates; length is the number of A's units.
        worst: rates, keys and what there is to say of the rows of the greatest rates, the greatest first.
    """

    added: int = 0
    gone: int = 0
    added_why: Counter[str] = field(default_factory=Counter)
    gone_why: Counter[str] = field(default_factory=Counter)
    same: int = 0
    changed: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    scores: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = field(default_factory=dict)
    total: Tally = field(default_factory=Tally)
    by_corpus: defaultdict[str, Tally] = field(default_factory=lambda: defaultdict(Tally))
    by_length: defaultdict[int, Tally] = field(default_factory=lambda: defaultdict(Tally))
    worst: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)

    def quantiles(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Of each score and side: the number of values, and their quantiles by name (`50%`)."""
        return {
            name: {side: _quantiles(parts) for side, parts in zip("AB", both, strict=True)}
            for name, both in sorted(self.scores.items())
            if any(len(values) for parts in both for values in parts)
        }


def difference(a: Side, b: Side) -> Difference:
    """Compares two versions of a table, a part of the rows at a time.

    Held at once are one shard of each where both were cut by one plan, else `PASS_ROWS` rows of each; and four bytes a
    score and row.
    """
    found = Difference()
    table = TABLES[a.info.table]
    columns = [name for name in table.columns if f"{name}.bytes" not in table.unchecked and name != KEY]
    for one, other in parts(a, b, columns):
        _compare(found, one, other, columns, UNITS.get(table.name))
    found.worst.sort(key=lambda item: (-item[0], item[1]))
    return found


def _compare(found: Difference, one: Part, other: Part, columns: list[str], units: str | None) -> None:
    keys, others = (part.rows[KEY].combine_chunks() for part in (one, other))
    for only, part, refused, why in (
        (pc.is_null(pc.index_in(keys, value_set=others)), one, other.refused, found.gone_why),
        (pc.is_null(pc.index_in(others, value_set=keys)), other, one.refused, found.added_why),
    ):
        alone = part.rows[KEY].filter(only).to_pylist()
        why.update(refused.get(key, "not among its rows") for key in alone)
        if part is one:
            found.gone += len(alone)
        else:
            found.added += len(alone)
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
        if not _names_its_maker(name):
            differs |= mask
    found.changed += int(differs.sum())
    found.same += len(after) - int(differs.sum())
    if units:
        _compare_units(found, before, after, units)


def _names_its_maker(column: str) -> bool:
    """Whether a column is the name of a model or a file, which a new one changes in every row."""
    return column in ("echo_model_id", "decode_id", "tokenizer_id", "codebook_id", "unit_language_id", "encoder")


def _scores(values: pa.ChunkedArray) -> np.ndarray | None:
    """(N,) float32: the values of a score, of a list of scores the least; None for what is no score."""
    if pa.types.is_list(values.type) and pa.types.is_floating(values.type.value_type):
        return np.array([min(row) for row in values.to_pylist() if row], np.float32)
    if pa.types.is_floating(values.type):
        return np.asarray(pc.drop_null(values).to_numpy(), np.float32)
    return None


def _compare_units(found: Difference, before: pa.Table, after: pa.Table, units: str) -> None:
    from rapidfuzz.distance import Levenshtein

    said = after["response_text"].to_pylist() if "response_text" in after.column_names else [""] * len(after)
    corpora = after["corpus"].to_pylist()
    olds, news = (rows[units].to_pylist() for rows in (before, after))
    keys = after[KEY].to_pylist()
    for place, (key, old, new) in enumerate(zip(keys, map(_flat, olds), map(_flat, news), strict=True)):
        edits = 0 if old == new else Levenshtein.distance(old, new)
        for tally in (found.total, found.by_corpus[corpora[place]], found.by_length[len(old).bit_length()]):
            tally.add(len(old), edits)
        if edits:
            rate = edits / max(1, len(old))
            row = {KEY: key, "corpus": corpora[place], "units_a": len(old), "units_b": len(new), "edits": edits}
            item = (rate, key, row | {"rate": round(rate, 4), "text": said[place]})
            (heapq.heappush if len(found.worst) < WORST else heapq.heappushpop)(found.worst, item)


def _flat(units: list[Any]) -> list[int]:
    return list(chain.from_iterable(units)) if units and isinstance(units[0], list) else units


def _quantiles(parts: list[np.ndarray]) -> dict[str, Any]:
    values = np.concatenate([np.zeros(0, np.float32), *parts])
    found = [round(float(value), 4) for value in np.quantile(values, QUANTILES)] if len(values) else []
    return {"values": len(values), **{f"{at:.0%}": value for at, value in zip(QUANTILES, found, strict=False)}}
