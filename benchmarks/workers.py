"""Compare two single-threaded workers with one: 200 utterances of real speech, transcribed and tokenized.

python -m benchmarks.workers [--rounds 3]

Prints CPU seconds as well as wall time: if two workers use no more CPU time than one, any loss is due to other
processes on the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from benchmarks.common import speech_rows
from echo_targets.jobs.commands.run import job_of
from echo_targets.jobs.config import load
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.runners.local import LocalRunner

UTTERANCES = 200
STAGES = ("Ingest", "Transcribe", "Tokenize")


class Took(NamedTuple):
    """Wall time, and CPU time in the workers, in seconds."""

    wall: float
    processor: float

    def __str__(self) -> str:
        return f"{self.wall:.1f} s ({self.processor:.0f} s CPU)"


def run(manifest: Path, root: str, workers: int) -> Took:
    """Time the stages with models, including loading; ingest is done before."""
    settings = load("folder", [f"manifest={manifest}", f"root={root}", "shard_hours=0.03"])
    job = job_of(settings)
    stages = [spec for spec in job.stages if spec.transform.endswith(STAGES)]
    with LocalRunner(1) as runner:
        list(Job(root, job.plan, stages[:1], 0.0).run(runner))
    started, processor = time.perf_counter(), _processor_seconds()
    with (
        patch("echo_targets.pipeline.runners.local.os.cpu_count", return_value=workers),
        LocalRunner(workers) as runner,
    ):
        list(Job(root, job.plan, stages, 0.0).run(runner))  # one thread per worker
    return Took(time.perf_counter() - started, _processor_seconds() - processor)


def _processor_seconds() -> float:
    """Return the CPU seconds of finished child processes."""
    times = os.times()
    return times.children_user + times.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        rows = speech_rows()[:UTTERANCES]
        manifest = Path(folder, "m.jsonl")
        manifest.write_text("\n".join(json.dumps(row) for row in rows))
        print(f"{len(rows)} utterances, {sum(row['duration'] for row in rows) / 60:.1f} minutes")
        for number in range(rounds):
            two = run(manifest, f"{folder}/{number}-2", 2)
            one = run(manifest, f"{folder}/{number}-1", 1)
            ratios.append(one.wall / two.wall)
            print(f"one worker {one}, two workers {two}: {ratios[-1]:.2f} times", flush=True)
    print(f"{statistics.median(ratios):.2f} times (median)")


if __name__ == "__main__":
    main()
