"""Only bad data rejects a row: a sick machine or a bug fails the shard, and the same command finishes it afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from echo_targets.pipeline.failures import fails_the_shard, is_machine_error, is_out_of_memory, most_failed
from echo_targets.pipeline.job import JobFailed
from echo_targets.pipeline.runners.base import Runner
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.errors import BadData, ModelError
from tests.pipeline.stand_ins import Double, Inline, files, ids, job, stage
from tests.schemas.samples import key

LINES = (Path(__file__).parent / "data" / "device_errors.txt").read_text().splitlines()
"""Errors of torch, CTranslate2, ONNX Runtime and environments, as people report them."""


@pytest.fixture
def straight(tmp_path: Path) -> dict[str, bytes]:
    list(job(tmp_path / "straight", stage(Double)).run(Inline()))
    return files(tmp_path / "straight")


def run_sick(root: Path, runner: Runner, line: str) -> str:
    """Run a job whose machine is sick from the third row on; return what the failure says."""
    with pytest.raises(JobFailed) as failure:
        notes = str(root.with_name("notes"))
        Path(notes).mkdir()
        list(job(root, stage(Double, sick_from=key(2), sick_with=line, folder=notes)).run(runner))
    return str(failure.value)


def test_there_are_errors_to_inject() -> None:
    assert len(LINES) > 20


@pytest.mark.parametrize("line", LINES)
def test_a_sick_machine_rejects_no_row(tmp_path: Path, straight: dict[str, bytes], line: str) -> None:
    said = run_sick(tmp_path / "sick", Inline(), line)
    assert line.partition(": ")[2] in said
    dataset = Dataset(str(tmp_path / "sick"))
    (fingerprint,) = dataset.recipes()["transcripts"]
    whole = dataset.committed("transcripts", fingerprint, ids(tmp_path / "sick"))
    assert len(whole) < 3 and all(manifest.rejects is None for manifest in whole.values())
    list(job(tmp_path / "sick", stage(Double)).run(Inline()))
    assert files(tmp_path / "sick") == straight


@pytest.mark.parametrize("line", ["RuntimeError: CUDA failed with error out of memory", "ValueError: nobody knows"])
def test_a_sick_machine_under_workers(tmp_path: Path, straight: dict[str, bytes], line: str) -> None:
    with LocalRunner(2) as runner:
        run_sick(tmp_path / "sick", runner, line)
        list(job(tmp_path / "sick", stage(Double)).run(runner))
    assert files(tmp_path / "sick") == straight


def test_a_few_rows_with_unexpected_errors_are_rejects(tmp_path: Path) -> None:
    work = job(tmp_path, stage(Double, raises=[key(2), key(5), key(6)]), shards=1, allowed=1.0)
    list(work.run(Inline()))
    dataset = Dataset(str(tmp_path))
    (manifest,) = dataset.manifests("transcripts")
    assert manifest.reasons == {"ValueError": 3}


def test_one_more_fails_the_shard_and_names_the_first(tmp_path: Path) -> None:
    work = job(tmp_path, stage(Double, raises=[key(2), key(5), key(6), key(9)]), shards=1, allowed=1.0)
    with pytest.raises(JobFailed, match=rf"more than 3 of its rows .* first {key(2)}: ValueError: cannot double"):
        list(work.run(Inline()))
    assert not list(Dataset(str(tmp_path)).storage.find("rejects"))


def test_the_budget_grows_with_the_shard() -> None:
    assert [most_failed(rows, 0.01) for rows in (1, 2, 4, 12, 300, 499, 5_000)] == [1, 1, 2, 3, 3, 4, 50]
    assert [most_failed(rows, 0.2) for rows in (1, 4, 12, 300)] == [1, 2, 3, 60]
    assert most_failed(1_000, 0.0) == 0


@pytest.mark.parametrize(
    "error",
    [
        BadData("too_loud", "clipped"),
        ValueError("a row of 3 values"),
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        RuntimeError("Calculated padded input size per channel: (2). Kernel size: (3)"),
        RuntimeError("failed to decode cuda_talk.wav"),
    ],
    ids=repr,
)
def test_what_may_be_a_rows_fault(error: Exception) -> None:
    assert not fails_the_shard(error) and not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "machine"),
    [(OSError(os.EX_IOERR, "disk"), True), (ModelError("no such model"), False), (KeyError("x"), False)],
    ids=repr,
)
def test_which_errors_another_attempt_may_help(error: Exception, machine: bool) -> None:
    assert is_machine_error(error) is machine


def test_a_row_that_breaks_a_rule_is_rejected_alone(tmp_path: Path) -> None:
    list(job(tmp_path, stage(Double, breaks=[key(5)]), shards=1, allowed=0.1).run(Inline()))
    dataset = Dataset(str(tmp_path))
    assert len(dataset.read("transcripts")) == 11 and list(check_dataset(str(tmp_path))) == []
    (reject,) = dataset.read("rejects").to_pylist()
    assert reject["utterance_id"] == key(5) and reject["error_class"] == "broken_rule"
    assert reject["message"].startswith("chars_per_s_range: ") and "chars_per_s = -1.0" in reject["message"]


def test_many_rows_that_break_a_rule_fail_the_shard(tmp_path: Path) -> None:
    breaks = [key(number) for number in range(4)]
    with pytest.raises(JobFailed, match=r"more than 3 of its rows failed unexpectedly; first .*chars_per_s_range"):
        list(job(tmp_path, stage(Double, breaks=breaks), shards=1, allowed=1.0).run(Inline()))


def test_a_shard_of_which_no_row_can_be_computed_is_not_committed(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="none of its rows could be computed; first"):
        list(job(tmp_path, stage(Double, raises=[key(0)]), rows=1, shards=1, allowed=1.0).run(Inline()))
    assert not list((tmp_path / "transcripts").rglob("*.parquet"))
