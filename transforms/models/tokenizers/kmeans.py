"""Units of an encoder layer: the nearest of K centroids for every 20 ms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.encoders.registry import open_encoder
from echo_targets.transforms.models.tokenizers.base import TokenizerSpec, UnitTokenizer
from echo_targets.transforms.models.tokenizers.kmeans_file import read_centroids
from echo_targets.transforms.models.whisper.encoder import HOP_SAMPLES
from echo_targets.transforms.units.codebook import Codebook


class KmeansTokenizer(UnitTokenizer):
    """A codebook of `fit-codebook`, or published centroids (`read_centroids`), with its encoder."""

    num_codebooks = 1
    sampling_rate = SAMPLE_RATE

    @staticmethod
    def can_load(path: Path) -> bool:
        return True

    def __init__(self, named: TokenizerSpec) -> None:
        self.codebook = open_codebook(named)
        self.codebook_id, self.digest, self.codebook_size = self.codebook.id, self.codebook.digest, self.codebook.size
        self.layer, self.hop_samples = self.codebook.layer, self.codebook.hop_samples
        self._encoder = open_encoder(named.encoder)

    def weight_digests(self) -> dict[str, str]:
        return {"encoder": self._checked_encoder(), "codebook": self.digest}

    def _checked_encoder(self) -> str:
        """Return the digest of the encoder's weights.

        Raises:
            ModelError: the codebook was fitted on other weights.
        """
        fitted, given = self.codebook.encoder_digest, self._encoder.weight_digest()
        if fitted != given:
            raise ModelError(
                f"{self.codebook.id} was fitted on {self.codebook.encoder} with weights {fitted[:8]}, but `model` is "
                f"{self._encoder.name()} with weights {given[:8]}: set `model` to the files that it was fitted on, or "
                "fit a codebook on these with `echo-targets fit-codebook`"
            )
        return given

    def setup(self, device: str) -> None:
        self._checked_encoder()
        self._features = self._encoder.features(self.codebook.layer, device)

    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        return [self.codebook.quantize(features)[:, None] for features in self._features(waveforms)]


def open_codebook(named: TokenizerSpec) -> Codebook:
    """Load a codebook of either kind.

    Raises:
        ModelError: the file can't be used, or its layer is missing or given twice.
    """
    path, layer = named.codebook, named.layer
    if path.is_dir():
        raise ModelError(f"{path} is a directory, but not of a codec (EnCodec, DAC, Mimi): see docs/BACKENDS.md")
    if named.num_codebooks not in (None, 1):
        raise ModelError(f"{path} is a single codebook, but `num_codebooks` is {named.num_codebooks}: remove it")
    if path.suffix == ".safetensors":
        codebook = Codebook.load(path)
        if layer not in (None, codebook.layer):
            raise ModelError(f"{path} is for layer {codebook.layer}, but `layer` is {layer}: remove `layer`")
        return codebook
    if layer is None:
        raise ModelError(f"{path} does not record its layer: set `layer` (docs/BACKENDS.md lists published ones)")
    centroids, encoder = read_centroids(path), open_encoder(named.encoder)
    plain = np.zeros(centroids.shape[1:], np.float32), np.ones(centroids.shape[1:], np.float32)
    try:
        return Codebook(encoder.name(), layer, HOP_SAMPLES, centroids, *plain, encoder.weight_digest())
    except ValueError as error:
        raise ModelError(f"{path}: not a usable codebook: {error}") from error
