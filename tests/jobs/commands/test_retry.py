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
from echo_targets.schemas.errors import UserError
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
        f"root: {tmp_path}/out\nmax_reject_fraction: 1\nshard_hours: 0.0006\nstages:\n  ingest:\n    sources:\n"
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
    assert "No row to retry" in capsys.readouterr().out
    assert files(tmp_path / "out") == before


def test_an_edited_file_that_was_accepted(tmp_path: Path, config: str) -> None:
    """Louder, and as long as before: nothing but its name shows which row to compute again."""
    mend(tmp_path)
    run_command(config, [], dry_run=False)
    before = {row[KEY]: row["audio_sha256"] for row in Dataset(str(tmp_path / "out")).read("utterances").to_pylist()}
    audio, rate = soundfile.read(tmp_path / "c.wav")
    soundfile.write(tmp_path / "c.wav", audio / 2, rate)
    with pytest.raises(UserError, match="--id nobody: no item of this job has this id"):
        retry_command(config, [], ["c", "nobody"])
    assert retry_command(config, [], ["c"]) == 0
    after = {row[KEY]: row["audio_sha256"] for row in Dataset(str(tmp_path / "out")).read("utterances").to_pylist()}
    assert [key for key in after if after[key] != before[key]] == ["c"]


def test_attempts_outlive_the_row(tmp_path: Path, config: str) -> None:
    """A row that is removed and comes back does not go back to what it was before it was mended."""
    run_command(config, [], dry_run=False)
    mend(tmp_path)
    retry_command(config, [])
    lines = (tmp_path / "m.jsonl").read_text().splitlines(keepends=True)
    for kept in ([line for line in lines if '"b"' not in line], lines):
        (tmp_path / "m.jsonl").write_text("".join(kept))
        assert run_command(config, [], dry_run=False) == 0
    assert "b" in keys(tmp_path / "out")


def test_a_renamed_manifest_computes_nothing(tmp_path: Path, config: str) -> None:
    mend(tmp_path)
    (tmp_path / "m.jsonl").write_text("".join((tmp_path / "m.jsonl").read_text().splitlines(keepends=True)[:-2]))
    run_command(config, [], dry_run=False)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")}
    (tmp_path / "m.jsonl").rename(tmp_path / "2026-12.jsonl")
    Path(config).write_text(Path(config).read_text().replace("m.jsonl", "2026-12.jsonl"))
    assert run_command(config, [], dry_run=False) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet")} == before


def test_before_any_run_it_is_a_run(tmp_path: Path, config: str) -> None:
    assert retry_command(config, []) == 0 and keys(tmp_path / "out") == list("acdefg")
