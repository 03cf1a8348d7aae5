"""What holds for every format: the same bytes, killed or not; versions; and where an export may go."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from echo_targets.jobs.export.registry import FORMATS
from echo_targets.jobs.export.resume import Report, export
from echo_targets.schemas.dataset.layout import Dataset, LayoutError
from echo_targets.schemas.errors import UserError
from tests.jobs.export.roots import Turns, echo_rows, echo_table, files, root_of_turns
from tests.schemas.samples import Root

ROOT = Path(__file__).parents[3]


def run(root: str, format: str, out: Path, *filters: str, version: str | None = None) -> Report:
    return export(FORMATS[format](Dataset(root), version, filters), filters, str(out))


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_rows_give_the_same_bytes(
    format: str, root: Root, turns: Turns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another place, and years later."""
    other = root_of_turns(tmp_path / "elsewhere", turns)
    for name, folder, now in (("a", root.folder, 1e9), ("b", other.folder, 2e9)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        run(str(folder), format, tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert json.loads((tmp_path / "a" / "export.json").read_text())["finished"] is True


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_an_export_that_was_killed_goes_on_and_leaves_the_same_bytes(format: str, root: Root, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(str(root.folder), format, whole)
    kills, moment = 0, 1
    while True:
        command = [
            sys.executable,
            "-m",
            "tests.jobs.export.killed",
            str(moment),
            "export",
            str(root.folder),
            format,
            str(out),
        ]
        code = subprocess.run(command, cwd=ROOT, capture_output=True).returncode
        if code == 0:
            break
        assert code == -9
        kills += 1
        there = files(out)
        final = {path: data for path, data in there.items() if ".tmp-" not in path and not path.startswith(".export/")}
        entry = {"export.json", "README.md"}
        assert all(data == files(whole)[path] for path, data in final.items() if path not in entry), "never half a file"
        moment += max(1, moment // 2)
    assert kills >= 5
    assert files(out) == files(whole)


def test_what_is_there_is_not_written_again(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    format = FORMATS["webdataset"]
    monkeypatch.setattr(format, "finish", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(str(root.folder), "webdataset", tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")}
    monkeypatch.undo()
    assert run(str(root.folder), "webdataset", tmp_path).is_new
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.tar")} == before
    assert not (tmp_path / ".export").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_finished_export_is_left_as_it_is(format: str, root: Root, tmp_path: Path) -> None:
    first = run(str(root.folder), format, tmp_path)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = run(str(root.folder), format, tmp_path)
    assert not again.is_new and (again.rows, again.left_out, again.lines) == (first.rows, first.left_out, first.lines)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == times


def test_a_folder_that_holds_something_else_is_refused(root: Root, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds other files. Choose a new or empty folder"):
        run(str(root.folder), "hub", tmp_path)
    (tmp_path / "export.json").write_text("[]")
    with pytest.raises(UserError, match="not written by `echo-targets export`"):
        run(str(root.folder), "hub", tmp_path)
    with pytest.raises(UserError, match="is a file"):
        run(str(root.folder), "hub", tmp_path / "notes" / "a.txt")
    assert list(files(tmp_path)) == ["export.json", "notes/a.txt"]


def test_another_export_is_refused_and_named(root: Root, tmp_path: Path) -> None:
    run(str(root.folder), "slam-omni", tmp_path, "turn == 0")
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"another export \(filters: \['turn == 0'\], not \[\]\)"):
        run(str(root.folder), "slam-omni", tmp_path)
    with pytest.raises(UserError, match="format: slam-omni, not vocalnet"):
        run(str(root.folder), "vocalnet", tmp_path, "turn == 0")
    assert files(tmp_path) == before


@pytest.mark.parametrize("place", ["", "export", ".."])
def test_an_export_into_the_dataset_or_around_it_is_refused(place: str, root: Root) -> None:
    with pytest.raises(UserError, match="inside the dataset, or holds it"):
        run(str(root.folder), "hub", root.folder / place)


@pytest.mark.parametrize("format", FORMATS)
def test_filters_that_no_row_passes_are_said_with_what_each_drops(format: str, root: Root, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Nothing to export: no row of .* \('turn', '==', 9\) drops \d+"):
        run(str(root.folder), format, tmp_path / "out", "turn == 9", "corpus == calls")
    assert not (tmp_path / "out").exists()


def test_an_unknown_column_is_refused(root: Root, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column wer; it has"):
        run(str(root.folder), "webdataset", tmp_path / "out", "wer <= 0.1")


def test_columns_of_joined_tables_filter_too(root: Root, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="drops 24"):
        run(str(root.folder), "webdataset", tmp_path / "out", "alignments.coverage < 1")
    assert run(str(root.folder), "webdataset", tmp_path / "out", "alignments.coverage == 1").total == 24


@pytest.fixture
def versions(turns: Turns, tmp_path: Path) -> tuple[Root, str, str]:
    """A root with two versions of training/echo: the recipe of the first, labeled `first`, and of the current one."""
    root = root_of_turns(tmp_path / "root", turns)
    first = root.versions["training/echo"]
    index = json.loads((root.folder / "index.json").read_text())
    shorter = [echo_table(echo_rows(turns)[:2]), echo_table(echo_rows(turns)[2:3])]
    root.put("training/echo", *shorter, variant="second")
    index["tables"] = root.versions
    index["labels"] = {"first": {"training/echo": first}}
    (root.folder / "index.json").write_text(json.dumps(index))
    return root, first, root.versions["training/echo"]


def test_a_version_is_named_as_readers_name_it(versions: tuple[Root, str, str], tmp_path: Path) -> None:
    root, first, second = versions
    names: list[tuple[str | None, int]] = [(None, 3), ("first", 12), (first, 12), (first[:8], 12), (second, 3)]
    for number, (name, rows) in enumerate(names):
        assert run(str(root.folder), "slam-omni", tmp_path / str(number), version=name).total == rows
    with pytest.raises(LayoutError, match="0 versions of training/echo are named nothing"):
        run(str(root.folder), "slam-omni", tmp_path / "x", version="nothing")


def test_an_export_of_a_version_that_was_replaced_can_be_finished(
    versions: tuple[Root, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, first, _ = versions
    with monkeypatch.context() as stopped, pytest.raises(ZeroDivisionError):
        stopped.setattr(FORMATS["slam-omni"], "finish", lambda *arguments: 1 / 0)
        run(str(root.folder), "slam-omni", tmp_path / "out", version="first")
    with pytest.raises(UserError, match=rf"{first}.*To finish it, name its version with --version"):
        run(str(root.folder), "slam-omni", tmp_path / "out")
    assert run(str(root.folder), "slam-omni", tmp_path / "out", version=first).total == 12


def test_utterances_take_the_version_of_a_joined_table(root: Root, turns: Turns, tmp_path: Path) -> None:
    other = root_of_turns(tmp_path / "root", turns)
    name = other.tables["alignments"]
    other.put("alignments", *[[] for _ in range(2)], variant="empty")
    assert run(str(other.folder), "moshi-finetune", tmp_path / "now").total == 0
    assert run(str(other.folder), "moshi-finetune", tmp_path / "then", version=name).total == 24


def test_nothing_written_leaves_no_index(turns: Turns, tmp_path: Path) -> None:
    """A loader finds no file, where an empty one would be an error later, or an epoch without batches."""
    root = root_of_turns(tmp_path / "root", turns, align=lambda row: None)
    report = run(str(root.folder), "moshi-finetune", tmp_path / "out")
    assert report.total == 0 and report.lines == []
    assert list(files(tmp_path / "out")) == ["export.json"]


def test_memory_holds_a_row_group_at_a_time(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Audio is never read for a whole shard."""
    import pyarrow.parquet as pq

    def read(self: Any, columns: Any = None, **options: Any) -> Any:
        assert columns is not None and "audio" not in columns
        return whole(self, columns, **options)

    whole = pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", read)
    for format in FORMATS:
        assert run(str(root.folder), format, tmp_path / format).total
