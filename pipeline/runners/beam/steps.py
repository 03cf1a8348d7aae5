"""The code that Beam's workers run. Requires Beam, because its classes derive from Beam's."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import Metrics

from echo_targets.pipeline.runners.base import Chain, RunShard
from echo_targets.pipeline.runners.beam.in_progress import WORK, Stopped
from echo_targets.pipeline.runners.beam.options import NAMESPACE
from echo_targets.pipeline.shard import ShardTask
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.dataset.versions import Recipe

_LOGGER = logging.getLogger(__name__)

Element = tuple[str, tuple[str, ...], list[int]]
"""A shard's id, its donors, and the numbers of its remaining steps."""


class RunStep(beam.DoFn):
    """Runs one stage on each shard that has reached it, and passes on shards with remaining steps.

    A failed shard is not passed on; its attempt note in storage has the reason. Counters in the namespace
    `echo_targets.<stage>`: shards, rows, rejects, samples (16 kHz). Distributions: shard_ms, shard_rows.
    """

    def __init__(self, position: int, step: str, run_shard: RunShard) -> None:
        super().__init__()
        self.position = position
        self.step = step
        self.run_shard = run_shard

    def process(self, element: Element) -> Iterator[Element]:
        shard, donors, left = element
        if left[0] == self.position:
            left = left[1:] if self._run(shard, donors) else []
        if left:
            yield shard, donors, left

    def _run(self, shard: str, donors: tuple[str, ...]) -> bool:
        """Run the step on a shard; return True if the shard is committed."""
        task = task_of(self.step, shard, donors)
        name = f"{NAMESPACE}.{task.recipe.stage}"
        started = time.monotonic()
        try:
            with WORK.shard():
                manifest = self.run_shard(task, Metrics.counter(name, "samples").inc)
        except Stopped:
            return False
        except Exception:
            _LOGGER.info("%s: shard %s failed", task.recipe.stage, shard, exc_info=True)
            return False
        Metrics.counter(name, "shards").inc()
        Metrics.counter(name, "rows").inc(manifest.output.rows)
        Metrics.counter(name, "rejects").inc(manifest.rejects.rows if manifest.rejects else 0)
        Metrics.distribution(name, "shard_rows").update(manifest.rows_in)
        Metrics.distribution(name, "shard_ms").update(int((time.monotonic() - started) * 1000))
        return True


def build_chains(chains: Sequence[Chain], run_shard: RunShard, pipeline: beam.Pipeline) -> None:
    """Build one pipeline with all stages of all chains; shards are reshuffled over the workers before each stage.

    The steps contain the descriptions of the stages, so elements hold little more than the ids of shards.
    """
    steps: dict[str, str] = {}  # stage name by step description
    for chain in sorted(chains, key=len, reverse=True):
        steps.update((step_of(task), task.recipe.stage) for task in chain if step_of(task) not in steps)
    positions = {step: position for position, step in enumerate(steps)}
    elements = [(chain[0].shard, chain[0].donors, [positions[step_of(task)] for task in chain]) for chain in chains]
    shards = pipeline | "shards" >> beam.Create(elements, reshuffle=False)
    for position, (step, stage) in enumerate(steps.items()):
        shards |= f"reshuffle {position}" >> beam.Reshuffle()
        shards |= f"{position} {stage}" >> beam.ParDo(RunStep(position, step, run_shard))


def step_of(task: ShardTask) -> str:
    """Return a task without what concerns its shard, as JSON."""
    return json.dumps(asdict(replace(task, shard="", position=0, donors=())), sort_keys=True)


def task_of(step: str, shard: str, donors: tuple[str, ...] = ()) -> ShardTask:
    """Return the task that a step runs on a shard."""
    values: dict[str, Any] = json.loads(step)
    given = {"spec": StageSpec(**values["spec"]), "recipe": Recipe(**values["recipe"])}
    return ShardTask(**values | given | {"shard": shard, "donors": tuple(donors)})
