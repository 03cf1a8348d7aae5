"""Track and stop the shards that run in this process."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(SystemExit):
    """Raised in running shards when the job is stopped, so that they delete their unfinished files."""


class Work:
    """The shards that run in this process, each in its own thread.

    Attributes:
        stopping: True if they must stop.
        deaths: how this driver's worker processes ended that crashed or hung.
    """

    def __init__(self) -> None:
        self._threads: set[int] = set()
        self._changed = threading.Condition()
        self.begin()

    def begin(self) -> None:
        """Reset the state for another job."""
        with self._changed:
            self.stopping = False
            self.deaths: list[str] = []
            self._threads.clear()

    @contextmanager
    def shard(self) -> Iterator[None]:
        """Register this thread while it runs a shard; `stop` raises Stopped in it."""
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
        """Raise Stopped in the running shards as soon as they execute Python code."""
        with self._changed:
            if not self.stopping:
                self.stopping = True
                for thread in self._threads:
                    _raise_in(thread, Stopped)

    def wait(self, seconds: float) -> None:
        """Wait until no shard is running, or until the time is up."""
        with self._changed:
            self._changed.wait_for(lambda: not self._threads, seconds)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    """Schedule an exception in another thread; None cancels one that is not raised yet."""
    raised = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


WORK = Work()
