"""A stage from a user's own package: docs/STAGES.md as a newcomer follows it, and what goes wrong on the way."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from echo_targets.jobs.config import ConfigError, load
from echo_targets.schemas.dataset.layout import Dataset
from tests.jobs.test_cli import REPOSITORY

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
    assert checked.returncode == 0 and "peaks: known_table: is not a table of this version" in checked.stdout
    assert "peaks" in echo_targets(project, "status", "out/peaks").stdout
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(project), str(REPOSITORY)])}
    test = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "my_stages/test_peaks.py"]
    assert subprocess.run(test, cwd=project, env=environment, check=False).returncode == 0


def test_its_files_are_checked(project: Path) -> None:
    assert echo_targets(project, "run", "job.yaml").returncode == 0
    (shard,) = (project / "out" / "peaks" / "peaks").glob("*/*.parquet")
    shard.write_bytes(shard.read_bytes()[:-9])
    checked = echo_targets(project, "check", "out/peaks")
    assert checked.returncode == 1 and re.search(r"peaks part-\S+: digest: ", checked.stdout)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.peaks:Peaks", r"No module named 'nowhere'; install the package, or add its folder to PYTHONPATH"),
        ("json:JSONDecoder", r"is not a Transform"),
        ("json:Missing", r"has no attribute 'Missing'"),
        ("echo_targets.transforms.stages.measure:Measure", r"writes measures, a table of echo_targets"),
    ],
)
def test_a_path_that_leads_to_no_stage_of_ones_own(tmp_path: Path, path: str, message: str) -> None:
    config = tmp_path / "c.yaml"
    source = "{kind: manifest, corpus: c, manifest: m.jsonl}"
    config.write_text(f"root: {tmp_path}\nstages:\n  ingest:\n    sources: [{source}]\n  {path}:\n")
    with pytest.raises(ConfigError, match=rf"c\.yaml, line 5: stages\.{path}: .*{message}"):
        load(str(config), [])
