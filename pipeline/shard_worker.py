"""The worker of a shard. Rows that fail alone with unexpected errors get a second opinion in a fresh process.

Bad data says so with its own error type. Any other error may be the machine's: a sick accelerator fails every row, one
after the other. So a row is rejected for it only if it fails again, alone, in a process that has just computed a row
that worked before; and if few rows of the shard fail in that way.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.pipeline.failures import TooManyFailures, most_failed
from echo_targets.pipeline.halving import Worker, work
from echo_targets.pipeline.isolation import Isolated
from echo_targets.pipeline.stage import StageSpec
from echo_targets.pipeline.worker_transform import load_transform, unload_transform
from echo_targets.schemas import KEY, Table
from echo_targets.schemas.dataset.check import broken_rows
from echo_targets.transforms.base import Output, Reject

BROKEN = "broken_rule"
"""Error class of a row whose output breaks a rule of its table."""
UNEXPECTED = 0.01
"""Share of a shard's rows that may fail with unexpected errors; more are not explained by bad data."""


class ShardWorker:
    """Computes the batches of one shard. The model is loaded when the first batch needs it.

    Args:
        spec: the stage.
        table: the table that it writes.
        rows: number of the shard's input rows.
        isolated: True if the last attempt crashed or hung: then the model runs in a child process, so that the row at
            fault can be found and rejected.
    """

    def __init__(self, spec: StageSpec, table: Table, rows: int, isolated: bool) -> None:
        self._spec, self._table, self._rows, self._isolated = spec, table, rows, isolated
        self._worker: Worker | None = None
        self._child: Isolated | None = None
        self._control: pa.Table | None = None
        self._doubtful: list[pa.Table] = []
        self._failed, self._first = 0, ""

    def __enter__(self) -> ShardWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_child()

    def outputs(self, rows: pa.Table, prepared: pa.Table | None) -> Iterator[Output]:
        """Yield the outputs of a batch, without rows that failed unexpectedly; `second_opinions` has those.

        Raises:
            TooManyFailures: more rows of the shard have failed than bad data explains.
        """
        for output in map(self._checked, work(self._loaded(), rows, prepared)):
            if self._control is None and len(output.rows):
                self._control = _row(rows, output.rows[KEY][0])
            rejects = []
            for reject in output.rejects:
                if reject.unexpected:
                    self._doubtful.append(_row(rows, reject.utterance_id))
                    self._failed += 1
                    self._first = self._first or f"{reject.utterance_id}: {reject.unexpected}"
                else:
                    rejects.append(reject)
            if self._failed > (most := most_failed(self._rows, UNEXPECTED)):
                raise TooManyFailures(f"more than {most} of its rows failed unexpectedly; first {self._first}")
            yield Output(output.rows, rejects)

    def second_opinions(self) -> Iterator[Output]:
        """Yield the outputs of the rows that failed unexpectedly since the last call, each tried alone again.

        Raises:
            TooManyFailures: the machine fails rows that it computed before, or it has computed none.
        """
        doubtful, self._doubtful = self._doubtful, []
        if not doubtful:
            return
        if self._control is None:
            raise TooManyFailures(f"none of its rows could be computed; first {self._first}")
        child = self._fresh_child()
        control = child.try_batch(self._control)
        if control is None or len(self._checked(control).rows) != 1:
            raise TooManyFailures(
                f"{self._control[KEY][0]} fails now, though it worked before, so the machine is at fault; first "
                f"{self._first}"
            )
        for row in doubtful:
            output = child.try_batch(row)
            assert output is not None  # of a single row
            yield self._checked(output)
        self._end_child()  # before the next batch loads the model in this process again

    def _checked(self, output: Output) -> Output:
        """Return the output with rejects in place of rows that break a rule of the table, as NaN scores do."""
        if not output.rows.schema.equals(self._table.schema) or not (broken := broken_rows(output.rows, self._table)):
            return output
        whole = pa.array([row not in broken for row in range(len(output.rows))], pa.bool_())
        rejects = [
            Reject(output.rows[KEY][row].as_py(), BROKEN, message, unexpected=message)
            for row, message in sorted(broken.items())
        ]
        return Output(output.rows.filter(whole), [*output.rejects, *rejects])

    def _loaded(self) -> Worker:
        if self._worker is None:
            self._worker = self._fresh_child() if self._isolated else load_transform(self._spec)
        return self._worker

    def _fresh_child(self) -> Isolated:
        """Return the transform in a new child process. This process's is released, so the device never holds two."""
        self._end_child()
        self._worker = None
        unload_transform()
        self._child = Isolated(self._spec)
        return self._child

    def _end_child(self) -> None:
        if self._child is not None:
            self._child.__exit__()
            self._child = None


def _row(rows: pa.Table, key: object) -> pa.Table:
    return rows.filter(pc.equal(rows[KEY], key))
