"""`echo-targets label`: name the current versions, so that they are kept."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated

import typer

from echo_targets.jobs.arguments import Root
from echo_targets.jobs.screen import open_console
from echo_targets.pipeline.commit import write_whole
from echo_targets.pipeline.lease import held
from echo_targets.schemas.dataset.layout import INDEX, Dataset, Index, LayoutError
from echo_targets.schemas.dataset.versions import ID
from echo_targets.schemas.errors import UserError


def label_command(
    root: Root,
    name: Annotated[str, typer.Argument(help="Label: letters, digits, `-`, `_` and `.`.")],
    remove: Annotated[bool, typer.Option("--remove", help="Remove the label instead.")] = False,
) -> int:
    """Name the current versions of all tables, so that `gc` keeps them and trainers and `diff` can ask for them.

    Example: echo-targets label out/calls 2026-12
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or ID.fullmatch(name):
        raise UserError(f"{name!r} is no label: use letters, digits, `-`, `_` and `.`, but not the form of an id")
    console = open_console()
    dataset = Dataset(root)
    with held(dataset):
        index = dataset.index() or Index()
        if remove and name not in index.labels:
            raise LayoutError(f"{root}: no label {name}; labels are {', '.join(index.labels) or 'none'}")
        labels = {label: tables for label, tables in index.labels.items() if label != name}
        if not remove:
            for table, version in index.tables.items():
                dataset.manifests(table, version)  # fails if it is not whole
            labels[name] = index.tables
        write_whole(dataset, INDEX, replace(index, labels=labels).to_json())
    if not remove and len({version.snapshot for version in index.tables.values()}) > 1:
        console.print(
            "Note: the tables are not of one corpus, because a run has not finished or a version was promoted; "
            "`echo-targets status` shows which."
        )
    done = "removed" if remove else f"names the current versions of {', '.join(index.tables)}; gc keeps them"
    console.print(f"{name}: {done}", markup=False, highlight=False)
    return 0
