"""features: sample the frames that a codebook is fitted on. The sample depends only on the seed and the keys."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field

from echo_targets.schemas import FEATURES, KEY, SAMPLE_RATE, UTTERANCES
from echo_targets.transforms.audio.waveforms import with_waveforms, without_waveforms
from echo_targets.transforms.base import Output, Parameters, Transform, table_of
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES, padded_seconds
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.threads import encode_each


class SampleFeaturesParameters(Parameters):
    """Parameters of features.

    Attributes:
        model, layer: the encoder, as for `tokenize`, and the number of blocks to run.
        seed: seed of the sample.
        utterance_share, frame_share: share of the utterances to encode, and share of their frames to keep.
    """

    model: str = EMBEDDED
    layer: int
    seed: int = 0
    utterance_share: float = Field(1.0, gt=0, le=1)
    frame_share: float = Field(1.0, gt=0, le=1)


class SampleFeatures(Transform):
    """Sample encoder features of some frames of some utterances. An utterance with no sampled frame gives no row."""

    name: ClassVar[str] = "features"
    version: ClassVar[int] = 1
    reads = (UTTERANCES,)
    writes = FEATURES
    wants_audio = True
    equal_costs = True
    on_device = True
    Parameters = SampleFeaturesParameters
    parameters: SampleFeaturesParameters

    def fingerprint_parameters(self) -> dict[str, Any]:
        return self.parameters.model_dump(mode="json", exclude={"model"})

    def weight_digests(self) -> dict[str, str]:
        return {"encoder": open_encoder(self.parameters.model).weight_digest()}

    def setup(self) -> None:
        encoder = open_encoder(self.parameters.model)
        self._name, self._features = encoder.name(), encoder.features(self.parameters.layer, self.device)

    def wanted(self, rows: pa.Table) -> pa.BooleanArray:
        pairs = zip(rows[KEY].to_pylist(), rows["num_samples"].to_pylist(), strict=True)
        return pa.array([len(self._frames(key, samples)) > 0 for key, samples in pairs], pa.bool_())

    def costs(self, rows: pa.Table) -> list[int]:
        return [padded_seconds(samples) * SAMPLE_RATE for samples in rows["num_samples"].to_pylist()]

    def prepare(self, batch: pa.Table) -> pa.Table:
        return with_waveforms(batch)

    def __call__(self, batch: pa.Table) -> Output:
        batch, waveforms = without_waveforms(batch)
        encoded = encode_each(self._features, waveforms, self.device, "float32")
        rows = [
            self._row(key, features, self._frames(key, len(waveform)))
            for key, features, waveform in zip(batch[KEY].to_pylist(), encoded, waveforms, strict=True)
        ]
        return Output(table_of(rows, FEATURES))

    def _frames(self, key: str, num_samples: int) -> np.ndarray:
        """Return the (F,) int64 positions of the utterance's sampled frames, in order."""
        name = hashlib.sha256(f"{self.parameters.seed} {key}".encode()).digest()
        chance = np.random.default_rng(int.from_bytes(name[:8]))
        if chance.random() >= self.parameters.utterance_share:
            return np.zeros(0, np.int64)
        return np.flatnonzero(chance.random(-(-num_samples // HOP_SAMPLES)) < self.parameters.frame_share)

    def _row(self, key: str, features: np.ndarray, frames: np.ndarray) -> dict[str, Any]:
        return {
            KEY: key,
            "encoder": self._name,
            "layer": self.parameters.layer,
            "hop_samples": HOP_SAMPLES,
            "width": features.shape[1],
            "frames": frames.astype(np.int32),
            "features": features[frames].ravel(),
        }
