"""`echo-targets promote`: make an earlier version current again."""

from __future__ import annotations

from typing import Annotated

import typer

from echo_targets.jobs.arguments import Root
from echo_targets.jobs.screen import open_console
from echo_targets.jobs.versions.card import write_card
from echo_targets.pipeline.commit import set_current
from echo_targets.pipeline.lease import held
from echo_targets.schemas.dataset.layout import Dataset, Index, LayoutError
from echo_targets.schemas.dataset.versions import Version


def promote_command(
    root: Root,
    version: Annotated[str, typer.Argument(help="A label, RECIPE@SNAPSHOT or a recipe, as `status` shows them.")],
) -> int:
    """Make an earlier version current again: all tables of a label, or one table and those that it was made from.

    Tables that were made from these are left as they are; run the job again to make them current, too.

    Example: echo-targets promote out/calls before-cleaning
    """
    console = open_console()
    dataset = Dataset(root)
    with held(dataset):
        wanted = _named(dataset, version)
        for table, current in wanted.items():
            dataset.manifests(table, current)  # fails if it is not whole
        before = dataset.tables()
        set_current(dataset, wanted)
    for table, current in wanted.items():
        said = "is current already" if before.get(table) == current else f"is current now, before {before.get(table)}"
        console.print(f"{table}: {current} {said}", markup=False, highlight=False)
    write_card(root)
    return 0


def _named(dataset: Dataset, name: str) -> dict[str, Version]:
    """Return the versions of a label, or a version with those that it was made from, by table.

    Raises:
        LayoutError: no version, or more than one, has this name.
    """
    index = dataset.index() or Index()
    if name in index.labels:
        return index.labels[name]
    found = list[tuple[str, Version]]()
    for table in dataset.recipes():
        try:
            found.append((table, dataset.named(table, name)))
        except LayoutError:
            continue
    if len(found) != 1:
        raise LayoutError(
            f"{dataset.root}: {name} names {len(found)} whole versions, expected one. `echo-targets status` lists them"
        )
    lineage = dict(dataset.lineage(found))
    return {table: lineage[table] for table in [*index.tables, *lineage] if table in lineage}
