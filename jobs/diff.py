"""`echo-targets diff`: two versions of a table side by side: whose rows differ, by how much, and which differ most."""

from __future__ import annotations

import heapq
import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.table import Table as RichTable

from jobs.screen import open_console
from pipeline.stage import changes
from schemas import ENTRIES, KEY, TABLES, UTTERANCES
from schemas.base import CATEGORY
from schemas.layout import Dataset, LayoutError, Manifest, StageInfo

AT = re.compile(r"(.*)@([0-9a-f]{4,16})")
UNITS = {"echo_targets": "unit_targets", "training/echo": "unit_targets", "units": "units", "training/t2c": "units"}
"""The column of units of each table that has one."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
PASS_ROWS = 100_000
"""Rows that are held at once where shards can't be joined one by one."""
WORST = 10


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


def diff_command(a: str, b: str, table: str, as_json: bool) -> int:
    """Prints the difference."""
    if table not in TABLES:
        raise LayoutError(f"no table {table!r}; there are {', '.join(TABLES)}")
    first = side(a, table, "")
    second = side(b, table, first.dataset.root)
    found = difference(first, second)
    if as_json:
        print(json.dumps(_plain(first, second, found), indent=1, ensure_ascii=False))
    else:
        _show(first, second, found)
    return 0


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


def difference(a: Side, b: Side) -> Difference:
    """Compares two versions of a table, a part of the rows at a time.

    Held at once are one shard of each where both were cut by one plan, else `PASS_ROWS` rows of each; and four bytes a
    score and row.
    """
    found = Difference()
    table = TABLES[a.info.table]
    columns = [name for name in table.columns if f"{name}.bytes" not in table.unchecked and name != KEY]
    for one, other in _parts(a, b, columns):
        _compare(found, one, other, columns, UNITS.get(table.name))
    found.worst.sort(key=lambda item: (-item[0], item[1]))
    return found


# -- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Some rows of a version, with their `corpus`, and why others were refused, by key."""

    rows: pa.Table
    refused: dict[str, str]


def together(a: Side, b: Side) -> bool:
    """Whether shard 7 of both holds the same utterances."""
    return a.plan is not None and a.plan == b.plan


def _parts(a: Side, b: Side, columns: list[str]) -> Iterator[tuple[_Part, _Part]]:
    if together(a, b):
        for shard in sorted(a.manifests.keys() & b.manifests.keys()):
            yield _read(a, [shard], columns), _read(b, [shard], columns)
        return
    passes = max(1, -(-max(a.rows, b.rows) // PASS_ROWS))
    for number in range(passes):
        yield tuple(_read(one, one.manifests, columns, (number, passes)) for one in (a, b))  # type: ignore[misc]


def _read(one: Side, shards: Iterable[int], columns: list[str], of: tuple[int, int] = (0, 1)) -> _Part:
    """The rows of some shards, or those of their keys that fall into one of several classes."""
    number, passes = of
    parts, refused = list[pa.Table](), dict[str, str]()
    for shard in shards:
        manifest = one.manifests[shard]
        with one.dataset.open(manifest.output.path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            rows = plain_strings(file.read([KEY, *there]))
        if "corpus" not in rows.column_names:
            rows = rows.append_column("corpus", _corpora(one, shard, rows[KEY]))
        if passes > 1:
            rows = rows.filter(pa.array([zlib.crc32(key.encode()) % passes == number for key in rows[KEY].to_pylist()]))
        parts.append(rows)
        if manifest.rejects:
            with one.dataset.open(manifest.rejects.path) as file:
                rejects = file.read([KEY, "error_class"])
            for key, reason in zip(rejects[KEY].to_pylist(), rejects["error_class"].to_pylist(), strict=True):
                if zlib.crc32(key.encode()) % passes == number:
                    refused[key] = reason
    empty = pa.table({KEY: pa.array([], pa.string())})
    return _Part(pa.concat_tables(parts or [empty], promote_options="default").combine_chunks(), refused)


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


def plain_strings(rows: pa.Table) -> pa.Table:
    """Categories as the strings that they stand for: dictionaries differ from file to file."""
    fields = [each.with_type(pa.string()) if each.type == CATEGORY else each for each in rows.schema]
    return rows.cast(pa.schema(fields)).combine_chunks()


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


# -- comparing --------------------------------------------------------------------------------------------------------


def _compare(found: Difference, one: _Part, other: _Part, columns: list[str], units: str | None) -> None:
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


def differing(before: pa.Table, after: pa.Table, name: str) -> np.ndarray:
    """(N,) bool: the rows, of two tables of the same keys in the same order, that differ in a column."""
    there = [name in rows.column_names for rows in (before, after)]
    if not all(there) or before[name].equals(after[name]):
        return np.full(len(after), any(there) and not all(there))
    pairs = zip(before[name].to_pylist(), after[name].to_pylist(), strict=True)
    return np.fromiter((one != other for one, other in pairs), bool, len(after))


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


# -- showing ----------------------------------------------------------------------------------------------------------


def _quantiles(parts: list[np.ndarray]) -> dict[str, Any]:
    values = np.concatenate([np.zeros(0, np.float32), *parts])
    found = [round(float(value), 4) for value in np.quantile(values, QUANTILES)] if len(values) else []
    return {"values": len(values), **{f"{at:.0%}": value for at, value in zip(QUANTILES, found, strict=False)}}


def _length(bits: int) -> str:
    return "0" if bits == 0 else f"{1 << bits - 1}-{(1 << bits) - 1}"


def _rated(tallies: Iterable[tuple[str, Tally]]) -> dict[str, dict[str, Any]]:
    return {name: {**asdict(tally), "rate": tally.rate} for name, tally in tallies}


def _plain(a: Side, b: Side, found: Difference) -> dict[str, Any]:
    """The difference as JSON values."""
    return {
        "table": a.info.table,
        "a": {"root": a.dataset.root, "fingerprint": a.info.fingerprint, "rows": a.rows},
        "b": {"root": b.dataset.root, "fingerprint": b.info.fingerprint, "rows": b.rows},
        "versions": changes(a.info, b.info),
        "same_plan": together(a, b),
        "rows": {name: getattr(found, name) for name in ("added", "gone", "same", "changed", "added_why", "gone_why")},
        "columns": {name: count for name, count in found.columns.items() if count},
        "unit_error_rate": {
            "total": _rated([("all", found.total)])["all"],
            "by_corpus": _rated(sorted(found.by_corpus.items())),
            "by_length": _rated((_length(bits), tally) for bits, tally in sorted(found.by_length.items())),
        }
        if a.info.table in UNITS
        else None,
        "scores": found.quantiles(),
        "worst": [row for *_, row in found.worst],
    }


def _show(a: Side, b: Side, found: Difference) -> None:
    console = open_console()

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    say(f"{a.info.table}\n  A: {a}, {a.rows} rows\n  B: {b}, {b.rows} rows")
    for line in changes(a.info, b.info):
        say(f"  {line}")
    for name, one in (("A", a), ("B", b)):
        if len(one.manifests) < one.info.shards:
            say(f"  {name} is not finished: {len(one.manifests)} of {one.info.shards} shards are committed")
    if not together(a, b):
        say("  The plans differ, or are not known: joined by key over all shards, not shard by shard")
    elif a.manifests.keys() != b.manifests.keys():
        say(f"  Compared: the {len(a.manifests.keys() & b.manifests.keys())} shards that both have")
    say(f"Rows: {found.same} the same, {found.changed} changed, {found.added} added, {found.gone} gone")
    for name, where, why in (("added", "in A", found.added_why), ("gone", "in B", found.gone_why)):
        if why:
            say(f"  {name}, {where}: " + ", ".join(f"{count} {reason}" for reason, count in why.most_common()))
    differ = ", ".join(f"{name} {count}" for name, count in found.columns.most_common() if count)
    say(f"Columns that differ, in rows: {differ or 'none'}")
    if a.info.table in UNITS:
        table = RichTable("", "rows", "units of A", "edits", "rate", title="Unit error rate of B against A")
        lengths = [(f"{_length(bits)} units", tally) for bits, tally in sorted(found.by_length.items())]
        for name, tally in [("all", found.total), *sorted(found.by_corpus.items()), *lengths]:
            rate = "" if tally.rate is None else f"{tally.rate:.2%}"
            table.add_row(name, str(tally.rows), str(tally.units), str(tally.edits), rate)
        console.print(table)
    if scores := found.quantiles():
        table = RichTable("score", "", "values", *(f"{at:.0%}" for at in QUANTILES), title="Scores")
        for name, sides in scores.items():
            for which, values in sides.items():
                table.add_row(name if which == "A" else "", which, *(f"{value:g}" for value in values.values()))
        console.print(table)
    if found.worst:
        table = RichTable("row", "corpus", "units A", "units B", "rate", "text", title="Worst rows")
        for *_, row in found.worst:
            shown = (row[KEY], row["corpus"], row["units_a"], row["units_b"], f"{row['rate']:.0%}", row["text"][:60])
            table.add_row(*map(_escaped, shown))
        console.print(table)


def _escaped(value: object) -> str:
    from rich.markup import escape

    return escape(str(value))
