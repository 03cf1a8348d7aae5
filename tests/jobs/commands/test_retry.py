"""Refused rows tried again: the bytes of a full run, and a model that works on those rows alone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from echo_targets.jobs.commands.retry import RetryError, retry_command, reusing_job, set_aside
from echo_targets.jobs.commands.run import job_of
from echo_targets.jobs.config import load
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import plan
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import ASIDE, Dataset, LayoutError
from tests.pipeline.stand_ins import Double, Faults, Follow, Inline, Listen, files, stage
from tests.schemas.samples import Row, key, sample

ROWS = 12


class Model(Double):
    """Has a model, that is to say: what it made is worth keeping."""

    on_device: ClassVar[bool] = True


def entries(*changed: Row) -> list[Row]:
    """Twelve entries of one to three seconds; two of each dialogue follow each other."""
    rows = [sample("entries", number) | {"seconds": 1.0 + number % 3} for number in range(ROWS)]
    for row in changed:
        rows[[each["utterance_id"] for each in rows].index(row["utterance_id"])] |= row
    return rows


def job(root: Path, rows: list[Row] | None = None, shards: int = 3, **faults: Any) -> Job:
    listed = entries() if rows is None else rows
    hours = sum(row["seconds"] for row in listed) / 3600 / shards
    model = StageSpec(f"{__name__}:Model", Faults(**faults).model_dump(mode="json"), batch_seconds=8.0)
    return Job(str(root), plan(listed, hours), [stage(Listen), model, stage(Follow)], 0.5)


def run(work: Job) -> None:
    list(work.run(Inline()))


def all_but(*numbers: int) -> list[str]:
    return [key(number) for number in range(ROWS) if number not in numbers]


def retry(work: Job) -> list[int]:
    """What the command does; in how many shards there were rows to try again."""
    reusing = reusing_job(work)
    shards = [count for _, count in set_aside(work, "refuse")]
    run(reusing)
    return shards


def same_bytes(one: Path, other: Path, work: Job) -> None:
    """Every file of the versions that a job makes is the same in both roots."""
    made = [info.fingerprint for _, info in work.describe()]
    first, second = (
        {path: data for path, data in files(root).items() if path.split("/")[0] != ASIDE and _of(path, made)}
        for root in (one, other)
    )
    assert first == second and first
    for root in (one, other):
        assert list(check_dataset(str(root))) == []


def _of(path: str, made: Iterable[str]) -> bool:
    return any(f"/{fingerprint}/" in path for fingerprint in made)


def test_a_row_that_passes_now(tmp_path: Path) -> None:
    """The version is the same: one shard of three is made anew, and the model is asked for one row."""
    run(job(tmp_path / "a", refuses=[key(3)], filters=[key(10)]))
    assert Dataset(str(tmp_path / "a")).read("transcripts").num_rows == ROWS - 2
    work = job(tmp_path / "a", raises=all_but(3), filters=[key(10)])  # any other row that it works on is refused
    assert retry(work) == [1]
    run(job(tmp_path / "b", filters=[key(10)]))
    same_bytes(tmp_path / "a", tmp_path / "b", work)
    assert Dataset(str(tmp_path / "a")).read("transcripts").num_rows == ROWS - 1


def test_a_row_that_is_refused_again(tmp_path: Path) -> None:
    run(job(tmp_path, refuses=[key(3)]))
    before = files(tmp_path)
    assert retry(job(tmp_path, refuses=[key(3)], raises=all_but(3))) == [1]
    assert {path: data for path, data in files(tmp_path).items() if not path.startswith(ASIDE)} == before


def test_nothing_to_try_again(tmp_path: Path) -> None:
    run(job(tmp_path, filters=[key(3)]))
    before = files(tmp_path)
    assert retry(job(tmp_path, raises=all_but())) == []
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "shards"),
    [({"size": 7, "reference_text": "mended"}, 3), ({"size": 7, "seconds": 9.0}, 3), ({"size": 7}, 2)],
    ids=["a text", "other cuts", "fewer shards"],
)
def test_a_changed_file_is_a_new_version(tmp_path: Path, change: Row, shards: int) -> None:
    """The model works on the dialogue of what changed, wherever its rows were before, and on what was refused."""
    run(job(tmp_path / "a", refuses=[key(9)]))
    rows = entries({"utterance_id": key(4), **change})
    touched = (9,) if change == {"size": 7} else (4, 5, 9)  # `Listen` does not look at the size
    work = job(tmp_path / "a", rows, shards, raises=all_but(*touched))
    assert retry(work) == []
    run(job(tmp_path / "b", rows, shards))
    same_bytes(tmp_path / "a", tmp_path / "b", work)


def test_a_removed_row(tmp_path: Path) -> None:
    """Who spoke with it is worked on again; the others are not."""
    run(job(tmp_path / "a"))
    rows = [row for row in entries() if row["utterance_id"] != key(6)]
    work = job(tmp_path / "a", rows, raises=all_but(7))
    retry(work)
    run(job(tmp_path / "b", rows))
    same_bytes(tmp_path / "a", tmp_path / "b", work)


@pytest.mark.parametrize("goes_on_with", ["run", "retry"])
def test_a_stopped_retry(tmp_path: Path, goes_on_with: str) -> None:
    run(job(tmp_path / "a", refuses=[key(3)]))
    assert [count for _, count in set_aside(job(tmp_path / "a"), "refuse")] == [1]
    dataset = Dataset(str(tmp_path / "a"))
    assert len(dataset.committed("transcripts", dataset.tables()["transcripts"], 3)) == 2
    assert len(dataset.committed("alignments", dataset.tables()["alignments"], 3)) == 2
    work = job(tmp_path / "a", raises=all_but(3) if goes_on_with == "retry" else [])
    if goes_on_with == "retry":
        assert retry(work) == []
    else:
        run(work)
    assert list((tmp_path / "a" / ASIDE).rglob("part-*"))
    before = files(tmp_path / "a")
    assert retry(job(tmp_path / "a", raises=all_but())) == []
    left = {path for path in before if not path.startswith(ASIDE)}
    assert files(tmp_path / "a").keys() == left, "what is finished is aside no more"
    run(job(tmp_path / "b"))
    same_bytes(tmp_path / "a", tmp_path / "b", work)


def test_another_model_is_more_than_rejects(tmp_path: Path) -> None:
    run(job(tmp_path))
    with pytest.raises(RetryError, match=r"double: parameters.word: yes, now no.*echo-targets run"):
        reusing_job(job(tmp_path, word="no"))


def test_nothing_was_finished_yet(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="root of a finished run"):
        reusing_job(job(tmp_path))
    assert not files(tmp_path)


def test_another_version_of_the_same_shard(tmp_path: Path) -> None:
    """It would no longer match what it was made from."""
    run(job(tmp_path, refuses=[key(3)]))
    work = job(tmp_path, refuses=[key(3)])
    before = files(tmp_path)
    with pytest.raises(RetryError, match=r"alignments/[0-9a-f]{16} was made from transcripts"):
        set_aside(replace(work, stages=work.stages[:2]), "refuse")
    assert files(tmp_path) == before


def test_a_mended_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the command: a file that changes its bytes alone is tried again in place, one that changes its size is new."""
    import soundfile

    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", noise, SAMPLE_RATE)
    whole = (tmp_path / "b.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(b"x" * len(whole))
    (tmp_path / "m.jsonl").write_text(
        "".join(json.dumps({"id": name, "audio": f"{name}.wav", "duration": 1.0}) + "\n" for name in "abcd")
    )
    config = tmp_path / "c.yaml"
    config.write_text(
        f"root: {tmp_path}/out\nmax_reject_fraction: 0.9\nstages:\n  ingest:\n    sources:\n"
        f"      - {{kind: manifest, corpus: c, manifest: {tmp_path}/m.jsonl}}\n"
    )

    def listed(*overrides: str) -> Job:
        return job_of(load(str(config), list(overrides)))

    def keys() -> list[str]:
        names: list[str] = Dataset(str(tmp_path / "out")).read("utterances", [KEY])[KEY].to_pylist()
        return names

    run(listed())
    assert keys() == ["a", "c"]
    (tmp_path / "b.wav").write_bytes(whole)
    version = Dataset(str(tmp_path / "out")).tables()["utterances"]
    assert retry_command(str(config), []) == 0 and keys() == ["a", "b", "c"]
    assert Dataset(str(tmp_path / "out")).tables()["utterances"] == version
    assert "ingest: 1 of 1 shards have rows to retry" in capsys.readouterr().out
    assert not (tmp_path / "out" / ASIDE).exists()
    soundfile.write(tmp_path / "d.wav", noise, SAMPLE_RATE)
    retry(listed())
    assert keys() == ["a", "b", "c", "d"]
    assert Dataset(str(tmp_path / "out")).tables()["utterances"] != version
    run(listed(f"root={tmp_path}/fresh"))
    same_bytes(tmp_path / "out", tmp_path / "fresh", listed())
    retry(listed("stages.ingest.min_seconds=0.5"))
    assert keys() == ["a", "b", "c", "d"] and len(Dataset(str(tmp_path / "out")).versions()["utterances"]) == 3
