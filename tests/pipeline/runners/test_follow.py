"""An engine stood in for by a function that runs shards, leaves them, breaks off, or never ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from echo_targets.pipeline.attempt import attempt
from echo_targets.pipeline.runners.base import ATTEMPTS, Chain, Done, Event, Events, Failed, Worked
from echo_targets.pipeline.runners.follow import WorkerDied, follow
from echo_targets.pipeline.shard import ShardTask, run_shard
from echo_targets.schemas.dataset.layout import Dataset, LayoutError
from echo_targets.schemas.errors import UserError
from tests.pipeline.stand_ins import Double, Inline, files, job, number_of, stage
from tests.schemas.samples import key

PATIENCE = 30.0
LEFT: list[AbstractContextManager[object]] = []


def chains_of(root: Path, **faults: Any) -> list[Chain]:
    """The chains of a job of three shards and two stages: `listen` and `double`."""
    chains: list[Chain] = []

    class Noting(Inline):
        def map(self, given: Sequence[Chain], _: object) -> Events:
            chains.extend(given)
            raise KeyboardInterrupt
            yield

    with pytest.raises(KeyboardInterrupt):
        list(job(root, stage(Double, **faults)).run(Noting()))
    assert [len(chain) for chain in chains] == [2, 2, 2]
    return chains


def work(task: ShardTask) -> bool:
    """Whether it succeeds."""
    try:
        run_shard(task)
    except Exception:
        return False
    return True


def work_through(chains: list[Chain]) -> None:
    """What an engine does: an error ends a chain, and nothing else."""
    for chain in chains:
        all(work(task) for task in chain)


def die_at(task: ShardTask) -> None:
    """Leaves what a worker leaves that is killed in the midst of a task."""
    left = attempt(Dataset(task.root), task.recipe, task.shard)
    left.__enter__()
    LEFT.append(left)  # one that nobody holds is closed, in order


def nothing() -> None:
    pass


def told(events: Sequence[Event]) -> list[tuple[str, str, int]]:
    return [(type(event).__name__, event.stage, number_of(event.shard)) for event in events]


def failures(events: Sequence[Event]) -> list[tuple[str, int, str, bool]]:
    return [
        (event.stage, number_of(event.shard), event.reason, event.final)
        for event in events
        if isinstance(event, Failed)
    ]


def manifest_of(task: ShardTask) -> Path:
    folder = Path(task.root, task.recipe.table, task.recipe.fingerprint)
    return folder / f"{task.shard}.json"


def test_each_task_is_told_once_as_it_is_committed_and_those_of_before_without_work(tmp_path: Path) -> None:
    chains = chains_of(tmp_path)
    run_shard(chains[0][0])
    events = list(follow(chains, work_through, nothing))
    assert told(events)[0] == ("Done", "listen", 0)
    assert sorted(told(events)[1:]) == sorted(
        (kind, name, shard)
        for kind in ("Worked", "Done")
        for name, shard in [("double", 0), ("listen", 1), ("double", 1), ("listen", 2), ("double", 2)]
    )
    for event in events:
        if isinstance(event, Worked):
            (done,) = (e for e in events if isinstance(e, Done) and (e.stage, e.shard) == (event.stage, event.shard))
            assert event.samples == done.manifest.samples > 0
    for shard in range(3):
        assert [name for kind, name, of in told(events) if (kind, of) == ("Done", shard)] == ["listen", "double"]


def test_nothing_is_launched_where_everything_is_done(tmp_path: Path) -> None:
    chains = chains_of(tmp_path)
    work_through(chains)
    before = files(tmp_path)

    def launch(_: list[Chain]) -> None:
        raise AssertionError

    assert [type(event) for event in follow([*chains, []], launch, nothing)] == [Done] * 6
    assert files(tmp_path) == before


def test_events_come_while_the_engine_is_at_work(tmp_path: Path) -> None:
    told_of_it = threading.Event()

    def launch(chains: list[Chain]) -> None:
        run_shard(chains[2][0])
        assert told_of_it.wait(PATIENCE), "nobody heard of the first commit"
        work_through(chains)

    for event in follow(chains_of(tmp_path), launch, nothing):
        assert not isinstance(event, Failed)
        if isinstance(event, Done):
            assert told_of_it.is_set() or (event.stage, number_of(event.shard)) == ("listen", 2)
            told_of_it.set()


def test_an_engine_is_given_what_is_left_of_each_chain(tmp_path: Path) -> None:
    chains = chains_of(tmp_path)
    run_shard(chains[0][0])
    work_through(chains[1:2])
    given: list[list[tuple[str, int]]] = []

    def launch(undone: list[Chain]) -> None:
        given.extend([(task.recipe.stage, number_of(task.shard)) for task in chain] for chain in undone)
        work_through(undone)

    list(follow(chains, launch, nothing))
    assert given == [[("double", 0)], [("listen", 2), ("double", 2)]]


def test_one_death_that_ends_a_pass_costs_the_other_tasks_nothing(tmp_path: Path) -> None:
    passes: list[int] = []

    def launch(chains: list[Chain]) -> None:
        passes.append(len(chains))
        if len(passes) < 2 * ATTEMPTS:  # each pass begins one task and is given up
            die_at(chains[len(passes) % 2][0])
            raise WorkerDied("crashed (signal SIGKILL)")
        work_through(chains)

    events = list(follow(chains_of(tmp_path), launch, nothing, attempts=2 * ATTEMPTS))
    died = "its worker crashed (signal SIGKILL)"
    assert failures(events) == [("listen", number % 2, died, False) for number in range(1, 2 * ATTEMPTS)]
    assert passes == [3] * 2 * ATTEMPTS
    assert sum(isinstance(event, Done) for event in events) == 6


def test_a_task_that_keeps_dying_fails_for_good_and_the_others_are_done(tmp_path: Path) -> None:
    def launch(chains: list[Chain]) -> None:
        for chain in chains:
            work_through([chain[:-1] if chain[0].position == 1 else chain])
        (die,) = [chain[-1] for chain in chains if chain[0].position == 1]
        die_at(die)

    events = list(follow(chains_of(tmp_path), launch, nothing))
    assert failures(events) == [
        ("double", 1, "its worker crashed or hung", attempts == 2) for attempts in range(ATTEMPTS)
    ]
    assert sum(isinstance(event, Done) for event in events) == 5


def test_the_note_says_why_and_whether_to_try_again(tmp_path: Path) -> None:
    chains = chains_of(tmp_path, unreachable=[key(0)], drops=[key(7)])
    events = list(follow(chains, work_through, nothing))
    again = [(shard, final) for stage, shard, _, final in failures(events) if stage == "double"]
    assert sorted(again) == [(0, False), (0, False), (0, True), (1, True)]
    reasons = {shard: reason for _, shard, reason, _ in failures(events)}
    assert reasons[0].startswith(f"ConnectionResetError: lost the connection at {key(0)}")
    assert reasons[1].startswith("CommitError: ")


def test_a_note_of_an_earlier_run_is_not_an_attempt_of_this_one(tmp_path: Path) -> None:
    chains = chains_of(tmp_path)
    die_at(chains[2][0])
    passes: list[int] = []

    def launch(undone: list[Chain]) -> None:
        passes.append(len(undone))
        work_through(undone[:1])

    events = list(follow(chains, launch, nothing))
    assert failures(events) == []
    assert passes == [3, 2, 1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("no such host"), "RuntimeError: no such host"), (None, "the engine ended before starting it")],
)
def test_a_pass_of_which_nothing_comes_counts_for_every_task(
    tmp_path: Path, error: Exception | None, reason: str
) -> None:
    def launch(_: list[Chain]) -> None:
        if error:
            raise error

    events = list(follow(chains_of(tmp_path), launch, nothing))
    assert failures(events) == [
        ("listen", shard, reason, tries + 1 == ATTEMPTS) for tries in range(ATTEMPTS) for shard in range(3)
    ]


def test_what_a_person_can_mend_is_raised_at_once(tmp_path: Path) -> None:
    passes: list[int] = []

    def launch(chains: list[Chain]) -> None:
        passes.append(len(chains))
        raise UserError("log in first")

    with pytest.raises(UserError, match="log in first"):
        list(follow(chains_of(tmp_path), launch, nothing))
    assert passes == [3]


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    chains = chains_of(tmp_path)
    work_through(chains)
    manifest_of(chains[1][0]).write_bytes(b'{"shard": ')
    with pytest.raises(LayoutError, match=chains[1][0].shard):
        list(follow(chains, work_through, nothing))


def test_storage_may_be_out_of_reach_for_a_while(tmp_path: Path) -> None:
    """A folder that is for a moment a file: listing it is an OSError."""
    chains = chains_of(tmp_path)
    folder = manifest_of(chains[0][0]).parent
    aside = folder.with_name("aside")
    gone, back = threading.Event(), threading.Event()

    def launch(undone: list[Chain]) -> None:
        work_through(undone[:2])
        folder.rename(aside)
        folder.touch()
        gone.set()
        assert not back.wait(4.0), "longer than one look has patience for"
        folder.unlink()
        aside.rename(folder)
        work_through(undone)

    events = list(follow(chains, launch, nothing, poll_seconds=0.01))
    assert gone.is_set() and failures(events) == []
    assert sum(isinstance(event, Done) for event in events) == 6


def interrupted(events: Iterator[Event]) -> None:
    with pytest.raises(KeyboardInterrupt):
        for _ in events:
            raise KeyboardInterrupt


def closed(events: Any) -> None:
    next(events)
    events.close()


@pytest.mark.parametrize("end", [closed, interrupted])
def test_an_iterator_that_is_left_stops_the_engine_and_waits_for_it(tmp_path: Path, end: Callable[[Any], None]) -> None:
    stopped, ended = threading.Event(), threading.Event()

    def launch(chains: list[Chain]) -> None:
        run_shard(chains[0][0])
        assert stopped.wait(PATIENCE)
        ended.set()

    chains = chains_of(tmp_path)
    run_shard(chains[1][0])
    events = follow(chains, launch, stopped.set)
    next(events)
    end(events)
    del events
    assert stopped.is_set() and ended.wait(PATIENCE)
