"""One batch through a transform: what raises is tried again by halves, until the row that fails stands alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pyarrow as pa

from echo_targets.pipeline.attempt import error_text
from echo_targets.pipeline.failures import fails_the_shard, is_out_of_memory
from echo_targets.schemas import KEY
from echo_targets.transforms.base import Output, Reject, Transform
from echo_targets.transforms.errors import BadData


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
        if fails_the_shard(error):
            raise
        if isinstance(error, BadData):
            return reject_alone(transform, batch, error.error_class, str(error))
        name = _error_class(error)
        return reject_alone(transform, batch, name, f"{name}: {error}", unexpected=error_text(error))


def reject_alone(
    transform: Transform, batch: pa.Table, error_class: str, message: str, attempts: int = 1, unexpected: str = ""
) -> Output | None:
    """Refuses a row that fails on its own; None for a batch of more rows."""
    if len(batch) > 1:
        return None
    reject = Reject(batch[KEY][0].as_py(), error_class, message, attempts, unexpected)
    return Output(transform.writes.schema.empty_table(), [reject])


def _error_class(error: Exception) -> str:
    return "out_of_memory" if is_out_of_memory(error) else type(error).__name__
