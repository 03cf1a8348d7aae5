"""VITS (Kim et al. 2021) and MMS-TTS: transformers' `VitsModel`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json
from echo_targets.transforms.models.encoders.self_supervised import load_pretrained
from echo_targets.transforms.models.voices.checkpoint import CheckpointVoice, in_vocabulary, load_tokenizer

if TYPE_CHECKING:
    from torch import Tensor

TOOLS = {
    "is_uroman": ("uroman", "romanizes its text with uroman: pip install uroman"),
    "phonemize": ("phonemizer", "phonemizes its text with espeak-ng: install that, and pip install phonemizer"),
}
"""Keys of tokenizer_config.json that need another package."""


class VitsVoice(CheckpointVoice):
    """A VITS or MMS-TTS directory. A speaker is a number from 0; a voice with one speaker takes none."""

    config_class = "VitsConfig"
    changes_rate = True

    def __init__(self, path: Path, device: str) -> None:
        super().__init__(path, device)
        self.sampling_rate = int(self.config.sampling_rate)
        about = {"phonemize": True} | read_json(path / "tokenizer_config.json")
        for key, (package, remedy) in TOOLS.items():
            if about.get(key) and find_spec(package) is None:
                raise ModelError(f"{path}: the voice {remedy}")

    def check_speaker(self, speaker: str | None) -> None:
        count = self.config.num_speakers
        if count == 1 and speaker is not None:
            raise ModelError(f"{self.id} has one speaker, without a name; remove `speaker` {speaker!r}")
        if count > 1 and speaker not in set(map(str, range(count))):
            raise ModelError(f"{self.id} has speakers 0 to {count - 1}; set `speaker` to one of them, not {speaker!r}")

    def load(self) -> tuple[Any, Any]:
        from transformers import VitsModel, VitsTokenizer

        model = load_pretrained(VitsModel, str(self.path)).to(self.device)
        return load_tokenizer(VitsTokenizer, self.path), model

    def waveform(self, text: str, speaker: str | None, rate: float) -> Tensor:
        tokenizer, model = self.model
        ids = tokenizer(_spelled(text, tokenizer), return_tensors="pt")["input_ids"].to(self.device)
        model.speaking_rate = self.config.speaking_rate * rate
        return model(ids, speaker_id=None if speaker is None else int(speaker)).waveform[0]


def _spelled(text: str, tokenizer: Any) -> str:
    """Return a text in characters of the vocabulary, romanized if the voice needs it.

    The tokenizer would drop letters that it lacks. Phonemes are in the vocabulary by construction.
    """
    if tokenizer.phonemize:
        return text
    cased = tokenizer.normalize_text(text) if tokenizer.normalize else text
    romanized, _ = tokenizer.prepare_for_tokenization(cased, normalize=False)
    return in_vocabulary(romanized, tokenizer.encoder.__contains__)
