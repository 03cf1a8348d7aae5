"""Made recordings and the job that cuts and ingests them, for the tests of recordings and of timed texts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import soundfile

from benchmarks.made_recordings import DIALOGUE_RATE, Clip, dialogue, monologue
from echo_targets.jobs.commands.run import run_command
from echo_targets.schemas import SAMPLE_RATE

CONFIG = """manifest: ???
root: ???
runner: local
shard_hours: 1
max_reject_fraction: 0.9
stages:
  segment:
    speakers: one
    sources: [{kind: manifest, corpus: calls, manifest: "${manifest}", license: CC0}]
  ingest:
    sources: [{kind: cuts, root: "${root}-recordings", recordings: "${stages.segment.sources.0}"}]
"""
Made = tuple[Path, list[Clip], list[Clip]]
"""A folder, and the clips of its monologue and of its dialogue."""


def make(folder: Path, speech: list[dict[str, Any]], minutes: float) -> Made:
    """Write `mono.flac`, a monologue of two minutes, `two.flac`, a dialogue of some minutes, and `config.yaml`."""
    long = [row for row in speech if row["duration"] > 3]
    sound, clips = monologue(long, 2)
    two, said = dialogue(long, minutes)
    soundfile.write(folder / "mono.flac", sound, SAMPLE_RATE)
    soundfile.write(folder / "two.flac", two, DIALOGUE_RATE)
    (folder / "config.yaml").write_text(CONFIG)
    return folder, clips, said


def put_manifest(folder: Path, name: str, lines: Iterable[dict[str, Any]]) -> None:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def run_manifest(folder: Path, name: str, *overrides: str, config: str = "config") -> int:
    """Run a configuration of the folder on a manifest, into a root of the same name; return the exit code."""
    given = [f"manifest={folder}/{name}.jsonl", f"root={folder}/{name}"]
    return run_command(str(folder / f"{config}.yaml"), [*given, *overrides])
