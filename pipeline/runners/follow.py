"""Following an engine, which works through chains by itself: what has come of them is read from storage.

An engine is launched for a pass over the chains that have something undone; meanwhile new manifests are looked for.
When the pass is over, the notes of its attempts say what failed, and another pass is launched for what it can help.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from echo_targets.pipeline.attempt import Attempt, last_attempt
from echo_targets.pipeline.orphans import GRACE_SECONDS
from echo_targets.pipeline.runners.base import ATTEMPTS, Chain, Done, Event, Failed, Worked, WorkerDied
from echo_targets.pipeline.shard import ShardTask
from echo_targets.schemas.dataset.layout import Dataset, Manifest, shard_name
from echo_targets.schemas.errors import UserError

LOCAL_POLL_SECONDS = 0.2
REMOTE_POLL_SECONDS = 3.0

NOTE = ".attempt.json"

Folder = tuple[str, str, str]
"""Root, table and fingerprint."""
Place = tuple[Folder, str]
"""A folder, and a shard's name in it."""

T = TypeVar("T")


def follow(
    chains: Sequence[Chain],
    launch: Callable[[list[Chain]], None],
    stop: Callable[[], None],
    attempts: int = ATTEMPTS,
    poll_seconds: float | None = None,
) -> Iterator[Event]:
    """Runs chains on an engine, as `Runner.map` does.

    A task was tried in a pass if it left a note: an engine that gives up a whole pass because one worker died costs
    the tasks that it had not begun nothing. A pass in which nothing came of any task counts for all of them.

    Args:
        launch: works through what is undone of each chain; returns, or raises, when the engine has done what it can;
            `WorkerDied` where it knows how a worker ended. Called in a thread of its own, once a pass.
        stop: makes `launch` end soon. Called from another thread when the iterator is closed or interrupted while a
            pass is under way; `launch` may have hardly begun.
        attempts: how often a task is tried in all.
        poll_seconds: pause between two looks at storage; by default short on a local folder.

    Raises:
        UserError: `launch` raised it, or a manifest is damaged.
        OSError: storage can't be read, time after time.
    """
    storage = _Storage()
    followed = [_Followed(chain) for chain in chains]
    for task, manifest in storage.committed(followed):
        yield Done(task.info.stage, task.shard, manifest)
    while undone := [one for one in followed if not one.over]:
        came, before = _positions(undone), storage.notes(undone)
        engine = Launched(partial(launch, [one.rest for one in undone]))
        try:
            while engine.runs(poll_seconds or storage.poll_seconds):
                with suppress(OSError):  # out of reach for now; the look after the pass finds what this one misses
                    yield from _news(storage, undone)
        finally:
            engine.end(stop)
        yield from _news(storage, undone)
        if isinstance(engine.error, UserError):
            raise engine.error
        nothing_came, after = came == _positions(undone), storage.notes(undone)
        undone = [one for one in undone if not one.over]
        tried = [one for one in undone if one.place in after and after[one.place] != before.get(one.place)]
        for one in tried or (undone if nothing_came else []):
            note = after[one.place] if tried else None
            one.tries += 1
            one.failed = one.tries >= attempts or (note is not None and note.final)
            yield Failed(one.task.info.stage, one.task.shard, _reason(note, engine.error), one.failed)


class _Followed:
    """A chain: how far it has come, and how often the task that it has come to was tried."""

    def __init__(self, chain: Chain) -> None:
        self.rest = list(chain)
        self.tries = 0
        self.failed = False

    @property
    def over(self) -> bool:
        return self.failed or not self.rest

    @property
    def task(self) -> ShardTask:
        return self.rest[0]

    @property
    def place(self) -> Place:
        return _place(self.task)

    def advance(self) -> None:
        self.rest = self.rest[1:]
        self.tries = 0


def _positions(followed: Sequence[_Followed]) -> list[int]:
    return [len(one.rest) for one in followed]


def _news(storage: _Storage, followed: Sequence[_Followed]) -> Iterator[Event]:
    for task, manifest in storage.committed(followed):
        yield Worked(task.info.stage, task.shard, manifest.samples)
        yield Done(task.info.stage, task.shard, manifest)


def _reason(note: Attempt | None, error: BaseException | None) -> str:
    if note is not None and note.reason is not None:
        return note.reason
    if isinstance(error, WorkerDied):
        return f"its worker died ({error})"
    if note is not None:
        return "its worker died"
    if error is not None:
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return "the engine ended without having begun it"


class Launched:
    """A call that an engine is busy with, in a thread, so that Ctrl-C finds the main one waiting."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._over = threading.Event()  # a thread whose join is interrupted counts as ended
        threading.Thread(target=self._run, args=(call,), daemon=True).start()

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            self.error = error
        finally:
            self._over.set()

    def runs(self, seconds: float) -> bool:
        """Whether it is still under way after so many seconds; returns at once when it ends."""
        return not self._over.wait(seconds)

    def end(self, stop: Callable[[], None]) -> None:
        """Ends it if it is under way."""
        if not self._over.is_set():
            stop()
            self._over.wait(GRACE_SECONDS)


class _Storage:
    """What workers leave in the folders of the tables."""

    def __init__(self) -> None:
        self._datasets: dict[str, Dataset] = {}

    def _dataset(self, root: str) -> Dataset:
        if root not in self._datasets:
            self._datasets[root] = Dataset(root)
        return self._datasets[root]

    @property
    def poll_seconds(self) -> float:
        remote = any(dataset.storage.remote for dataset in self._datasets.values())
        return REMOTE_POLL_SECONDS if remote else LOCAL_POLL_SECONDS

    def committed(self, followed: Sequence[_Followed]) -> Iterator[tuple[ShardTask, Manifest]]:
        """Tasks that are committed and that chains have not come to yet, in each chain's order; the chains advance.

        One listing for each folder that tasks are waited for in, and only new manifests are read.
        """
        found = True
        while found:
            found = False
            waiting = [one for one in followed if not one.over]
            names = {folder: self._files(*folder) for folder in {_folder(one.task) for one in waiting}}
            for one in waiting:
                folder, name = one.place
                if f"{name}.json" in names[folder] and (manifest := self._manifest(one.task)):
                    task, found = one.task, True
                    one.advance()
                    yield task, manifest

    def notes(self, followed: Sequence[_Followed]) -> dict[Place, Attempt]:
        """The notes of attempts at what is left of the chains."""
        names = {folder: self._files(*folder) for folder in {_folder(task) for one in followed for task in one.rest}}
        found = {}
        for task in (task for one in followed for task in one.rest):
            place = _place(task)
            if f"{place[1]}{NOTE}" in names[place[0]] and (note := self._note(task)):
                found[place] = note
        return found

    def _note(self, task: ShardTask) -> Attempt | None:
        return _patiently(lambda: last_attempt(self._dataset(task.root), task.info, task.shard))

    def _manifest(self, task: ShardTask) -> Manifest | None:
        dataset, info = self._dataset(task.root), task.info
        return _patiently(lambda: dataset.manifest(info.table, info.fingerprint, task.shard, info.shards))

    def _files(self, root: str, table: str, fingerprint: str) -> set[str]:
        storage = self._dataset(root).storage
        return set(_patiently(lambda: storage.list(f"{table}/{fingerprint}")))


def _place(task: ShardTask) -> Place:
    return _folder(task), shard_name(task.shard, task.info.shards)


def _folder(task: ShardTask) -> Folder:
    return task.root, task.info.table, task.info.fingerprint


def _patiently(read: Callable[[], T]) -> T:
    """What `read` gives; asked again for a moment while storage is out of reach."""
    for pause in (0.25, 0.5, 1.0):
        with suppress(OSError):
            return read()
        time.sleep(pause)
    return read()
