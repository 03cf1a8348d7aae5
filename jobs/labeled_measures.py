"""Measures of the utterances with their labels: what `fit-fences` and `fit-speakers` compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.jobs.config import ConfigError
from echo_targets.schemas import KEY, MEASURES, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.versions import Version


def labeled_measures(dataset: Dataset, measure: str, labels: Sequence[str]) -> Iterator[pa.Table]:
    """Yield a table for each shard: the key, the measure, and columns of the utterances, as strings.

    Rows without the measure are left out.

    Raises:
        ConfigError: the dataset has no `measures` table.
    """
    if MEASURES.name not in dataset.tables():
        raise ConfigError(f"{dataset.root}: no table {MEASURES.name}. Run a job with the stage measure first.")
    version = dataset.current(MEASURES.name)
    upstream = dataset.recipe(MEASURES.name, version.recipe).upstream
    spoken = dataset.manifests(UTTERANCES.name, Version(upstream[UTTERANCES.name], version.snapshot))
    for manifest, utterances in zip(dataset.manifests(MEASURES.name, version), spoken, strict=True):
        with dataset.open(manifest.output.path) as file:
            rows = file.read([KEY, measure]).drop_null()
        with dataset.open(utterances.output.path) as file:
            labeled = file.read([KEY, *labels])
        labeled = labeled.take(pc.index_in(rows[KEY], value_set=labeled[KEY].combine_chunks()))
        for label in labels:
            rows = rows.append_column(label, labeled[label].cast(pa.string()))
        yield rows
