"""Real rows for transforms' tests: speech through ingest, then whatever stages a test asks for, in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from echo_targets.jobs.stages import STAGES
from echo_targets.pipeline.job import Job, StageReport
from echo_targets.pipeline.plan import plan
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import Output, Transform
from echo_targets.transforms.sources.registry import entries
from echo_targets.transforms.stages.ingest import IngestParameters
from tests.pipeline.stand_ins import Inline


def run_stages(
    root: Path, stages: dict[str, dict[str, Any]], shard_hours: float = 1.0, max_reject_fraction: float = 1.0
) -> tuple[Dataset, dict[str, StageReport]]:
    """Runs the stages with these parameters; gives the dataset and each stage's report."""
    sources = IngestParameters.model_validate(stages["ingest"]).sources
    specs = [StageSpec(STAGES[name], parameters) for name, parameters in stages.items()]
    job = Job(str(root), plan(entries(sources), shard_hours), specs, max_reject_fraction, allow_empty=True)
    events = list(job.run(Inline()))
    reports = {event.recipe.stage: event for event in events if isinstance(event, StageReport)}
    return Dataset(str(root)), reports


def window(dataset: Dataset, table: str = "utterances") -> pa.Table:
    """A table as a transform sees it."""
    return dataset.read(table).combine_chunks()


def rejects(dataset: Dataset, table: str) -> dict[str, dict[str, Any]]:
    """A table's refused rows by id."""
    files = [manifest.rejects for manifest in dataset.manifests(table) if manifest.rejects]
    rows = [row for file in files for row in dataset.open(file.path).read().to_pylist()]
    return {row["utterance_id"]: row for row in rows}


def apply(transform: Transform, rows: pa.Table) -> Output:
    """A transform on a batch, prepared for it as a worker does."""
    return transform(transform.prepare(rows))
