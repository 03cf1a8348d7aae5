"""What Beam's workers run. Imported where Beam is: its classes derive from Beam's."""

from __future__ import annotations

import ctypes
import json
import logging
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from os import pathsep
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.metrics.metric import Metrics
from apache_beam.runners.portability.fn_api_runner.worker_handlers import SubprocessSdkWorkerHandler, WorkerHandler
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker
from apache_beam.transforms.environments import Environment, SubprocessSDKEnvironment, python_sdk_capabilities
from grpc import RpcError

from echo_targets.pipeline.isolation import ending
from echo_targets.pipeline.runners.base import Chain, Count, Keep, Part, RunShard, WorkerDied
from echo_targets.pipeline.runners.beam.runner import NAMESPACE
from echo_targets.pipeline.shard import ShardTask
from echo_targets.pipeline.stage import StageSpec
from echo_targets.pipeline.totals import PARTITIONS, added, spill
from echo_targets.schemas.dataset.layout import Dataset, StageInfo

WATCHED = "echo_targets:environment:watched_process:v1"

_LOGGER = logging.getLogger(__name__)

Element = list[int]
"""A shard's number, and the positions of the steps that are left for it."""


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


class RunStep(beam.DoFn):
    """Runs one stage's task of each shard that has got to it; hands on the shards that have more to come.

    A shard that fails is not handed on: the note that it left in storage says why. Counters, in the namespace
    `echo_targets.<stage>`: shards, rows, rejects, samples (16 kHz); distributions: shard_ms, shard_rows.
    """

    def __init__(self, position: int, step: str, run_shard: RunShard) -> None:
        super().__init__()
        self.position = position
        self.step = step
        self.run_shard = run_shard

    def process(self, element: Element) -> Iterator[Element]:
        shard, *left = element
        if left[0] == self.position:
            left = left[1:] if self._run(shard) else []
        if left:
            yield [shard, *left]

    def _run(self, shard: int) -> bool:
        """Whether the shard is committed."""
        task = task_of(self.step, shard)
        name = f"{NAMESPACE}.{task.info.stage}"
        started = time.monotonic()
        try:
            with WORK.shard():
                manifest = self.run_shard(task, Metrics.counter(name, "samples").inc)
        except Stopped:
            return False
        except Exception:
            _LOGGER.info("%s: shard %d failed", task.info.stage, shard, exc_info=True)
            return False
        Metrics.counter(name, "shards").inc()
        Metrics.counter(name, "rows").inc(manifest.output.rows)
        Metrics.counter(name, "rejects").inc(manifest.rejects.rows if manifest.rejects else 0)
        Metrics.distribution(name, "shard_rows").update(manifest.rows_in)
        Metrics.distribution(name, "shard_ms").update(int((time.monotonic() - started) * 1000))
        return True


def build_chains(chains: Sequence[Chain], run_shard: RunShard, pipeline: beam.Pipeline) -> None:
    """All stages of all chains as one pipeline; between two stages the shards are dealt out to the workers anew.

    The stages' descriptions are part of the steps, so that little more than its number travels with a shard.
    """
    steps: dict[str, str] = {}  # each step's stage by its description
    for chain in sorted(chains, key=len, reverse=True):
        steps.update((describe(task), task.info.stage) for task in chain if describe(task) not in steps)
    positions = {step: position for position, step in enumerate(steps)}
    elements = [[chain[0].shard, *(positions[describe(task)] for task in chain)] for chain in chains]
    shards = pipeline | "shards" >> beam.Create(elements, reshuffle=False)
    for position, (step, stage) in enumerate(steps.items()):
        shards |= f"deal out {position}" >> beam.Reshuffle()
        shards |= f"{position} {stage}" >> beam.ParDo(RunStep(position, step, run_shard))


def build_total(parts: Sequence[Part], count: Count, keep: Keep, root: str, name: str, pipeline: beam.Pipeline) -> None:
    """Counts parts, sums partition by partition, and writes what is kept below a root, as an Arrow stream."""
    kept = (
        pipeline
        | "parts" >> beam.Create(list(parts), reshuffle=False)
        | "deal out" >> beam.Reshuffle()
        | "count" >> beam.FlatMap(_counted, count)
        | "sum" >> beam.CombinePerKey(_add)
        | "keep" >> beam.MapTuple(lambda _, sums: (0, _to_stream(keep(_from_stream(sums)))))
    )
    kept | "together" >> beam.GroupByKey() | "write" >> beam.Map(_write_kept, keep, root, name)


def _counted(part: Part, count: Count) -> Iterator[tuple[int, bytes]]:
    """The counts of a part, partition by partition."""
    try:
        with WORK.shard(), TemporaryDirectory(prefix="echo-targets-") as folder:
            path = Path(folder, "counts.arrow")
            spill(count(part), path)
            with pa.memory_map(str(path)) as source:
                file = pa.ipc.open_file(source)
                batches = [_to_stream(pa.Table.from_batches([file.get_batch(number)])) for number in range(PARTITIONS)]
    except Stopped:
        raise RuntimeError("stopped") from None  # Beam must not take it for a part without counts
    yield from enumerate(batches)


def _add(streams):  # type: ignore[no-untyped-def]  # Beam would take hints for the kinds of its elements
    return _to_stream(added(map(_from_stream, streams)))


def _write_kept(kept: tuple[int, Iterable[bytes]], keep: Keep, root: str, name: str) -> None:
    Dataset(root).storage.write(name, _to_stream(keep(pa.concat_tables(map(_from_stream, kept[1])))))


def _to_stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _from_stream(data: bytes) -> pa.Table:
    return pa.ipc.open_stream(data).read_all()


def describe(task: ShardTask) -> str:
    """A task without its shard, as JSON."""
    return json.dumps({"root": task.root, "spec": asdict(task.spec), "info": asdict(task.info)}, sort_keys=True)


def task_of(step: str, shard: int) -> ShardTask:
    """The task that a step runs on a shard."""
    values: dict[str, Any] = json.loads(step)
    return ShardTask(values["root"], StageSpec(**values["spec"]), StageInfo(**values["info"]), shard)


def watched_workers(lifeline: str, variables: Mapping[str, str]) -> SubprocessSDKEnvironment:
    """Worker processes of the direct runner that end with the driver, and whose death ends the pass.

    Beam's own wait for ever for the answer of a process that is dead.

    Args:
        lifeline: a named pipe; workers stop when its writing end is closed.
        variables: environment variables of the workers.
    """
    logging.getLogger(SubprocessSdkWorker.__module__).setLevel(logging.ERROR)  # it repeats what workers warn of
    path = pathsep.join(path for path in sys.path if path)
    given = [f"{name}={value}" for name, value in {**variables, "PYTHONPATH": path}.items()]
    command = ["exec", "env", *given, sys.executable, "-m", "echo_targets.pipeline.runners.beam.worker", lifeline]
    return _WatchedEnvironment(shlex.join(command), python_sdk_capabilities())


@Environment.register_urn(WATCHED, bytes)
class _WatchedEnvironment(SubprocessSDKEnvironment):
    def to_runner_api_parameter(self, context: Any) -> tuple[str, bytes]:
        return WATCHED, self.command_string.encode()

    @staticmethod
    def from_runner_api_parameter(
        payload: bytes, capabilities: Any, artifacts: Any, resource_hints: Any, context: Any
    ) -> _WatchedEnvironment:
        return _WatchedEnvironment(payload.decode(), capabilities, artifacts, resource_hints)


@WorkerHandler.register_environment(WATCHED, bytes)
class _WatchedHandler(SubprocessSdkWorkerHandler):
    def start_worker(self) -> None:
        self._closed = threading.Event()
        self.control_conn._read_thread = threading.Thread(
            target=_without_rpc_errors(self.control_conn._read), daemon=True
        )
        self.data_conn._read_inputs = _without_rpc_errors(self.data_conn._read_inputs)  # type: ignore[method-assign]
        self.worker_thread = threading.Thread(target=self._run, daemon=True)
        self.worker_thread.start()

    def stop_worker(self) -> None:
        self._closed.set()
        self.worker_thread.join()

    def _run(self) -> None:
        process = SubprocessSdkWorker(
            self._worker_command_line, self.control_address, self.provision_info, self.worker_id
        )
        try:
            process.run()
        except RuntimeError as error:
            died = ending(int(str(error).rpartition(" ")[2]))
            WORK.deaths.append(died)
            while not self._closed.wait(0.2):  # what is asked of the dead process from now on fails too
                with suppress(RuntimeError):  # something was asked in the midst of it; its turn is next
                    self.control_conn.abort(WorkerDied(died))


def _without_rpc_errors(read: Callable[..., None]) -> Callable[..., None]:
    """Reads from a process, whose death is told otherwise than by a traceback on the terminal."""

    def reading(*given: Any) -> None:
        with suppress(RpcError):
            read(*given)

    return reading
