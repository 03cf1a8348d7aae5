"""Compare the whole job, `echo-targets run folder`, with a plain script of the same steps (`benchmarks/script.py`).

python -m benchmarks.whole [--limit N] [--rounds 5]

Both start cold, so that loading libraries and models counts, and write Parquet. The job also ingests, checks, commits
and publishes; it has two workers, the script two threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

from benchmarks.common import chosen, compare, speech
from echo_targets.schemas import SAMPLE_RATE

HERE = Path(__file__).parents[1]
WORKERS = 2


def main(limit: int | None, rounds: int) -> None:
    waveforms, texts, paths = speech(every=5, limit=limit)
    seconds = sum(map(len, waveforms)) / SAMPLE_RATE
    with tempfile.TemporaryDirectory() as temporary:
        folder, number = Path(temporary), count()
        manifest = folder / "manifest.jsonl"
        rows = [{"id": path.stem, "audio": str(path), "text": text} for path, text in zip(paths, texts, strict=True)]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        hours = f"shard_hours={seconds / 3600 / (2 * WORKERS):.4f}"

        def job() -> list[str]:
            root = folder / f"root-{next(number)}"
            where = [f"manifest={manifest}", f"root={root}", f"workers={WORKERS}", hours]
            return ["-m", "echo_targets.jobs.cli", "run", "folder", *where]

        def script() -> list[str]:
            return ["-m", "benchmarks.script", str(manifest), str(folder / "script.parquet")]

        print(f"{len(rows)} files, {seconds / 60:.1f} minutes\n")
        compare({"echo-targets run": _run(job), "plain script": _run(script)}, seconds, rounds)


def _run(command: Callable[[], list[str]]) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, *command()], check=True, stdout=subprocess.DEVNULL, cwd=HERE)


if __name__ == "__main__":
    options = chosen(__doc__)
    main(options.limit, options.rounds)
