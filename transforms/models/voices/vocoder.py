"""Speech from units: the unit HiFi-GAN of speechbrain (Polyak et al. 2021), a directory of two files.

`generator.ckpt` has the tensors, `hyperparams.yaml` says their sizes, which are read as data. What is read has one
speaker, one codebook, and a predictor of durations, since targets are runs of units without any.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.speechbrain import (
    HYPERPARAMS,
    Hyperparams,
    fill,
    need_speechbrain,
    read_state,
)
from echo_targets.transforms.models.readers.ctc import check_units
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES

GENERATOR = "generator.ckpt"
LONGEST_FRAMES = 100
"""No unit is said for longer, 2 s, whatever is predicted."""

Size = Annotated[int, Field(ge=1, le=65_536)]
Sizes = Annotated[list[Size], Field(min_length=1, max_length=16)]


class GeneratorConfig(BaseModel):
    """What `UnitHifiganGenerator` is made with, under its names and defaults; speechbrain 1.0 said `num_embeddings`.

    `pooling_type` and `attn_dim` are of how several codebooks are weighed, and change nothing with one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_channels: Size
    out_channels: Literal[1]
    resblock_type: Literal["1", "2"]
    resblock_dilation_sizes: Annotated[list[Sizes], Field(min_length=1, max_length=16)]
    resblock_kernel_sizes: Sizes
    upsample_kernel_sizes: Sizes
    upsample_initial_channel: Size
    upsample_factors: Sizes
    inference_padding: int = 5
    cond_channels: Literal[0] = 0
    conv_post_bias: bool = True
    vocab_size: Size = Field(100, validation_alias=AliasChoices("vocab_size", "num_embeddings"))
    embedding_dim: Size = 128
    attn_dim: Size = 128
    duration_predictor: Literal[True]
    var_pred_hidden_dim: Size = 128
    var_pred_kernel_size: Size = 3
    var_pred_dropout: float = 0.5
    multi_speaker: Literal[False] = False
    normalize_speaker_embeddings: bool = False
    skip_token_embedding: Literal[False] = False
    pooling_type: str = "attention"

    @property
    def shortest(self) -> int:
        """The fewest frames that the network's reflecting padding can be made for."""
        rates = [math.prod(self.upsample_factors[: stage + 1]) for stage in range(len(self.upsample_factors))]
        pairs = zip(self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True)
        widest = max((kernel - 1) * max(dilations) // 2 for kernel, dilations in pairs)
        return max(4, *(widest // rate + 1 for rate in rates))  # 4, since the first convolution is 7 wide


def whole(segments: Sequence[Sequence[int]]) -> list[int]:
    """The units of a reply: those of its segments, of equal neighbours one."""
    return [unit for unit, _ in groupby(unit for segment in segments for unit in segment)]


def is_vocoder(path: Path) -> bool:
    """Whether a model's directory is a unit HiFi-GAN."""
    return (path / GENERATOR).is_file()


def vocoder_digest(path: Path) -> str:
    """What stands for a vocoder in a fingerprint."""
    both = sha256_of(path / HYPERPARAMS) + sha256_of(path / GENERATOR)
    return hashlib.sha256(bytes.fromhex(both)).hexdigest()


class Vocoder:
    """A vocoder of units.

    Args:
        path: its directory.
        device: a torch device.

    Attributes:
        codebook_size: of the units that it says.

    Raises:
        ModelError: a file is missing or damaged, or it is not of the kind that is read here.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        need_speechbrain()
        import torch
        from speechbrain.lobes.models.HifiGAN import UnitHifiganGenerator

        self._path, self._device = path, device
        self._config = config = _config(path)
        self.codebook_size = config.vocab_size - 1  # 0 stands for none
        try:
            with torch.device("meta"):
                generator = UnitHifiganGenerator(**config.model_dump() | {"pooling_type": "none"})
            self._shortest = config.shortest
        except Exception as error:  # sizes that do not go together
            raise ModelError(f"{path / HYPERPARAMS}: no generator has these sizes ({error})") from error
        state = read_state(path / GENERATOR)
        if wrong := [name for name, each in state.items() if not each.isfinite().all()]:
            raise ModelError(f"{path / GENERATOR}: {wrong[0]} has values that are no numbers; copy it again")
        state = {name: each for name, each in state.items() if not name.startswith("attn_pooling.")}
        fill(generator, state, path / GENERATOR)
        generator.remove_weight_norm()
        self._generator = generator.to(device)

    def check_codebook(self, codebook_id: str, codebook_size: int) -> None:
        """Make sure that it says as many units as a codebook has; which ones they are its files don't tell.

        Raises:
            ModelError: it says more or fewer.
        """
        if codebook_size != self.codebook_size:
            raise ModelError(
                f"{self._path} says {self.codebook_size} units, {codebook_id} has {codebook_size}: take its own"
            )

    def __call__(self, rows: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """The speech of each row, float32 at 16 kHz; rows are said one by one, so that none changes another.

        Args:
            rows: units without equal neighbours; an empty row is silent.

        Raises:
            ValueError: a unit is not in the codebook.
        """
        check_units(rows, self.codebook_size)
        return [self._say(list(map(int, row))) if len(row) else np.zeros(0, np.float32) for row in rows]

    def _say(self, row: list[int]) -> np.ndarray:
        """As `UnitHifiganGenerator.inference`; a row too short for the padding is held at its last frame."""
        import torch
        from speechbrain.lobes.models.HifiGAN import HifiganGenerator

        generator = self._generator
        shortest = self._config.var_pred_kernel_size // 2 + 1  # that the predictor's convolutions pad by reflection
        padded = row + [row[-1]] * max(0, shortest - len(row))
        with torch.inference_mode():
            embedded = generator.unit_embedding(torch.tensor(padded, device=self._device) + 1)
            predicted = torch.round(torch.exp(generator.var_predictor(embedded[None])[0]) - 1)[: len(row)]
            durations = predicted.clamp(1, LONGEST_FRAMES).long()
            durations[-1] += max(0, self._shortest - int(durations.sum()))
            frames = torch.repeat_interleave(embedded[: len(row)], durations, dim=0)
            waveform = HifiganGenerator.forward(generator, frames.T[None])[0, 0]
        return np.asarray(waveform.cpu().numpy(), np.float32)


def _config(path: Path) -> GeneratorConfig:
    hyperparams = Hyperparams(path)
    if (rate := hyperparams.get("sample_rate", SAMPLE_RATE)) != SAMPLE_RATE:
        raise ModelError(f"{hyperparams.path}: it speaks at {rate} Hz, the pipeline's rate is {SAMPLE_RATE} Hz")
    try:
        config = GeneratorConfig.model_validate(hyperparams.given("generator", "UnitHifiganGenerator"))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ModelError(
            f"{hyperparams.path}: {found}. What is read has one speaker, one codebook and a predictor of durations"
        ) from error
    if (hop := math.prod(config.upsample_factors)) != HOP_SAMPLES:
        raise ModelError(f"{hyperparams.path}: a unit is {hop} samples, the pipeline's are {HOP_SAMPLES}")
    if config.in_channels != config.embedding_dim:
        sizes = f"in_channels is {config.in_channels}, embedding_dim {config.embedding_dim}"
        raise ModelError(f"{hyperparams.path}: {sizes}; with one speaker they are the same")
    return config
