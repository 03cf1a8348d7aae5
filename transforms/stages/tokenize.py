"""tokenize: encode speech as collapsed units of one or more codebooks, and as words of a unit language."""

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
        model: the encoder of a k-means codebook: a Whisper model, as for `transcribe`, or a transformers directory with
            HuBERT, mHuBERT, WavLM, wav2vec2 or XLSR. A codec brings its own encoder.
        codebook: a file of `echo-targets fit-codebook`, or `embedded:NAME`; or k-means centroids from elsewhere: a
            joblib pickle of scikit-learn's k-means, or a `torch.save` or numpy file.
        layer: encoder layer. Required for k-means files, which do not record it; other codebooks do.
        num_codebooks: number of the codec's codebooks to use, starting with the first; null for all.
        dtype: dtype of the encoder's matrix products. bfloat16 is faster on processors that support it, and assigns
            some frames to other centroids.
        unit_language: a file of `echo-targets fit-unit-language`, or `embedded:NAME`; null writes units only.
    """

    model: str = EMBEDDED
    codebook: str = "embedded:codebook-tiny.en-l3-k100.safetensors"
    layer: int | None = None
    num_codebooks: PositiveInt | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    unit_language: str | None = None

    def open(self) -> UnitTokenizer:
        """Return the configured tokenizer, not loaded.

        Raises:
            ModelError: it can't be used.
        """
        tokenizer = open_tokenizer(self.codebook, self.model, self.layer, self.num_codebooks)
        if self.dtype != "float32" and not isinstance(tokenizer, KmeansTokenizer):
            raise ModelError(f"{self.codebook} computes in float32: remove dtype={self.dtype}, which is for encoders")
        return tokenizer


class Tokenize(Transform):
    """Encode each frame as the tokenizer's units."""

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
        return {"dtype": self.parameters.dtype}  # weight_digests covers the other parameters

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
                f"{self.parameters.codebook} gives {self.tokenizer.num_codebooks} units per frame, but a unit language "
                "needs one: remove `unit_language`, or set num_codebooks=1"
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
        encoded = encode_each(self.tokenizer, waveforms, self.device, self.parameters.dtype)
        rows = [self._row(key, frames) for key, frames in zip(batch[KEY].to_pylist(), encoded, strict=True)]
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
