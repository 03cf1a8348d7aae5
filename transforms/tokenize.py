"""tokenize: speech as units of a codebook, 50 a second, runs collapsed, and as words of a unit language."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from schemas import KEY, SAMPLE_RATE, UNITS, UTTERANCES
from transforms.assets import asset
from transforms.audio import with_waveforms, without_waveforms
from transforms.base import Output, Parameters, Transform, digest_of, table_of
from transforms.codebook import Codebook, collapse
from transforms.models.embedded import ModelError
from transforms.models.kmeans_file import read_centroids
from transforms.models.ssl_encoders import SslFeatures, is_ssl, ssl_name, ssl_weights_of
from transforms.models.whisper_encoder import HOP_SAMPLES, WINDOW_SECONDS, layer_features, padded_seconds
from transforms.models.whisper_weights import EMBEDDED, load_whisper, weights_of
from transforms.unit_language import UnitLanguage

WINDOW_SAMPLES = WINDOW_SECONDS * SAMPLE_RATE


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


def open_features(model: str, layer: int, device: str) -> Features | SslFeatures:
    """What computes the features of an encoder's layer, its model loaded."""
    return SslFeatures(model, layer, device) if is_ssl(model) else Features(model, layer, device)


def encoder_weights_of(model: str) -> str:
    """What stands for an encoder in a fingerprint."""
    return ssl_weights_of(model) if is_ssl(model) else weights_of(model)


def encoder_name(model: str) -> str:
    """What a codebook calls an encoder, such as `whisper-tiny.en`."""
    if is_ssl(model):
        return ssl_name(model)
    return f"whisper-{model.removeprefix('embedded:').rstrip('/').split('/')[-1]}"


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
        return Codebook(encoder_name(parameters.model), layer, HOP_SAMPLES, centroids, *plain)
    except ValueError as error:
        raise ModelError(f"{path}: not a usable codebook: {error}") from error


class Features:
    """Features of Whisper's encoder, each utterance padded to its next whole second and batched with its equals."""

    def __init__(self, model: str, layer: int, device: str) -> None:
        self.layer = layer
        self._whisper = load_whisper(model, device)

    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Features of each waveform, (num_frames, D) float32, 50 frames a second.

        A waveform above 30 s is cut every 30 s, at a frame's border.
        """
        chunks = [
            (number, waveform[start : start + WINDOW_SAMPLES])
            for number, waveform in enumerate(waveforms)
            for start in range(0, len(waveform), WINDOW_SAMPLES)
        ]
        equals: dict[int, list[int]] = defaultdict(list)
        for position, (_, chunk) in enumerate(chunks):
            equals[padded_seconds(len(chunk))].append(position)
        features: dict[int, np.ndarray] = {}
        for positions in equals.values():
            batch = layer_features(self._whisper, [chunks[position][1] for position in positions], self.layer)
            features.update(zip(positions, batch, strict=True))
        parts: list[list[np.ndarray]] = [[] for _ in waveforms]
        for position, (number, _) in enumerate(chunks):
            parts[number].append(features[position])
        return [np.concatenate(part) for part in parts]


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
            "encoder": encoder_weights_of(self.parameters.model),
            "codebook": open_codebook(self.parameters).digest,
            **({"unit_language": digest_of(asset(language))} if language else {}),
        }

    def setup(self) -> None:
        self.codebook = open_codebook(self.parameters)
        language = self.parameters.unit_language
        self.unit_language = UnitLanguage.load(asset(language)) if language else None
        self._features = open_features(self.parameters.model, self.codebook.layer, self.device)

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
