"""Two drivers on one root: one works, the other waits or refuses; a dead one is not waited for for ever."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from echo_targets.pipeline import lease as lease_module
from echo_targets.pipeline.job import Job, JobEvent, Waiting
from echo_targets.pipeline.lease import Busy, Driver, Lease, LeaseLost
from echo_targets.pipeline.runners.base import Done
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from tests.pipeline.stand_ins import Double, Inline, files, job, stage

REPOSITORY = Path(__file__).parents[2]
ELSEWHERE = {"machine": "another", "host": "far", "pid": 1, "birth": "1"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "BEAT", 0.05)
    monkeypatch.setattr(lease_module, "EXPIRES", 0.5)


def held_by(root: Path, driver: Driver, number: int = 1) -> Path:
    path = root / "lease" / f"{number:06d}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(driver)))
    return path


def leases(root: Path) -> list[str]:
    return [name for name in files(root) if name.startswith("lease/")]


def taken(root: Path, when_busy: lease_module.WhenBusy = "refuse") -> Lease:
    lease = Lease(Dataset(str(root)))
    assert list(lease.take(when_busy)) == []
    return lease


def test_a_lease_is_there_for_as_long_as_it_is_held(tmp_path: Path) -> None:
    with taken(tmp_path) as lease:
        assert leases(tmp_path) == ["lease/000001.json"]
        lease.check()
    assert leases(tmp_path) == []


def test_a_living_driver_of_this_machine_is_refused_at_once(tmp_path: Path) -> None:
    with taken(tmp_path), pytest.raises(Busy, match=rf"{tmp_path}: another driver .*process \d+ on .*when_busy=wait"):
        taken(tmp_path)
    taken(tmp_path)


def test_a_job_refuses_and_waits_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "EXPIRES", 60)  # a busy machine may not let the lease be renewed in half a second
    list(job(tmp_path / "alone", stage(Double)).run(Inline()))
    root = tmp_path / "root"
    first = job(root, stage(Double)).run(Inline())
    assert not isinstance(next(first), Waiting)
    with pytest.raises(Busy):
        list(job(root, stage(Double)).run(Inline()))
    second = job(root, stage(Double))
    second = Job(second.root, second.plan, second.stages, second.max_reject_fraction, when_busy="wait")
    waiting = second.run(Inline())
    assert isinstance(next(waiting), Waiting)
    assert sum(isinstance(event, Done) for event in first) == 6
    events: list[JobEvent] = list(waiting)
    assert not [event for event in events if isinstance(event, Done | Waiting)], "the first has done it all"
    assert files(root) == files(tmp_path / "alone")


def test_the_lease_of_a_process_that_is_gone_is_taken_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "EXPIRES", 1e9)
    script = (
        "import os, sys; from echo_targets.pipeline.lease import Lease\n"
        "from echo_targets.schemas.dataset.layout import Dataset\n"
        "list(Lease(Dataset(sys.argv[1])).take('refuse')); os.kill(os.getpid(), 9)"
    )
    for number in (1, 2):
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=REPOSITORY, check=False)
        assert leases(tmp_path) == [f"lease/{number:06d}.json"]
    with taken(tmp_path):
        assert leases(tmp_path) == ["lease/000003.json"], "the dead ones are gone"


def test_a_dead_lease_of_another_machine_expires(tmp_path: Path) -> None:
    held_by(tmp_path, Driver(**ELSEWHERE), 7)
    with taken(tmp_path) as lease:
        assert leases(tmp_path) == ["lease/000008.json"]
        lease.check()


def test_a_file_that_is_no_lease_expires_too(tmp_path: Path) -> None:
    held_by(tmp_path, Driver(**ELSEWHERE)).write_text("{")
    taken(tmp_path)


@pytest.fixture
def beating(tmp_path: Path) -> Iterator[Path]:
    """A root that a driver on another machine is at work on."""
    driver, stop = Driver(**ELSEWHERE), threading.Event()
    held = held_by(tmp_path, driver)

    def beat() -> None:
        number = 0
        while not stop.wait(0.05):
            number += 1
            held_by(tmp_path / "new", Driver(**asdict(driver) | {"beat": number})).rename(held)

    thread = threading.Thread(target=beat)
    thread.start()
    yield tmp_path
    stop.set()
    thread.join()


def test_a_living_lease_of_another_machine_does_not_expire(beating: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "EXPIRES", 20)
    with pytest.raises(Busy, match="process 1 on far"):
        taken(beating)


def test_of_many_that_find_a_dead_lease_one_gets_it(tmp_path: Path) -> None:
    held_by(tmp_path, Driver(**ELSEWHERE))
    ends: list[str] = []

    def take() -> None:
        lease = Lease(Dataset(str(tmp_path)))
        try:
            list(lease.take("refuse"))
            ends.append("taken")
        except Busy:
            ends.append("busy")

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["busy"] * 7 + ["taken"]


def test_who_has_lost_its_lease_stops(tmp_path: Path) -> None:
    work = job(tmp_path, stage(Double)).run(Inline())
    next(event for event in work if isinstance(event, Done))
    held_by(tmp_path, Driver(**ELSEWHERE), 2)
    with pytest.raises(LeaseLost, match="another driver has taken it"):
        for _ in work:
            threading.Event().wait(0.2)
    assert leases(tmp_path) == ["lease/000002.json"], "the other's is left alone"


def test_what_a_dead_driver_left_half_written_locks_nobody_out(tmp_path: Path) -> None:
    held_by(tmp_path, Driver(**ELSEWHERE))
    (tmp_path / "lease" / "000001.json.tmp-1234").write_text("{")
    (tmp_path / "lease" / "notes.txt").write_text("not a lease")
    with taken(tmp_path) as lease:
        assert leases(tmp_path) == ["lease/000002.json", "lease/notes.txt"]
        lease.check()


def test_a_lease_that_cannot_be_renewed_is_lost_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with taken(tmp_path) as lease:
        lease.check()
        stuck = threading.Event()
        monkeypatch.setattr(lease._storage, "list", lambda folder: stuck.wait(5) and [])
        threading.Event().wait(1.0)
        with pytest.raises(LeaseLost):
            lease.check()
        stuck.set()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("listed", [[], ["000004.json"]], ids=str)
def test_a_storage_that_does_not_list_what_exists_is_an_error(
    listed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists nothing, or files that are gone; and says of every new file that it exists."""
    lease, tried = Lease(Dataset(str(tmp_path))), list[str]()
    monkeypatch.setattr(lease._storage, "list", lambda folder: listed)
    monkeypatch.setattr(lease._storage, "create", lambda path, data: tried.append(path))
    with pytest.raises(UserError, match=r"no driver holds the lease, but .*lease does not list the files that exist"):
        list(lease.take("wait"))
    assert 10 < len(tried) < 150  # a pause after each


def test_a_bucket_that_vanishes_loses_the_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise UserError("there is no such bucket")

    with taken(tmp_path) as lease:
        for name in ("list", "delete"):
            monkeypatch.setattr(lease._storage, name, gone)
        threading.Event().wait(0.7)
        with pytest.raises(LeaseLost):
            lease.check()
