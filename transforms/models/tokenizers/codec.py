"""Units of neural codecs: transformers' EnCodec, DAC and Mimi, with the first ones of their residual codebooks.

Utterances are encoded one at a time, resampled to the codec's rate: in a padded batch the convolutions and the LSTM or
Transformer would see the padding, and sums would be added in another order.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.tables.base import LARGEST_CODEBOOK
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json, weight_files
from echo_targets.transforms.models.encoders.self_supervised import load_pretrained
from echo_targets.transforms.models.tokenizers.base import TokenizerSpec, UnitTokenizer

CHUNK_SECONDS = 100
"""Longer utterances are cut into parts of this length, at whole frames, as for encoders."""
MOST_CODEBOOKS, HIGHEST_RATE, LONGEST_HOP = 127, 768_000, 32_767


class Family(NamedTuple):
    """Where a kind of codec keeps its sizes.

    Attributes:
        name: prefix of its transformers classes.
        codebooks: configuration key of the number of codebooks, if there is one.
        ratios: configuration key whose product is the samples per frame.
        halved: True if another layer then halves the number of frames.
        whole_frames: True if its input must be whole frames, the last one padded with silence.
    """

    name: str
    codebooks: str | None
    ratios: str
    halved: bool = False
    whole_frames: bool = False


FAMILIES = {
    "encodec": Family("Encodec", None, "upsampling_ratios"),
    "dac": Family("Dac", "n_codebooks", "downsampling_ratios", whole_frames=True),
    "mimi": Family("Mimi", "num_quantizers", "upsampling_ratios", halved=True),
}
"""By `model_type` in config.json."""


class Codec(UnitTokenizer):
    """A transformers directory with EnCodec (24 kHz), DAC or Mimi.

    Attributes:
        family: where its sizes are kept.
        model: the codec, which also decodes; set by `setup`.
    """

    layer = None

    @staticmethod
    def can_load(path: Path) -> bool:
        config = path / "config.json"
        return config.is_file() and str(read_json(config).get("model_type")) in FAMILIES

    def __init__(self, named: TokenizerSpec) -> None:
        import transformers

        self._folder = named.codebook
        about = read_json(self._folder / "config.json")
        kind = about["model_type"]
        self.family = family = FAMILIES[kind]
        try:
            self._config = config = getattr(transformers, f"{family.name}Config").from_dict(about)
            there = int(getattr(config, family.codebooks) if family.codebooks else config.num_quantizers)
            self.codebook_size, self.sampling_rate = int(config.codebook_size), int(config.sampling_rate)
            self.hop_samples = math.prod(map(int, getattr(config, family.ratios))) * (2 if family.halved else 1)
        except Exception as error:  # transformers 5 raises its own, which are no ValueError
            raise ModelError(f"{self._folder}/config.json: not a configuration of {family.name} ({error})") from error
        self._check(there, named)
        self.num_codebooks = named.num_codebooks or there
        files = hashlib.sha256()
        for file in (self._folder / "config.json", *weight_files(self._folder)):
            files.update(bytes.fromhex(sha256_of(file)))
        self.digest = hashlib.sha256(f"{files.hexdigest()} {self.num_codebooks}".encode()).hexdigest()
        self.codebook_id = f"{kind}-{files.hexdigest()[:8]}-q{self.num_codebooks}-k{self.codebook_size}"

    def _check(self, there: int, named: TokenizerSpec) -> None:
        where = f"{self._folder}/config.json"
        for what, value, most in (
            ("codebook_size", self.codebook_size, LARGEST_CODEBOOK),
            ("codebooks", there, MOST_CODEBOOKS),
            ("sampling_rate", self.sampling_rate, HIGHEST_RATE),
            ("samples per frame", self.hop_samples, LONGEST_HOP),
        ):
            if not 1 <= value <= most:
                raise ModelError(f"{where}: {what} is {value}; it must be 1 to {most}")
        if getattr(self._config, "audio_channels", 1) != 1 or getattr(self._config, "chunk_length_s", None):
            raise ModelError(f"{where}: stereo and overlapping chunks are not supported: use EnCodec's 24 kHz model")
        if (named.num_codebooks or 1) > there:
            raise ModelError(f"{where}: it has {there} codebooks, but `num_codebooks` is {named.num_codebooks}")
        if named.of_an_encoder:
            raise ModelError(
                f"{self._folder} is a codec with its own encoder: remove `model` and `layer`, which are for k-means"
            )

    def weight_digests(self) -> dict[str, str]:
        return {"codebook": self.digest}

    def setup(self, device: str) -> None:
        import transformers

        self._device = device
        self.model = load_pretrained(getattr(transformers, f"{self.family.name}Model"), str(self._folder)).to(device)
        self._options = self._encode_options()

    def _encode_options(self) -> dict[str, Any]:
        """Return the number of codebooks to request; for EnCodec, the lowest bandwidth that has as many."""
        if self.family.name == "Dac":
            return {"n_quantizers": self.num_codebooks}
        if self.family.name == "Mimi":
            return {"num_quantizers": max(self.num_codebooks, self._config.num_semantic_quantizers)}
        count = self.model.quantizer.get_num_quantizers_for_bandwidth
        enough = (bandwidth for bandwidth in self._config.target_bandwidths if count(bandwidth) >= self.num_codebooks)
        return {"bandwidth": min(enough)}

    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        return [self._units(waveform) for waveform in waveforms]

    def _units(self, waveform: np.ndarray) -> np.ndarray:
        import soxr

        resampled = soxr.resample(waveform, SAMPLE_RATE, self.sampling_rate)
        wanted = -(-len(waveform) * self.sampling_rate // SAMPLE_RATE)
        resampled = np.pad(resampled[:wanted], (0, max(0, wanted - len(resampled))))
        chunk = CHUNK_SECONDS * self.sampling_rate // self.hop_samples * self.hop_samples
        parts = [self._codes(resampled[start : start + chunk]) for start in range(0, len(resampled), chunk)]
        return self.fitted(np.concatenate(parts), len(waveform))

    def _codes(self, waveform: np.ndarray) -> np.ndarray:
        """Return the (frames, num_codebooks) codes of at most one chunk, at the codec's rate."""
        import torch

        if self.family.whole_frames:
            waveform = np.pad(waveform, (0, -len(waveform) % self.hop_samples))
        with torch.inference_mode():
            encoded = self.model.encode(torch.from_numpy(waveform)[None, None].to(self._device), **self._options)
        codes = encoded.audio_codes.cpu().numpy()
        return codes.reshape(-1, codes.shape[-1])[: self.num_codebooks].T
