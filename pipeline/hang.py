"""End a worker process whose batch takes too long.

The limit is a kernel timer, whose signal ends the process even if the batch holds Python's global lock. The stacks of
all threads are printed first.
"""

from __future__ import annotations

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.base import Transform

HUNG = "hung"
RULE = "took longer than ten minutes plus hang_factor times its audio"

_STDERR = 2
_watching = False
"""True in a worker process, which may be ended."""


def watch_for_hangs() -> None:
    """Let a batch that exceeds its limit end this process. Call it in the main thread of a worker process."""
    global _watching
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    faulthandler.register(signal.SIGALRM, file=_STDERR, all_threads=True, chain=True)
    _watching = True


def has_hung(code: int | None) -> bool:
    """Return True if a process's exit code says that a batch exceeded its limit."""
    return code == -signal.SIGALRM


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """End this process if the block takes longer, unless it is not a worker process. Blocks must not overlap."""
    if not _watching:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def limit_of(spec: StageSpec, transform: Transform, batch: pa.Table) -> float:
    """Return the seconds that a batch may take."""
    padded = max(transform.costs(batch), default=0) * len(batch) / SAMPLE_RATE
    return spec.hang_seconds + spec.hang_factor * padded
