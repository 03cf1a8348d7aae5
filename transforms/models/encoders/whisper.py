"""Features of Whisper encoder layers, for units: 50 frames per second, each utterance at its own length.

A Whisper encoder expects windows of 30 s. Its position table can be cut instead, so an utterance that is padded only to
the next whole second takes a fraction of the time. Its features differ from those of a 30 s window: with the embedded
codebook, 96 % of the units of 13 s of speech are the same, and 80 % of the units of 2 s. Therefore a codebook must be
fitted on features computed in this way, as `fit-codebook` does.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.encoders.base import Encoder
from echo_targets.transforms.models.whisper.encoder import WINDOW_SAMPLES, layer_features, padded_seconds
from echo_targets.transforms.models.whisper.weights import encoder_digest, is_transformers, load_whisper


class WhisperEncoder(Encoder):
    """The encoder of a Whisper model, given as for `load_whisper`."""

    @staticmethod
    def can_load(model: str) -> bool:
        return True

    def weight_digest(self) -> str:
        return encoder_digest(self.model)

    def name(self) -> str:
        """Return the model's name; for a transformers directory, a name from the digest of its files."""
        if is_transformers(self.model):
            return f"whisper-{self.weight_digest()[:8]}"
        return f"whisper-{self.model.removeprefix('embedded:').rstrip('/').split('/')[-1]}"

    def features(self, layer: int, device: str) -> WhisperFeatures:
        return WhisperFeatures(self.model, layer, device)


class WhisperFeatures:
    """Features of Whisper's encoder; utterances are padded to whole seconds and batched with others of equal length."""

    def __init__(self, model: str, layer: int, device: str) -> None:
        self.layer = layer
        self._whisper = load_whisper(model, device)
        if not 0 <= layer <= (layers := self._whisper.dims.n_audio_layer):
            raise ModelError(
                f"{model} has {layers} layers, but the codebook needs layer {layer}: use the codebook's encoder"
            )

    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        """Return features of each waveform: (num_frames, D) float32, 50 frames per second.

        A waveform longer than 30 s is cut every 30 s, at a frame border.
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
