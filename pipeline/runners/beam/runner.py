"""Run shards as the elements of an Apache Beam pipeline on any of Beam's runners. See docs/BEAM.md."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING

from echo_targets.pipeline.environment import worker_environment
from echo_targets.pipeline.exit_with_parent import GRACE_SECONDS
from echo_targets.pipeline.runners.base import Chain, Events, Runner, RunShard, WorkerDied
from echo_targets.pipeline.runners.beam.options import NAMESPACE, BeamOptions
from echo_targets.pipeline.runners.follow import follow
from echo_targets.schemas.errors import UserError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineResult, PipelineRunner


class BeamRunner(Runner):
    """Runs shards as the elements of one Beam pipeline with all stages, and follows it through storage.

    Attributes:
        result: Beam's result, with state and metrics, of the last pass that was not stopped.
    """

    def __init__(self, options: BeamOptions, gpus: Sequence[str] = ()) -> None:
        """Check the options.

        Args:
            options: Beam's options.
            gpus: values of CUDA_VISIBLE_DEVICES that worker processes of the direct runner get in turn.

        Raises:
            UserError: Beam is not installed, or has no such option or runner.
        """
        _import_quietly()
        options.pipeline_options()
        options.pipeline_runner()
        self.options, self._gpus = options, gpus
        self.result: PipelineResult | None = None
        self._running: _Pass | None = None

    def map(self, chains: Sequence[Chain], run_shard: RunShard) -> Events:
        from echo_targets.pipeline.runners.beam.in_progress import WORK
        from echo_targets.pipeline.runners.beam.steps import build_chains

        WORK.begin()
        yield from follow(chains, lambda undone: self._run(partial(build_chains, undone, run_shard)), self._stop)

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Counters of the last pass that was not stopped, by stage and name: shards, rows, rejects, samples."""
        found: dict[str, dict[str, int]] = {}
        for counter in self.result.metrics().query()["counters"] if self.result else []:
            space, _, stage = counter.key.metric.namespace.partition(".")
            if space == NAMESPACE:
                found.setdefault(stage, {})[counter.key.metric.name] = counter.result or 0
        return found

    def _run(self, build: Callable[[beam.Pipeline], None]) -> None:
        try:
            with _Pass(self.options, self._gpus) as self._running:
                self.result = self._running.run(build)
        finally:
            self._running = None

    def _stop(self) -> None:
        from echo_targets.pipeline.runners.beam.in_progress import WORK

        WORK.stop()  # first, so that a pass that is just starting sees it
        if self._running:
            self._running.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running:
            self._stop()


class _Pass:
    """One Beam job."""

    def __init__(self, options: BeamOptions, gpus: Sequence[str]) -> None:
        self._options, self._gpus = options, gpus
        self._lifeline = _Lifeline()
        self._result: PipelineResult | None = None

    def __enter__(self) -> _Pass:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop remaining worker processes, and wait for stopping shards of this process."""
        from echo_targets.pipeline.runners.beam.in_progress import WORK

        self._lifeline.close()
        WORK.wait(GRACE_SECONDS)

    def run(self, build: Callable[[beam.Pipeline], None]) -> PipelineResult | None:
        """Run the job until it ends.

        Raises:
            UserError: the options are inconsistent or incomplete.
            WorkerDied: a worker process of the direct runner crashed or hung.
        """
        import apache_beam as beam

        from echo_targets.pipeline.runners.beam.in_progress import WORK

        WORK.deaths.clear()
        options = self._options.pipeline_options()
        pipeline = beam.Pipeline(self._runner(options), options)
        build(pipeline)
        if WORK.stopping:
            return None
        try:
            self._result = pipeline.run()
        except Exception as error:
            if WORK.deaths:
                raise WorkerDied(WORK.deaths[-1]) from error
            if self._options.is_remote and isinstance(error, ValueError | NotImplementedError | ImportError):
                raise UserError(f"beam: {error}") from error  # nothing was submitted
            raise
        if WORK.stopping:
            self.stop()
        self._result.wait_until_finish()
        return self._result

    def stop(self) -> None:
        """Make `run` return soon."""
        self._lifeline.close()
        if self._options.is_remote and self._result:
            with suppress(Exception):  # the job may have just ended, or be unreachable
                self._result.cancel()

    def _runner(self, options: PipelineOptions) -> PipelineRunner:
        from apache_beam.options.pipeline_options import DirectOptions

        from echo_targets.pipeline.runners.beam.direct_runner import direct_runner, watched_workers

        direct = options.view_as(DirectOptions)
        if not self._options.is_direct or direct.direct_running_mode != "multi_processing":
            return self._options.pipeline_runner()
        processors = os.cpu_count() or 1
        direct.direct_num_workers = direct.direct_num_workers or processors
        direct.direct_running_mode = None  # otherwise Beam replaces these workers with its own
        environment = worker_environment(max(1, processors // direct.direct_num_workers))
        return direct_runner(options, watched_workers(self._lifeline.open(), environment, self._gpus))


class _Lifeline:
    """A named pipe that stays open while workers should run: until it is closed or the driver exits."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._end = -1

    def open(self) -> str:
        """Create the pipe and return its path."""
        self._folder = tempfile.mkdtemp(prefix="echo-targets-")
        path = os.path.join(self._folder, "lifeline")
        os.mkfifo(path)
        self._end = os.open(path, os.O_RDWR)  # O_WRONLY would block until the first worker opens it
        return path

    def close(self) -> None:
        folder, self._folder = self._folder, None
        if folder:
            os.close(self._end)
            shutil.rmtree(folder, ignore_errors=True)


def _import_quietly() -> None:
    """Import Beam without warnings about features that are not used here: Google clients and workers' folders."""
    if find_spec("apache_beam") is None:
        raise UserError("runner=beam needs Apache Beam: pip install 'echo-targets[beam]'")
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        import apache_beam  # noqa: F401
    finally:
        root.setLevel(before)
    logging.getLogger("apache_beam.runners.portability.local_job_service").setLevel(logging.ERROR)
