"""Speech from a codec's own units: the decoders of transformers' EnCodec, DAC and Mimi."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.tokenizers.base import TokenizerSpec
from echo_targets.transforms.models.tokenizers.codec import Codec
from echo_targets.transforms.models.vocoders.base import Vocoder
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.units.codebook import check_units

if TYPE_CHECKING:
    from torch import Tensor


class CodecVocoder(Vocoder):
    """The directory of a codec. It speaks the units that `tokenizers.codec.Codec` made with the same files.

    With fewer codebooks than the codec has, the first ones are decoded, as the codec itself would at a lower bit rate.
    """

    needs_durations = True

    @staticmethod
    def can_load(path: Path) -> bool:
        return Codec.can_load(path)

    @staticmethod
    def digest(path: Path) -> str:
        return _codec(path).digest

    def __init__(self, path: Path, device: str = "cpu") -> None:
        self._path, self._codec = path, _codec(path)
        self._codec.setup(device)
        self._device = device
        self.codebook_size = self._codec.codebook_size

    def check_codebook(self, codebook_id: str, codebook_size: int | None = None) -> None:
        named = re.fullmatch(r".+-q(\d+)-k\d+", codebook_id)
        own = _codec(self._path, int(named[1]) if named else None).codebook_id
        if codebook_id != own:
            raise ModelError(f"{self._path} is the codec of {own}, but the units are of {codebook_id}: use that codec")

    def speak(self, frames: Sequence[Sequence[int]] | np.ndarray) -> np.ndarray:
        import soxr
        import torch

        units = np.asarray(frames, np.int64)
        if not units.size:
            return np.zeros(0, np.float32)
        check_units(units, self.codebook_size)
        if len(units) > self._codec.num_codebooks:
            raise ValueError(f"{len(units)} codebooks, but the codec has {self._codec.num_codebooks}")
        with torch.inference_mode():
            decoded = self._decode(torch.from_numpy(units).to(self._device))
        speech = decoded.float().cpu().numpy()
        return np.asarray(soxr.resample(speech, self._codec.sampling_rate, SAMPLE_RATE), np.float32)

    def _decode(self, units: Tensor) -> Tensor:
        """Return (samples,) at the codec's rate."""
        model: Any = self._codec.model
        if self._codec.family.name == "Encodec":
            return model.decode(units[None, None], [None]).audio_values[0, 0]
        return model.decode(audio_codes=units[None]).audio_values.flatten()


def _codec(path: Path, num_codebooks: int | None = None) -> Codec:
    return Codec(TokenizerSpec(path, EMBEDDED, num_codebooks=num_codebooks))
