"""SpeechT5 (Ao et al. 2022) with a HiFi-GAN vocoder: transformers' `SpeechT5ForTextToSpeech`.

The speaker's x-vector is a file `NAME.npy` or `NAME.safetensors` in the checkpoint's directory. The vocoder is a
directory in that directory, or in its parent.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_file, read_json
from echo_targets.transforms.models.encoders.self_supervised import load_pretrained
from echo_targets.transforms.models.voices.base import UnspeakableText
from echo_targets.transforms.models.voices.checkpoint import (
    CheckpointVoice,
    checkpoint_files,
    in_vocabulary,
    load_tokenizer,
    read_config,
)

if TYPE_CHECKING:
    from torch import Tensor

HIFIGAN = "hifigan"
LONGEST_RATIO = 20.0
"""Maximum spectrogram frames per token, as in `generate_speech`."""


class Loaded(NamedTuple):
    """The parts of the model."""

    tokenizer: Any
    model: Any
    vocoder: Any


class SpeechT5Voice(CheckpointVoice):
    """A SpeechT5 directory. A speaker is the name of an x-vector file; None takes the only one."""

    config_class = "SpeechT5Config"

    def __init__(self, path: Path, device: str) -> None:
        self._vocoder_path = _vocoder_of(path)
        super().__init__(path, device)
        self.sampling_rate = int(read_config(self._vocoder_path, "SpeechT5HifiGanConfig").sampling_rate)

    def files(self) -> dict[str, Path]:
        vocoder = {f"vocoder/{name}": file for name, file in checkpoint_files(self._vocoder_path).items()}
        speakers = {f"speakers/{file.name}": file for file in self._speakers.values()}
        return super().files() | vocoder | speakers

    @cached_property
    def _speakers(self) -> dict[str, Path]:
        """x-vector files by speaker."""
        weights = set(checkpoint_files(self.path))
        files = [file for kind in ("npy", "safetensors") for file in self.path.glob(f"*.{kind}")]
        speakers = {file.stem: file for file in sorted(files) if file.name not in weights}
        if not speakers:
            raise ModelError(f"{self.path} has no speaker: copy an x-vector there, NAME.npy or NAME.safetensors")
        return speakers

    def check_speaker(self, speaker: str | None) -> None:
        if speaker not in self._speakers and (speaker is not None or len(self._speakers) > 1):
            names = ", ".join(self._speakers)
            raise ModelError(f"{self.path} has the speakers {names}; set `speaker` to one of them, not {speaker!r}")

    def load(self) -> Loaded:
        from transformers import SpeechT5ForTextToSpeech, SpeechT5HifiGan, SpeechT5Tokenizer

        return Loaded(
            load_tokenizer(SpeechT5Tokenizer, self.path),
            load_pretrained(SpeechT5ForTextToSpeech, str(self.path)).to(self.device),
            load_pretrained(SpeechT5HifiGan, str(self._vocoder_path)).to(self.device),
        )

    def waveform(self, text: str, speaker: str | None, rate: float) -> Tensor:
        tokenizer, model, vocoder = self.model
        pieces = tokenizer.sp_model
        spelled = in_vocabulary(text, lambda each: each.isspace() or pieces.piece_to_id(each) != pieces.unk_id())
        ids = tokenizer(spelled, return_tensors="pt")["input_ids"].to(self.device)
        if (length := ids.shape[1]) > (most := self.config.max_text_positions):
            raise UnspeakableText(f"has {length} tokens, but {self.id} speaks at most {most}")
        ratio = min(LONGEST_RATIO, self.config.max_speech_positions * self.config.reduction_factor / length)
        return model.generate_speech(ids, self._embedding(speaker), vocoder=vocoder, maxlenratio=ratio)

    def _embedding(self, speaker: str | None) -> Tensor:
        """Return the (1, D) x-vector of a speaker."""
        import torch

        file = self._speakers[speaker] if speaker is not None else next(iter(self._speakers.values()))
        vector = _vector(file).reshape(1, -1)
        if vector.shape[1] != (size := self.config.speaker_embedding_dim) or not np.isfinite(vector).all():
            raise ModelError(f"{file}: not an x-vector of {size} finite numbers")
        return torch.from_numpy(vector).to(self.device)


def _vector(file: Path) -> np.ndarray:
    if file.suffix == ".safetensors":
        tensors = list(read_file(file).values())
        if len(tensors) != 1:
            raise ModelError(f"{file} has {len(tensors)} tensors; it must have one, the speaker's x-vector")
        return tensors[0].float().numpy()
    try:
        return np.asarray(np.load(file, allow_pickle=False), np.float32)
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: not an array ({error}); copy it again") from error


def _vocoder_of(path: Path) -> Path:
    """Return the only HiFi-GAN directory in a directory, or else in its parent."""
    for place in (path, path.resolve().parent):
        found = [file.parent for file in sorted(place.glob("*/config.json")) if _is_hifigan(file)]
        if len(found) > 1:
            raise ModelError(f"{place} has several vocoders: {', '.join(each.name for each in found)}; keep one")
        if found:
            return found[0]
    raise ModelError(f"{path} has no vocoder: copy speecht5_hifigan into it, with config.json and weights")


def _is_hifigan(config: Path) -> bool:
    try:
        return read_json(config).get("model_type") == HIFIGAN
    except ModelError:  # another model's file, which is no concern of the voice
        return False
