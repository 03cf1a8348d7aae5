"""Two workers of one thread each against one: 200 utterances of real speech, transcribed and tokenized.

python -m benchmarks.workers [--rounds 1]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

from benchmarks.common import SPEECH
from jobs.config import load
from jobs.run import job_of
from pipeline.job import Job
from pipeline.runners.local import LocalRunner

UTTERANCES = 200
STAGES = ("Ingest", "Transcribe", "Tokenize")


def run(manifest: Path, root: str, workers: int) -> float:
    """Seconds that the models' stages take, their loading included; ingest is done before."""
    settings = load("folder", [f"manifest={manifest}", f"root={root}", "shard_hours=0.03"])
    job = job_of(settings)
    stages = [spec for spec in job.stages if spec.transform.endswith(STAGES)]
    with LocalRunner(1) as runner:
        list(Job(root, job.plan, stages[:1], 0.0).run(runner))
    started = time.perf_counter()
    with patch("pipeline.runners.local.os.cpu_count", return_value=workers), LocalRunner(workers) as runner:
        list(Job(root, job.plan, stages, 0.0).run(runner))  # a thread for each worker
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        rows = [json.loads(line) for line in (SPEECH / "manifest.jsonl").read_text().splitlines()][:UTTERANCES]
        manifest = Path(folder, "m.jsonl")
        manifest.write_text("\n".join(json.dumps(row | {"audio": str(SPEECH / row["audio"])}) for row in rows))
        print(f"{len(rows)} utterances, {sum(row['duration'] for row in rows) / 60:.1f} minutes")
        for number in range(rounds):
            two = run(manifest, f"{folder}/{number}-2", 2)
            one = run(manifest, f"{folder}/{number}-1", 1)
            print(f"one worker {one:.1f} s, two workers {two:.1f} s: {one / two:.2f} times", flush=True)


if __name__ == "__main__":
    main()
