"""`echo-targets promote` and `echo-targets label`: choose which versions are current, and name versions to keep."""

from __future__ import annotations

import re
from dataclasses import replace

from echo_targets.jobs.screen import open_console
from echo_targets.jobs.versions.card import write_card
from echo_targets.pipeline.commit import set_current, write_whole
from echo_targets.pipeline.lease import Lease
from echo_targets.schemas.dataset.layout import INDEX, Dataset, Index, LayoutError
from echo_targets.schemas.dataset.versions import ID, Version
from echo_targets.schemas.errors import UserError


def promote_command(root: str, name: str) -> int:
    """Make versions current again, and print them."""
    console = open_console()
    dataset = Dataset(root)
    dataset.tables()  # fails if there is no index, before the lease writes anything to the folder
    with Lease(dataset) as lease:
        for _ in lease.take("refuse"):
            pass
        wanted = _named(dataset, name)
        for table, version in wanted.items():
            dataset.manifests(table, version)  # fails if it is not whole
        before = dataset.tables()
        set_current(dataset, wanted)
    for table, version in wanted.items():
        said = "is current already" if before.get(table) == version else f"is current now, before {before.get(table)}"
        console.print(f"{table}: {version} {said}", markup=False, highlight=False)
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


def label_command(root: str, name: str, remove: bool) -> int:
    """Name the current versions of all tables, or remove a name."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name) or ID.fullmatch(name):
        raise UserError(f"{name!r} is no label: use letters, digits, `-`, `_` and `.`, but not the form of an id")
    console = open_console()
    dataset = Dataset(root)
    dataset.tables()
    with Lease(dataset) as lease:
        for _ in lease.take("refuse"):
            pass
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
