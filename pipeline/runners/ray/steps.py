"""The code that runs with Ray: the process that drives a pass, and the workers of its stages."""

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
from echo_targets.pipeline.exit_with_parent import exit_with_parent
from echo_targets.pipeline.failures import is_machine_error
from echo_targets.pipeline.hang import watch_for_hangs
from echo_targets.pipeline.runners.base import Chain, RunShard
from echo_targets.pipeline.shard import ShardTask, done
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Manifest
from echo_targets.schemas.errors import UserError

if TYPE_CHECKING:
    from ray.data import Dataset as RayDataset

    from echo_targets.pipeline.runners.ray.options import RayOptions

OBJECT_STORE_BYTES = 100 * 2**20
"""Object store size of a cluster that this job starts. It only holds shard numbers or counts, and Ray spills more to
disk; by default it would take a third of the memory."""
CONNECT_SECONDS = 10.0
PARTITIONS_PER_CPU = 2
SHARD, PART = "shard", "part"


def drive(pipe: Connection, parent: int, options: RayOptions) -> None:
    """Run calls received over a pipe on Ray, in a process of their own, and send back each result or error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    exit_with_parent(parent)
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # otherwise calls still running at disconnect start another cluster
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
    """Run one pass over the chains; workers use the driver's directory if their node has it."""
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
            socket.create_connection(extract_ip_port(place["address"]), CONNECT_SECONDS).close()  # Ray retries forever
        except (OSError, ValueError) as error:
            raise UserError(f"ray.address={options.address}: {error}") from None
        os.chdir(os.sep)  # Ray's workers import from the driver's directory first, which may differ on their node
    ray.init(**place, runtime_env=environment, logging_level=logging.WARNING)
    signal.signal(signal.SIGTERM, _disconnect)  # replaces Ray's handler


def _disconnect(*_: object) -> None:
    """Exit the process and stop its actors: Ray sends them SIGTERM, and they clean up."""
    import ray

    ray.shutdown()
    os._exit(0)


def _runtime_env(options: RayOptions) -> dict[str, Any]:
    """Return the workers' runtime environment; it includes the project if workers may run on other machines."""
    given = options.runtime_env
    defaults = worker_environment(max(1, math.floor(options.cpus_per_worker)))
    environment = {**given, "env_vars": {**defaults, **given.get("env_vars", {})}}
    if options.address is not None:
        environment["py_modules"] = [str(Path(echo_targets.__file__).parent), *given.get("py_modules", [])]
        environment["excludes"] = ["__pycache__", *given.get("excludes", [])]
    return environment


def _pipeline(options: RayOptions, chains: Sequence[Chain], run_shard: RunShard, directory: str) -> RayDataset:
    """Build a pipeline with a row per shard and an operator per stage; an operator outputs the committed shards."""
    import ray.data

    stages = _by_stage(chains)
    on_device = {stage: next(iter(tasks.values())).spec.transform_class().on_device for stage, tasks in stages.items()}
    cpus, gpus = _shares(options, len(stages), sum(on_device.values()))
    rows = _rows(SHARD, sorted(chain[0].position for chain in chains))
    context = rows.context  # a copy that the operators inherit
    context.execution_no_progress_timeout_s = -1  # a shard may take longer than Ray Data's limit of half an hour
    context.max_errored_blocks = -1  # lost shards are detected as unfinished in storage
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0  # a worker has at most one task
    context.autoscaling_config.actor_pool_util_downscaling_threshold = 0.4  # keeps a pool in which one of two is busy
    for stage, tasks in stages.items():
        fewest = min(options.min_workers, len(tasks))
        most = min(options.max_workers or len(tasks), len(tasks))
        rows = rows.map_batches(
            type(stage, (StageWorker,), {}),  # gives operators and actors their names in the dashboard
            fn_constructor_args=(tasks, run_shard, directory),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=fewest,
                max_size=max(fewest, most),
                max_tasks_in_flight_per_actor=1,
                enable_true_multi_threading=True,  # runs on the actor's main thread, which receives SIGTERM
            ),
            num_cpus=cpus,
            num_gpus=gpus if on_device[stage] else 0,
            max_task_retries=1,  # a shard whose worker crashed is retried in isolation
        )
    return rows


def _rows(name: str, numbers: Sequence[int]) -> RayDataset:
    """Return a dataset with one number per row and one row per block; Ray Data's logging is limited to warnings."""
    import ray.data
    from ray.util.annotations import RayDeprecationWarning
    from ray.util.debug import log_once

    warnings.simplefilter("ignore", RayDeprecationWarning)  # about max_task_retries, which has no replacement yet
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.WARNING)
    log_once("ray_data_progress_manager_disabled")  # suppresses the message that progress bars are off
    rows: RayDataset = ray.data.from_items([{name: number} for number in numbers], override_num_blocks=len(numbers))
    rows.context.enable_progress_bars = False
    rows.context.print_on_execution_start = False
    return rows


def _by_stage(chains: Sequence[Chain]) -> dict[str, dict[int, ShardTask]]:
    """Return each stage's tasks by position, with the stages in an order that fits every chain."""
    order: TopologicalSorter[str] = TopologicalSorter()
    for chain in chains:
        for task in chain:
            order.add(task.recipe.stage)
        for before, after in pairwise(chain):
            order.add(after.recipe.stage, before.recipe.stage)
    stages: dict[str, dict[int, ShardTask]] = {stage: {} for stage in order.static_order()}
    for chain in chains:
        for task in chain:
            stages[task.recipe.stage][task.position] = task
    return stages


def _shares(options: RayOptions, stages: int, on_device: int) -> tuple[float, float]:
    """Return the CPUs and GPUs that a worker reserves, so that every stage can start with `min_workers` workers.

    Stages wait for earlier ones: if some fill the cluster and others have no worker, none can continue. CPUs are shared
    so that one worker of each stage fits on the smallest node, since a cluster may shrink to one node. GPUs are not
    shared automatically, because models that share a GPU must fit into its memory together.

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
            f"{needed:g} in total, but the cluster has {gpus:g}. Set a smaller fraction, or add nodes."
        )
    return math.floor(min(options.cpus_per_worker, room) * 10_000) / 10_000, options.gpus_per_worker


class StageWorker:
    """Runs shards of one stage one after another; models stay loaded between shards."""

    def __init__(self, tasks: dict[int, ShardTask], run_shard: RunShard, directory: str) -> None:
        with suppress(OSError):  # if the node has the driver's directory, relative paths of a configuration work
            os.chdir(directory)
        watch_for_hangs()
        self._tasks, self._run_shard = tasks, run_shard
        self._metrics = _Metrics()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Run the rows' shards and return the rows of committed ones. Failed shards leave attempt notes."""
        return rows.filter(pa.array([self._run(shard) for shard in rows[SHARD].to_pylist()], pa.bool_()))

    def _run(self, shard: int) -> bool:
        task = self._tasks.get(shard)
        if task is None or _committed(task):
            return True
        try:
            self._metrics.count(task.recipe.stage, self._run_shard(task, lambda samples: None))
        except Exception as error:
            if is_machine_error(error) and not isinstance(error, OSError):
                os._exit(1)  # after an accelerator error this process can't use the device; Ray retries in another
            return False
        return True


def _committed(task: ShardTask) -> bool:
    try:
        return done(task) is not None
    except OSError:
        return False


class _Metrics:
    """Counters of a worker's stage, for Ray's dashboard and its metrics endpoints."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter

        def counter(name: str, description: str, *tags: str) -> Counter:
            return Counter(f"echo_targets_{name}", description, ("stage", *tags))

        self._shards = counter("shards", "Shards committed.")
        self._hours = counter("hours", "Hours of audio in committed shards.")
        self._rows = counter("rows", "Rows written.")
        self._rejects = counter("rejects", "Rows rejected or dropped.", "error_class")

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
