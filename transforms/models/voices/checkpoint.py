"""What voices from a transformers directory have in common."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.checkpoints.files import read_json, weight_files
from echo_targets.transforms.models.voices.base import NothingToSay, UnspeakableText, Voice
from echo_targets.transforms.threads import in_pool, single_threaded

if TYPE_CHECKING:
    from torch import Tensor

SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spm_char.model",
)
"""Files beside the weights that transformers loads, as far as a checkpoint has them."""
SPEAKING = Lock()
"""Held while a model samples, since transformers draws from torch's global generator."""


class CheckpointVoice(Voice):
    """A voice from a transformers directory. Texts are spoken one at a time, so a text does not depend on others.

    Args:
        path: the directory.
        device: a torch device.

    Attributes:
        config_class: name of its configuration in transformers.
        config: the configuration.
        model: what `load` returned; set by `setup`.

    Raises:
        ModelError: files are missing or damaged.
    """

    config_class: ClassVar[str]
    model: Any = None

    def __init__(self, path: Path, device: str) -> None:
        self.path, self.device = path, device
        self.config = read_config(path, self.config_class)
        self.id = f"{self.config.model_type}-{self._digest[:8]}"

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name, file in sorted(self.files().items()):
            digest.update(f"{name} {sha256_of(file)}\n".encode())
        return digest.hexdigest()

    def weight_digests(self) -> dict[str, str]:
        return {"voice": self._digest}

    def files(self) -> dict[str, Path]:
        """Return all files that shape the speech, by a name that does not depend on where the directory is."""
        return checkpoint_files(self.path)

    @abstractmethod
    def load(self) -> Any:
        """Return the model, on the device.

        Raises:
            ModelError: the checkpoint is damaged.
        """

    @abstractmethod
    def waveform(self, text: str, speaker: str | None, rate: float) -> Tensor:
        """Return the speech as (samples,) at `sampling_rate`; samples from torch's global generator."""

    def setup(self) -> None:
        self.model = self.load()

    def synthesize(self, text: str, speaker: str | None, rate: float, seed: int) -> np.ndarray:
        if not any(map(str.isalnum, text)):
            raise NothingToSay(text)

        def spoken() -> np.ndarray:
            import torch

            with SPEAKING, torch.inference_mode(), _seeded(seed, self.device):
                return self.waveform(text, speaker, rate).float().cpu().numpy()

        return spoken() if in_pool() else single_threaded(spoken, self.device)


def read_config(path: Path, config_class: str) -> Any:
    """Return the configuration of a directory, an object of a transformers class.

    Raises:
        ModelError: it is missing or invalid.
    """
    import transformers

    about = read_json(path / "config.json")
    try:
        return getattr(transformers, config_class).from_dict(about)
    except Exception as error:  # transformers 5 raises its own, which are no ValueError
        raise ModelError(f"{path / 'config.json'}: not a configuration of {config_class} ({error})") from error


def load_tokenizer(kind: Any, path: Path) -> Any:
    """Load a tokenizer from a local directory.

    Args:
        kind: a transformers class with `from_pretrained`.

    Raises:
        ModelError: files are missing or damaged.
    """
    try:
        return kind.from_pretrained(str(path), local_files_only=True)
    except Exception as error:  # json, sentencepiece and transformers each raise their own errors
        raise ModelError(
            f"{path}: transformers can't load the tokenizer ({error}); copy the checkpoint again"
        ) from error


def checkpoint_files(path: Path) -> dict[str, Path]:
    """Return the configuration, tokenizer and weight files of a transformers directory by name.

    Raises:
        ModelError: there are no weights.
    """
    small = [path / name for name in SMALL_FILES if (path / name).is_file()]
    return {file.name: file for file in (*small, *weight_files(path))}


def in_vocabulary(text: str, known: Callable[[str], bool]) -> str:
    """Return a text in the characters of a vocabulary: accents and punctuation that it lacks are dropped.

    A dash or slash that it lacks becomes a space, so that the words around it stay apart.

    Args:
        known: returns True for a character of the vocabulary.

    Raises:
        UnspeakableText: the vocabulary lacks a letter or digit, which would not be spoken.
    """
    spelled = "".join(each if known(each) else unicodedata.normalize("NFKD", each) for each in text)
    if missing := sorted({each for each in spelled if each.isalnum() and not known(each)}):
        raise UnspeakableText(f"has characters that the voice can't speak: {' '.join(missing)}")
    spaced = re.sub(r"[-–—/]", lambda dash: dash[0] if known(dash[0]) else " ", spelled)
    return "".join(filter(known, spaced))


@contextmanager
def _seeded(seed: int, device: str) -> Iterator[None]:
    """Seed torch's global generators, and restore them afterwards."""
    import torch

    with torch.random.fork_rng([] if device == "cpu" else [torch.device(device)]):
        torch.manual_seed(seed)
        yield
