"""Compare reading training/echo with `datasets` streaming and plain pyarrow, and its memory with that of the table.

python -m benchmarks.reading [root] [rounds]

Every contender reads all rows of the same columns into Python objects in its own process, and they take turns; the
files are in the page cache. Ours shuffles and packs batches; the others read in order. Without a root, it writes a
table of 100,000 replies of 400 units, with 4 kB instead of audio.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from echo_targets.schemas import ECHO, KEY
from echo_targets.schemas.dataset.layout import Dataset, FileEntry, Manifest
from echo_targets.schemas.dataset.versions import Recipe, ShardEntry, Snapshot, Version

COLUMNS = [KEY, "asr_target_ids", "response_token_ids", "sub_lengths", "unit_targets"]
SETS = {"tokens and units": COLUMNS, "with audio": [*COLUMNS, "audio"]}
SHARDS, SHARD_ROWS, SEGMENTS, SEGMENT_UNITS, SEGMENT_TOKENS = 20, 5000, 2, 200, 20


Rows = Iterator[list[dict[str, Any]]]


def ours(root: str, files: list[str], columns: list[str]) -> Rows:
    from echo_targets.transforms.loading.dataset import EchoTargetDataset

    yield from EchoTargetDataset(root, columns=columns)


def datasets_streaming(root: str, files: list[str], columns: list[str]) -> Rows:
    from datasets import load_dataset

    stream = load_dataset("parquet", data_files=files, columns=columns, streaming=True, split="train")
    yield from ([row] for row in stream)


def plain_pyarrow(root: str, files: list[str], columns: list[str]) -> Rows:
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(1000, columns=columns):
            yield batch.to_pylist()


def whole_table(root: str, files: list[str], columns: list[str]) -> Rows:
    table = pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
    yield [{"unit_targets": [[chunk.values.values.values]]} for chunk in table["unit_targets"].chunks]


CONTENDERS: dict[str, Callable[[str, list[str], list[str]], Rows]] = {
    "EchoTargetDataset, shuffled, in batches": ours,
    "datasets, streaming": datasets_streaming,
    "pyarrow, iter_batches and to_pylist": plain_pyarrow,
    "pyarrow, the whole table as Arrow": whole_table,
}


def main(root: str, rounds: int) -> None:
    for file in _files(root):
        Path(file).read_bytes()
    for title, columns in SETS.items():
        found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
        for _ in range(rounds):
            for name, results in found.items():
                command = [sys.executable, "-m", "benchmarks.reading", "--one", name, root, *columns]
                results.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
        (units,) = {result["units"] for results in found.values() for result in results}
        mine, whole = (found[name] for name in (next(iter(CONTENDERS)), next(reversed(CONTENDERS))))
        print(f"\n{title}: {units / 1e6:.1f} million units\n")
        print("| | million units a second | over ours (min to max of the rounds) | peak memory, MB | of the table's |")
        print("| --- | --- | --- | --- | --- |")
        for name, results in found.items():
            ratios = sorted(own["seconds"] / other["seconds"] for own, other in zip(mine, results, strict=True))
            speed = statistics.median(units / result["seconds"] / 1e6 for result in results)
            peak, table = (statistics.median(each["peak"] for each in some) for some in (results, whole))
            print(
                f"| {name} | {speed:.2f} | {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) "
                f"| {peak / 1e6:.0f} | {peak / table:.2f} |",
                flush=True,
            )


def one(name: str, root: str, columns: list[str]) -> None:
    """Read an epoch; print seconds, units, and the bytes by which the process grew, excluding imports."""
    import datasets  # noqa: F401

    import echo_targets.transforms.loading.dataset  # noqa: F401

    files = _files(root)
    contender = CONTENDERS[name]
    pq.ParquetFile(files[0]).read_row_group(0, columns)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak memory
    before = _status("VmRSS")
    if contender is not whole_table:
        next(contender(root, files[:1], columns))  # warm-up: imports and start-up are not timed
    gc.collect()
    gc.freeze()  # exclude imported libraries from garbage collection
    started = time.perf_counter()
    units = sum(
        len(part) for rows in contender(root, files, columns) for row in rows for (part,) in row["unit_targets"]
    )
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "units": units, "peak": _status("VmHWM") - before}))


def _files(root: str) -> list[str]:
    dataset = Dataset(root)
    return [dataset.path(manifest.output.path) for manifest in dataset.manifests(ECHO.name)]


def _status(name: str) -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def write_table(folder: Path) -> None:
    """Write shards of training/echo with the columns that the benchmark reads."""
    rng = np.random.default_rng(0)
    recipe = Recipe("publish_echo", 1, ECHO.name, ECHO.version, {}, {}, {})
    fingerprint, snapshot = recipe.fingerprint, Snapshot(tuple(ShardEntry(f"{n:016x}", 0, 0) for n in range(SHARDS)))
    (folder / ECHO.name / fingerprint).mkdir(parents=True)
    schema = pa.schema([ECHO.schema.field(name) for name in SETS["with audio"]])
    for shard in range(SHARDS):
        path = f"{ECHO.name}/{fingerprint}/{shard:016x}"
        segments = SHARD_ROWS * SEGMENTS
        tokens = rng.integers(0, 128_000, segments * SEGMENT_TOKENS, np.int32)
        units = _lists(rng.integers(0, 1000, segments * SEGMENT_UNITS, np.int32), segments)
        audio = _lists(rng.bytes(SHARD_ROWS * 4096), SHARD_ROWS)
        columns = [
            pa.array([f"reply-{shard}-{row}" for row in range(SHARD_ROWS)]),
            _lists(tokens, SHARD_ROWS),
            _lists(tokens, SHARD_ROWS),
            _lists(np.full(segments, SEGMENT_TOKENS, np.int32), SHARD_ROWS),
            _lists(units, SHARD_ROWS),
            pa.StructArray.from_arrays(
                [audio, pa.nulls(SHARD_ROWS, pa.string())], fields=list(schema.field("audio").type)
            ),
        ]
        table = pa.table(columns, schema=schema.remove_metadata())
        pq.write_table(table, folder / f"{path}.parquet", row_group_size=ECHO.row_group_rows, compression="zstd")
        entry = FileEntry(f"{path}.parquet", 0, "", SHARD_ROWS)
        manifest = Manifest(ECHO.name, fingerprint, f"{shard:016x}", SHARD_ROWS, 0, entry)
        (folder / f"{path}.json").write_bytes(manifest.to_json())
    (folder / ECHO.name / fingerprint / "recipe.json").write_bytes(recipe.to_json())
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / f"{snapshot.id}.json").write_bytes(snapshot.to_json())
    version = Version(fingerprint, snapshot.id)
    (folder / "index.json").write_text(json.dumps({"tables": {ECHO.name: str(version)}}))


def _lists(values: np.ndarray | pa.Array | bytes, count: int) -> pa.Array:
    """Return values in lists of equal length, or bytes in strings of equal length."""
    offsets = np.linspace(0, len(values), count + 1).astype(np.int32)
    if isinstance(values, bytes):
        return pa.BinaryArray.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), pa.py_buffer(values)])
    kind = pa.list_(
        pa.field(
            "element",
            values.type if isinstance(values, pa.Array) else pa.from_numpy_dtype(values.dtype),
            nullable=False,
        )
    )
    return pa.ListArray.from_arrays(offsets, pa.array(values) if isinstance(values, np.ndarray) else values, type=kind)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3], sys.argv[4:])
    else:
        given = [each for each in sys.argv[1:] if not each.isdigit()]
        chosen = next((int(each) for each in sys.argv[1:] if each.isdigit()), 5)
        with TemporaryDirectory() as temporary:
            if not given:
                write_table(Path(temporary))
            main(given[0] if given else temporary, chosen)
