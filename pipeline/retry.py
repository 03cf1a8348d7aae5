"""One batch through a transform: what raises is tried again by halves, until the row that fails stands alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from echo_targets.pipeline.attempt import is_device_error, is_out_of_memory
from echo_targets.schemas import KEY
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import Output, Reject, Transform


class Worker(Protocol):
    """What works on batches: a transform here, or one in a process of its own."""

    def try_batch(self, batch: pa.Table, prepared: pa.Table | None = None) -> Output | None:
        """The output of a batch; None where it failed and its halves may not.

        Args:
            prepared: what `Transform.prepare` made of the batch, where that was done ahead.

        Raises:
            OSError, UserError, or an error of the accelerator: the fault is not in the batch.
        """


def work(worker: Worker, batch: pa.Table, prepared: pa.Table | None = None) -> Iterator[Output]:
    """Outputs of a batch; of its halves where the whole fails."""
    output = worker.try_batch(batch, prepared)
    if output is not None:
        yield output
        return
    half = len(batch) // 2
    for part in (batch[:half], batch[half:]):
        yield from work(worker, part)


def try_batch(transform: Transform, batch: pa.Table, prepared: pa.Table | None = None) -> Output | None:
    """`Worker.try_batch` of a transform in this process."""
    try:
        return transform(transform.prepare(batch) if prepared is None else prepared)
    except Exception as error:
        if is_device_error(error) or isinstance(error, UserError | ImportError):
            raise
        return reject_alone(transform, batch, _error_class(error), str(error))


def reject_alone(
    transform: Transform, batch: pa.Table, error_class: str, message: str, attempts: int = 1
) -> Output | None:
    """Refuses a row that fails on its own; None for a batch of more rows."""
    if len(batch) > 1:
        return None
    reject = Reject(batch[KEY][0].as_py(), error_class, f"{error_class}: {message}", attempts)
    return Output(transform.writes.schema.empty_table(), [reject])


def _error_class(error: Exception) -> str:
    return "out_of_memory" if is_out_of_memory(error) else type(error).__name__
