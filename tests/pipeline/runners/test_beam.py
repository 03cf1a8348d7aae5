"""Beam's runners that need no service: in the driver's process, in threads, in processes, behind a job server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from echo_targets.pipeline.job import Job, JobFailed
from echo_targets.pipeline.runners.base import Done, Failed, Worked
from echo_targets.pipeline.runners.beam.options import BeamOptions
from echo_targets.pipeline.runners.beam.runner import BeamRunner
from echo_targets.pipeline.shard import run_shard
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from tests.pipeline.runners.test_follow import chains_of
from tests.pipeline.runners.test_local import ended, wait_for
from tests.pipeline.stand_ins import Double, Faults, Follow, Inline, files, job, long_job, number_of, stage, temporary
from tests.schemas.samples import key

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 120.0

PROCESSES = {"direct_running_mode": "multi_processing", "direct_num_workers": 2}
WAYS: dict[str, dict[str, Any]] = {
    "in_memory": {},
    "multi_threading": {"direct_running_mode": "multi_threading", "direct_num_workers": 2},
    "multi_processing": PROCESSES,
    "job_server": {"runner": "PortableRunner", "job_endpoint": "embed"},
}
slow = pytest.mark.slow


def run(work: Job, **options: Any) -> list[Any]:
    with BeamRunner(BeamOptions(**options)) as runner:
        return list(work.run(runner))


def failures(events: Sequence[object]) -> list[tuple[str, int, bool]]:
    return [(event.stage, number_of(event.shard), event.final) for event in events if isinstance(event, Failed)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a job of three stages, run without an engine."""
    root = tmp_path_factory.mktemp("straight")
    list(job(root, stage(Double, refuses=[key(2)]), stage(Follow), allowed=1.0).run(Inline()))
    return files(root)


@pytest.fixture(scope="module")
def straight_long(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the long job."""
    root = tmp_path_factory.mktemp("straight_long")
    list(long_job(root).run(Inline()))
    return files(root)


# -- the same bytes, and what the engine counts ------------------------------------------------------------------------


@pytest.mark.parametrize("way", [pytest.param(way, marks=[slow] * (way == "multi_processing")) for way in WAYS])
def test_every_way_gives_the_same_bytes_and_counts_them(tmp_path: Path, straight: dict[str, bytes], way: str) -> None:
    with BeamRunner(BeamOptions(**WAYS[way])) as runner:
        work = job(tmp_path, stage(Double, refuses=[key(2)]), stage(Follow), allowed=1.0)
        events = list(work.run(runner))
        counters = runner.counters
        assert runner.result is not None
        measured = runner.result.metrics().query()["distributions"]
    assert files(tmp_path) == straight
    assert failures(events) == []
    for kind in (Worked, Done):
        told = Counter((event.stage, number_of(event.shard)) for event in events if isinstance(event, kind))
        assert told == Counter((name, shard) for name in ("listen", "double", "follow") for shard in range(3))
    assert counters == {
        "listen": {"shards": 3, "rows": 12, "rejects": 0, "samples": 24 * 16_000},
        "double": {"shards": 3, "rows": 11, "rejects": 1, "samples": 24 * 16_000},
        "follow": {"shards": 3, "rows": 12, "rejects": 0, "samples": 24 * 16_000},
    }
    sums = {(one.key.metric.namespace, one.key.metric.name): one.result for one in measured}
    for name in counters:
        rows, seconds = (sums[f"echo_targets.{name}", of] for of in ("shard_rows", "shard_ms"))
        assert (rows.count, rows.sum) == (3, 12)
        assert seconds.count == 3 and seconds.min >= 0


def test_shards_that_are_at_different_stages_go_on_from_there(tmp_path: Path, straight: dict[str, bytes]) -> None:
    work = job(tmp_path, stage(Double, refuses=[key(2)]), stage(Follow), allowed=1.0)
    tasks = [chain[0] for chain in chains_of(tmp_path)]
    run_shard(tasks[1])
    with BeamRunner(BeamOptions()) as runner:
        assert failures(list(work.run(runner))) == []
        assert {name: counters["shards"] for name, counters in runner.counters.items()} == {
            "listen": 2,
            "double": 3,
            "follow": 3,
        }
    assert files(tmp_path) == straight


# -- what fails --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "attempts"), [("unreachable", [False, False, True]), ("drops", [True])])
def test_only_what_a_second_try_can_help_is_tried_again(tmp_path: Path, fault: str, attempts: list[bool]) -> None:
    events: list[object] = []
    faults = {fault: [key(0)]}
    with BeamRunner(BeamOptions()) as runner, pytest.raises(JobFailed) as failure:
        for event in job(tmp_path, stage(Double, **faults), stage(Follow)).run(runner):
            events.append(event)
    assert failure.value.exit_code == 3
    assert failures(events) == [("double", 0, final) for final in attempts]
    done = Counter(event.stage for event in events if isinstance(event, Done))
    assert done == {"listen": 3, "double": 2, "follow": 2}
    assert temporary(tmp_path) == []


@slow
def test_a_worker_that_is_killed_in_the_midst_of_a_shard_is_replaced_and_leaves_no_trace(
    tmp_path: Path, straight_long: dict[str, bytes]
) -> None:
    notes, root = tmp_path / "notes", tmp_path / "root"
    notes.mkdir()
    events, left = list[object](), list[list[str]]()
    with BeamRunner(BeamOptions(**PROCESSES)) as runner:
        for event in long_job(root, kills={key(999): 1}, folder=str(notes)).run(runner):
            events.append(event)
            left.append(temporary(root))
    assert failures(events) == [("double", 0, False)]
    assert [event.reason for event in events if isinstance(event, Failed)] == [
        "its worker crashed (signal SIGKILL, possibly out of memory)"
    ]
    assert max(map(len, left)) >= 1, "it had begun to write"
    assert len(list(notes.iterdir())) == 1
    assert files(root) == straight_long


def test_a_bad_option_is_named_before_anything_runs() -> None:
    with pytest.raises(UserError, match="no pipeline option 'direct_num_wrkers'; did you mean direct_num_workers"):
        BeamRunner(BeamOptions(direct_num_wrkers=2))
    with pytest.raises(UserError, match="direct_num_workers: invalid int value: 'two'"):
        BeamRunner(BeamOptions(direct_num_workers="two"))
    with pytest.raises(UserError, match="invalid choice: 'threads'"):
        BeamRunner(BeamOptions(direct_running_mode="threads"))
    with pytest.raises(UserError, match="Unexpected pipeline runner: Flunk"):
        BeamRunner(BeamOptions(runner="Flunk"))
    with pytest.raises(UserError, match="flink_masters"):
        BeamRunner(BeamOptions(runner="FlinkRunner", flink_masters="host:8081"))


def test_options_reach_beam_as_beam_has_them() -> None:
    given = {
        "flink_master": "host:8081",
        "parallelism": 8,
        "experiments": ["a", "b"],
        "region": None,
        "streaming": True,
    }
    options = BeamOptions(runner="FlinkRunner", **given).pipeline_options().get_all_options(drop_default=True)
    assert options.pop("runner") == "FlinkRunner"
    assert options == {name: value for name, value in given.items() if value is not None}


def test_what_beam_needs_to_be_told_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="You must specify a --job_endpoint"):
        run(job(tmp_path), runner="PortableRunner")


@pytest.mark.parametrize("name", ["DirectRunner", "direct", "FnApiRunner", "SwitchingDirectRunner"])
def test_the_direct_runner_downloads_nothing(name: str) -> None:
    """What Beam makes of the same name looks for a binary of Prism first."""
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    assert isinstance(BeamOptions(runner=name).pipeline_runner(), FnApiRunner)


# -- drivers that end --------------------------------------------------------------------------------------------------


class Driver:
    """A driver in a process group of its own."""

    def __init__(self, tmp_path: Path) -> None:
        self.root, self.notes = tmp_path / "root", tmp_path / "notes"
        self.notes.mkdir()
        self.workers: list[int] = []
        self.process: subprocess.Popen[str] | None = None

    def start(self, work: str, options: dict[str, Any], **faults: Any) -> subprocess.Popen[str]:
        given = [work, str(self.root), Faults(folder=str(self.notes), **faults).model_dump_json(), json.dumps(options)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.runners.test_beam", *given],
            cwd=REPOSITORY,
            start_new_session=True,
        )
        return self.process

    def start_and_wait(self, options: dict[str, Any]) -> subprocess.Popen[str]:
        """With a worker that waits in the midst of the long job's shard."""
        process = self.start("long_job", options, waits=[key(999)])
        while not (notes := list(self.notes.iterdir())) and process.poll() is None:
            time.sleep(0.05)
        self.workers += [int(note.suffix[1:]) for note in notes]
        return process


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path)
    yield driver
    assert driver.process is not None
    for process in [driver.process.pid, *driver.workers]:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    driver.process.communicate()


@slow
@pytest.mark.parametrize(
    ("way", "how"),
    [
        ("in_memory", signal.SIGINT),
        ("multi_processing", signal.SIGINT),
        ("multi_processing", signal.SIGKILL),
    ],
)
def test_when_the_driver_ends_its_workers_end_and_leave_nothing(
    driver: Driver, way: str, how: signal.Signals, straight_long: dict[str, bytes]
) -> None:
    process = driver.start_and_wait(WAYS[way])
    assert len(temporary(driver.root)) >= 1, "the worker is writing a shard"
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.send_signal(how)
    process.wait(PATIENCE)
    assert all(wait_for(lambda worker=worker: ended(worker)) for worker in driver.workers)
    assert temporary(driver.root) == []
    assert not list(driver.root.glob("transcripts/*/part-*"))
    list(long_job(driver.root).run(Inline()))
    assert files(driver.root) == straight_long


@slow
def test_a_row_at_which_a_worker_process_hangs(tmp_path: Path) -> None:
    spec = replace(stage(Double, waits=[key(7)], folder=str(tmp_path)), hang_seconds=2.0, hang_factor=0.001)
    with BeamRunner(BeamOptions(**PROCESSES)) as runner:
        events = list(job(tmp_path / "root", spec, allowed=0.2).run(runner))
    (failure,) = [event for event in events if isinstance(event, Failed)]
    assert failure.reason.startswith("its worker hung: a batch took longer") and not failure.final
    manifests = list(Dataset(str(tmp_path / "root")).manifests("transcripts"))
    assert [manifest.reasons for manifest in manifests] == [{}, {"hung": 1}, {}]
    assert temporary(tmp_path / "root") == []


@slow
def test_a_row_that_kills_the_process_that_the_driver_works_in_is_refused_by_the_next_run(driver: Driver) -> None:
    poison = {key(7): 1_000}
    assert driver.start("job", {}, kills=poison).wait(PATIENCE) == -signal.SIGKILL
    assert driver.start("job", {}, kills=poison).wait(PATIENCE) == 0
    manifests = list(Dataset(str(driver.root)).manifests("transcripts"))
    assert [manifest.reasons for manifest in manifests] == [{}, {"crashed": 1}, {}]
    assert sum(manifest.output.rows for manifest in manifests) == 11
    assert temporary(driver.root) == [] and not list(driver.root.rglob("*.attempt.json"))


def drive(work: str, root: str, faults: str, options: str) -> None:
    """A driver in a process of its own, for tests that stop it."""
    given = Faults.model_validate_json(faults).model_dump(mode="json")
    jobs = {
        "job": lambda: job(Path(root), stage(Double, **given), allowed=1.0),
        "long_job": lambda: long_job(Path(root), **given),
    }
    with BeamRunner(BeamOptions(**json.loads(options))) as runner:
        for _ in jobs[work]().run(runner):
            pass


if __name__ == "__main__":
    drive(*sys.argv[1:])
