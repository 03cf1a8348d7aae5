"""The comparison of a GPU with the CPU, which runs here with the CPU on both sides."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu_smoke import STAGES, differences, same
from echo_targets.jobs.stages import SEGMENT
from echo_targets.jobs.stages import STAGES as EVERY_STAGE
from echo_targets.schemas.dataset.layout import Dataset
from tests.pipeline.stand_ins import Double, Inline, job, stage
from tests.schemas.samples import key

ROOT = Path(__file__).parents[1]
OF_UTTERANCES = [name for name in EVERY_STAGE if name != SEGMENT]
"""The stages after segment, which has no model for a GPU."""


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu_smoke", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
def test_every_stage_runs_and_the_tables_agree() -> None:
    done = run("--device", "cpu", "--clips", "2")
    assert done.returncode == 0 and done.stdout.endswith("All tables agree.\n"), done.stderr
    ran = re.findall(r"^\| (.*?) \| cpu \| \d", done.stdout, re.MULTILINE)
    assert ran == 2 * [*OF_UTTERANCES, "transcribe, auto"]


def test_a_missing_gpu_is_one_line() -> None:
    done = run("--device", "cuda:99")
    assert (
        done.returncode == 1 and done.stderr.startswith("device=cuda:99: torch sees ") and "\n" not in done.stderr[:-1]
    )


def test_all_stages_are_in_it() -> None:
    assert ["ingest", *STAGES] == OF_UTTERANCES


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (1, 1, True),
        (16_000, 16_001, False),
        (0.5, 0.51, True),
        (0.5, 0.53, False),
        (-20.0, -20.3, True),
        (-20.0, -21.0, False),
        (None, 0.0, False),
        ([{"units": [1, 2], "score": 0.1}], [{"units": [1, 2], "score": 0.1001}], True),
        ([{"units": [1, 2], "score": 0.1}], [{"units": [1, 3], "score": 0.1}], False),
        ([1, 2], [1], False),
        ("hello", "Hello", False),
        (float("nan"), 0.0, False),
    ],
)
def test_what_is_the_same(one: Any, other: Any, alike: bool) -> None:
    assert same(one, other) is alike


def test_what_differs_is_named(tmp_path: Path) -> None:
    datasets = []
    for side, faults in (("cpu", {}), ("device", {"word": "no"}), ("fewer", {"refuses": [key(3)]})):
        list(job(tmp_path / side, stage(Double, **faults), allowed=1.0).run(Inline()))
        datasets.append(Dataset(str(tmp_path / side)))
    cpu, device, fewer = datasets
    assert list(differences(cpu, cpu)) == []
    (said,) = differences(cpu, device)
    assert said.startswith(f"transcripts.text: 12 of 12 rows differ, for example {key(0)}: 'hello there yes")
    assert list(differences(cpu, fewer)) == ["transcripts: 12 rows on the CPU, 11 on the device, or of other keys"]
