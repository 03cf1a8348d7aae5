"""N processes on this machine, one model each, the processor's threads divided among them."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType

from pipeline.runners.base import Done, Event, Failed, Runner, RunShard, Worked
from pipeline.shard import ShardTask, is_device_error
from pipeline.threads import thread_limits

GRACE_SECONDS = 5.0


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    task: ShardTask | None = None


@dataclass
class LocalRunner(Runner):
    """Runs shards in `workers` processes; a shard whose device or storage fails, or whose worker dies, is tried again.

    Attributes:
        workers: number of processes.
        attempts: how often a shard is tried in all.
    """

    workers: int
    attempts: int = 3
    _pool: list[_Worker] = field(default_factory=list, repr=False)

    def map(self, tasks: Sequence[ShardTask], run_shard: RunShard) -> Iterator[Event]:
        waiting = deque(tasks)
        tried = dict.fromkeys((task.shard for task in tasks), 0)
        while waiting or any(worker.task for worker in self._pool):
            for worker in self._ready(len(waiting)):
                worker.task = waiting.popleft()
                tried[worker.task.shard] += 1
                with suppress(ConnectionError):  # one that has died since is heard of as one that dies at work
                    worker.pipe.send((worker.task, run_shard))
            for worker in self._heard():
                task = worker.task
                assert task is not None
                event = self._receive(worker, task.shard)
                if isinstance(event, Failed):
                    final = event.final or tried[task.shard] >= self.attempts
                    if not final:
                        waiting.append(task)
                    event = Failed(task.shard, event.reason, final)
                yield event

    def _ready(self, wanted: int) -> list[_Worker]:
        """Idle workers, as many as there is work for."""
        idle = [worker for worker in self._pool if worker.task is None]
        while len(idle) < wanted and len(self._pool) < self.workers:
            idle.append(self._start())
        return idle[:wanted]

    def _start(self) -> _Worker:
        context = get_context("spawn")
        here, there = context.Pipe()
        limits = thread_limits(max(1, (os.cpu_count() or 1) // self.workers))
        before = {name: os.environ.get(name) for name in limits}
        os.environ.update(limits)  # read when the worker first imports torch
        try:
            process = context.Process(target=_work, args=(there, os.getpid()), daemon=True)
            process.start()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
        there.close()
        worker = _Worker(process, here)
        self._pool.append(worker)
        return worker

    def _heard(self) -> list[_Worker]:
        busy = {worker.pipe: worker for worker in self._pool if worker.task}
        return [busy[pipe] for pipe in wait(list(busy)) if isinstance(pipe, Connection)]

    def _receive(self, worker: _Worker, shard: int) -> Event:
        try:
            event: Event = worker.pipe.recv()
        except (EOFError, OSError):  # OSError: it died in the midst of a message
            worker.process.join()
            self._pool.remove(worker)
            return Failed(shard, f"its worker died ({_ending(worker.process.exitcode)})", False)
        if not isinstance(event, Worked):
            worker.task = None
        return event

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._pool:
            worker.process.terminate()
        for worker in self._pool:
            worker.process.join(GRACE_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
        self._pool.clear()


def _ending(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}" + (", perhaps out of memory" if -code == signal.SIGKILL else "")


def _work(pipe: Connection, driver: int) -> None:
    """A worker's life: one task after the other until the driver hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # runs the clean-up of a shard under way
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    while True:
        try:
            task, run_shard = pipe.recv()
        except EOFError:
            return

        def progress(samples: int, shard: int = task.shard) -> None:
            pipe.send(Worked(shard, samples))

        try:
            event: Event = Done(task.shard, run_shard(task, progress))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{os.path.basename(where.filename)}:{where.lineno}"
            event = Failed(task.shard, f"{type(error).__name__}: {error} ({place})", final=not is_device_error(error))
        pipe.send(event)


def _end_with(driver: int) -> None:
    """Ends the worker when its driver is gone, so that a killed job does not go on in the background."""
    while os.getppid() == driver:
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)
