"""Speech from units with speechbrain's unit HiFi-GAN (Polyak et al. 2021), a directory of two files.

`generator.ckpt` has the tensors, and `hyperparams.yaml`, which is parsed as data, their sizes. Supported are generators
with one speaker, one codebook, and a duration predictor, since targets are collapsed units without durations.
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
from echo_targets.transforms.models.vocoders.base import Vocoder
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES
from echo_targets.transforms.units.codebook import check_units

GENERATOR = "generator.ckpt"
LONGEST_FRAMES = 100
"""Maximum duration of a unit, 2 s, whatever is predicted."""

Size = Annotated[int, Field(ge=1, le=65_536)]
Sizes = Annotated[list[Size], Field(min_length=1, max_length=16)]


class GeneratorConfig(BaseModel):
    """Arguments of `UnitHifiganGenerator`, with its names and defaults; speechbrain 1.0 used `num_embeddings`.

    `pooling_type` and `attn_dim` affect how several codebooks are weighted, so they have no effect with one.
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
        """Minimum number of frames for the network's reflection padding."""
        rates = [math.prod(self.upsample_factors[: stage + 1]) for stage in range(len(self.upsample_factors))]
        pairs = zip(self.resblock_kernel_sizes, self.resblock_dilation_sizes, strict=True)
        widest = max((kernel - 1) * max(dilations) // 2 for kernel, dilations in pairs)
        return max(4, *(widest // rate + 1 for rate in rates))  # 4, since the first convolution is 7 wide


class UnitHifigan(Vocoder):
    """A unit HiFi-GAN. It predicts the duration of each run of equal units, whatever their number of frames."""

    needs_durations = False

    @staticmethod
    def can_load(path: Path) -> bool:
        return (path / GENERATOR).is_file()

    @staticmethod
    def digest(path: Path) -> str:
        both = sha256_of(path / HYPERPARAMS) + sha256_of(path / GENERATOR)
        return hashlib.sha256(bytes.fromhex(both)).hexdigest()

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
        except Exception as error:  # inconsistent sizes
            raise ModelError(f"{path / HYPERPARAMS}: inconsistent sizes of the generator ({error})") from error
        state = read_state(path / GENERATOR)
        if wrong := [name for name, each in state.items() if not each.isfinite().all()]:
            raise ModelError(f"{path / GENERATOR}: {wrong[0]} has values that are not finite; copy it again")
        state = {name: each for name, each in state.items() if not name.startswith("attn_pooling.")}
        fill(generator, state, path / GENERATOR)
        generator.remove_weight_norm()
        self._generator = generator.to(device)

    def check_codebook(self, codebook_id: str, codebook_size: int | None = None) -> None:
        """Check that the vocoder has as many units as a codebook. Its files do not name the codebook.

        Raises:
            ModelError: it has more or fewer.
        """
        if codebook_size not in (None, self.codebook_size):
            raise ModelError(
                f"{self._path} has {self.codebook_size} units, but {codebook_id} has {codebook_size}: use a vocoder "
                "for that codebook"
            )

    def speak(self, frames: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        units = np.asarray(frames, np.int64)
        if not units.size:
            return np.zeros(0, np.float32)
        if len(units) > 1:
            raise ValueError(f"{len(units)} codebooks, but the vocoder has one")
        check_units(units, self.codebook_size)
        return self._speak([unit for unit, _ in groupby(units[0].tolist())])

    def _speak(self, row: list[int]) -> np.ndarray:
        """Synthesize units without equal neighbors, like `UnitHifiganGenerator.inference`.

        A row that is too short for the padding extends its last frame.
        """
        import torch
        from speechbrain.lobes.models.HifiGAN import HifiganGenerator

        generator = self._generator
        shortest = self._config.var_pred_kernel_size // 2 + 1  # minimum for the predictor's reflection padding
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
        raise ModelError(f"{hyperparams.path}: its rate is {rate} Hz, but must be {SAMPLE_RATE} Hz")
    try:
        config = GeneratorConfig.model_validate(hyperparams.given("generator", "UnitHifiganGenerator"))
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ModelError(
            f"{hyperparams.path}: {found}. Supported are generators with one speaker, one codebook and a duration "
            "predictor"
        ) from error
    if (hop := math.prod(config.upsample_factors)) != HOP_SAMPLES:
        raise ModelError(f"{hyperparams.path}: a unit is {hop} samples, but must be {HOP_SAMPLES}")
    if config.in_channels != config.embedding_dim:
        sizes = f"in_channels is {config.in_channels} and embedding_dim is {config.embedding_dim}"
        raise ModelError(f"{hyperparams.path}: {sizes}; with one speaker they must be equal")
    return config
