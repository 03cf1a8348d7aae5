"""`echo-targets fit-codebook`: k-means on encoder features. The same data and seed give the same file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from echo_targets.jobs.commands.run import run_job
from echo_targets.jobs.config import ExecutionConfig
from echo_targets.jobs.screen import open_console, print_unused_units
from echo_targets.pipeline.job import Job
from echo_targets.pipeline.plan import Committed
from echo_targets.pipeline.stage import StageSpec
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.schemas.errors import UserError
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
    root: str, out: str, size: int, layer: int, model: str, seed: int, max_frames: int, execution: ExecutionConfig
) -> int:
    """Sample features into the `features` table, fit a codebook on them, and write it with its report."""
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
        execution.device,
        execution.batch_seconds,
        execution.hang_factor,
    )
    job = Job(root, Committed.of(dataset, "utterances"), [spec], MAX_REJECT_FRACTION, execution.when_busy)
    if code := run_job(execution, job, console):
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
