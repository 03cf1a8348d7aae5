"""Run the stages of `folder.yaml` on real speech in one process: time, share inside models, peak memory, WER.

python -m benchmarks.job [--limit N]

To see where the remaining time goes, record a flame graph:

py-spy record --rate 50 -o docs/images/flame.svg -- python -m benchmarks.job --limit 40
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import jiwer

from benchmarks.common import chosen, speech_rows
from echo_targets.jobs.commands.run import job_of
from echo_targets.jobs.config import load
from echo_targets.pipeline.commit import open_recipe, set_current
from echo_targets.pipeline.shard import ShardTask, run_shard
from echo_targets.pipeline.worker_transform import load_transform
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.versions import Version
from echo_targets.transforms.text import normalize

MODELS = {  # the attribute of each stage that is its model
    "transcribe": "transcribe",
    "measure": "_sound",
    "align": "_aligner",
    "tokenize": "tokenizer",
}


class Stopwatch:
    """Wraps a model and counts the seconds in which at least one thread is inside it."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model, self.seconds = model, 0.0
        self._inside, self._since, self._lock = 0, 0.0, Lock()

    def __call__(self, *arguments: Any) -> Any:
        self._count(1)
        try:
            return self.model(*arguments)
        finally:
            self._count(-1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def _count(self, change: int) -> None:
        with self._lock:
            now = time.perf_counter()
            if self._inside:
                self.seconds += now - self._since
            self._inside, self._since = self._inside + change, now


def main(limit: int | None) -> None:
    with tempfile.TemporaryDirectory() as root:
        manifest = Path(root, "speech.jsonl")
        manifest.write_text("".join(json.dumps(row) + "\n" for row in speech_rows()[:limit]))
        settings = load("folder", [f"manifest={manifest}", f"root={root}"])
        job, dataset = job_of(settings), Dataset(root)
        job.plan.commit(dataset)
        print("| stage | seconds | real-time factor | inside the model | peak memory, GB |")
        print("| --- | --- | --- | --- | --- |")
        whole = inside = 0.0
        ids = job.plan.snapshot.ids
        for spec, recipe in job.describe():
            open_recipe(dataset, recipe)
            transform = load_transform(spec).transform
            watch = None
            if name := MODELS.get(recipe.stage):
                watch = Stopwatch(getattr(transform, name))
                setattr(transform, name, watch)
            started = time.perf_counter()
            samples = sum(run_shard(ShardTask(root, spec, recipe, shard)).samples for shard in ids)
            seconds = time.perf_counter() - started
            set_current(dataset, {recipe.table: Version(recipe.fingerprint, job.plan.snapshot.id)})
            share = f"{watch.seconds / seconds:.0%}" if watch else ""
            whole, inside = whole + seconds, inside + (watch.seconds if watch else 0)
            factor = f"{seconds * SAMPLE_RATE / samples:.4f}" if samples else ""
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"| {recipe.stage} | {seconds:.1f} | {factor} | {share} | {peak:.1f} |", flush=True)
        print(f"| all | {whole:.1f} | | {inside / whole:.0%} | |")
        transcripts = dataset.read("transcripts").to_pylist()
        references = {row["utterance_id"]: row["reference_text"] for row in dataset.read("utterances").to_pylist()}
        wanted = [normalize(references[row["utterance_id"]], "en") for row in transcripts]
        print(f"WER {jiwer.wer(wanted, [row['text_normalized'] for row in transcripts]):.2%} over all")
        statuses = [row["status"] for row in dataset.read("alignments").to_pylist()]
        print(f"{statuses.count('ok')} of {len(statuses)} utterances fully aligned, {statuses.count('failed')} failed")
        print(f"{len(list(check_dataset(root)))} findings of check")


if __name__ == "__main__":
    main(chosen(__doc__).limit)
