"""Run one shard: read windows of rows, pack them into batches, call the transform, write and commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from echo_targets.pipeline.attempt import attempt, forget
from echo_targets.pipeline.commit import ShardWriter
from echo_targets.pipeline.failures import TooManyRejects, examples_of, most_failed
from echo_targets.pipeline.pack import pack
from echo_targets.pipeline.prefetch import prefetch
from echo_targets.pipeline.reuse import TakenOver
from echo_targets.pipeline.shard_worker import ShardWorker
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import KEY, SAMPLE_RATE, Table
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, Manifest
from echo_targets.schemas.dataset.versions import Recipe
from echo_targets.transforms.base import NO_FAILURES, Output, Reject, Transform

WINDOW_BYTES = 1 << 28
"""A window ends at this size even if it has few rows, since rows may be hours long."""

Progress = Callable[[int], None]

PREFETCH = 2
"""Batches to read and decode ahead of the model."""


@dataclass(frozen=True)
class ShardTask:
    """Description of the work on one shard; everything that is sent to a worker.

    Attributes:
        root: root of the dataset.
        spec, recipe: the stage.
        shard: id of the shard.
        position: number of the shard in its snapshot, from 0.
        donors: ids of earlier shards that may hold the outcomes of unchanged rows.
        max_reject_fraction: a shard of which more rows are rejected fails; `most_failed` has the limit for few rows.
    """

    root: str
    spec: StageSpec
    recipe: Recipe
    shard: str
    position: int = 0
    donors: tuple[str, ...] = ()
    max_reject_fraction: float = 1.0


def done(task: ShardTask) -> Manifest | None:
    """Return the manifest of a shard that is committed and whose file is there."""
    dataset, recipe = Dataset(task.root), task.recipe
    manifest = dataset.manifest(recipe.table, recipe.fingerprint, task.shard)
    return manifest if manifest and dataset.storage.size(manifest.output.path) is not None else None


def run_shard(task: ShardTask, progress: Progress = lambda samples: None) -> Manifest:
    """Run one shard, or return the manifest of an earlier run.

    After an attempt that crashed or hung, the transform runs in a child process, so that the row at fault can be found
    and rejected.

    Args:
        task: the shard and its stage.
        progress: called with the number of 16 kHz samples of each finished batch.

    Returns:
        The manifest of the committed shard.

    Raises:
        CommitError: the result violates the contract.
        TooManyRejects: more of its rows were rejected than the job allows.
        OSError, or an accelerator error: storage or the device failed; the shard can be retried.
    """
    dataset, recipe = Dataset(task.root), task.recipe
    if manifest := done(task):
        return manifest
    with attempt(dataset, recipe, task.shard) as last, ExitStack() as stack:
        transform = task.spec.build()  # reads and prepares; the worker has the model
        crashed = last is not None and last.reason is None
        taken = TakenOver(dataset, recipe, transform, task.shard, task.donors)
        rows = _ShardTables(dataset, task, transform.reads).file(transform.reads[0].name).metadata.num_rows
        worker = stack.enter_context(ShardWorker(task.spec, transform.writes, rows, isolated=crashed))
        writer = stack.enter_context(ShardWriter(dataset, transform.writes, recipe, task.shard))
        outcome, limit = _Outcome(transform), _Limit(task.max_reject_fraction)
        reading = _batches(dataset, transform, taken, task, ahead=not crashed)
        for batch in stack.enter_context(closing(prefetch(reading, PREFETCH))):
            window = batch.window
            outcome.add(
                [taken.outcomes(window.keys)] if batch.rows is None else worker.outputs(batch.rows, batch.prepared)
            )
            progress(batch.samples)
            if batch.last:
                outcome.add(worker.second_opinions())
                writer.write(window.keys, window.samples, outcome.table(), outcome.rejects)
                limit.add(len(window.keys), outcome.rejects)
                outcome = _Outcome(transform)
        limit.check()
        forget(dataset, recipe, task.shard)
        return writer.commit()


class _Outcome:
    """Collects the outputs of a window's batches."""

    def __init__(self, transform: Transform) -> None:
        self.parts = [transform.writes.schema.empty_table()]
        self.rejects: list[Reject] = []

    def add(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            self.parts.append(output.rows)
            self.rejects += output.rejects

    def table(self) -> pa.Table:
        return pa.concat_tables(self.parts)


class _Limit:
    """Fails a shard of which more rows were rejected than the job allows."""

    def __init__(self, fraction: float) -> None:
        self._fraction, self._rows, self._rejects = fraction, 0, list[Reject]()

    def add(self, rows: int, rejects: list[Reject]) -> None:
        self._rows += rows
        self._rejects += [reject for reject in rejects if not reject.error_class.startswith(NO_FAILURES)]

    def check(self) -> None:
        """Check the whole shard.

        Raises:
            TooManyRejects: more rows were rejected than the job allows.
        """
        if len(self._rejects) > most_failed(self._rows, self._fraction):
            reasons = Counter(reject.error_class for reject in self._rejects).most_common()
            raise TooManyRejects(
                f"{len(self._rejects)} of its {self._rows} rows were rejected "
                f"({', '.join(f'{count} {reason}' for reason, count in reasons)}), more than "
                f"max_reject_fraction={self._fraction:g} allows. Examples: {examples_of(self._rejects)}"
            )


@dataclass(frozen=True)
class _Window:
    """Rows that are read and written together."""

    keys: list[str]
    samples: int


@dataclass(frozen=True)
class _Batch:
    """Rows to process; None stands for all rows of the window that are taken over."""

    rows: pa.Table | None
    prepared: pa.Table | None
    samples: int
    window: _Window
    last: bool


def _batches(
    dataset: Dataset, transform: Transform, taken: TakenOver, task: ShardTask, ahead: bool
) -> Iterator[_Batch]:
    """Yield the batches of each window, prepared for the model if `ahead` is True."""
    budget = int(task.spec.batch_seconds * SAMPLE_RATE)
    for rows in _windows(dataset, transform, task):
        costs = transform.costs(rows)
        samples = rows["num_samples"].to_pylist() if "num_samples" in rows.column_names else costs
        window = _Window(rows[KEY].to_pylist(), sum(samples))
        known = taken.mask(rows[KEY]).to_numpy(zero_copy_only=False)
        fresh = np.flatnonzero(~known)
        packed = list(pack([costs[place] for place in fresh], budget, transform.equal_costs))
        if known.any():
            yield _Batch(None, None, sum(samples[place] for place in np.flatnonzero(known)), window, not packed)
        for number, positions in enumerate(packed, 1):
            places = fresh[positions]
            batch = rows.take(places)
            prepared = _prepared(transform, batch) if ahead else None
            yield _Batch(batch, prepared, sum(samples[place] for place in places), window, number == len(packed))


def _prepared(transform: Transform, batch: pa.Table) -> pa.Table | None:
    try:
        return transform.prepare(batch)
    except Exception:  # raised again and handled when the batch is processed
        return None


def _windows(dataset: Dataset, transform: Transform, task: ShardTask) -> Iterator[pa.Table]:
    shard = _ShardTables(dataset, task, transform.reads)
    first = shard.file(transform.reads[0].name)
    without_audio = _without_audio(transform.reads[0])
    columns = None if transform.wants_audio else without_audio
    parts: list[pa.Table] = []
    for group in range(first.metadata.num_row_groups):
        wanted = transform.wanted(first.read_row_group(group, without_audio))
        if wanted is not None and not wanted.true_count:
            continue
        part = first.read_row_group(group, columns)
        parts.append(part if wanted is None else part.filter(wanted))
        full = sum(map(len, parts)) >= transform.window_rows or sum(part.nbytes for part in parts) >= WINDOW_BYTES
        if full:
            window = pa.concat_tables(parts)
            end = _last_start(window, transform.together)
            parts = [window.slice(end)] if end < len(window) else []
            yield from _joined(transform, window.slice(0, end), shard)
    if parts:
        yield from _joined(transform, pa.concat_tables(parts), shard)


def _last_start(window: pa.Table, together: str | None) -> int:
    """Return where the last group of rows starts, which may continue in the next window; else the window's end.

    Args:
        window: rows.
        together: column whose equal consecutive values form a group; None if rows are independent.
    """
    values = window[together].to_pylist() if together else [None]
    start = len(values)
    while start and values[-1] is not None and values[start - 1] == values[-1]:
        start -= 1
    return start if together and start else len(window)  # a group that fills the window is split


def _joined(transform: Transform, window: pa.Table, shard: _ShardTables) -> Iterator[pa.Table]:
    rows = transform.rows(window.unify_dictionaries().combine_chunks(), shard)
    if len(rows):
        yield rows


class _ShardTables(Mapping[str, pa.Table]):
    """A shard's input tables, each loaded completely on first access, without audio bytes."""

    def __init__(self, dataset: Dataset, task: ShardTask, reads: tuple[Table, ...]) -> None:
        self._dataset, self._task = dataset, task
        self._columns = {table.name: _without_audio(table) for table in reads}
        self._tables: dict[str, pa.Table] = {}

    def file(self, name: str) -> pq.ParquetFile:
        fingerprint = self._task.recipe.upstream[name]
        manifest = self._dataset.manifest(name, fingerprint, self._task.shard)
        if manifest is None:
            raise LayoutError(f"{name} {fingerprint}: shard {self._task.shard} is not committed")
        return self._dataset.open(manifest.output.path)

    def __getitem__(self, name: str) -> pa.Table:
        if name not in self._task.recipe.upstream:
            raise KeyError(name)
        if name not in self._tables:
            with self.file(name) as file:
                self._tables[name] = file.read(self._columns[name]).unify_dictionaries().combine_chunks()
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._task.recipe.upstream)

    def __len__(self) -> int:
        return len(self._task.recipe.upstream)


def _without_audio(table: Table) -> list[str]:
    return [name for name in table.schema.names if f"{name}.bytes" not in table.unchecked]
