"""What Beam's workers run. Imported where Beam is: its classes derive from Beam's."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import Metrics

from echo_targets.pipeline.runners.base import Chain, RunShard
from echo_targets.pipeline.runners.beam.in_progress import WORK, Stopped
from echo_targets.pipeline.runners.beam.options import NAMESPACE
from echo_targets.pipeline.shard import ShardTask
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.dataset.layout import StageInfo

_LOGGER = logging.getLogger(__name__)

Element = list[int]
"""A shard's number, and the positions of the steps that are left for it."""


class RunStep(beam.DoFn):
    """Runs one stage's task of each shard that has got to it; hands on the shards that have more to come.

    A shard that fails is not handed on: the note that it left in storage says why. Counters, in the namespace
    `echo_targets.<stage>`: shards, rows, rejects, samples (16 kHz); distributions: shard_ms, shard_rows.
    """

    def __init__(self, position: int, step: str, run_shard: RunShard) -> None:
        super().__init__()
        self.position = position
        self.step = step
        self.run_shard = run_shard

    def process(self, element: Element) -> Iterator[Element]:
        shard, *left = element
        if left[0] == self.position:
            left = left[1:] if self._run(shard) else []
        if left:
            yield [shard, *left]

    def _run(self, shard: int) -> bool:
        """Whether the shard is committed."""
        task = task_of(self.step, shard)
        name = f"{NAMESPACE}.{task.info.stage}"
        started = time.monotonic()
        try:
            with WORK.shard():
                manifest = self.run_shard(task, Metrics.counter(name, "samples").inc)
        except Stopped:
            return False
        except Exception:
            _LOGGER.info("%s: shard %d failed", task.info.stage, shard, exc_info=True)
            return False
        Metrics.counter(name, "shards").inc()
        Metrics.counter(name, "rows").inc(manifest.output.rows)
        Metrics.counter(name, "rejects").inc(manifest.rejects.rows if manifest.rejects else 0)
        Metrics.distribution(name, "shard_rows").update(manifest.rows_in)
        Metrics.distribution(name, "shard_ms").update(int((time.monotonic() - started) * 1000))
        return True


def build_chains(chains: Sequence[Chain], run_shard: RunShard, pipeline: beam.Pipeline) -> None:
    """All stages of all chains as one pipeline; between two stages the shards are dealt out to the workers anew.

    The stages' descriptions are part of the steps, so that little more than its number travels with a shard.
    """
    steps: dict[str, str] = {}  # each step's stage by its description
    for chain in sorted(chains, key=len, reverse=True):
        steps.update((step_of(task), task.info.stage) for task in chain if step_of(task) not in steps)
    positions = {step: position for position, step in enumerate(steps)}
    elements = [[chain[0].shard, *(positions[step_of(task)] for task in chain)] for chain in chains]
    shards = pipeline | "shards" >> beam.Create(elements, reshuffle=False)
    for position, (step, stage) in enumerate(steps.items()):
        shards |= f"deal out {position}" >> beam.Reshuffle()
        shards |= f"{position} {stage}" >> beam.ParDo(RunStep(position, step, run_shard))


def step_of(task: ShardTask) -> str:
    """A task without its shard, as JSON."""
    return json.dumps({"root": task.root, "spec": asdict(task.spec), "info": asdict(task.info)}, sort_keys=True)


def task_of(step: str, shard: int) -> ShardTask:
    """The task that a step runs on a shard."""
    values: dict[str, Any] = json.loads(step)
    return ShardTask(values["root"], StageSpec(**values["spec"]), StageInfo(**values["info"]), shard)
