"""`echo-targets fit-speakers`: compare each utterance's voice with the other utterances of its speaker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from echo_targets.jobs.arguments import Root
from echo_targets.jobs.config import ConfigError
from echo_targets.jobs.labeled_measures import labeled_measures
from echo_targets.jobs.screen import open_console
from echo_targets.schemas.dataset.layout import Dataset
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
    gathered: dict[Speaker, list[tuple[str, np.ndarray]]] = {}
    for rows in labeled_measures(dataset, "speaker_embedding", ["corpus", "speaker_id"]):
        for key, vector, corpus, speaker in zip(*(column.to_pylist() for column in rows.drop_null()), strict=True):
            gathered.setdefault((corpus, speaker), []).append((key, np.array(vector, np.float32)))
    return {
        name: ([key for key, _ in sorted(mine, key=_key)], np.stack([vector for _, vector in sorted(mine, key=_key)]))
        for name, mine in sorted(gathered.items())
    }


def _key(pair: tuple[str, np.ndarray]) -> str:
    return pair[0]
