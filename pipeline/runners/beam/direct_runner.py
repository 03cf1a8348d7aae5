"""Beam's direct runner with worker processes that exit with the driver.

Beam's own worker processes outlive a killed driver, and a pass whose worker crashed waits forever. This is the only
module that uses Beam's private classes and attributes; `constraints.txt` pins the version that was tested.
"""

from __future__ import annotations

import logging
import shlex
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from os import pathsep
from typing import TYPE_CHECKING, Any

from apache_beam.runners.portability.fn_api_runner.worker_handlers import SubprocessSdkWorkerHandler, WorkerHandler
from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker
from apache_beam.transforms.environments import Environment, SubprocessSDKEnvironment, python_sdk_capabilities
from grpc import RpcError

from echo_targets.pipeline.isolation import ending
from echo_targets.pipeline.runners.base import WorkerDied
from echo_targets.pipeline.runners.beam.in_progress import WORK

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineRunner

WATCHED = "echo_targets:environment:watched_process:v1"


def watched_workers(lifeline: str, variables: Mapping[str, str], gpus: Sequence[str] = ()) -> SubprocessSDKEnvironment:
    """Return an environment of worker processes that exit with the driver and whose crash ends the pass.

    Args:
        lifeline: named pipe; workers exit when its write end is closed.
        variables: environment variables of the workers.
        gpus: values of CUDA_VISIBLE_DEVICES that the workers get in turn; if there are none, they inherit it.
    """
    logging.getLogger(SubprocessSdkWorker.__module__).setLevel(logging.ERROR)  # it repeats the workers' warnings
    path = pathsep.join(path for path in sys.path if path)
    given = [f"{name}={value}" for name, value in {**variables, "PYTHONPATH": path}.items()]
    worker = ["-m", "echo_targets.pipeline.runners.beam.worker", lifeline, *gpus]
    command = ["exec", "env", *given, sys.executable, *worker]
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
            ended = ending(int(str(error).rpartition(" ")[2]))
            WORK.deaths.append(ended)
            while not self._closed.wait(0.2):  # later requests to the crashed process must fail as well
                with suppress(RuntimeError):  # a request was added meanwhile; the next round aborts it
                    self.control_conn.abort(WorkerDied(ended))


def _without_rpc_errors(read: Callable[..., None]) -> Callable[..., None]:
    """Wrap a read from a process so that its crash prints no traceback; `_run` reports the crash."""

    def reading(*given: Any) -> None:
        with suppress(RpcError):
            read(*given)

    return reading


def direct_runner(options: PipelineOptions, workers: Environment | None = None) -> PipelineRunner:
    """Return Beam's Python runner. Beam's own `DirectRunner` would first try to download another runner."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    about = beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded)
    return FnApiRunner(workers, provision_info=ExtendedProvisionInfo(about))
