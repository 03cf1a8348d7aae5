"""`echo-targets fit-codebook`: k-means on encoder features. The same data and seed give the same file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.compute as pc
import typer

from echo_targets.jobs.arguments import ExecutionOverrides, Root
from echo_targets.jobs.commands.run import run_job
from echo_targets.jobs.config import execution
from echo_targets.jobs.screen import open_console, print_unused_units
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import Committed
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
from echo_targets.schemas.tables.base import LARGEST_CODEBOOK
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES
from echo_targets.transforms.stages.features import SampleFeaturesParameters
from echo_targets.transforms.units.codebook import fit_codebook

SPREAD = 10
"""The sampled utterances hold this many times the needed frames, so that the frames come from more utterances."""
SPARE = 1.1
"""Oversampling factor: frames are sampled at random, so a few more than needed are drawn to have enough."""

FRAMES_PER_UNIT = 39
"""Minimum number of frames per centroid, below which faiss also warns (`min_points_per_centroid`)."""

MAX_REJECT_FRACTION = 0.05


def fit_codebook_command(
    root: Root,
    out: Annotated[str, typer.Argument(help="Codebook file to write (.safetensors).")],
    size: Annotated[int, typer.Option(help="Number of units.", min=2, max=LARGEST_CODEBOOK)] = 100,
    layer: Annotated[int, typer.Option(help="Encoder layer whose output is clustered.", min=0)] = 3,
    model: Annotated[
        str, typer.Option(help="Whisper, HuBERT, WavLM or wav2vec2 model whose encoder computes the features.")
    ] = "embedded:tiny.en",
    seed: Annotated[int, typer.Option(help="Seed of sampling and of k-means.")] = 0,
    max_frames: Annotated[int, typer.Option(help="Maximum number of frames to fit on.", min=100)] = 200_000,
    overrides: ExecutionOverrides = None,
) -> int:
    """Fit a k-means codebook on the encoder features of a sample of a dataset's frames.

    Example: echo-targets fit-codebook out/calls calls-k500.safetensors --size 500 workers=2
    """
    chosen = execution(overrides or [])
    console = open_console()
    dataset = Dataset(root)
    frames = _samples(dataset) / HOP_SAMPLES
    _check_frames(root, min(frames, max_frames), size)
    wanted = min(1.0, SPARE * max_frames / max(frames, 1.0))
    utterances = min(1.0, SPREAD * wanted)
    parameters = SampleFeaturesParameters(
        model=model, layer=layer, seed=seed, utterance_share=utterances, frame_share=wanted / utterances
    )
    spec = StageSpec(
        "echo_targets.transforms.stages.features:SampleFeatures",
        parameters.model_dump(),
        chosen.device,
        chosen.batch_seconds,
        chosen.hang_factor,
    )
    job = Job(root, Committed.of(dataset, "utterances"), [spec], MAX_REJECT_FRACTION, chosen.when_busy)
    if code := run_job(chosen, job, console):
        return code
    encoder = open_encoder(model)
    try:
        codebook, report = fit_codebook(
            _features(dataset),
            size=size,
            encoder=encoder.name(),
            encoder_digest=encoder.weight_digest(),
            layer=layer,
            hop_samples=HOP_SAMPLES,
            seed=seed,
            max_frames=max_frames,
        )
    except ValueError as error:
        raise UserError(f"{root}: {error}") from error
    Path(out).absolute().parent.mkdir(parents=True, exist_ok=True)
    codebook.save(Path(out), report)
    console.print(f"{out}: {codebook.id}, digest {codebook.digest}", markup=False, soft_wrap=True)
    console.print_json(json.dumps(report))
    if frames < size * FRAMES_PER_UNIT:
        console.print(f"{frames:.0f} frames are few for {size} units; use at least {FRAMES_PER_UNIT} per unit")
    print_unused_units(console, report["unused_units"], size, "got no frame: fit fewer units or use more speech")
    return 0


def _check_frames(root: str, frames: float, size: int) -> None:
    """Raise UserError if there are fewer frames than units, before time is spent on computing features."""
    if frames < size:
        raise UserError(
            f"{root}: {frames:.0f} frames of 20 ms (limited by --max-frames) can't be clustered into {size} units. "
            f"Use more speech, or a --size well below {max(2, int(frames))}."
        )


def _samples(dataset: Dataset) -> int:
    samples = 0
    for manifest in dataset.manifests("utterances"):
        with dataset.open(manifest.output.path) as file:
            samples += pc.sum(file.read(["num_samples"])["num_samples"]).as_py() or 0
    return samples


def _features(dataset: Dataset) -> Iterator[np.ndarray]:
    for manifest in dataset.manifests("features"):
        with dataset.open(manifest.output.path) as file:
            for batch in file.iter_batches(columns=["width", "features"]):
                if len(batch):
                    yield batch["features"].flatten().to_numpy().reshape(-1, batch["width"][0].as_py())
