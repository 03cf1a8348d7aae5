"""`echo-targets fit-codebook`, `fit-unit-language`, `fit-fences`: same data, same seed, same file, on any runner."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table as RichTable

from echo_targets.jobs.commands.run import run_job
from echo_targets.jobs.config import ConfigError, Workplace
from echo_targets.jobs.screen import open_console
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import Committed
from echo_targets.pipeline.runners.base import Keep, Part, Runner
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas import KEY, MEASURES, UTTERANCES
from echo_targets.schemas.dataset.layout import Dataset, must_be_readable
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES
from echo_targets.transforms.stages.features import SampleFeaturesParameters
from echo_targets.transforms.stages.publish.fences import Group, RateFences
from echo_targets.transforms.units.codebook import fit_codebook
from echo_targets.transforms.units.counts import Sequences
from echo_targets.transforms.units.language import UnitLanguage, fit_ngrams

SPREAD = 10
"""Frames are drawn from so many times as many as are wanted: more utterances, fewer frames of each."""
SPARE = 1.1
"""Frames are drawn by chance: so many more than are wanted make sure that there are enough."""

FRAMES_PER_UNIT = 39
"""Frames that each centroid should have at least, as faiss warns (`min_points_per_centroid`)."""
SHOWN_UNITS = 10

MAX_REJECT_FRACTION = 0.05

Mode = Literal["ngram", "bpe"]
CountUnits = Callable[[Sequences], pa.Table]


def fit_codebook_command(
    root: str, out: str, size: int, layer: int, model: str, seed: int, max_frames: int, workplace: Workplace
) -> int:
    """Samples features into the table `features`, fits on them, and writes the codebook with its report."""
    console = open_console()
    dataset = Dataset(root)
    parts = [(root, manifest.output.path) for manifest in dataset.manifests("utterances")]
    frames = sum(pc.sum(_column(part, "num_samples")).as_py() or 0 for part in parts) / HOP_SAMPLES
    _check_frames(root, min(frames, max_frames), size)
    wanted = min(1.0, SPARE * max_frames / max(frames, 1.0))
    utterances = min(1.0, SPREAD * wanted)
    parameters = SampleFeaturesParameters(
        model=model, layer=layer, seed=seed, utterance_share=utterances, frame_share=wanted / utterances
    )
    spec = StageSpec(
        "echo_targets.transforms.stages.features:SampleFeatures",
        parameters.model_dump(),
        workplace.device,
        workplace.batch_seconds,
    )
    job = Job(root, Committed.of(dataset, "utterances"), [spec], MAX_REJECT_FRACTION, workplace.when_busy)
    if code := run_job(workplace, job, console):
        return code
    encoder = open_encoder(model)
    try:
        codebook, report = fit_codebook(
            _features(dataset),
            size=size,
            encoder=encoder.name(),
            encoder_digest=encoder.weights(),
            layer=layer,
            hop_samples=HOP_SAMPLES,
            seed=seed,
            max_frames=max_frames,
        )
    except ValueError as error:
        raise UserError(f"{root}: {error}") from error
    _parent(out)
    codebook.save(Path(out), report)
    console.print(f"{out}: {codebook.id}, digest {codebook.digest}", markup=False, soft_wrap=True)
    console.print_json(json.dumps(report))
    if frames < size * FRAMES_PER_UNIT:
        console.print(f"{frames:.0f} frames are few for {size} units; {FRAMES_PER_UNIT} a unit are usual")
    _say_unused(console, report["unused_units"], size, "got no frame: fit fewer units, or on more speech")
    return 0


def _check_frames(root: str, frames: float, size: int) -> None:
    """Raises UserError where there are fewer frames than units, before hours are spent on features."""
    if frames < size:
        raise UserError(
            f"{root}: {frames:.0f} frames of 20 ms, at most as many as --max-frames allows, can't make {size} units; "
            f"take more speech, or a --size well below {max(2, int(frames))}"
        )


def _say_unused(console: Console, unused: list[int], size: int, what: str) -> None:
    if unused:
        shown = ", ".join(map(str, unused[:SHOWN_UNITS])) + (", …" if len(unused) > SHOWN_UNITS else "")
        console.print(f"{len(unused)} of {size} units ({shown}) {what}", soft_wrap=True)


def _features(dataset: Dataset) -> Iterator[np.ndarray]:
    for manifest in dataset.manifests("features"):
        with dataset.open(manifest.output.path) as file:
            for batch in file.iter_batches(columns=["width", "features"]):
                if len(batch):
                    yield batch["features"].flatten().to_numpy().reshape(-1, batch["width"][0].as_py())


def fit_unit_language_command(
    root: str, out: str, vocab_size: int, max_word_units: int, mode: Mode, workplace: Workplace
) -> int:
    """Fits on the table `units` and writes the file."""
    console = open_console()
    dataset = Dataset(root)
    must_be_readable(dataset, "units")
    parts = [(root, manifest.output.path) for manifest in dataset.manifests("units")]
    num_units = _codebook_size(dataset, parts)
    if vocab_size < num_units:
        raise UserError(f"{root}: --vocab-size {vocab_size} leaves no room for the {num_units} single units")
    unused = _unused_units(root, parts, num_units, vocab_size)
    sizes = {"num_units": num_units, "vocab_size": vocab_size, "max_word_units": max_word_units}
    if mode == "bpe":
        sequences = (units.as_py() for part in parts for units in _units(part))
        language = UnitLanguage.fit(sequences, **sizes, mode="bpe")
    else:
        with workplace.open_runner() as runner:
            language = fit_ngrams(partial(_total, runner, parts, console), **sizes)
    _parent(out)
    language.save(Path(out))
    console.print(f"{out}: {language.id}, digest {language.digest}", markup=False, soft_wrap=True)
    if language.counts:
        units = sum(count * len(word) for word, count in zip(language.vocabulary, language.counts, strict=True))
        console.print(f"{units / sum(language.counts):.2f} units a word")
    if len(language.vocabulary) < vocab_size:
        console.print(f"{len(language.vocabulary)} of the {vocab_size} words asked for: the units make no more")
    _say_unused(console, unused, num_units, "are in no utterance: their words are never used")
    return 0


def _unused_units(root: str, parts: list[Part], num_units: int, vocab_size: int) -> list[int]:
    """Units that no utterance has.

    Raises:
        UserError: there are fewer units in all than words are wanted.
    """
    counts = np.zeros(num_units, np.int64)
    for part in parts:
        units = pc.list_flatten(_units(part)).to_numpy().astype(np.int64)
        counts += np.bincount(units, minlength=num_units)[:num_units]
    if counts.sum() < vocab_size - num_units:
        raise UserError(
            f"{root}: {counts.sum()} units in all can't make {vocab_size - num_units} words beside the {num_units} "
            f"single units; take more speech, or a smaller --vocab-size"
        )
    return np.flatnonzero(counts == 0).tolist()


def _total(runner: Runner, parts: list[Part], console: Console, count: CountUnits, keep: Keep) -> pa.Table:
    counts = runner.total(parts, partial(count_part, count=count), keep)
    console.print(f"counted {len(parts)} shards: {len(counts)} words kept, {pc.sum(counts['count'])} times in all")
    return counts


def count_part(part: Part, count: CountUnits) -> pa.Table:
    """Counts the units of a shard."""
    return count(_units(part))


def fit_fences_command(root: str, out: str) -> int:
    """Fits on the table `measures`, writes the file, and shows the fences."""
    console = open_console()
    rates = speech_rates(Dataset(root))
    fences = RateFences.fit(rates)
    if not fences.fences:
        raise ConfigError(f"{root}: no utterance has a text, so there are no speech rates to fit fences on")
    _parent(out)
    fences.save(Path(out))
    shown = RichTable("corpus", "language", "utterances", "q1", "q3", "low", "high", "outside", title="chars_per_s")
    for fence in fences.fences:
        found = rates[fence.corpus, fence.language]
        outside = np.count_nonzero((found < fence.low) | (found > fence.high))
        limits = [f"{value:.2f}" for value in (fence.q1, fence.q3, fence.low, fence.high)]
        shown.add_row(
            fence.corpus, fence.language, str(fence.count), *limits, f"{outside} ({outside / len(found):.2%})"
        )
    console.print(shown)
    console.print(f"{out}: stages.publish_s2t.rate_fences={out}, and so for the others", markup=False, soft_wrap=True)
    return 0


def speech_rates(dataset: Dataset) -> dict[Group, np.ndarray]:
    """The stored rates of each corpus and language, float32; rows without one are left out.

    Raises:
        ConfigError: nothing was measured.
    """
    if MEASURES.name not in dataset.tables():
        raise ConfigError(f"{dataset.root} has no {MEASURES.name}: run a job with the stage measure on it first")
    info = dataset.current(MEASURES.name)
    spoken = dataset.committed(UTTERANCES.name, info.upstream[UTTERANCES.name], info.shards)
    parts = []
    for shard, manifest in dataset.committed(MEASURES.name, info.fingerprint, info.shards).items():
        with dataset.open(manifest.output.path) as file:
            measured = file.read([KEY, "chars_per_s"]).drop_null()
        with dataset.open(spoken[shard].output.path) as file:
            said = file.read([KEY, "corpus", "language"])
        said = said.take(pc.index_in(measured[KEY], value_set=said[KEY].combine_chunks()))
        groups = {name: said[name].cast(pa.string()) for name in ("corpus", "language")}
        parts.append(pa.table(groups | {"rate": measured["chars_per_s"]}))
    gathered = pa.concat_tables(parts).group_by(["corpus", "language"]).aggregate([("rate", "list")])
    names = zip(gathered["corpus"].to_pylist(), gathered["language"].to_pylist(), strict=True)
    return {name: rates.values.to_numpy() for name, rates in zip(names, gathered["rate_list"], strict=True)}


def _units(part: Part) -> pa.ChunkedArray:
    """The units of each row, of a single codebook."""
    return pc.list_flatten(_column(part, "units"))


def _codebook_size(dataset: Dataset, parts: list[Part]) -> int:
    """Size of the codebook that all units are of.

    Raises:
        UserError: they are of several, or there are none.
    """
    found: set[tuple[str, int, int]] = set()
    for _, path in parts:
        with dataset.open(path) as file:
            named = file.read(["codebook_id", "codebook_size", "num_codebooks"]).unify_dictionaries().combine_chunks()
        found.update(tuple(row.values()) for row in named.group_by(named.column_names).aggregate([]).to_pylist())
    if len(found) != 1:
        said = f"units of {len(found)} codebooks, expected one" if found else "no units; run a job with tokenize first"
        raise UserError(f"{dataset.root}: {said}")
    ((name, size, codebooks),) = found
    if codebooks != 1:
        raise UserError(
            f"{dataset.root}: {name} gives {codebooks} units a frame, and a unit language has words of single ones: "
            "tokenize with num_codebooks=1"
        )
    return size


def _column(part: Part, name: str) -> pa.ChunkedArray:
    root, path = part
    with Dataset(root).open(path) as file:
        return file.read([name])[name]


def _parent(out: str) -> None:
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
