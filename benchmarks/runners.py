"""Measure the runners' overhead: wall time in excess of a stand-in model of known duration, with shards of 30 hours.

python -m benchmarks.runners [--hours 30] [--shards 1] [--factor 0.0025] [--runners local,ray,beam]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.stages import clips
from echo_targets.jobs.config import execution
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import plan
from echo_targets.pipeline.runners.local import LocalRunner
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import ENTRIES, SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset

OPTIONS = {
    "local": ["workers=1"],
    "ray": ["runner=ray", "ray.max_workers=1"],
    "beam": ["runner=beam", "beam.direct_running_mode=multi_processing", "beam.direct_num_workers=1"],
}


def entries(hours: float) -> list[dict[str, Any]]:
    """Return rows that repeat the real speech until the hours are filled."""
    rows: list[dict[str, Any]] = []
    seconds = 0.0
    while seconds < hours * 3600:
        length = clips()[len(rows) % len(clips())][1] / SAMPLE_RATE
        named = {
            "source": "speech/train",
            "source_fingerprint": "0" * 16,
            "locator": "",
            "role": "narrator",
            "attempt": 0,
        }
        same = dict.fromkeys(ENTRIES.columns) | named
        about = {"corpus": "speech", "split": "train", "language": "en", "channel": -1, "license": "CC-BY-4.0"}
        rows.append(same | about | {"utterance_id": f"{len(rows):08d}", "seconds": length})
        seconds += length
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=30.0)
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--factor", type=float, default=0.0025)
    parser.add_argument("--runners", default="local,ray,beam")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        planned = plan(entries(chosen.hours * chosen.shards), chosen.hours)
        audio = StageSpec("benchmarks.stages:Repeat", {})
        with LocalRunner(1) as runner:
            list(Job(root, planned, [audio], 0.0).run(runner))
        samples = sum(manifest.samples for manifest in Dataset(root).manifests("utterances"))
        gigabytes = sum(path.stat().st_size for path in Path(root).rglob("*.parquet")) / 1e9
        hours = samples / SAMPLE_RATE / 3600
        print(f"{planned.num_shards} shards, {hours:.1f} hours, {planned.num_entries} rows, {gigabytes:.1f} GB")
        print("| runner | wall, s | model, s | the runner's own, s | of the model's |")
        print("| --- | --- | --- | --- | --- |")
        for number, name in enumerate(chosen.runners.split(",")):
            factor = chosen.factor + number * 1e-9  # a different fingerprint for each runner, so that none is skipped
            work = StageSpec("benchmarks.stages:Sleep", {"real_time_factor": factor})
            model = samples / SAMPLE_RATE * factor
            started = time.perf_counter()
            with execution(OPTIONS[name]).open_runner() as runner:
                list(Job(root, planned, [audio, work], 0.0).run(runner))
            wall = time.perf_counter() - started
            print(f"| {name} | {wall:.1f} | {model:.1f} | {wall - model:.1f} | {wall / model - 1:.1%} |", flush=True)


if __name__ == "__main__":
    main()
