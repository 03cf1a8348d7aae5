"""Run one shard: read windows of rows, pack them into batches, call the transform, write and commit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from echo_targets.pipeline.attempt import attempt, forget
from echo_targets.pipeline.commit import ShardWriter
from echo_targets.pipeline.failures import TooManyFailures, most_unexpected
from echo_targets.pipeline.isolation import Isolated
from echo_targets.pipeline.pack import pack
from echo_targets.pipeline.prefetch import prefetch
from echo_targets.pipeline.retry import try_batch, work
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import KEY, SAMPLE_RATE, Table
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, Manifest, StageInfo
from echo_targets.transforms.base import Output, Reject, Transform

WINDOW_BYTES = 1 << 28
"""A window ends at this size even if it has few rows, since rows may be hours long."""

Progress = Callable[[int], None]

PREFETCH = 2
"""Batches to read and decode ahead of the model."""


@dataclass(frozen=True)
class ShardTask:
    """Description of the work on one shard; everything that is sent to a worker."""

    root: str
    spec: StageSpec
    info: StageInfo
    shard: int


def run_shard(task: ShardTask, progress: Progress = lambda samples: None) -> Manifest:
    """Run one shard, or return the manifest of an earlier run.

    After an attempt that crashed, the transform runs in a child process, so that a row that crashes it can be found
    and rejected.

    Args:
        task: the shard and its stage.
        progress: called with the number of 16 kHz samples of each finished batch.

    Returns:
        The manifest of the committed shard.

    Raises:
        CommitError: the result violates the contract.
        OSError, or an accelerator error: storage or the device failed; the shard can be retried.
    """
    dataset = Dataset(task.root)
    info = task.info
    if done := dataset.manifest(info.table, info.fingerprint, task.shard, info.shards):
        return done
    with attempt(dataset, info, task.shard) as last, ExitStack() as stack:
        crashed = last is not None and last.reason is None
        worker = stack.enter_context(_isolated(task.spec)) if crashed else load_transform(task.spec)
        writer = stack.enter_context(ShardWriter(dataset, worker.transform.writes, info, task.shard))
        outcome, budget = _Outcome(worker.transform), _Budget(dataset, task, worker.transform)
        batches = stack.enter_context(closing(prefetch(_batches(dataset, worker, task), PREFETCH)))
        for batch in batches:
            outcome.add(budget.spent(work(worker, batch.rows, batch.prepared)))
            progress(batch.samples)
            if batch.last:
                window = batch.window
                writer.write(window.keys, window.samples, outcome.table(), outcome.rejects)
                outcome = _Outcome(worker.transform)
        forget(dataset, info, task.shard)
        return writer.commit()


class Loaded:
    """A transform with a loaded model. Threads of a process share it and take turns batch by batch."""

    def __init__(self, spec: StageSpec) -> None:
        self.spec = spec
        self.transform = spec.build()
        self.transform.setup()
        self._turn = Lock()

    def try_batch(self, batch: pa.Table, prepared: pa.Table | None = None) -> Output | None:
        """Implement `retry.Worker.try_batch`."""
        with self._turn:
            return try_batch(self.transform, batch, prepared)


_loaded: Loaded | None = None
"""The transform of this process. Its model is loaded once, and released when another stage starts."""
_loading = Lock()


def load_transform(spec: StageSpec) -> Loaded:
    """Load a stage's transform in this process, or return it if it is already loaded."""
    global _loaded
    with _loading:
        if _loaded is None or _loaded.spec != spec:
            _loaded = None  # release it first, so that memory never holds two models
            _loaded = Loaded(spec)
        return _loaded


def loaded_transform() -> Transform | None:
    """Return the transform that this process has loaded, or None."""
    return _loaded.transform if _loaded else None


def unload_transform() -> None:
    """Release the process's transform and its model."""
    global _loaded
    with _loading:
        _loaded = None


def _isolated(spec: StageSpec) -> Isolated:
    """Return the transform in a child process; first unload this process's, so that the device never holds two."""
    unload_transform()
    return Isolated(spec)


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


class _Budget:
    """Fails a shard of which more rows failed with unexpected errors than bad data explains."""

    def __init__(self, dataset: Dataset, task: ShardTask, transform: Transform) -> None:
        rows = _ShardTables(dataset, task, transform.reads).file(transform.reads[0].name).metadata.num_rows
        self._most, self._failed, self._first = most_unexpected(rows), 0, ""

    def spent(self, outputs: Iterable[Output]) -> Iterator[Output]:
        """Pass outputs on.

        Raises:
            TooManyFailures: the budget is spent.
        """
        for output in outputs:
            for reject in output.rejects:
                if reject.unexpected:
                    self._failed += 1
                    self._first = self._first or f"{reject.utterance_id}: {reject.unexpected}"
            if self._failed > self._most:
                raise TooManyFailures(
                    f"more than {self._most} of its rows failed unexpectedly, so the data is probably not at fault; "
                    f"first {self._first}"
                )
            yield output


@dataclass(frozen=True)
class _Window:
    """Rows that are read and written together."""

    keys: list[str]
    samples: int


@dataclass(frozen=True)
class _Batch:
    rows: pa.Table
    prepared: pa.Table | None
    samples: int
    window: _Window
    last: bool


def _batches(dataset: Dataset, worker: Loaded | Isolated, task: ShardTask) -> Iterator[_Batch]:
    """Yield the batches of each window, prepared for the model."""
    transform = worker.transform
    budget = int(task.spec.batch_seconds * SAMPLE_RATE)
    for rows in _windows(dataset, transform, task):
        costs = transform.costs(rows)
        samples = rows["num_samples"].to_pylist() if "num_samples" in rows.column_names else costs
        window = _Window(rows[KEY].to_pylist(), sum(samples))
        packed = list(pack(costs, budget, transform.equal_costs))
        for number, positions in enumerate(packed, 1):
            batch = rows.take(positions)
            prepared = _prepared(transform, batch) if isinstance(worker, Loaded) else None
            batch_samples = sum(samples[position] for position in positions)
            yield _Batch(batch, prepared, batch_samples, window, number == len(packed))


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
        fingerprint = self._task.info.upstream[name]
        manifest = self._dataset.manifest(name, fingerprint, self._task.shard, self._task.info.shards)
        if manifest is None:
            raise LayoutError(f"{name} {fingerprint}: shard {self._task.shard} is not committed")
        return self._dataset.open(manifest.output.path)

    def __getitem__(self, name: str) -> pa.Table:
        if name not in self._task.info.upstream:
            raise KeyError(name)
        if name not in self._tables:
            with self.file(name) as file:
                self._tables[name] = file.read(self._columns[name]).unify_dictionaries().combine_chunks()
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._task.info.upstream)

    def __len__(self) -> int:
        return len(self._task.info.upstream)


def _without_audio(table: Table) -> list[str]:
    return [name for name in table.schema.names if f"{name}.bytes" not in table.unchecked]
