"""Run a batch through a transform. A batch that raises is split in halves until the failing row is found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from echo_targets.pipeline.attempt import error_text
from echo_targets.pipeline.failures import fails_the_shard, is_out_of_memory
from echo_targets.pipeline.memory import free_memory
from echo_targets.schemas import KEY
from echo_targets.transforms.base import Output, Reject, Transform
from echo_targets.transforms.errors import BadData


class Worker(Protocol):
    """Processes batches: a transform in this process, or one in a child process."""

    def try_batch(self, batch: pa.Table, prepared: pa.Table | None = None) -> Output | None:
        """Return the output of a batch, or None if it failed and its halves should be tried.

        Args:
            batch: input rows.
            prepared: result of `Transform.prepare` for the batch, if it was prefetched.

        Raises:
            OSError, UserError, or an accelerator error: the batch is not at fault.
        """


def work(worker: Worker, batch: pa.Table, prepared: pa.Table | None = None) -> Iterator[Output]:
    """Yield the outputs of a batch, or those of its halves if the whole batch fails."""
    output = worker.try_batch(batch, prepared)
    if output is not None:
        yield output
        return
    half = len(batch) // 2
    for part in (batch[:half], batch[half:]):
        yield from work(worker, part)


def try_batch(transform: Transform, batch: pa.Table, prepared: pa.Table | None = None) -> Output | None:
    """Implement `Worker.try_batch` for a transform in this process."""
    try:
        return transform(transform.prepare(batch) if prepared is None else prepared)
    except Exception as error:
        if fails_the_shard(error):
            raise
        if isinstance(error, BadData):
            return reject_single(transform, batch, error.error_class, str(error))
        out_of_memory = is_out_of_memory(error)
        name = "out_of_memory" if out_of_memory else type(error).__name__
        output = reject_single(transform, batch, name, f"{name}: {error}", unexpected=error_text(error))
    if out_of_memory:  # here the error no longer holds what the batch allocated, so that its halves have room
        free_memory()
    return output


def reject_single(
    transform: Transform, batch: pa.Table, error_class: str, message: str, attempts: int = 1, unexpected: str = ""
) -> Output | None:
    """Return an output that rejects the row of a failed single-row batch; None for a larger batch."""
    if len(batch) > 1:
        return None
    reject = Reject(batch[KEY][0].as_py(), error_class, message, attempts, unexpected)
    return Output(transform.writes.schema.empty_table(), [reject])
