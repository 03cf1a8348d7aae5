"""Bark (Suno, 2023): transformers' `BarkModel`, which speaks up to about 15 s at a time."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json
from echo_targets.transforms.models.encoders.self_supervised import load_pretrained
from echo_targets.transforms.models.voices.base import UnspeakableText
from echo_targets.transforms.models.voices.checkpoint import CheckpointVoice, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

PRESETS = "speaker_embeddings_path.json"
PROMPTS = {"semantic_prompt": 1, "coarse_prompt": 2, "fine_prompt": 2}
"""Arrays of a preset, and their numbers of dimensions."""
MARGIN_SECONDS = 0.1


class BarkVoice(CheckpointVoice):
    """A Bark directory. A speaker is a preset of `speaker_embeddings_path.json`; with None, the seed decides.

    Every stage samples as generation_config.json says.
    """

    config_class = "BarkConfig"

    def __init__(self, path: Path, device: str) -> None:
        super().__init__(path, device)
        if not (path / "generation_config.json").is_file():
            raise ModelError(
                f"{path} has no generation_config.json, which says how it samples: copy the checkpoint again"
            )
        self.sampling_rate = int(self.config.codec_config.sampling_rate)

    def files(self) -> dict[str, Path]:
        prompts = {f"speakers/{name}/{prompt}": file for name in self._presets for prompt, file in self._prompts(name)}
        return super().files() | prompts

    @cached_property
    def _presets(self) -> dict[str, Any]:
        file = self.path / PRESETS
        return (
            {name: value for name, value in read_json(file).items() if isinstance(value, dict)}
            if file.is_file()
            else {}
        )

    def _prompts(self, speaker: str) -> list[tuple[str, Path]]:
        """Return the names and files of a preset's arrays."""
        found = [(prompt, self.path / str(self._presets[speaker].get(prompt))) for prompt in PROMPTS]
        for prompt, file in found:
            if not file.is_file() or not file.resolve().is_relative_to(self.path.resolve()):
                raise ModelError(f"{self.path / PRESETS}: {prompt} of {speaker} is not a file of the checkpoint")
        return found

    def check_speaker(self, speaker: str | None) -> None:
        if speaker is not None and speaker not in self._presets:
            names = ", ".join(self._presets) or "no speakers"
            raise ModelError(f"{self.path} has {names}; set `speaker` to one of them or remove it, not {speaker!r}")

    def load(self) -> tuple[Any, Any]:
        from transformers import AutoTokenizer, BarkModel

        model = load_pretrained(BarkModel, str(self.path)).to(self.device)
        return load_tokenizer(AutoTokenizer, self.path), model

    def waveform(self, text: str, speaker: str | None, rate: float) -> Tensor:
        from transformers.models.bark.generation_configuration_bark import BarkSemanticGenerationConfig

        tokenizer, model = self.model
        semantic = BarkSemanticGenerationConfig(**model.generation_config.semantic_config)
        most = semantic.max_input_semantic_length
        self._check_words(text, tokenizer)
        if (length := len(tokenizer(text, add_special_tokens=False)["input_ids"])) > most:
            raise UnspeakableText(f"has {length} tokens, but {self.id} speaks at most {most}")
        inputs = tokenizer(  # as BarkProcessor
            text,
            return_tensors="pt",
            padding="max_length",
            max_length=most,
            add_special_tokens=False,
            return_token_type_ids=False,
        ).to(self.device)
        history = None if speaker is None else self._history(speaker)
        (waveform,) = model.generate(**inputs, history_prompt=history, semantic_pad_token_id=semantic.eos_token_id)
        longest = semantic.max_new_tokens / semantic.semantic_rate_hz
        if len(waveform) / self.sampling_rate > longest - MARGIN_SECONDS:
            raise UnspeakableText(f"takes all of the {longest:.1f} s that {self.id} speaks at a time")
        return waveform

    def _check_words(self, text: str, tokenizer: Any) -> None:
        """Reject a text with words that the vocabulary lacks. Other symbols that it lacks are silent."""
        for word in text.split():
            unknown = tokenizer.unk_token_id in tokenizer(word, add_special_tokens=False)["input_ids"]
            if unknown and any(map(str.isalnum, word)):
                raise UnspeakableText(f"has words that the voice can't speak: {word}")

    def _history(self, speaker: str) -> dict[str, Tensor]:
        import torch

        history = {}
        for prompt, file in self._prompts(speaker):
            try:
                array = np.load(file, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise ModelError(f"{file}: not an array ({error}); copy it again") from error
            if array.ndim != PROMPTS[prompt] or array.dtype.kind not in "iu":
                raise ModelError(f"{file}: not {PROMPTS[prompt]}-dimensional integers")
            history[prompt] = torch.from_numpy(array.astype(np.int64)).to(self.device)
        return history
