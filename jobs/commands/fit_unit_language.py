"""`echo-targets fit-unit-language`: fit a vocabulary of words of units. The same data gives the same file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import typer
from rich.console import Console

from echo_targets.jobs.arguments import ExecutionOverrides, Root
from echo_targets.jobs.commands.run import run_job
from echo_targets.jobs.config import ExecutionConfig, execution
from echo_targets.jobs.screen import open_console, print_unused_units
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import Committed
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import UNIT_COUNTS, UNITS
from echo_targets.schemas.dataset.layout import Dataset, must_be_readable
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.stages.count_units import CountUnitsParameters
from echo_targets.transforms.units.language import UnitLanguage, fit_ngrams
from echo_targets.transforms.units.ngram_counts import COUNTS
from echo_targets.transforms.units.summed_counts import added, sum_counts

SPEC = "echo_targets.transforms.stages.count_units:CountUnits"


class Mode(StrEnum):
    """Algorithm that fits a unit language."""

    NGRAM = "ngram"
    BPE = "bpe"


class _Stopped(Exception):
    """Counting stopped before all shards were counted; the argument is the exit code."""


def fit_unit_language_command(
    root: Root,
    out: Annotated[str, typer.Argument(help="Unit language file to write (.json).")],
    vocab_size: Annotated[int, typer.Option(help="Number of words.", min=2)] = 1000,
    max_word_units: Annotated[int, typer.Option(help="Maximum length of a word, in units.", min=1, max=16)] = 4,
    mode: Annotated[
        Mode, typer.Option(help="Algorithm that finds words; bpe always runs on this machine.")
    ] = Mode.NGRAM,
    overrides: ExecutionOverrides = None,
) -> int:
    """Fit a unit language, a vocabulary of words of units, on a dataset's `units` table.

    Example: echo-targets fit-unit-language out/calls words.json --vocab-size 4000 runner=ray ray.address=auto
    """
    chosen = execution(overrides or [])
    console = open_console()
    dataset = Dataset(root)
    must_be_readable(dataset, "units")
    num_units = _codebook_size(dataset)
    if vocab_size < num_units:
        raise UserError(
            f"{root}: --vocab-size {vocab_size} is less than the {num_units} single units, each of which is a word. "
            f"Set it to {num_units} or more."
        )
    unused = _unused_units(dataset, num_units, vocab_size)
    sizes = {"num_units": num_units, "vocab_size": vocab_size, "max_word_units": max_word_units}
    if mode == Mode.BPE:
        sequences = (units.as_py() for shard in _units(dataset) for units in shard)
        language = UnitLanguage.fit(sequences, **sizes, mode="bpe")
    else:
        try:
            language = fit_ngrams(partial(_total, dataset, max_word_units, chosen, console), **sizes)
        except _Stopped as stopped:
            return int(stopped.args[0])
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    language.save(Path(out))
    console.print(f"{out}: {language.id}, digest {language.digest}", markup=False, soft_wrap=True)
    if language.counts:
        units = sum(count * len(word) for word, count in zip(language.vocabulary, language.counts, strict=True))
        console.print(f"{units / sum(language.counts):.2f} units per word")
    if len(language.vocabulary) < vocab_size:
        console.print(f"The units yield only {len(language.vocabulary)} of the {vocab_size} requested words")
    print_unused_units(console, unused, num_units, "occur in no utterance: their words are never used")
    return 0


def _total(
    dataset: Dataset,
    max_word_units: int,
    execution: ExecutionConfig,
    console: Console,
    language: UnitLanguage | None,
    keep: Callable[[pa.Table], pa.Table],
) -> pa.Table:
    """Count the words of all shards with a one-stage job, and sum the counts.

    Raises:
        _Stopped: the job failed or was interrupted.
    """
    parameters = CountUnitsParameters(
        max_word_units=max_word_units, language=None if language is None else language.to_json().decode()
    )
    spec = StageSpec(SPEC, parameters.model_dump())
    job = Job(dataset.root, Committed.of(dataset, UNITS.name), [spec], 0.0, execution.when_busy)
    if code := run_job(execution, job, console):
        raise _Stopped(code)
    counts = sum_counts(_counts(dataset), keep)
    console.print(f"{len(counts)} words kept, with {pc.sum(counts['count'])} occurrences")
    return counts


def _counts(dataset: Dataset) -> Iterator[pa.Table]:
    for manifest in dataset.manifests(UNIT_COUNTS.name):
        with dataset.open(manifest.output.path) as file:
            for number in range(file.metadata.num_row_groups):
                rows = file.read_row_group(number, columns=["words", "counts"])
                columns = [pc.list_flatten(rows[name]) for name in ("words", "counts")]
                yield added([pa.table(columns, names=COUNTS.names)])


def _unused_units(dataset: Dataset, num_units: int, vocab_size: int) -> list[int]:
    """Return the units that occur in no utterance.

    Raises:
        UserError: the corpus has fewer units than requested words.
    """
    counts = np.zeros(num_units, np.int64)
    for shard in _units(dataset):
        units = pc.list_flatten(shard).to_numpy().astype(np.int64)
        counts += np.bincount(units, minlength=num_units)[:num_units]
    if counts.sum() < vocab_size - num_units:
        raise UserError(
            f"{dataset.root}: a corpus of {counts.sum()} units can't yield {vocab_size - num_units} words in addition "
            f"to the {num_units} single units. Use more speech or a smaller --vocab-size."
        )
    return np.flatnonzero(counts == 0).tolist()


def _units(dataset: Dataset) -> Iterator[pa.ChunkedArray]:
    """Yield each shard's units, one list per row, for tables with a single codebook."""
    for manifest in dataset.manifests(UNITS.name):
        with dataset.open(manifest.output.path) as file:
            yield pc.list_flatten(file.read(["units"])["units"])


def _codebook_size(dataset: Dataset) -> int:
    """Return the size of the codebook of all units.

    Raises:
        UserError: the table has no units, units of several codebooks, or several units per frame.
    """
    found: set[tuple[str, int, int]] = set()
    for manifest in dataset.manifests(UNITS.name):
        with dataset.open(manifest.output.path) as file:
            named = file.read(["codebook_id", "codebook_size", "num_codebooks"]).unify_dictionaries().combine_chunks()
        found.update(tuple(row.values()) for row in named.group_by(named.column_names).aggregate([]).to_pylist())
    if len(found) != 1:
        problem = f"units of {len(found)} codebooks, expected one" if found else "no units; run the tokenize stage"
        raise UserError(f"{dataset.root}: {problem}")
    ((name, size, codebooks),) = found
    if codebooks != 1:
        raise UserError(
            f"{dataset.root}: {name} has {codebooks} units per frame, but a unit language needs one. Tokenize with "
            "num_codebooks=1."
        )
    return size
