"""Compare the shard writer, including check and commit, with `datasets` `to_parquet` and Ray Data `write_parquet`.

python -m benchmarks.write [--limit N] [--rounds 5]

The rows are units of real speech, each utterance 100 times with its units renumbered so that no row repeats; ours come
in batches of 64, as from a stage. Ours also checks every rule, reads the file again and hashes it; the others just
write.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import chosen, compare
from benchmarks.units import units_of_speech
from echo_targets.pipeline.commit import ShardWriter
from echo_targets.schemas import KEY, TABLES, UNITS
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.versions import Recipe
from echo_targets.transforms.base import table_of

TIMES, BATCH = 100, 64


def main(limit: int | None, rounds: int) -> None:
    import datasets
    import ray

    sequences, seconds = units_of_speech(limit)
    renumbered = ((units + shift) % 100 for shift in range(TIMES) for units in sequences)
    rows = table_of((_row(number, units) for number, units in enumerate(renumbered)), UNITS)
    plain = pa.table({name: _plain(rows[name]) for name in rows.column_names})
    recipe = Recipe("tokenize", 1, UNITS.name, UNITS.version, {}, {}, {})
    keys = rows[KEY].to_pylist()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    as_dataset, as_ray = datasets.Dataset(plain), ray.data.from_arrow(plain)

    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in ("ours", "datasets", "ray", "alone")}

        def ours() -> None:
            _empty(folders["ours"])
            with ShardWriter(Dataset(str(folders["ours"])), TABLES[recipe.table], recipe, "0" * 16) as writer:
                for first in range(0, len(rows), BATCH):
                    writer.write(keys[first : first + BATCH], 0, rows[first : first + BATCH], [])
                writer.commit()

        def with_datasets() -> None:
            _empty(folders["datasets"])
            as_dataset.to_parquet(folders["datasets"] / "all.parquet")

        def with_ray() -> None:
            _empty(folders["ray"])
            as_ray.write_parquet(str(folders["ray"]))

        def write_alone() -> None:
            _empty(folders["alone"])
            options = {"write_page_index": True, "write_page_checksum": True, "use_content_defined_chunking": True}
            path = folders["alone"] / "all.parquet"
            pq.write_table(rows, path, compression="zstd", row_group_size=UNITS.row_group_rows, **options)

        print(f"{len(rows)} rows\n")
        contenders = {
            "echo-targets, ShardWriter": ours,
            "datasets, to_parquet": with_datasets,
            "Ray Data, write_parquet": with_ray,
            "pyarrow, our settings, no check": write_alone,
        }
        with_ray()  # starting its workers is not timed
        compare(contenders, seconds * TIMES, rounds, len(rows))
        for name, folder in folders.items():
            files = sorted(folder.rglob("*.parquet"))
            written = pa.concat_tables([pq.ParquetFile(file).read().select([KEY, "units"]) for file in files])
            same = sorted(written.to_pylist(), key=_key) == sorted(rows.select([KEY, "units"]).to_pylist(), key=_key)
            size = sum(file.stat().st_size for file in files)
            print(f"{name}: {size} bytes, {'the' if same else 'NOT the'} same rows")
    ray.shutdown()


def _row(number: int, units: np.ndarray) -> dict[str, object]:
    durations = np.random.default_rng(number).integers(1, 6, len(units))
    return {
        KEY: f"utterance-{number}",
        "codebook_id": "tiny.en-l3-k100",
        "codebook_size": 100,
        "num_codebooks": 1,
        "layer": 3,
        "sampling_rate": 16_000,
        "hop_samples": 320,
        "num_frames": int(durations.sum()),
        "units": [units],
        "durations": durations.tolist(),
        "unit_words": None,
        "unit_language_id": None,
    }


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def _key(row: dict[str, object]) -> str:
    return str(row[KEY])


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)
