"""A stage from a user's own package: docs/STAGES.md as a newcomer follows it, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from echo_targets.jobs.config import ConfigError, load
from echo_targets.jobs.stages import in_order
from echo_targets.schemas import KEY, MEASURES, UNITS, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.schemas.tables.base import Table, column
from echo_targets.transforms.base import Output, Transform
from tests.jobs.test_cli import REPOSITORY

UNITS_ALONE = Table("a", "1.0.0", pa.schema([column(KEY, pa.string())]), {})


class SameTable(Transform):
    """Writes a table of this project."""

    name, version, reads, writes = "mine", 1, (UTTERANCES,), MEASURES

    def __call__(self, batch: pa.Table) -> Output:
        raise NotImplementedError


class WithoutKey(SameTable):
    """Writes a table without keys."""

    writes = Table("keyless", "1.0.0", pa.schema([column("peak", pa.float32())]), {})


class WithoutName(Transform):
    """Has no name and no version."""

    reads, writes = (UTTERANCES,), UNITS_ALONE

    def __call__(self, batch: pa.Table) -> Output:
        raise NotImplementedError


class First(SameTable):
    """Writes a table that `Second` reads."""

    name, writes = "first", UNITS_ALONE


class Second(SameTable):
    """Reads the table of `First`."""

    name, reads = "second", (UTTERANCES, UNITS_ALONE)
    writes = Table("b", "1.0.0", UNITS_ALONE.schema, {})


class Units(SameTable):
    """Gets its rows from a table that another stage must make."""

    name, reads, writes = "third", (UNITS,), Second.writes


PAGE = REPOSITORY / "docs" / "STAGES.md"


@pytest.fixture
def project(tmp_path: Path, speech: list[dict]) -> Path:
    """A user's folder with the page's files, and names that are also this project's."""
    named = re.findall(r"`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert [name for name, _ in named] == ["my_stages/peaks.py", "job.yaml", "my_stages/test_peaks.py"]
    for name, text in named:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("schemas", "transforms", "pipeline", "jobs"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the user has a module of this name')")
    lines = [{"id": row["id"], "audio": str(row["audio"]), "text": row["text"]} for row in speech[:3]]
    (tmp_path / "manifest.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return tmp_path


def echo_targets(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a folder that comes first on the path, as it does for a user's own scripts."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}
    command = [sys.executable, "-m", "echo_targets.jobs.cli", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("runner", ["local", "beam"])
def test_the_page_works_as_written(project: Path, runner: str) -> None:
    done = echo_targets(project, "run", "job.yaml", f"runner={runner}")
    assert done.returncode == 0, done.stdout + done.stderr
    dataset = Dataset(str(project / "out" / "peaks"))
    peaks = dataset.read("peaks")["peak_dbfs"].to_pylist()
    assert len(peaks) == 3 and all(-40 <= peak <= 0 for peak in peaks)
    checked = echo_targets(project, "check", "out/peaks")
    assert checked.returncode == 0 and "peaks: known_table: note: is not a table of this package" in checked.stdout
    assert "peaks" in echo_targets(project, "status", "out/peaks").stdout
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(project), str(REPOSITORY)])}
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "my_stages/test_peaks.py"]
    assert subprocess.run(test, cwd=project, env=environment, check=False).returncode == 0


def test_its_files_are_checked(project: Path) -> None:
    assert echo_targets(project, "run", "job.yaml").returncode == 0
    (shard,) = (project / "out" / "peaks" / "peaks").glob("*/*.parquet")
    shard.write_bytes(shard.read_bytes()[:-9])
    checked = echo_targets(project, "check", "out/peaks")
    assert checked.returncode == 1 and re.search(r"peaks \S+: digest: ", checked.stdout)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.peaks:Peaks", r"No module named 'nowhere'; install the package, or add its folder to PYTHONPATH"),
        ("json:JSONDecoder", r"is not a Transform; make it a subclass"),
        ("json:Missing", r"json has no Missing; name the transform's class"),
        ("echo_targets.transforms.stages.measure:Measure", r"its name is 'measure', which is a stage of echo_targets"),
        (f"{__name__}:SameTable", r"writes measures, a table of echo_targets"),
        (f"{__name__}:WithoutKey", r"the first column of its table keyless must be utterance_id"),
        (f"{__name__}:WithoutName", r"WithoutName must set name, version"),
    ],
)
def test_a_path_that_leads_to_no_stage_of_ones_own(tmp_path: Path, path: str, message: str) -> None:
    config = tmp_path / "c.yaml"
    source = "{kind: manifest, corpus: c, manifest: m.jsonl}"
    config.write_text(f"root: {tmp_path}\nstages:\n  ingest:\n    sources: [{source}]\n  {path}:\n")
    with pytest.raises(ConfigError, match=rf"c\.yaml, line 5: stages\.{path}: .*{message}"):
        load(str(config), [])


def test_stages_run_after_those_whose_tables_they_read() -> None:
    first, second = f"{__name__}:First", f"{__name__}:Second"
    assert in_order([second, "transcribe", first, "ingest"]) == ["ingest", "transcribe", first, second]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["ingest", f"{__name__}:Second", f"{__name__}:Units"], r"has the same table, b, as"),
        (["ingest", f"{__name__}:Units"], r"reads units, which no stage of this job makes; add the stage"),
        (["ingest", f"{__name__}:Second"], r"Second: reads a, which no stage of this job makes; add the stage"),
    ],
)
def test_stages_that_do_not_go_together(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        in_order(names)


def test_a_class_is_named_behind_a_colon(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"root: {tmp_path}\nstages:\n  my_stages.peaks.Peaks:\n")
    with pytest.raises(ConfigError, match="a stage of your own is named module:Class"):
        load(str(config), [])
