"""tokenize: speech as units of a codebook, 50 a second, runs collapsed, and as words of a unit language."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from schemas import KEY, SAMPLE_RATE, UNITS, UTTERANCES
from transforms.assets import asset
from transforms.audio import with_waveforms, without_waveforms
from transforms.base import Output, Parameters, Transform, digest_of, table_of
from transforms.codebook import Codebook, collapse
from transforms.models.embedded import ModelError
from transforms.models.encoders import open_encoder
from transforms.models.kmeans_file import read_centroids
from transforms.models.whisper_encoder import HOP_SAMPLES, padded_seconds
from transforms.models.whisper_weights import EMBEDDED
from transforms.unit_language import UnitLanguage


class TokenizeParameters(Parameters):
    """Parameters of tokenize.

    Attributes:
        model: the Whisper model whose encoder gives the features, as `transcribe` takes it, or a directory of
            transformers with HuBERT, mHuBERT, WavLM, wav2vec2 or XLSR.
        codebook: a file of `echo-targets fit-codebook`, or `embedded:NAME`; or the k-means file (a joblib pickle) of
            fairseq or speechbrain.
        layer: of which layer a k-means file is, which does not say so itself; other codebooks do.
        unit_language: a file of `echo-targets fit-unit-language`, or `embedded:NAME`; null for units alone.
    """

    model: str = EMBEDDED
    codebook: str = "embedded:codebook-tiny.en-l3-k100.safetensors"
    layer: int | None = None
    unit_language: str | None = None


def open_codebook(parameters: TokenizeParameters) -> Codebook:
    """The codebook that the parameters name, of either kind.

    Raises:
        ModelError: the file can't be used, or its layer is not known or said twice.
    """
    path, layer = asset(parameters.codebook), parameters.layer
    if path.suffix == ".safetensors":
        codebook = Codebook.load(path)
        if layer not in (None, codebook.layer):
            raise ModelError(f"{path} is of layer {codebook.layer}, `layer` says {layer}: leave `layer` out")
        return codebook
    if layer is None:
        raise ModelError(f"{path} does not say which layer it is of: set `layer`, such as 11 for mHuBERT's km1000")
    centroids = read_centroids(path)
    plain = np.zeros(centroids.shape[1:], np.float32), np.ones(centroids.shape[1:], np.float32)
    try:
        return Codebook(open_encoder(parameters.model).name(), layer, HOP_SAMPLES, centroids, *plain)
    except ValueError as error:
        raise ModelError(f"{path}: not a usable codebook: {error}") from error


class Tokenize(Transform):
    """Nearest centroid of each frame's features."""

    name: ClassVar[str] = "tokenize"
    version: ClassVar[int] = 1
    reads = (UTTERANCES,)
    writes = UNITS
    wants_audio = True
    on_device = True
    equal_costs = True
    Parameters = TokenizeParameters
    parameters: TokenizeParameters

    def meaning(self) -> dict[str, Any]:
        return {}  # files, all of them: their digests stand for them

    def weights(self) -> dict[str, str]:
        language = self.parameters.unit_language
        return {
            "encoder": open_encoder(self.parameters.model).weights(),
            "codebook": open_codebook(self.parameters).digest,
            **({"unit_language": digest_of(asset(language))} if language else {}),
        }

    def setup(self) -> None:
        self.codebook = open_codebook(self.parameters)
        language = self.parameters.unit_language
        self.unit_language = UnitLanguage.load(asset(language)) if language else None
        self._features = open_encoder(self.parameters.model).features(self.codebook.layer, self.device)

    def costs(self, rows: pa.Table) -> list[int]:
        return [padded_seconds(samples) * SAMPLE_RATE for samples in rows["num_samples"].to_pylist()]

    def prepare(self, batch: pa.Table) -> pa.Table:
        return with_waveforms(batch)

    def __call__(self, batch: pa.Table) -> Output:
        batch, waveforms = without_waveforms(batch)
        rows = [
            self._row(key, features)
            for key, features in zip(batch[KEY].to_pylist(), self._features(waveforms), strict=True)
        ]
        return Output(table_of(rows, UNITS))

    def _row(self, key: str, features: np.ndarray) -> dict[str, Any]:
        units, durations = collapse(self.codebook.quantize(features))
        language = self.unit_language
        return {
            KEY: key,
            "codebook_id": self.codebook.id,
            "codebook_size": self.codebook.size,
            "layer": self.codebook.layer,
            "hop_samples": self.codebook.hop_samples,
            "num_frames": len(features),
            "units": units,
            "durations": durations,
            "unit_words": language.encode(units.tolist()) if language else None,
            "unit_language_id": language.id if language else None,
        }
