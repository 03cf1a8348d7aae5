"""`echo-targets export`: what it prints, and its exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from echo_targets.jobs.cli import app
from echo_targets.jobs.commands import export as command
from echo_targets.jobs.commands.export import ExportFormat
from echo_targets.jobs.export.registry import FORMATS
from echo_targets.schemas.errors import UserError
from tests.jobs.export.conftest import NAMES, split_of
from tests.jobs.export.roots import Turns, root_of_turns
from tests.jobs.test_escapes import HOSTILE, assert_harmless
from tests.schemas.samples import Root


@pytest.fixture(scope="module")
def turns(speech: list[dict[str, object]]) -> Turns:
    return Turns(speech, [*NAMES[:4], HOSTILE], lambda name: HOSTILE if name == HOSTILE else split_of(name))


@pytest.fixture(scope="module")
def root(turns: Turns, tmp_path_factory: pytest.TempPathFactory) -> Root:
    return root_of_turns(tmp_path_factory.mktemp("export") / "root", turns)


def run(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert_harmless(result.output)
    return " ".join(result.output.split())


def test_the_command_line_names_every_format() -> None:
    assert [format.value for format in ExportFormat] == list(FORMATS)


def test_it_says_what_was_written_and_what_was_left_out(root: Root, tmp_path: Path) -> None:
    said = run(root.folder, "vocalnet", tmp_path / "out", "--filter", "split == train")
    assert "10 rows of training/echo" in said
    assert "4 rows not exported: left out by a filter" in said
    assert "3 rows not exported: it replies to several turns" in said
    assert "3 rows of training/echo: train 3" in said
    assert f"--data_path {tmp_path}/out/train.json --speech_folder {tmp_path}/out" in said and said.endswith(
        f"{tmp_path / 'out'} is finished"
    )


def test_a_finished_export_says_so(root: Root, tmp_path: Path) -> None:
    first = run(root.folder, "lhotse", tmp_path)
    second = run(root.folder, "lhotse", tmp_path)
    assert second.endswith("was finished before; nothing to do")
    assert all(f'CutSet.from_shar(in_dir="{tmp_path}/train")' in said for said in (first, second))
    assert (
        "Not joined, because they do not exist for these utterances: echo_targets, units, measures, transcripts"
        in first
    )


def test_nothing_written_is_loud_and_fails(turns: Turns, tmp_path: Path) -> None:
    root = root_of_turns(tmp_path / "root", turns, align=lambda row: None)
    said = run(root.folder, "moshi-finetune", tmp_path / "out", code=1)
    assert "20 rows not exported: a reply of its dialogue has no word alignment" in said
    assert "NOTHING WAS WRITTEN" in said


def test_errors_come_before_anything_is_written(root: Root, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="write `column operator value`"):
        CliRunner().invoke(
            app, ["export", str(root.folder), "hub", str(tmp_path / "out"), "--filter", "turn"], catch_exceptions=False
        )
    assert not (tmp_path / "out").exists()


def test_long_work_shows_its_progress(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LINE_EVERY", 0.0)
    said = run(root.folder, "webdataset", tmp_path)
    assert "of 20 rows" in said and "export: 20 of 20 rows" in said
