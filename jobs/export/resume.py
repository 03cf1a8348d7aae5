"""Write an export piece by piece, so that a killed one goes on where it stopped and leaves the same bytes.

OUT/export.json           what is exported; `finished` once everything is there
OUT/.export/done/00012    a piece that is there; deleted in the end
OUT/.export/lines/…       its part of an index
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyarrow.fs import FileType

from echo_targets.jobs.export.base import Format, Wrote
from echo_targets.jobs.export.files import STATE
from echo_targets.jobs.export.source import Piece
from echo_targets.schemas.dataset.storage import TEMPORARY, Storage, is_url, open_storage
from echo_targets.schemas.dataset.urls import as_path, without_secrets
from echo_targets.schemas.errors import UserError

ABOUT = "export.json"
DONE = f"{STATE}/done"

Progress = Callable[[int, int], None]
"""Called with the rows that are done and with all rows."""


@dataclass(frozen=True)
class Report:
    """What an export holds.

    Attributes:
        rows: rows that were written, by table and split.
        left_out: rows that were not, by reason.
        lines: what to load, and what to configure.
        is_new: False if the export was finished before.
    """

    rows: dict[str, dict[str, int]]
    left_out: dict[str, int]
    lines: list[str] = field(default_factory=list)
    is_new: bool = True

    @property
    def total(self) -> int:
        """Number of rows that were written."""
        return sum(count for splits in self.rows.values() for count in splits.values())


def export(format: Format, filters: Sequence[str], place: str, progress: Progress = lambda done, of: None) -> Report:
    """Export to a folder or a URL, or finish what a killed export began.

    Raises:
        UserError: the place is inside the dataset or holds something else, or no row passes the filters.
        OSError: storage failed; the same call again goes on.
    """
    _must_be_apart(format.dataset.root, place)
    out = open_storage(place)
    plan = {
        "format": format.name,
        "tables": {table: str(made) for source in format.sources for table, made in source.versions.items()},
        "filters": list(filters),
    }
    before = _before(out, place, plan)
    if before.get("finished"):
        _clear(out)
        return Report(before["rows"], before["left_out"], before["load"], is_new=False)
    pieces = [piece for source in format.sources for piece in source.pieces()]
    if not pieces:
        raise UserError(f"Nothing to export: {' '.join(source.why_nothing() for source in format.sources)}")
    out.write(ABOUT, _json({**plan, "finished": False}))
    _sweep(out)
    format.begin(out, pieces)
    done = list(zip(pieces, _write(format, out, pieces, progress), strict=True))
    report = _report(format, done, format.finish(out, done))
    results = {"rows": report.rows, "left_out": report.left_out, "load": report.lines}
    out.write(ABOUT, _json({**plan, "finished": True, **results}))
    _clear(out)
    return report


def _must_be_apart(root: str, place: str) -> None:
    if not is_url(place) and Path(as_path(place)).is_file():
        raise UserError(f"{place} is a file. Choose a folder for OUT.")
    if not is_url(place) and not is_url(root):
        target, dataset = Path(as_path(place)).resolve(), Path(as_path(root)).resolve()
        inside = target.is_relative_to(dataset) or dataset.is_relative_to(target)
    else:
        target_url, dataset_url = f"{place.rstrip('/')}/", f"{root.rstrip('/')}/"
        inside = target_url.startswith(dataset_url) or dataset_url.startswith(target_url)
    if inside:
        raise UserError(f"{without_secrets(place)} is inside the dataset, or holds it. Choose another folder for OUT.")


def _before(out: Storage, place: str, plan: dict[str, Any]) -> dict[str, Any]:
    """Return what `export.json` says of an earlier export of the same rows; empty if there is none."""
    where = without_secrets(place)
    try:
        before = json.loads(out.read(ABOUT))
        there = {name: before[name] for name in plan}
    except FileNotFoundError:
        if any(not path.startswith(f"{ABOUT}{TEMPORARY}") for path in out.find("")):
            raise UserError(f"{where} holds other files. Choose a new or empty folder for OUT.") from None
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{out.where(ABOUT)}: not written by `echo-targets export` ({error}). Choose another OUT."
        ) from None
    if there != plan:
        differ = ", ".join(f"{name}: {there[name]}, not {plan[name]}" for name in plan if there[name] != plan[name])
        hint = "To finish it, name its version with --version. " if there | {"tables": plan["tables"]} == plan else ""
        raise UserError(
            f"{where} holds another export ({differ}). {hint}Choose a new folder for OUT, or delete this one."
        )
    return dict(before)


def _write(format: Format, out: Storage, pieces: Sequence[Piece], progress: Progress) -> list[Wrote]:
    """Write the pieces that are not there yet; return what became of each."""
    there, total, done = set(out.list(DONE)), sum(piece.rows for piece in pieces), 0
    found = []

    def tick(rows: int) -> None:
        nonlocal done
        done += rows
        progress(done, total)

    for number, piece in enumerate(pieces):
        mark = f"{number:05d}"
        if mark in there:
            found.append(Wrote(**json.loads(out.read(f"{DONE}/{mark}"))))
            tick(piece.rows)
            continue
        wrote = format.write(out, piece, tick)
        out.write(f"{DONE}/{mark}", _json(vars(wrote)))
        found.append(wrote)
    return found


def _report(format: Format, done: Sequence[tuple[Piece, Wrote]], lines: list[str]) -> Report:
    rows: dict[str, Counter[str]] = {source.table: Counter() for source in format.sources}
    left_out = Counter[str]()
    for source in format.sources:
        dropped = source.rows - sum(piece.rows for piece, _ in done if piece.source is source)
        left_out.update({"left out by a filter": dropped} if dropped else {})
    for piece, wrote in done:
        rows[piece.source.table][piece.split] += wrote.rows
        left_out.update(wrote.left_out)
    return Report({table: dict(splits) for table, splits in rows.items()}, dict(left_out.most_common()), lines)


def _sweep(out: Storage) -> None:
    """Delete temporary files that killed exports left. Loaders that read whole folders would read them."""
    for path in () if out.remote else out.find(""):  # a store has no parts of files
        if TEMPORARY in path:
            out.delete(path)


def _clear(out: Storage) -> None:
    """Delete what a finished export does not need."""
    for path in out.find(STATE):
        out.delete(path)
    if not out.remote and out.filesystem.get_file_info(out.path(STATE)).type == FileType.Directory:
        out.filesystem.delete_dir(out.path(STATE))


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()
