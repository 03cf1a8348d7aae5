"""Inside of Ray: the process that drives a pass, and the workers of its stages."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from graphlib import TopologicalSorter
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import echo_targets
from echo_targets.pipeline.environment import worker_environment
from echo_targets.pipeline.failures import is_machine_error
from echo_targets.pipeline.orphans import exit_with_parent
from echo_targets.pipeline.runners.base import Chain, RunShard
from echo_targets.pipeline.shard import ShardTask
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset, Manifest
from echo_targets.schemas.errors import UserError

if TYPE_CHECKING:
    from ray.data import Dataset as RayDataset

    from echo_targets.pipeline.runners.ray.options import RayOptions

OBJECT_STORE_BYTES = 100 * 2**20
"""Of a cluster of our own: shards' numbers are all that is in it, or counts, which Ray spills to disk where they are
more; it would take a third of the memory by default."""
CONNECT_SECONDS = 10.0
PARTITIONS_PER_CPU = 2
SHARD, PART = "shard", "part"


def drive(pipe: Connection, parent: int, options: RayOptions) -> None:
    """Does one work after the other on Ray, in a process of its own: sends what comes of each, or what went wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    exit_with_parent(parent)
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # or what is still under way when we disconnect starts another cluster
    try:
        _connect(options)
        while True:
            work, arguments = pipe.recv()
            pipe.send(work(options, *arguments))
    except EOFError:
        pass
    except UserError as error:
        pipe.send(error)
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {str(error).strip()}"))
    import ray

    ray.shutdown()


def run_chains(options: RayOptions, chains: Sequence[Chain], run_shard: RunShard, directory: str) -> None:
    """A pass over the chains, in the driver's directory where a node has it."""
    for _ in _pipeline(options, chains, run_shard, directory).iter_internal_ref_bundles():
        pass


def _connect(options: RayOptions) -> None:
    import ray
    from ray._private.services import canonicalize_bootstrap_address_or_die, extract_ip_port

    environment = _runtime_env(options)
    if options.address is None:
        place: dict[str, Any] = {"address": "local", "object_store_memory": OBJECT_STORE_BYTES}
    else:
        try:
            place = {"address": canonicalize_bootstrap_address_or_die(options.address)}
            socket.create_connection(extract_ip_port(place["address"]), CONNECT_SECONDS).close()  # Ray tries for ever
        except (OSError, ValueError) as error:
            raise UserError(f"ray.address={options.address}: {error}") from None
        os.chdir(os.sep)  # Ray's workers import from their driver's directory first, whatever lies there on their node
    ray.init(**place, runtime_env=environment, logging_level=logging.WARNING)
    signal.signal(signal.SIGTERM, _disconnect)  # after Ray has set its own


def _disconnect(*_: object) -> None:
    """Ends the process and its actors: Ray sends them SIGTERM, and they clean up behind them."""
    import ray

    ray.shutdown()
    os._exit(0)


def _runtime_env(options: RayOptions) -> dict[str, Any]:
    """The workers' environment; where they may be on other machines the project goes with it."""
    given = options.runtime_env
    defaults = worker_environment(max(1, math.floor(options.cpus_per_worker)))
    environment = {**given, "env_vars": {**defaults, **given.get("env_vars", {})}}
    if options.address is not None:
        environment["py_modules"] = [str(Path(echo_targets.__file__).parent), *given.get("py_modules", [])]
        environment["excludes"] = ["__pycache__", *given.get("excludes", [])]
    return environment


def _pipeline(options: RayOptions, chains: Sequence[Chain], run_shard: RunShard, directory: str) -> RayDataset:
    """A row a shard, an operator a stage: a row that comes out of one is committed, and goes on to the next."""
    import ray.data

    stages = _by_stage(chains)
    on_device = {stage: next(iter(tasks.values())).spec.transform_class().on_device for stage, tasks in stages.items()}
    cpus, gpus = _shares(options, len(stages), sum(on_device.values()))
    rows = _rows(SHARD, sorted(chain[0].shard for chain in chains))
    context = rows.context  # a copy, which the operators inherit
    context.execution_no_progress_timeout_s = -1  # a shard may well take longer than Ray Data's half an hour
    context.max_errored_blocks = -1  # what is lost is found undone in storage
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # a task a worker is all that there ever is
    context.autoscaling_config.actor_pool_util_downscaling_threshold = 0.4  # one of two busy ones may stay
    for stage, tasks in stages.items():
        fewest = min(options.min_workers, len(tasks))
        most = min(options.max_workers or len(tasks), len(tasks))
        rows = rows.map_batches(
            type(stage, (StageWorker,), {}),  # Ray's dashboard names operators and actors after it
            fn_constructor_args=(tasks, run_shard, directory),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=fewest,
                max_size=max(fewest, most),
                max_tasks_in_flight_per_actor=1,
                enable_true_multi_threading=True,  # on the actor's main thread, where SIGTERM is heard
            ),
            num_cpus=cpus,
            num_gpus=gpus if on_device[stage] else 0,
            max_task_retries=1,  # of a shard whose worker died: it goes on in a process set apart
        )
    return rows


def _rows(name: str, numbers: Sequence[int]) -> RayDataset:
    """Rows of one number each, a block a row; Ray Data says no more than warnings of what is done with them."""
    import ray.data
    from ray.util.annotations import RayDeprecationWarning
    from ray.util.debug import log_once

    warnings.simplefilter("ignore", RayDeprecationWarning)  # max_task_retries, which has no other place yet
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)
    log_once("ray_data_progress_manager_disabled")  # that there are no bars is no news
    rows: RayDataset = ray.data.from_items([{name: number} for number in numbers], override_num_blocks=len(numbers))
    rows.context.enable_progress_bars = False
    rows.context.print_on_execution_start = False
    return rows


def _by_stage(chains: Sequence[Chain]) -> dict[str, dict[int, ShardTask]]:
    """Each stage's tasks by shard, the stages in an order that is that of every chain."""
    order: TopologicalSorter[str] = TopologicalSorter()
    for chain in chains:
        for task in chain:
            order.add(task.info.stage)
        for before, after in pairwise(chain):
            order.add(after.info.stage, before.info.stage)
    stages: dict[str, dict[int, ShardTask]] = {stage: {} for stage in order.static_order()}
    for chain in chains:
        for task in chain:
            stages[task.info.stage][task.shard] = task
    return stages


def _shares(options: RayOptions, stages: int, on_device: int) -> tuple[float, float]:
    """CPUs and GPUs that a worker reserves, so that every stage has its fewest workers from the beginning.

    Stages wait for those before them: where some fill the cluster, and others have not one worker, none goes on. CPUs
    are shared out, so that one of each stage fits the smallest node: a cluster may lose all its nodes but one. Models
    that share a GPU must fit its memory together, so that is left to the user.

    Raises:
        UserError: the cluster has too few GPUs.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [node["CPU"] for node in nodes if node.get("CPU")]
    room = min(min(cpus) / stages, sum(cpus) / stages / options.min_workers) if cpus else options.cpus_per_worker
    gpus, needed = sum(node.get("GPU", 0) for node in nodes), on_device * options.min_workers * options.gpus_per_worker
    if gpus < needed:
        raise UserError(
            f"ray.gpus_per_worker={options.gpus_per_worker:g}: {on_device} stages run a model on a GPU and need "
            f"{needed:g} in all, the cluster has {gpus:g}; give each a share that fits, or add nodes"
        )
    return math.floor(min(options.cpus_per_worker, room) * 10_000) / 10_000, options.gpus_per_worker


class StageWorker:
    """Runs shards of one stage, each in turn; what `run_shard` loads stays loaded."""

    def __init__(self, tasks: dict[int, ShardTask], run_shard: RunShard, directory: str) -> None:
        with suppress(OSError):  # where a node has the driver's, the paths of a configuration mean the same
            os.chdir(directory)
        self._tasks, self._run_shard = tasks, run_shard
        self._metrics = _Metrics()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """The rows whose shards are committed. Why the others are not is in the notes of their attempts."""
        return rows.filter(pa.array([self._run(shard) for shard in rows[SHARD].to_pylist()], pa.bool_()))

    def _run(self, shard: int) -> bool:
        task = self._tasks.get(shard)
        if task is None or _committed(task):
            return True
        try:
            self._metrics.count(task.info.stage, self._run_shard(task, lambda samples: None))
        except Exception as error:
            if is_machine_error(error) and not isinstance(error, OSError):
                os._exit(1)  # a failed accelerator fails its process for good: Ray tries again in another
            return False
        return True


def _committed(task: ShardTask) -> bool:
    info = task.info
    try:
        return Dataset(task.root).manifest(info.table, info.fingerprint, task.shard, info.shards) is not None
    except OSError:
        return False


class _Metrics:
    """What the shards of a worker's stage came to, for Ray's dashboard and whoever scrapes its nodes."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        def counter(name: str, description: str, *tags: str) -> Counter:
            return Counter(f"echo_targets_{name}", description, ("stage", *tags))

        self._shards = counter("shards", "Shards committed.")
        self._hours = counter("hours", "Hours of audio in them.")
        self._rows = counter("rows", "Rows written.")
        self._rejects = counter("rejects", "Rows refused or held back.", "error_class")

    def count(self, stage: str, manifest: Manifest) -> None:
        tags = {"stage": stage}
        self._shards.inc(1, tags)
        for counter, value in (
            (self._hours, manifest.samples / SAMPLE_RATE / 3600),
            (self._rows, manifest.output.rows),
        ):
            if value:
                counter.inc(value, tags)
        for error_class, count in manifest.reasons.items():
            self._rejects.inc(count, {**tags, "error_class": error_class})
