"""Run a transform in a child process, so that a row that crashes it does not crash the worker.

This is used for a shard whose last attempt crashed or hung. Batches and outputs travel as Arrow streams over pipes.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from dataclasses import asdict
from typing import IO, Any

import pyarrow as pa

from echo_targets.pipeline.attempt import error_text
from echo_targets.pipeline.failures import is_machine_error, is_out_of_memory
from echo_targets.pipeline.halving import reject_single
from echo_targets.pipeline.hang import HUNG, RULE, has_hung, watch_for_hangs
from echo_targets.pipeline.stage import StageSpec
from echo_targets.pipeline.worker_transform import Loaded
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import Output, Reject

CRASHED = "crashed"
CRASHES = 2
"""How many processes a single row must crash to be rejected; one crash may be due to another process's memory use."""
HANGS = f"{HUNG}: it {RULE}, alone in a process; if it is only slow, raise hang_factor and use `echo-targets retry`"


class Isolated:
    """Processes batches in a child process, which is replaced if it crashes or hangs. Leaving the context ends it."""

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec
        self.transform = spec.build()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.kill()
            self._exit_code()

    def try_batch(self, batch: pa.Table, prepared: pa.Table | None = None) -> Output | None:
        """Implement `halving.Worker.try_batch`; a batch that crashes the child, or hangs in it, counts as failed."""
        for _ in range(1 if len(batch) > 1 else CRASHES):
            child = self._started()
            try:
                _send(child.stdin, {}, batch)
                answer, rows = _receive(child.stdout)
            except (EOFError, OSError):
                code = self._exit_code()
                if has_hung(code):
                    return reject_single(self.transform, batch, HUNG, HANGS, unexpected=HANGS)
                continue
            if "error" in answer:
                raise _ERRORS[answer["kind"]](answer["error"])
            return None if rows is None else Output(rows, [Reject(**reject) for reject in answer["rejects"]])
        return reject_single(
            self.transform, batch, CRASHED, f"{CRASHED}: it crashed the process ({exit_status(code)})", CRASHES
        )

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "echo_targets.pipeline.isolation"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
            try:
                _send(self._child.stdin, asdict(self._spec))
                answer, _ = _receive(self._child.stdout)
            except (EOFError, OSError):
                raise OSError(
                    f"{self.transform.name}: crashed while loading its model ({exit_status(self._exit_code())})"
                ) from None
            if "error" in answer:
                raise _ERRORS[answer["kind"]](answer["error"])
        return self._child

    def _exit_code(self) -> int:
        assert self._child is not None
        code, self._child = self._child.wait(), None
        return code


def ending(code: int | None) -> str:
    """Complete the sentence "its worker …" from the exit code of a process that ended unexpectedly."""
    if has_hung(code):
        return f"hung: a batch {RULE}; its log has the stacks"
    return f"crashed ({exit_status(code)})"


def exit_status(code: int | None) -> str:
    """Describe how a process ended, from its exit code."""
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}" + (", possibly out of memory" if -code == signal.SIGKILL else "")


_ERRORS: dict[str, type[Exception]] = {"device": OSError, "user": UserError, "other": RuntimeError}


def _kind(error: Exception) -> str:
    return (
        "device"
        if is_machine_error(error) or is_out_of_memory(error)
        else "user"
        if isinstance(error, UserError)
        else "other"
    )


def _send(pipe: IO[bytes] | None, message: dict[str, Any], table: pa.Table | None = None) -> None:
    assert pipe is not None
    sink = pa.BufferOutputStream()
    if table is not None:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    head, body = json.dumps(message).encode(), sink.getvalue()
    pipe.write(struct.pack("<QQ", len(head), len(body)))
    pipe.write(head)
    pipe.write(body)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> tuple[dict[str, Any], pa.Table | None]:
    assert pipe is not None
    head, body = struct.unpack("<QQ", _exactly(pipe, 16))
    message = json.loads(_exactly(pipe, head))
    return message, pa.ipc.open_stream(_exactly(pipe, body)).read_all() if body else None


def _exactly(pipe: IO[bytes], count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _child_main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # exits when the worker closes the pipe
    watch_for_hangs()
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # keeps output that libraries print out of the answers
    try:
        spec, _ = _receive(requests)
        loaded = Loaded(StageSpec(**spec))
        _send(answers, {})
        while True:
            _, batch = _receive(requests)
            output = loaded.try_batch(batch)
            rejects = [asdict(reject) for reject in output.rejects] if output else []
            _send(answers, {"rejects": rejects}, output and output.rows)
    except EOFError:
        return
    except Exception as error:
        kind = _kind(error)
        _send(answers, {"error": str(error) if kind == "user" else error_text(error), "kind": kind})


if __name__ == "__main__":
    _child_main()
