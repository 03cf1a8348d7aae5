"""tokenize: speech as units of one or more codebooks, runs collapsed, and as words of a unit language."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from echo_targets.schemas import KEY, SAMPLE_RATE, UNITS, UTTERANCES
from echo_targets.transforms.assets import asset
from echo_targets.transforms.audio.waveforms import with_waveforms, without_waveforms
from echo_targets.transforms.base import Output, Parameters, Transform, table_of
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.tokenizers.base import UnitTokenizer
from echo_targets.transforms.models.tokenizers.kmeans import KmeansTokenizer
from echo_targets.transforms.models.tokenizers.registry import open_tokenizer
from echo_targets.transforms.models.whisper.encoder import padded_seconds
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.threads import encode_each
from echo_targets.transforms.units.codebook import collapse
from echo_targets.transforms.units.language import UnitLanguage


class TokenizeParameters(Parameters):
    """Parameters of tokenize.

    Attributes:
        model: the encoder that a k-means codebook is of: a Whisper model, as `transcribe` takes it, or a directory of
            transformers with HuBERT, mHuBERT, WavLM, wav2vec2 or XLSR. A codec is its own.
        codebook: a file of `echo-targets fit-codebook`, or `embedded:NAME`; or centroids that others fitted: a joblib
            pickle of scikit-learn's k-means, or a file of `torch.save` or of numpy.
        layer: the encoder's layer that a k-means file was fitted on, since the file does not say; other codebooks do.
        num_codebooks: how many of a codec's codebooks, the first ones; null for all of them.
        dtype: what an encoder's products are computed in. bfloat16 is faster on processors that have it, and gives some
            frames to other centroids.
        unit_language: a file of `echo-targets fit-unit-language`, or `embedded:NAME`; null for units alone.
    """

    model: str = EMBEDDED
    codebook: str = "embedded:codebook-tiny.en-l3-k100.safetensors"
    layer: int | None = None
    num_codebooks: PositiveInt | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    unit_language: str | None = None

    def open(self) -> UnitTokenizer:
        """The tokenizer that is named, not yet loaded.

        Raises:
            ModelError: it can't be used.
        """
        tokenizer = open_tokenizer(self.codebook, self.model, self.layer, self.num_codebooks)
        if self.dtype != "float32" and not isinstance(tokenizer, KmeansTokenizer):
            raise ModelError(f"{self.codebook} computes in float32: dtype={self.dtype} is for encoders, leave it out")
        return tokenizer


class Tokenize(Transform):
    """Units of each frame, as the tokenizer says them."""

    name: ClassVar[str] = "tokenize"
    version: ClassVar[int] = 2
    reads = (UTTERANCES,)
    writes = UNITS
    wants_audio = True
    on_device = True
    equal_costs = True
    Parameters = TokenizeParameters
    parameters: TokenizeParameters

    def fingerprint_parameters(self) -> dict[str, Any]:
        return {
            "dtype": self.parameters.dtype
        }  # the others are files and what they are asked for, all in their digests

    def weight_digests(self) -> dict[str, str]:
        language = self.parameters.unit_language
        return {
            **self.parameters.open().weight_digests(),
            **({"unit_language": sha256_of(asset(language))} if language else {}),
        }

    def setup(self) -> None:
        self.tokenizer = self.parameters.open()
        language = self.parameters.unit_language
        self.unit_language = UnitLanguage.load(asset(language)) if language else None
        if self.unit_language and self.tokenizer.num_codebooks != 1:
            raise ModelError(
                f"{self.parameters.codebook} gives {self.tokenizer.num_codebooks} units a frame, a unit language has "
                "words of single ones: leave `unit_language` out, or set num_codebooks=1"
            )
        if self.unit_language:
            self.unit_language.check_codebook(self.tokenizer.codebook_id, self.tokenizer.codebook_size)
        self.tokenizer.setup(self.device)

    def costs(self, rows: pa.Table) -> list[int]:
        return [padded_seconds(samples) * SAMPLE_RATE for samples in rows["num_samples"].to_pylist()]

    def prepare(self, batch: pa.Table) -> pa.Table:
        return with_waveforms(batch)

    def __call__(self, batch: pa.Table) -> Output:
        batch, waveforms = without_waveforms(batch)
        heard = encode_each(self.tokenizer, waveforms, self.device, self.parameters.dtype)
        rows = [self._row(key, frames) for key, frames in zip(batch[KEY].to_pylist(), heard, strict=True)]
        return Output(table_of(rows, UNITS))

    def _row(self, key: str, frames: np.ndarray) -> dict[str, Any]:
        runs, durations = collapse(frames)
        tokenizer, language = self.tokenizer, self.unit_language
        return {
            KEY: key,
            "codebook_id": tokenizer.codebook_id,
            "codebook_size": tokenizer.codebook_size,
            "num_codebooks": tokenizer.num_codebooks,
            "layer": tokenizer.layer,
            "sampling_rate": tokenizer.sampling_rate,
            "hop_samples": tokenizer.hop_samples,
            "num_frames": len(frames),
            "units": list(runs.T),
            "durations": durations,
            "unit_words": language.encode(runs[:, 0].tolist()) if language else None,
            "unit_language_id": language.id if language else None,
        }
