"""Rejected rows tried again, by the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_targets.jobs.commands.retry import retry_command
from echo_targets.jobs.commands.run import run_command
from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from tests.pipeline.stand_ins import files

NAMES = "abcdefgh"


@pytest.fixture
def config(tmp_path: Path) -> str:
    """A corpus of files of one second, in several shards. `b` is damaged, `h` is missing, and a line is no JSON."""
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    for name in NAMES[:-1]:
        soundfile.write(tmp_path / f"{name}.wav", noise, SAMPLE_RATE)
    size = (tmp_path / "b.wav").stat().st_size
    (tmp_path / "b.wav").write_bytes(b"x" * size)
    lines = [json.dumps({"id": name, "audio": f"{name}.wav", "duration": 1.0}) for name in NAMES]
    (tmp_path / "m.jsonl").write_text("\n".join([*lines, "{", ""]))
    path = tmp_path / "c.yaml"
    path.write_text(
        f"root: {tmp_path}/out\nmax_reject_fraction: 0.9\nshard_hours: 0.0006\nstages:\n  ingest:\n    sources:\n"
        f"      - {{kind: manifest, corpus: c, manifest: {tmp_path}/m.jsonl}}\n"
    )
    return str(path)


def keys(root: Path) -> list[str]:
    names: list[str] = Dataset(str(root)).read("utterances", [KEY])[KEY].to_pylist()
    return names


def mend(folder: Path) -> None:
    """Replace the damaged file by one of the same size."""
    (folder / "b.wav").write_bytes((folder / "a.wav").read_bytes())


def test_a_mended_file_of_the_same_size(tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "out"
    assert run_command(config, [], dry_run=False) == 0 and keys(root) == list("acdefg")
    before = Dataset(str(root)).current("utterances")
    there = {path: path.stat().st_mtime_ns for path in root.rglob("*.parquet")}
    mend(tmp_path)
    assert run_command(config, [], dry_run=False) == 0 and keys(root) == list("acdefg"), "nothing shows that it changed"
    capsys.readouterr()
    assert retry_command(config, []) == 0 and keys(root) == list("abcdefg")
    said = capsys.readouterr().out
    assert "ingest: 2 rows to retry" in said and "are unchanged and are not computed again" in said
    after = Dataset(str(root)).current("utterances")
    assert after.recipe == before.recipe and after.snapshot != before.snapshot
    assert {path: path.stat().st_mtime_ns for path in there} == there, "no shard that was there is touched"
    rejects = Dataset(str(root)).read("rejects").to_pylist()
    assert sorted(row[KEY] for row in rejects) == ["h", "m.jsonl:9"]
    assert list(check_dataset(str(root))) == []
    version = Dataset(str(root)).tables()
    assert run_command(config, [], dry_run=False) == 0 and Dataset(str(root)).tables() == version, "run remembers it"


def test_rows_that_fail_again_are_retried_again(tmp_path: Path, config: str) -> None:
    run_command(config, [], dry_run=False)
    for attempt in (1, 2):
        assert retry_command(config, []) == 0
        entries = Dataset(str(tmp_path / "out")).read("entries", [KEY, "attempt"]).to_pylist()
        assert {row[KEY]: row["attempt"] for row in entries if row["attempt"]} == {"b": attempt, "h": attempt}
    mend(tmp_path)
    assert retry_command(config, []) == 0 and keys(tmp_path / "out") == list("abcdefg")


def test_a_retried_root_has_the_rows_of_a_fresh_one(tmp_path: Path, config: str) -> None:
    run_command(config, [], dry_run=False)
    mend(tmp_path)
    retry_command(config, [])
    run_command(config, [f"root={tmp_path}/fresh"], dry_run=False)
    retried, fresh = (Dataset(str(tmp_path / name)).read("utterances") for name in ("out", "fresh"))
    assert retried.sort_by(KEY).equals(fresh.sort_by(KEY))


def test_nothing_to_retry(tmp_path: Path, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    mend(tmp_path)
    (tmp_path / "m.jsonl").write_text("".join((tmp_path / "m.jsonl").read_text().splitlines(keepends=True)[:-2]))
    run_command(config, [], dry_run=False)
    before = files(tmp_path / "out")
    capsys.readouterr()
    assert retry_command(config, []) == 0
    assert "No row of this job was rejected" in capsys.readouterr().out
    assert files(tmp_path / "out") == before


def test_before_any_run_it_is_a_run(tmp_path: Path, config: str) -> None:
    assert retry_command(config, []) == 0 and keys(tmp_path / "out") == list("acdefg")
