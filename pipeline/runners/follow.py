"""Follow an engine such as Ray or Beam through storage while it runs chains on its own.

The engine is launched for a pass over the chains that have unfinished tasks, and new manifests are polled meanwhile.
After the pass, attempt notes tell which tasks failed, and another pass is launched for those that can be retried.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from echo_targets.pipeline.attempt import NOTE, Attempt, last_attempt
from echo_targets.pipeline.exit_with_parent import GRACE_SECONDS
from echo_targets.pipeline.runners.base import ATTEMPTS, Chain, Done, Event, Failed, Worked, WorkerDied
from echo_targets.pipeline.shard import ShardTask
from echo_targets.schemas.dataset.layout import Dataset, Manifest, shards_among
from echo_targets.schemas.errors import UserError

LOCAL_POLL_SECONDS = 0.2
REMOTE_POLL_SECONDS = 3.0

Folder = tuple[str, str, str]
"""Root, table and recipe."""
Place = tuple[Folder, str]
"""A folder and the id of a shard in it."""

T = TypeVar("T")


def follow(
    chains: Sequence[Chain],
    launch: Callable[[list[Chain]], None],
    stop: Callable[[], None],
    attempts: int = ATTEMPTS,
    poll_seconds: float | None = None,
) -> Iterator[Event]:
    """Run chains on an engine and yield events, as `Runner.map` does.

    A pass counts as an attempt at a task if the task left a note. If an engine gives up a whole pass because one worker
    crashed, tasks that had not started are not charged an attempt. A pass without any progress or notes counts as an
    attempt at all tasks.

    Args:
        chains: the chains to run.
        launch: runs the unfinished tasks of the given chains; returns or raises when the engine has finished, with
            `WorkerDied` if it knows how a worker crashed. Called in its own thread, once per pass.
        stop: makes `launch` return soon. Called from another thread if the iterator is closed or interrupted during a
            pass, possibly when `launch` has only just started.
        attempts: maximum number of attempts at a task.
        poll_seconds: pause between two polls of storage; the default is shorter for local folders.

    Raises:
        UserError: raised by `launch`, or a manifest is invalid.
        OSError: storage can't be read, even after several tries.
    """
    storage = _Storage()
    followed = [_Followed(chain) for chain in chains]
    for task, manifest in storage.committed(followed):
        yield Done(task.recipe.stage, task.shard, manifest)
    while undone := [one for one in followed if not one.over]:
        positions, before = _positions(undone), storage.notes(undone)
        engine = Launched(partial(launch, [one.rest for one in undone]))
        try:
            while engine.runs(poll_seconds or storage.poll_seconds):
                with suppress(OSError):  # unreachable for now; the poll after the pass finds what this one misses
                    yield from _news(storage, undone)
        finally:
            engine.end(stop)
        yield from _news(storage, undone)
        if isinstance(engine.error, UserError):
            raise engine.error
        no_progress, after = positions == _positions(undone), storage.notes(undone)
        undone = [one for one in undone if not one.over]
        tried = [one for one in undone if one.place in after and after[one.place] != before.get(one.place)]
        for one in tried or (undone if no_progress else []):
            note = after[one.place] if tried else None
            one.tries += 1
            one.failed = one.tries >= attempts or (note is not None and note.final)
            yield Failed(one.task.recipe.stage, one.task.shard, _reason(note, engine.error), one.failed)


class _Followed:
    """A chain with its remaining tasks and the number of attempts at the first of them."""

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
        yield Worked(task.recipe.stage, task.shard, manifest.samples)
        yield Done(task.recipe.stage, task.shard, manifest)


def _reason(note: Attempt | None, error: BaseException | None) -> str:
    if note is not None and note.reason is not None:
        return note.reason
    if isinstance(error, WorkerDied):
        return f"its worker {error}"
    if note is not None:
        return "its worker crashed or hung"
    if error is not None:
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return "the engine ended before starting it"


class Launched:
    """A call that runs in a thread, so that the main thread can wait and receive Ctrl-C."""

    def __init__(self, call: Callable[[], None]) -> None:
        self.error: BaseException | None = None
        self._over = threading.Event()  # Thread.join is unreliable: an interrupted join marks the thread as finished
        threading.Thread(target=self._run, args=(call,), daemon=True).start()

    def _run(self, call: Callable[[], None]) -> None:
        try:
            call()
        except BaseException as error:
            self.error = error
        finally:
            self._over.set()

    def runs(self, seconds: float) -> bool:
        """Wait up to `seconds` for the call to end; return True if it is still running."""
        return not self._over.wait(seconds)

    def end(self, stop: Callable[[], None]) -> None:
        """Stop the call if it is still running."""
        if not self._over.is_set():
            stop()
            self._over.wait(GRACE_SECONDS)


class _Storage:
    """Reads the manifests and attempt notes that workers write."""

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
        """Yield newly committed tasks in the order of each chain, and advance the chains.

        Lists each folder with pending tasks once, and reads only new manifests.
        """
        found = True
        while found:
            found = False
            waiting = [one for one in followed if not one.over]
            there = {folder: shards_among(self._files(*folder)) for folder in {_folder(one.task) for one in waiting}}
            for one in waiting:
                folder, name = one.place
                if name in there[folder] and (manifest := self._manifest(one.task)):
                    task, found = one.task, True
                    one.advance()
                    yield task, manifest

    def notes(self, followed: Sequence[_Followed]) -> dict[Place, Attempt]:
        """Return the attempt notes of the chains' remaining tasks."""
        names = {folder: self._files(*folder) for folder in {_folder(task) for one in followed for task in one.rest}}
        found = {}
        for task in (task for one in followed for task in one.rest):
            place = _place(task)
            if f"{place[1]}{NOTE}" in names[place[0]] and (note := self._note(task)):
                found[place] = note
        return found

    def _note(self, task: ShardTask) -> Attempt | None:
        return _with_retries(lambda: last_attempt(self._dataset(task.root), task.recipe, task.shard))

    def _manifest(self, task: ShardTask) -> Manifest | None:
        dataset, recipe = self._dataset(task.root), task.recipe
        return _with_retries(lambda: dataset.manifest(recipe.table, recipe.fingerprint, task.shard))

    def _files(self, root: str, table: str, fingerprint: str) -> set[str]:
        storage = self._dataset(root).storage
        return set(_with_retries(lambda: storage.list(f"{table}/{fingerprint}")))


def _place(task: ShardTask) -> Place:
    return _folder(task), task.shard


def _folder(task: ShardTask) -> Folder:
    return task.root, task.recipe.table, task.recipe.fingerprint


def _with_retries(read: Callable[[], T]) -> T:
    """Return the result of `read`, retrying for about two seconds while storage is unreachable."""
    for pause in (0.25, 0.5, 1.0):
        with suppress(OSError):
            return read()
        time.sleep(pause)
    return read()
