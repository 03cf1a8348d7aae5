"""`echo-targets diff`: compare two versions of a table: which rows differ, by how much, and which differ most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table as RichTable

from echo_targets.jobs.arguments import ReportFormat
from echo_targets.jobs.escapes import json_text, markup
from echo_targets.jobs.screen import open_console
from echo_targets.jobs.versions.difference import QUANTILES, Difference, Tally, difference
from echo_targets.jobs.versions.side_by_side import Side, side
from echo_targets.pipeline.stage import changes
from echo_targets.schemas import KEY, TABLES
from echo_targets.schemas.dataset.layout import LayoutError


def diff_command(
    a: Annotated[
        str,
        typer.Argument(help="ROOT for its current version, or ROOT@VERSION: a label, a recipe or RECIPE@SNAPSHOT."),
    ],
    b: Annotated[str, typer.Argument(help="Like A; @VERSION without a root is a version in A's root.")],
    table: Annotated[str, typer.Option(help="Table to compare.")] = "echo_targets",
    format: Annotated[
        ReportFormat, typer.Option(help="text: readable tables; json: one JSON object.")
    ] = ReportFormat.TEXT,
) -> int:
    """Compare two versions of a table: added, removed and changed rows, unit error rates, scores, and the worst rows.

    `echo-targets status ROOT` lists the versions.

    Example: echo-targets diff out/calls@89568b5b out/calls

    Example: echo-targets diff out/before out/after --table units
    """
    if table not in TABLES:
        raise LayoutError(f"no table {table!r}. Tables are {', '.join(TABLES)}.")
    first = side(a, table, "")
    second = side(b, table, first.dataset.root)
    found = difference(first, second)
    if format == ReportFormat.JSON:
        print(json_text(_plain(first, second, found), indent=1))
    else:
        _show(first, second, found)
    return 0


def _length(bits: int) -> str:
    return "0" if bits == 0 else f"{1 << bits - 1}-{(1 << bits) - 1}"


def _rated(tallies: Iterable[tuple[str, Tally]]) -> dict[str, dict[str, Any]]:
    return {name: {**asdict(tally), "rate": tally.rate} for name, tally in tallies}


def _plain(a: Side, b: Side, found: Difference) -> dict[str, Any]:
    """Return the difference as JSON values."""
    return {
        "table": a.recipe.table,
        "a": {"root": a.dataset.root, "version": str(a.version), "rows": a.rows},
        "b": {"root": b.dataset.root, "version": str(b.version), "rows": b.rows},
        "versions": changes(a.recipe, b.recipe),
        "shards": {"a": len(a.manifests), "b": len(b.manifests), "equal": found.equal_shards},
        "rows": {name: getattr(found, name) for name in ("added", "gone", "same", "changed", "added_why", "gone_why")},
        "columns": {name: count for name, count in found.columns.items() if count},
        "unit_error_rate": {
            name: {
                "total": _rated([("all", rates.total)])["all"],
                "by_corpus": _rated(sorted(rates.by_corpus.items())),
                "by_length": _rated((_length(bits), tally) for bits, tally in sorted(rates.by_length.items())),
                "by_codebook": _rated((str(number), tally) for number, tally in sorted(rates.by_codebook.items())),
                "frames": _rated([("all", rates.frames)])["all"],
            }
            for name, rates in found.units.items()
        },
        "scores": found.quantiles(),
        "worst": [row for *_, row in found.worst],
    }


def _show(a: Side, b: Side, found: Difference) -> None:
    console = open_console()

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    say(f"{a.recipe.table}\n  A: {a}, {a.rows} rows\n  B: {b}, {b.rows} rows")
    for line in changes(a.recipe, b.recipe):
        say(f"  {line}")
    if found.equal_shards:
        say(
            f"  {found.equal_shards} of {len(a.manifests)} shards of A are the same in B and were skipped; the figures "
            "below are about the others"
        )
    say(f"Rows: {found.same} unchanged, {found.changed} changed, {found.added} added, {found.gone} removed")
    for name, where, why in (("added", "in A", found.added_why), ("removed", "in B", found.gone_why)):
        if why:
            say(f"  {name}, {where}: " + ", ".join(f"{count} {reason}" for reason, count in why.most_common()))
    differ = ", ".join(f"{name} {count}" for name, count in found.columns.most_common() if count)
    say(f"Rows that differ, by column: {differ or 'none'}")
    for of, rates in found.units.items():
        which = "" if of == "units" else f" in {of}"
        table = RichTable("", "rows", "units of A", "edits", "rate", title=f"Unit error rate of B against A{which}")
        lengths = [(f"{_length(bits)} units", tally) for bits, tally in sorted(rates.by_length.items())]
        codebooks = [(f"codebook {number}", tally) for number, tally in sorted(rates.by_codebook.items())]
        frames = [("frames", rates.frames)] if rates.frames.rows else []
        for name, tally in [("all", rates.total), *sorted(rates.by_corpus.items()), *lengths, *codebooks, *frames]:
            rate = "" if tally.rate is None else f"{tally.rate:.2%}"
            table.add_row(markup(name), str(tally.rows), str(tally.units), str(tally.edits), rate)
        console.print(table)
    if scores := found.quantiles():
        table = RichTable("score", "", "values", *(f"{at:.0%}" for at in QUANTILES), title="Scores")
        for name, sides in scores.items():
            for which, values in sides.items():
                table.add_row(name if which == "A" else "", which, *(f"{value:g}" for value in values.values()))
        console.print(table)
    if found.worst:
        table = RichTable("row", "corpus", "of", "units A", "units B", "rate", "text", title="Worst rows")
        for *_, row in found.worst:
            rate = "" if row["rate"] is None else f"{row['rate']:.0%}"
            shown = (row[KEY], row["corpus"], row["of"], row["units_a"], row["units_b"], rate, row["text"][:60])
            table.add_row(*map(markup, shown))
        console.print(table)
