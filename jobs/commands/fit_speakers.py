"""`echo-targets fit-speakers`: compare each utterance's voice with the other utterances of its speaker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer

from echo_targets.jobs.arguments import Root
from echo_targets.jobs.config import ConfigError
from echo_targets.jobs.screen import open_console
from echo_targets.schemas import KEY, MEASURES, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.dataset.versions import Version
from echo_targets.transforms.stages.publish.voices import LEAST_UTTERANCES, SpeakerSimilarities

Speaker = tuple[str, str]
"""A corpus and a speaker."""


def fit_speakers_command(
    root: Root, out: Annotated[str, typer.Argument(help="File of similarities to write (.csv).")]
) -> int:
    """Compare each utterance's voice with the other utterances of its speaker.

    Reads `measures` of a job with `stages.measure.speaker_model`. Pass the file to a publish stage as
    `speaker_similarities`, with `min_speaker_similarity`.

    Example: echo-targets fit-speakers out/calls speakers.csv
    """
    console = open_console()
    similarities = SpeakerSimilarities.fit(voices(Dataset(root)))
    found = similarities.rows["speaker_similarity"].to_numpy()
    if not len(found):
        raise ConfigError(
            f"{root}: no speaker has {LEAST_UTTERANCES} utterances with an embedding. Run a job with "
            "stages.measure.speaker_model=embedded:resemblyzer, and a manifest that names speakers."
        )
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    similarities.save(Path(out))
    low, few, middle = np.percentile(found, (0, 1, 50)).round(4)
    console.print(
        f"{len(found)} utterances: speaker_similarity from {low:g}; 1 % are below {few:g}, half below {middle:g}.\n"
        f"Wrote {out}. To use it: stages.publish_s2t.speaker_similarities={out} "
        "stages.publish_s2t.min_speaker_similarity=…; likewise for publish_t2c and publish_echo",
        markup=False,
        soft_wrap=True,
    )
    return 0


def voices(dataset: Dataset) -> dict[Speaker, tuple[list[str], np.ndarray]]:
    """Return keys and embeddings of each speaker, in the order of the keys, without utterances that name no speaker.

    Raises:
        ConfigError: the dataset has no `measures` table.
    """
    if MEASURES.name not in dataset.tables():
        raise ConfigError(f"{dataset.root}: no table {MEASURES.name}. Run a job with the stage measure first.")
    gathered: dict[Speaker, list[tuple[str, np.ndarray]]] = {}
    for row in _rows(dataset):
        for key, corpus, speaker, vector in zip(*(row[name].to_pylist() for name in row.schema.names), strict=True):
            gathered.setdefault((corpus, speaker), []).append((key, np.array(vector, np.float32)))
    return {
        name: ([key for key, _ in sorted(mine, key=_key)], np.stack([vector for _, vector in sorted(mine, key=_key)]))
        for name, mine in sorted(gathered.items())
    }


def _key(pair: tuple[str, np.ndarray]) -> str:
    return pair[0]


def _rows(dataset: Dataset) -> Iterator[pa.Table]:
    """Yield a table of key, corpus, speaker and embedding for each shard."""
    version = dataset.current(MEASURES.name)
    upstream = dataset.recipe(MEASURES.name, version.recipe).upstream
    spoken = dataset.manifests(UTTERANCES.name, Version(upstream[UTTERANCES.name], version.snapshot))
    for manifest, utterances in zip(dataset.manifests(MEASURES.name, version), spoken, strict=True):
        with dataset.open(manifest.output.path) as file:
            measured = file.read([KEY, "speaker_embedding"]).drop_null()
        with dataset.open(utterances.output.path) as file:
            labels = file.read([KEY, "corpus", "speaker_id"])
        labels = labels.take(pc.index_in(measured[KEY], value_set=labels[KEY].combine_chunks()))
        yield pa.table(
            {
                KEY: measured[KEY],
                "corpus": labels["corpus"].cast(pa.string()),
                "speaker": labels["speaker_id"],
                "vector": measured["speaker_embedding"],
            }
        ).drop_null()
