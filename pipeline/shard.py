"""Running one shard: read windows of rows, pack them into batches, call the transform, write, commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.batching import pack
from pipeline.commit import ShardWriter
from pipeline.stage import StageSpec
from schemas import KEY, SAMPLE_RATE, TABLES
from schemas.base import UserError
from schemas.layout import Dataset, LayoutError, Manifest, StageInfo
from transforms.base import Output, Reject, Transform

WINDOW_ROWS = 800

Progress = Callable[[int], None]


@dataclass(frozen=True)
class ShardTask:
    """The description of one shard's work; all that travels to a worker."""

    root: str
    spec: StageSpec
    info: StageInfo
    shard: int


_loaded: tuple[StageSpec, Transform] | None = None


def run_shard(task: ShardTask, progress: Progress = lambda samples: None) -> Manifest:
    """Runs one shard, or gives the manifest of an earlier run.

    Args:
        progress: called with the number of 16 kHz samples that each batch has worked through.

    Raises:
        CommitError: the result breaks the contract.
        OSError, or an error of the accelerator: storage or the device failed; the shard can be tried again.
    """
    dataset = Dataset(task.root)
    info = task.info
    if done := dataset.manifest(info.table, info.fingerprint, task.shard, info.shards):
        return done
    transform = load_transform(task.spec)
    budget = int(task.spec.batch_seconds * SAMPLE_RATE)
    with ShardWriter(dataset, info, task.shard) as writer:
        for rows in _windows(dataset, transform, task):
            outcome = _Outcome()
            costs = transform.costs(rows)
            samples = rows["num_samples"].to_pylist() if "num_samples" in rows.column_names else costs
            for positions in pack(costs, budget, transform.equal_costs):
                outcome.add(transform, rows.take(positions))
                progress(sum(samples[position] for position in positions))
            writer.write(rows[KEY].to_pylist(), sum(samples), outcome.table(transform), outcome.rejects)
        return writer.commit()


def load_transform(spec: StageSpec) -> Transform:
    """The worker's transform: a model is loaded once, and given up when the next stage comes."""
    global _loaded
    if _loaded is None or _loaded[0] != spec:
        _loaded = None
        transform = spec.build()
        transform.setup()
        _loaded = (spec, transform)
    return _loaded[1]


class _Outcome:
    """Gathers what became of a window's batches."""

    def __init__(self) -> None:
        self.parts: list[pa.Table] = []
        self.rejects: list[tuple[Reject, int]] = []

    def add(self, transform: Transform, batch: pa.Table, attempt: int = 1) -> None:
        """Runs a batch; one that fails is tried again by halves, until the row that fails stands alone."""
        output = _attempt(transform, batch)
        if output is None:  # outside of the handler: its error's frames hold the memory of the batch that failed
            half = len(batch) // 2
            self.add(transform, batch[:half], attempt + 1)
            self.add(transform, batch[half:], attempt + 1)
            return
        self.parts.append(output.rows)
        self.rejects += [(reject, attempt) for reject in output.rejects]

    def table(self, transform: Transform) -> pa.Table:
        return pa.concat_tables([transform.writes.schema.empty_table(), *self.parts])


def _attempt(transform: Transform, batch: pa.Table) -> Output | None:
    """The output of a batch; None where it failed and its halves may not."""
    try:
        return transform(batch)
    except Exception as error:
        if is_device_error(error) or isinstance(error, UserError):
            raise
        return Output(transform.writes.schema.empty_table(), [_reject(batch, error)]) if len(batch) == 1 else None


def _reject(batch: pa.Table, error: Exception) -> Reject:
    error_class = "out_of_memory" if _is_out_of_memory(error) else type(error).__name__
    return Reject(batch[KEY][0].as_py(), error_class, f"{error_class}: {error}")


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def is_device_error(error: Exception) -> bool:
    """Whether trying again can help: storage, network and accelerator faults.

    CUDA's errors are told from a model's by their message alone.
    """
    if _is_out_of_memory(error):
        return False
    named = type(error).__name__ == "AcceleratorError"
    return named or isinstance(error, OSError) or "CUDA error" in str(error)


def _windows(dataset: Dataset, transform: Transform, task: ShardTask) -> Iterator[pa.Table]:
    shard = _ShardTables(dataset, task)
    first = shard.file(transform.reads[0].name)
    columns = None if transform.wants_audio else _without_audio(first)
    parts: list[pa.Table] = []
    for group in range(first.metadata.num_row_groups):
        parts.append(first.read_row_group(group, columns))
        if sum(len(part) for part in parts) >= WINDOW_ROWS or group + 1 == first.metadata.num_row_groups:
            rows = transform.rows(pa.concat_tables(parts).unify_dictionaries().combine_chunks(), shard)
            parts = []
            if len(rows):
                yield rows


class _ShardTables(Mapping[str, pa.Table]):
    """A shard's input tables, each read whole when first asked for, without audio bytes."""

    def __init__(self, dataset: Dataset, task: ShardTask) -> None:
        self._dataset, self._task = dataset, task
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
                self._tables[name] = file.read(_without_audio(file)).unify_dictionaries().combine_chunks()
        return self._tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._task.info.upstream)

    def __len__(self) -> int:
        return len(self._task.info.upstream)


def _without_audio(file: pq.ParquetFile) -> list[str]:
    table = TABLES[file.schema_arrow.metadata[b"schema_name"].decode()]
    return [name for name in table.schema.names if f"{name}.bytes" not in table.unchecked]
