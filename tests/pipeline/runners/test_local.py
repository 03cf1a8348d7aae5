"""Real processes: killed, stopped, orphaned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from echo_targets.jobs.commands.run import job_of
from echo_targets.jobs.config import JobConfig
from echo_targets.pipeline.job import Job, JobFailed, StageReport
from echo_targets.pipeline.runners.base import Chain, Done, Events, Failed, Progress, Worked
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.pipeline.shard import ShardTask, run_shard
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset, Manifest
from tests.pipeline.stand_ins import Double, Faults, Follow, Inline, files, job, long_job, number_of, stage, temporary
from tests.schemas.samples import key

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 180.0


def run(work: Job, workers: int = 2, attempts: int = 3) -> list[Any]:
    with LocalRunner(workers, attempts) as runner:
        return list(work.run(runner))


def failures(events: Sequence[object]) -> list[tuple[int, bool]]:
    return [(number_of(event.shard), event.final) for event in events if isinstance(event, Failed)]


def wait_for(condition: Callable[[], Any]) -> Any:
    """The condition's value as soon as it is true; gives up after a while, so that a test fails and does not hang."""
    end = time.monotonic() + PATIENCE
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the job when nothing happens to it and no process is started."""
    root = tmp_path_factory.mktemp("straight")
    list(job(root, stage(Double)).run(Inline()))
    return files(root)


@pytest.fixture(scope="module")
def straight_long(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The same of the long job."""
    root = tmp_path_factory.mktemp("straight_long")
    list(long_job(root).run(Inline()))
    return files(root)


# -- promise 2: the workers do not show --------------------------------------------------------------------------------


def test_one_worker_and_two_and_none_give_the_same_bytes(tmp_path: Path, straight: dict[str, bytes]) -> None:
    for workers in (1, 2):
        events = run(job(tmp_path / str(workers), stage(Double)), workers)
        assert failures(events) == []
        assert sorted(number_of(event.shard) for event in events if isinstance(event, Done)) == [0, 0, 1, 1, 2, 2]
        assert files(tmp_path / str(workers)) == straight


def test_real_speech_is_ingested_to_the_same_bytes(tmp_path: Path, speech: list[dict[str, Any]]) -> None:
    manifest = tmp_path / "calls.jsonl"
    lines = [f'{{"id": "{row["id"]}", "audio": "{row["audio"]}", "text": "{row["text"]}"}}' for row in speech[:8:2]]
    manifest.write_text("\n".join([*lines, "{", '{"id": "gone", "audio": "gone.flac"}']))
    made = {}
    for workers in (1, 2):
        root = tmp_path / str(workers)
        source = {"kind": "manifest", "corpus": "calls", "manifest": str(manifest)}
        settings = {"root": str(root), "shard_hours": 0.005, "max_reject_fraction": 1.0, "stages": {}}
        config = JobConfig.model_validate(settings | {"stages": {"ingest": {"sources": [source]}}})
        assert failures(run(job_of(config), workers)) == []
        assert list(check_dataset(str(root))) == []
        made[workers] = files(root)
    assert made[1] == made[2]
    assert len([path for path in made[1] if path.startswith("utterances/") and path.endswith(".parquet")]) > 1
    assert any(path.startswith("rejects/ingest/") for path in made[1])


# -- promise 3: killed at any moment -----------------------------------------------------------------------------------


def test_a_worker_that_is_killed_in_the_midst_of_a_shard_is_replaced_and_leaves_no_trace(
    tmp_path: Path, straight_long: dict[str, bytes]
) -> None:
    notes, root = tmp_path / "notes", tmp_path / "root"
    notes.mkdir()
    events, left = list[object](), list[list[str]]()
    with LocalRunner(1) as runner:
        for event in long_job(root, kills={key(999): 2}, folder=str(notes)).run(runner):
            events.append(event)
            left.append(temporary(root))
    assert failures(events) == [(0, False)], "the second death was that of a process set apart"
    assert all("SIGKILL" in event.reason for event in events if isinstance(event, Failed))
    assert max(map(len, left)) >= 1 and len(list(notes.iterdir())) == 2
    assert files(root) == straight_long


def test_rows_that_kill_their_process_are_refused_and_the_shard_completes(tmp_path: Path) -> None:
    notes, root = tmp_path / "notes", tmp_path / "root"
    notes.mkdir()
    work = job(root, stage(Double, kills={key(7): 1000, key(0): 1000}, folder=str(notes)), stage(Follow), allowed=0.2)
    events = run(work)
    assert sorted(failures(events)) == [(0, False), (1, False)], "each shard with such a row dies once"
    assert list(check_dataset(str(root))) == []
    (report,) = [event for event in events if isinstance(event, StageReport) and event.recipe.stage == "double"]
    assert (report.rows_in, report.rows, report.reasons) == (12, 10, {"crashed": 2})
    files_of_rejects = [one.rejects.path for one in Dataset(str(root)).manifests("transcripts") if one.rejects]
    refused = [row for path in files_of_rejects for row in Dataset(str(root)).open(path).read().to_pylist()]
    assert [row[KEY] for row in refused] == [key(0), key(7)]
    assert all("signal SIGKILL" in row["message"] for row in refused)
    elsewhere = tmp_path / "elsewhere"
    run(
        job(
            elsewhere, stage(Double, kills={key(7): 1000, key(0): 1000}, folder=str(notes)), stage(Follow), allowed=0.2
        ),
        1,
    )
    assert files(elsewhere) == files(root)


def test_stages_overlap_and_a_worker_keeps_its_model(tmp_path: Path) -> None:
    events = run(job(tmp_path, stage(Double), stage(Follow), rows=40, shards=8), workers=2)
    done = [event.stage for event in events if isinstance(event, Done)]
    assert sorted(done) == sorted(["listen", "double", "follow"] * 8)
    changes = sum(1 for one, other in pairwise(done) if one != other)
    assert changes <= 10, "stages follow each other but for their borders"


@pytest.mark.parametrize(("fault", "attempts"), [("unreachable", [False, False, True]), ("drops", [True])])
def test_only_what_a_second_try_can_help_is_tried_again(tmp_path: Path, fault: str, attempts: list[bool]) -> None:
    events: list[object] = []
    with LocalRunner(1) as runner, pytest.raises(JobFailed):
        for event in job(tmp_path, stage(Double, **{fault: [key(0)]})).run(runner):
            events.append(event)
    assert failures(events) == [(0, final) for final in attempts]
    assert temporary(tmp_path) == []


def first_tasks(root: Path) -> list[ShardTask]:
    """The tasks of the first stage of the job."""
    tasks: list[ShardTask] = []

    class Noting(Inline):
        def map(self, chains: Sequence[Chain], _: object) -> Events:
            tasks.extend(chain[0] for chain in chains)
            raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        list(job(root).run(Noting()))
    return tasks


def test_a_worker_that_dies_between_stages_is_replaced(tmp_path: Path) -> None:
    tasks = first_tasks(tmp_path)
    with LocalRunner(1) as runner:
        assert any(isinstance(event, Done) for event in runner.map([tasks[:1]], run_shard))
        (worker,) = runner._pool
        worker.process.kill()
        worker.process.join()
        events = list(runner.map([[task] for task in tasks], run_shard))
    assert sorted(number_of(event.shard) for event in events if isinstance(event, Done)) == [0, 1, 2]
    assert not any(event.final for event in events if isinstance(event, Failed))


def dies_in_the_midst_of_a_word(task: ShardTask, progress: Progress) -> Manifest:
    """Sends the head of a message and a part of it, and is killed."""
    (pipe,) = [cell.cell_contents for cell in progress.__closure__ or () if hasattr(cell.cell_contents, "fileno")]
    os.write(pipe.fileno(), b"\x00\x00\x01\x00abc")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_worker_that_dies_while_it_reports(tmp_path: Path) -> None:
    with LocalRunner(1, attempts=2) as runner:
        events = list(runner.map([first_tasks(tmp_path)[:1]], dies_in_the_midst_of_a_word))
    assert failures(events) == [(0, False), (0, True)]


# -- no orphans, nothing half-written ----------------------------------------------------------------------------------


class Driver:
    """A driver in a process group of its own, with a worker that waits in the midst of the long job's shard."""

    def __init__(self, tmp_path: Path) -> None:
        self.root, self.notes = tmp_path / "root", tmp_path / "notes"
        self.notes.mkdir()
        faults = Faults(waits=[key(999)], folder=str(self.notes)).model_dump_json()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.pipeline.stand_ins", str(self.root), faults],
            cwd=REPOSITORY,
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
        (note,) = wait_for(lambda: list(self.notes.iterdir()))
        self.worker = int(note.suffix[1:])


def ended(process: int) -> bool:
    """Whether a process is gone, or nothing of it but its exit code is left."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(tmp_path)
    yield driver
    driver.process.kill()
    for note in driver.notes.iterdir():
        with suppress(ProcessLookupError):
            os.kill(int(note.suffix[1:]), signal.SIGKILL)
    driver.process.communicate()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_when_the_driver_ends_its_workers_end_and_leave_nothing(
    driver: Driver, how: signal.Signals, straight_long: dict[str, bytes]
) -> None:
    assert len(temporary(driver.root)) == 1, "the worker is writing a shard"
    if how is signal.SIGINT:
        os.killpg(driver.process.pid, how)  # as a terminal does
    else:
        driver.process.send_signal(how)
    driver.process.wait(PATIENCE)
    assert wait_for(lambda: ended(driver.worker))
    assert temporary(driver.root) == []
    assert not list(driver.root.glob("transcripts/*/part-*"))
    list(long_job(driver.root).run(Inline()))
    assert files(driver.root) == straight_long


def test_a_worker_that_is_asked_to_end_leaves_nothing_and_is_replaced(driver: Driver) -> None:
    os.kill(driver.worker, signal.SIGTERM)
    assert wait_for(lambda: len(list(driver.notes.iterdir())) == 2), "another worker has taken the shard"
    assert ended(driver.worker) and len(temporary(driver.root)) == 1, "of the other"


def test_leaving_the_work_ends_those_that_are_at_it(tmp_path: Path) -> None:
    """Before the lease is given back: who has the root next finds nobody at work on it."""
    notes, root = tmp_path / "notes", tmp_path / "root"
    notes.mkdir()
    with LocalRunner(1) as runner:
        work = long_job(root, waits=[key(999)], folder=str(notes)).run(runner)
        for event in work:
            if isinstance(event, Worked) and event.stage == "double":
                break
        assert wait_for(lambda: list(notes.iterdir()))
        work.close()
        assert runner._pool == [] and temporary(root) == [] and list((root / "lease").iterdir()) == []


def test_leaving_the_runner_ends_its_workers(tmp_path: Path) -> None:
    with LocalRunner(2) as runner:
        events = runner.map([[task] for task in first_tasks(tmp_path)], run_shard)
        assert isinstance(next(events), Worked | Done)
        processes = [worker.process for worker in runner._pool]
    assert processes and not any(process.is_alive() for process in processes)
    assert temporary(tmp_path) == []
