"""Every error that people report of accelerators, in transcribe and echo: no row is rejected, nothing is committed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from echo_targets.jobs.commands.run import job_of
from echo_targets.jobs.config import load
from echo_targets.pipeline.job import Job, JobFailed
from echo_targets.pipeline.runners.base import Runner
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from tests.pipeline.stand_ins import Inline
from tests.pipeline.test_failures import LINES

SICK = {"transcribe": "SickTranscribe", "echo": "SickEcho"}


def job(folder: Path, root: Path) -> Job:
    source = f"{{kind: manifest, corpus: calls, manifest: {folder}/m.jsonl}}"
    (folder / "c.yaml").write_text(
        f"root: {root}\nshard_hours: 0.001\nstages:\n  ingest: {{sources: [{source}]}}\n"
        "  transcribe: {temperatures: [0]}\n  echo: {model: embedded:nano-t2c, text: response, max_units: 40}\n"
    )
    return job_of(load(str(folder / "c.yaml"), []))


def sick(work: Job, name: str, line: str) -> Job:
    """The job with one stage on a sick machine, and without those after it."""
    names = [spec.transform_class().name for spec in work.stages]
    place = names.index(name)
    spec = work.stages[place]
    ill = replace(spec, transform=f"tests.jobs.sick_stages:{SICK[name]}", parameters=spec.parameters | {"line": line})
    return replace(work, stages=[*work.stages[:place], ill])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, speech: list[dict[str, Any]]) -> Path:
    """Four turns of two dialogues, and a root in which they are ingested and transcribed."""
    made: Path = tmp_path_factory.mktemp("sick")
    short = sorted(speech, key=lambda row: row["duration"])[:4]
    turns = [{"dialogue_id": f"d{place // 2}", "turn": place % 2} for place in range(4)]
    rows = [
        {"id": row["id"], "audio": str(row["audio"]), "text": row["text"], **turn}
        for row, turn in zip(short, turns, strict=True)
    ]
    (made / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    work = job(made, made / "root")
    list(replace(work, stages=work.stages[:2]).run(Inline()))
    return made


def all_lines(folder: Path, root: Path, name: str, lines: list[str], runner: Runner) -> None:
    """Run a stage on each sick machine, then on a healthy one."""
    shutil.copytree(folder / "root", root)
    table = {"transcribe": "transcripts", "echo": "echo_targets"}[name]
    if name == "transcribe":
        shutil.rmtree(root / "transcripts")
    for line in lines:
        with pytest.raises(JobFailed) as failure:
            list(sick(job(folder, root), name, line).run(runner))
        assert failure.value.exit_code == 3, line
        assert not list((root / table).rglob("*.parquet")) and not (root / "rejects").exists(), line
    list(job(folder, root).run(runner))
    dataset = Dataset(str(root))
    assert len(dataset.read("transcripts")) == 4 and len(dataset.read("echo_targets")) == 2
    assert len(dataset.read("rejects")) == 0 and list(check_dataset(str(root))) == []


@pytest.mark.parametrize("name", SICK)
def test_no_error_of_a_device_rejects_a_row(folder: Path, tmp_path: Path, name: str) -> None:
    all_lines(folder, tmp_path / "root", name, LINES, Inline())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["local", "ray"])
def test_nor_does_it_in_workers(folder: Path, tmp_path: Path, kind: str) -> None:
    options = ["manifest=x", "root=x", f"runner={kind}", "ray.max_workers=1"]
    with load("folder", options).open_runner() as runner:
        all_lines(folder, tmp_path / "root", "transcribe", LINES[:1], runner)
