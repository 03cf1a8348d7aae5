"""Run shards as the rows of a Ray Data pipeline with one actor pool per stage. See docs/RAY.md for clusters."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Lock
from types import TracebackType
from typing import Any

from echo_targets.pipeline.exit_with_parent import GRACE_SECONDS
from echo_targets.pipeline.isolation import exit_status
from echo_targets.pipeline.runners.base import Chain, Events, Runner, RunShard
from echo_targets.pipeline.runners.follow import follow
from echo_targets.pipeline.runners.ray.options import RayOptions
from echo_targets.schemas.dataset.storage import is_url
from echo_targets.schemas.dataset.urls import as_path
from echo_targets.schemas.errors import UserError


class RayRunner(Runner):
    """Runs shards in a Ray Data pipeline with all stages, and follows it through storage.

    A child process drives Ray, so the job's process is unaffected by Ray's threads, signal handlers and settings, and
    survives a failing cluster.
    """

    def __init__(self, options: RayOptions) -> None:
        """Check the options.

        Raises:
            UserError: Ray is not installed, or an option is invalid.
        """
        from importlib.util import find_spec

        if find_spec("ray") is None:
            raise UserError("runner=ray needs Ray: pip install 'echo-targets[ray]'")
        if options.address is not None and options.address.startswith("ray://"):
            raise UserError(
                f"ray.address={options.address}: Ray Client is not supported. Start the job on a node of the cluster, "
                "with host:port or auto, or with `ray job submit`."
            )
        if options.max_workers is not None and options.max_workers < options.min_workers:
            raise UserError(f"ray.max_workers={options.max_workers} is less than ray.min_workers={options.min_workers}")
        self.options = options
        self._driver: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._starting = Lock()
        self._stopped = False

    def map(self, chains: Sequence[Chain], run_shard: RunShard) -> Events:
        from echo_targets.pipeline.runners.ray.steps import run_chains

        self._stopped = False
        chains = [[replace(task, root=_absolute(task.root)) for task in chain] for chain in chains]
        here = os.getcwd()
        yield from follow(chains, lambda undone: self._drive(run_chains, undone, run_shard, here), self._stop)

    def _drive(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call `work` with the options and arguments in the process that drives Ray, and return its result."""
        with self._starting:
            if self._stopped:
                return None
            if self._driver is None:
                self._start()
            driver, pipe = self._driver, self._pipe
        assert driver is not None and pipe is not None
        try:
            pipe.send((work, arguments))
            outcome = pipe.recv()
        except (EOFError, OSError):
            driver.join()
            outcome = RuntimeError(f"Ray's driver exited with {exit_status(driver.exitcode)}")
        if isinstance(outcome, Exception):
            self._driver = None  # it has exited; the next call starts a new one
            driver.join()
            raise outcome
        return outcome

    def _start(self) -> None:
        from echo_targets.pipeline.runners.ray.steps import drive

        context = get_context("spawn")
        self._pipe, there = context.Pipe()
        self._driver = context.Process(target=drive, args=(there, os.getpid(), self.options), daemon=True)
        self._driver.start()
        there.close()

    def _stop(self) -> None:
        with self._starting:
            self._stopped = True
            driver, self._driver = self._driver, None
        if driver is not None:
            driver.terminate()
            driver.join(GRACE_SECONDS)
            if driver.is_alive():
                driver.kill()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def _absolute(root: str) -> str:
    """Make a root absolute, because workers have other working directories."""
    return root if is_url(root) else os.path.abspath(as_path(root))
