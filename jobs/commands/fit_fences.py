"""`echo-targets fit-fences`: fit limits of the speech rate for each corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from rich.table import Table as RichTable

from echo_targets.jobs.arguments import Root
from echo_targets.jobs.config import ConfigError
from echo_targets.jobs.escapes import markup
from echo_targets.jobs.labeled_measures import labeled_measures
from echo_targets.jobs.screen import open_console
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.stages.publish.fences import Group, RateFences


def fit_fences_command(root: Root, out: Annotated[str, typer.Argument(help="Fences file to write (.json).")]) -> int:
    """Fit speech-rate fences for each corpus: 1.5 times the interquartile range beyond its quartiles.

    Reads the `measures` table. Pass the file to a publish stage as `rate_fences`.

    Example: echo-targets fit-fences out/calls fences.json
    """
    console = open_console()
    rates = speech_rates(Dataset(root))
    fences = RateFences.fit(rates)
    if not fences.fences:
        raise ConfigError(f"{root}: no utterance has text, so there are no speech rates to fit fences on")
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    fences.save(Path(out))
    shown = RichTable("corpus", "language", "utterances", "q1", "q3", "low", "high", "outside", title="chars_per_s")
    for fence in fences.fences:
        found = rates[fence.corpus, fence.language]
        outside = np.count_nonzero((found < fence.low) | (found > fence.high))
        limits = [f"{value:.2f}" for value in (fence.q1, fence.q3, fence.low, fence.high)]
        shown.add_row(
            markup(fence.corpus),
            markup(fence.language),
            str(fence.count),
            *limits,
            f"{outside} ({outside / len(found):.2%})",
        )
    console.print(shown)
    console.print(
        f"Wrote {out}. To use it: stages.publish_s2t.rate_fences={out}; likewise for publish_t2c and publish_echo",
        markup=False,
        soft_wrap=True,
    )
    return 0


def speech_rates(dataset: Dataset) -> dict[Group, np.ndarray]:
    """Return the stored speech rates of each corpus and language, float32. Rows without a rate are left out.

    Raises:
        ConfigError: the dataset has no `measures` table.
    """
    labeled = pa.concat_tables(labeled_measures(dataset, "chars_per_s", ["corpus", "language"]))
    gathered = labeled.group_by(["corpus", "language"]).aggregate([("chars_per_s", "list")])
    names = zip(gathered["corpus"].to_pylist(), gathered["language"].to_pylist(), strict=True)
    return {name: rates.values.to_numpy() for name, rates in zip(names, gathered["chars_per_s_list"], strict=True)}
