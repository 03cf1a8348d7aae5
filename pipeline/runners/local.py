"""The local runner: N processes on this machine, each with its own model and an equal share of the threads."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType

from echo_targets.pipeline.attempt import error_text
from echo_targets.pipeline.devices import VISIBLE
from echo_targets.pipeline.environment import worker_environment
from echo_targets.pipeline.exit_with_parent import GRACE_SECONDS, exit_with_parent
from echo_targets.pipeline.failures import is_machine_error
from echo_targets.pipeline.hang import watch_for_hangs
from echo_targets.pipeline.isolation import ending
from echo_targets.pipeline.runners.base import (
    ATTEMPTS,
    Chain,
    Done,
    Event,
    Events,
    Failed,
    Runner,
    RunShard,
    Worked,
)
from echo_targets.pipeline.shard import ShardTask
from echo_targets.pipeline.stage import StageSpec


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    number: int
    """Its place among the workers, from 0; a worker that replaces another has the same."""
    chain: deque[ShardTask] | None = None
    """Remaining tasks of its chain, the running task first."""
    spec: StageSpec | None = None
    """Stage whose model it has loaded."""


@dataclass
class LocalRunner(Runner):
    """Runs shards in processes. A shard is retried if its device or storage fails, or its worker crashes or hangs.

    Attributes:
        workers: number of processes.
        attempts: maximum number of attempts at a shard.
        gpus: values of CUDA_VISIBLE_DEVICES that the workers get in turn; if there are none, they inherit it.
    """

    workers: int
    attempts: int = ATTEMPTS
    gpus: Sequence[str] = ()
    _pool: list[_Worker] = field(default_factory=list, repr=False)

    def map(self, chains: Sequence[Chain], run_shard: RunShard) -> Events:
        waiting = [deque(chain) for chain in chains if chain]
        tries: Counter[tuple[str, str]] = Counter()
        try:
            while waiting or any(worker.chain for worker in self._pool):
                for worker in self._ready(len(waiting)):
                    worker.chain = _next_for(worker, waiting)
                    waiting.remove(worker.chain)
                    task = worker.chain[0]
                    worker.spec = task.spec
                    tries[task.recipe.stage, task.shard] += 1
                    with suppress(ConnectionError):  # a crashed idle worker is detected when its pipe is read
                        worker.pipe.send((task, run_shard))
                for worker in self._readable():
                    chain = worker.chain
                    assert chain is not None
                    event = self._receive(worker, chain[0])
                    if isinstance(event, Done):
                        chain.popleft()
                    if isinstance(event, Failed):
                        final = event.final or tries[event.stage, event.shard] >= self.attempts
                        event = replace(event, final=final)
                        if final:
                            chain.clear()
                    if chain and not isinstance(event, Worked):
                        waiting.append(chain)
                    yield event
        finally:  # leave no worker running after an early stop: another driver may take the root
            self._stop([worker for worker in self._pool if worker.chain is not None])

    def _ready(self, wanted: int) -> list[_Worker]:
        """Return idle workers, starting new ones if needed, but at most `wanted`."""
        idle = [worker for worker in self._pool if worker.chain is None]
        while len(idle) < wanted and len(self._pool) < self.workers:
            idle.append(self._start())
        return idle[:wanted]

    def _start(self) -> _Worker:
        context = get_context("spawn")
        here, there = context.Pipe()
        number = min(set(range(self.workers)) - {worker.number for worker in self._pool})
        gpu = {VISIBLE: self.gpus[number % len(self.gpus)]} if self.gpus else {}
        with _environment(worker_environment(max(1, (os.cpu_count() or 1) // self.workers)) | gpu):
            process = context.Process(target=_work, args=(there, os.getpid()), daemon=True)
            process.start()
        there.close()
        worker = _Worker(process, here, number)
        self._pool.append(worker)
        return worker

    def _readable(self) -> list[_Worker]:
        busy = {worker.pipe: worker for worker in self._pool if worker.chain is not None}
        return [busy[pipe] for pipe in wait(list(busy)) if isinstance(pipe, Connection)]

    def _receive(self, worker: _Worker, task: ShardTask) -> Event:
        exits = False
        try:
            event, exits = worker.pipe.recv()
        except (EOFError, OSError):  # OSError: it crashed while sending a message
            worker.process.join()
            self._pool.remove(worker)
            reason = f"its worker {ending(worker.process.exitcode)}"
            return Failed(task.recipe.stage, task.shard, reason, False)
        if exits:
            self._pool.remove(worker)
        if not isinstance(event, Worked):
            worker.chain = None
        return event

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop(list(self._pool))

    def _stop(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(GRACE_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            self._pool.remove(worker)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for processes that are started inside the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _next_for(worker: _Worker, waiting: list[deque[ShardTask]]) -> deque[ShardTask]:
    """Return a chain for the model that a worker has loaded, else the one with most tasks left (keeps stage order)."""
    return max(waiting, key=lambda chain: (chain[0].spec == worker.spec, len(chain), -chain[0].position))


def _work(pipe: Connection, driver: int) -> None:
    """Run tasks in a worker process until the driver closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # unwinds, so that a running shard cleans up
    exit_with_parent(driver)
    watch_for_hangs()
    exits = False
    while not exits:
        try:
            task, run_shard = pipe.recv()
        except EOFError:
            return
        stage, shard = task.recipe.stage, task.shard

        def progress(samples: int, stage: str = stage, shard: str = shard) -> None:
            pipe.send((Worked(stage, shard, samples), False))

        try:
            event: Event = Done(stage, shard, run_shard(task, progress))
        except Exception as error:
            event = Failed(stage, shard, error_text(error), final=not is_machine_error(error))
            # After an accelerator error the process can't use the device any more.
            exits = not event.final and not isinstance(error, OSError)
        pipe.send((event, exits))
