"""The shards under way in this process."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(SystemExit):
    """Raised in the shards under way when the job is stopped; what they have begun is taken away as it passes."""


class Work:
    """The shards under way in this process, each in a thread.

    Attributes:
        stopping: whether they are to stop.
        deaths: how worker processes of this driver ended that should not have.
    """

    def __init__(self) -> None:
        self._threads: set[int] = set()
        self._changed = threading.Condition()
        self.begin()

    def begin(self) -> None:
        """Starts anew, for another job."""
        with self._changed:
            self.stopping = False
            self.deaths: list[str] = []
            self._threads.clear()

    @contextmanager
    def shard(self) -> Iterator[None]:
        """Lasts as long as this thread works on a shard; raises Stopped in it."""
        thread = threading.get_ident()
        with self._changed:
            if self.stopping:
                raise Stopped
            self._threads.add(thread)
        try:
            yield
        finally:
            with self._changed:
                _raise_in(thread, None)
                self._threads.discard(thread)
                self._changed.notify_all()

    def stop(self) -> None:
        """Raises Stopped in the shards under way, as soon as they are in Python code."""
        with self._changed:
            if not self.stopping:
                self.stopping = True
                for thread in self._threads:
                    _raise_in(thread, Stopped)

    def wait(self, seconds: float) -> None:
        """Until no shard is under way, or time is up."""
        with self._changed:
            self._changed.wait_for(lambda: not self._threads, seconds)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Raises an exception in another thread; with None, takes back one that is not raised yet."""
    raised = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


WORK = Work()
