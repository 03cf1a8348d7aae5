"""Units of CosyVoice2's supervised speech tokenizer: 25 per second, 6,561 values by finite scalar quantization.

The package s3tokenizer has the network. Its weights are loaded from a safetensors file of its `state_dict`, whose
shapes give the network's sizes. Utterances are encoded one at a time; those longer than 30 s in windows that overlap by
4 s, of which the middle is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.tokenizers.base import TokenizerSpec, UnitTokenizer

if TYPE_CHECKING:
    from torch import Tensor

MARK = "quantizer._codebook.project_down.weight"
"""A tensor by which such a file is recognized."""
HEAD_WIDTH = 64
"""Width of each attention head, whatever their number: that of the rotary embedding."""
WINDOW, OVERLAP, MELS_PER_UNIT = 3000, 400, 4
"""Frames of 10 ms. The package uses the same windows for long audio, but its last one may be all overlap."""
SHORTEST_SAMPLES = 640
"""Shorter utterances are padded with silence, since the spectrogram needs a frame."""


class S3Tokenizer(UnitTokenizer):
    """A safetensors file with the weights of s3tokenizer's `S3TokenizerV2`."""

    codebook_size = 3**8
    num_codebooks = 1
    layer = None
    sampling_rate, hop_samples = SAMPLE_RATE, 640

    @staticmethod
    def can_load(path: Path) -> bool:
        return path.suffix == ".safetensors" and MARK in _shapes(path)

    def __init__(self, named: TokenizerSpec) -> None:
        self._file = named.codebook
        if named.of_an_encoder or named.num_codebooks not in (None, 1):
            raise ModelError(
                f"{self._file} is a single codebook with its own encoder: remove `model` and `layer`, which are for "
                "k-means, and `num_codebooks`"
            )
        self.digest = sha256_of(self._file)
        self.codebook_id = f"s3v2-{self.digest[:8]}-k{self.codebook_size}"

    def weight_digests(self) -> dict[str, str]:
        return {"codebook": self.digest}

    def setup(self, device: str) -> None:
        try:
            from s3tokenizer.model_v2 import ModelConfig, S3TokenizerV2
        except ImportError as error:
            raise ModelError(f"{self._file} needs s3tokenizer: pip install 'echo-targets[cosyvoice]'") from error
        from safetensors.torch import load_file

        shapes = _shapes(self._file)
        try:
            width, mels, _ = shapes["encoder.conv1.weight"]
            blocks = {name.split(".")[2] for name in shapes if name.startswith("encoder.blocks.")}
            sizes = {"n_mels": mels, "n_audio_state": width, "n_audio_head": width // HEAD_WIDTH}
            model = S3TokenizerV2("v2", ModelConfig(**sizes, n_audio_layer=len(blocks)))
            model.load_state_dict(load_file(self._file))
        except (KeyError, ValueError, ZeroDivisionError, RuntimeError) as error:
            raise ModelError(f"{self._file}: not the weights of S3TokenizerV2 ({error}); save them again") from error
        self._mels, self._device = mels, device
        self._model = model.eval().to(device)

    def __call__(self, waveforms: list[np.ndarray]) -> list[np.ndarray]:
        return [self.fitted(self._units(waveform), len(waveform)) for waveform in waveforms]

    def _units(self, waveform: np.ndarray) -> np.ndarray:
        import torch
        from s3tokenizer.utils import log_mel_spectrogram

        filled = np.pad(waveform, (0, max(0, SHORTEST_SAMPLES - len(waveform))))
        mel = log_mel_spectrogram(torch.from_numpy(filled).to(self._device), self._mels)
        starts = range(0, max(1, mel.shape[1] - OVERLAP), WINDOW - OVERLAP)
        parts = [self._window(mel[:, start : start + WINDOW]) for start in starts]
        edge = OVERLAP // 2 // MELS_PER_UNIT
        whole = [
            part[edge if number else 0 : None if number == len(parts) - 1 else -edge]
            for number, part in enumerate(parts)
        ]
        return np.concatenate(whole)[:, None]

    def _window(self, mel: Tensor) -> np.ndarray:
        import torch

        units, lengths = self._model.quantize(mel[None], torch.tensor([mel.shape[1]], device=self._device))
        return units[0, : int(lengths[0])].cpu().numpy()


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the tensors' shapes from the file's header; empty if it can't be parsed."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return {}
