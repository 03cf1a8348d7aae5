"""Devices that do not exist are named before anything runs, and workers share the GPUs that do."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from echo_targets.jobs.cli import app
from echo_targets.jobs.config import ConfigError, execution
from echo_targets.pipeline import devices
from echo_targets.pipeline.devices import DeviceMissing, local_gpus
from echo_targets.pipeline.failures import is_machine_error
from echo_targets.pipeline.isolation import Isolated
from echo_targets.pipeline.job import JobFailed
from echo_targets.pipeline.runners.base import Done, Failed, Progress
from echo_targets.pipeline.runners.beam.runner import BeamRunner
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.pipeline.shard import ShardTask, run_shard
from echo_targets.pipeline.stage import StageSpec
from echo_targets.pipeline.worker_transform import Loaded, unload_transform
from echo_targets.schemas.dataset.layout import Manifest
from echo_targets.schemas.errors import UserError
from tests.pipeline.runners.test_local import first_tasks
from tests.pipeline.stand_ins import Double, Inline, job, stage
from tests.pipeline.test_isolation import batch


class OnDevice(Double):
    """Has a model for a device."""

    on_device: ClassVar[bool] = True

    def setup(self) -> None:
        raise AssertionError("loads a model on a device that does not exist")


def on_device(device: str) -> StageSpec:
    return replace(stage(Double), transform=f"{__name__}:OnDevice", device=device)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """As many GPUs as the test's parameter says."""
    monkeypatch.setattr(devices, "count_gpus", lambda: request.param)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def with_gpus(count: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("gpus", [count], indirect=True)


# -- which devices there are -------------------------------------------------------------------------------------------


@with_gpus(3)
@pytest.mark.parametrize(
    ("visible", "spread"),
    [(None, ("0", "1", "2")), ("5, 2,7", ("5", "2", "7")), ("GPU-a,GPU-b,GPU-c,-1", ("GPU-a", "GPU-b", "GPU-c"))],
)
def test_workers_are_spread_over_the_visible_gpus(
    gpus: None, monkeypatch: pytest.MonkeyPatch, visible: str | None, spread: tuple[str, ...]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert local_gpus("cuda") == spread
    assert local_gpus("cuda:2") == (), "all workers use the one that is named"
    assert local_gpus("cpu") == ()


@with_gpus(0)
def test_cuda_without_a_gpu(gpus: None) -> None:
    for device in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match=f"^device={device}: torch sees no GPU on .*; .*backends device"):
            local_gpus(device)
    assert local_gpus("cpu") == ()


@with_gpus(2)
def test_a_gpu_of_a_higher_number(gpus: None) -> None:
    with pytest.raises(UserError, match=r"^device=cuda:7: torch sees cuda:0 to cuda:1 on .*; set device=cuda"):
        local_gpus("cuda:7")


def test_torch_itself_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    assert len(local_gpus("cuda")) == 5


@pytest.mark.parametrize("device", ["cudda", "mps", "cuda:", "cuda:-1", "CUDA", "cuda 0", "", "cuda:1 "])
def test_no_device_at_all(device: str) -> None:
    with pytest.raises(ConfigError, match=r"device: Input should be 'cpu', 'cuda' or 'cuda:N', not "):
        execution([f"device={device!r}"])


# -- before anything runs ----------------------------------------------------------------------------------------------


@with_gpus(0)
@pytest.mark.parametrize(
    "runner",
    [
        ["runner=local"],
        ["runner=beam"],
        ["runner=beam", "beam.direct_running_mode=multi_processing"],
        ["runner=beam", "beam.runner=PortableRunner", "beam.job_endpoint=embed"],
    ],
)
def test_workers_of_this_machine_are_not_started_without_the_device(gpus: None, runner: list[str]) -> None:
    with pytest.raises(UserError, match="torch sees no GPU"):
        execution([*runner, "device=cuda"]).open_runner()


@with_gpus(0)
@pytest.mark.parametrize(
    "runner",
    [
        ["runner=ray", "ray.gpus_per_worker=0.5"],
        ["runner=beam", "beam.runner=FlinkRunner", "beam.flink_master=host:1"],
    ],
)
def test_a_driver_of_other_machines_needs_no_gpu(gpus: None, runner: list[str]) -> None:
    execution([*runner, "device=cuda"]).open_runner()


@with_gpus(0)
def test_the_command_says_so_before_it_lists_the_sources(gpus: None, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    missing = tmp_path / "missing.jsonl"
    done = CliRunner().invoke(app, ["run", "folder", f"manifest={missing}", f"root={tmp_path}", "device=cuda"])
    assert done.exit_code and "torch sees no GPU" in str(done.exception or done.output)


@pytest.mark.parametrize("given", [[], ["ray.gpus_per_worker=0"]])
def test_ray_with_a_gpu_that_no_worker_reserves(given: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^'device=cuda' on the command line: device: Ray gives its workers no GPU"):
        execution(["runner=ray", "device=cuda", *given])
    assert execution(["device=cuda", "runner=ray", "ray.gpus_per_worker=0.25"]).device == "cuda"


# -- workers -----------------------------------------------------------------------------------------------------------


@with_gpus(0)
def test_a_worker_without_the_device_loads_no_model_and_the_shard_goes_to_another(gpus: None) -> None:
    with pytest.raises(DeviceMissing, match=r"^device=cuda: torch sees no GPU") as caught:
        Loaded(on_device("cuda"))
    assert is_machine_error(caught.value)
    assert Loaded(replace(stage(Double), device="cuda")), "a stage without a model runs anywhere"


def test_nor_does_a_child_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with Isolated(on_device("cuda")) as isolated, pytest.raises(OSError, match="device=cuda: torch sees no GPU"):
        isolated.try_batch(batch(1))


@with_gpus(0)
def test_the_failure_of_a_job_names_the_remedy(gpus: None, tmp_path: Path) -> None:
    unload_transform()
    with pytest.raises(JobFailed, match=r"DeviceMissing: device=cuda:.*echo-targets backends device"):
        list(job(tmp_path, on_device("cuda")).run(Inline()))


def notes_its_gpu(task: ShardTask, progress: Progress) -> Manifest:
    """Leaves a note of the GPU that the process sees, and waits until each of three workers has left one."""
    notes = Path(task.root) / "gpus"
    notes.mkdir(exist_ok=True)
    (notes / f"{os.getpid()}").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "unset"))
    while len(list(notes.iterdir())) < 3:
        time.sleep(0.01)
    return run_shard(task, progress)


def seen(root: Path) -> list[str]:
    return sorted(note.read_text() for note in (root / "gpus").iterdir())


def run_three(root: Path, runner: LocalRunner) -> list[Any]:
    with runner:
        return list(runner.map([[task] for task in first_tasks(root)], notes_its_gpu))


def test_each_worker_sees_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    events = run_three(tmp_path, LocalRunner(3, gpus=("4", "6")))
    assert sum(isinstance(event, Done) for event in events) == 3
    assert seen(tmp_path) == ["4", "4", "6"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,6"


def dies_first(task: ShardTask, progress: Progress) -> Manifest:
    """The process that is given GPU 1 first dies once all three are there."""
    notes = Path(task.root) / "gpus"
    if not (notes / "died").exists() and os.environ["CUDA_VISIBLE_DEVICES"] == "1":
        notes.mkdir(exist_ok=True)
        (notes / "died").write_text("1")
        os._exit(9)
    return run_shard(task, progress)


def test_a_worker_that_replaces_another_has_its_gpu(tmp_path: Path) -> None:
    with LocalRunner(3, gpus=("0", "1", "2")) as runner:
        tasks = first_tasks(tmp_path)
        events = list(runner.map([[task] for task in tasks], dies_first))
        assert sorted(worker.number for worker in runner._pool) == [0, 1, 2]
    assert [event.reason for event in events if isinstance(event, Failed)] == ["its worker crashed (exit code 9)"]
    assert sum(isinstance(event, Done) for event in events) == 3


def test_without_gpus_workers_inherit_what_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    run_three(tmp_path, LocalRunner(3))
    assert seen(tmp_path) == ["4,6"] * 3


@pytest.mark.slow
def test_beams_worker_processes_share_the_gpus(tmp_path: Path) -> None:
    chosen = execution(["runner=beam", "beam.direct_running_mode=multi_processing", "beam.direct_num_workers=3"])
    with BeamRunner(chosen.beam, ("0", "1")) as runner:
        list(runner.map([[task] for task in first_tasks(tmp_path)], notes_its_gpu))
    assert {*seen(tmp_path)} == {"0", "1"} and len(seen(tmp_path)) == 3
