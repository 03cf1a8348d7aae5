"""The list of vocoders. The kind is chosen from the directory's files."""

from __future__ import annotations

from pathlib import Path

from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.vocoders.base import Vocoder
from echo_targets.transforms.models.vocoders.codec import CodecVocoder
from echo_targets.transforms.models.vocoders.hifigan import UnitHifigan

KINDS: tuple[type[Vocoder], ...] = (UnitHifigan, CodecVocoder)


def is_vocoder(path: Path) -> bool:
    """Return True if a directory is one of a vocoder."""
    return any(kind.can_load(path) for kind in KINDS)


def open_vocoder(path: Path, device: str = "cpu") -> Vocoder:
    """Load the vocoder of a directory: speechbrain's unit HiFi-GAN, or EnCodec, DAC or Mimi of transformers.

    Raises:
        ModelError: it is none of these, or is damaged.
    """
    return _kind_of(path)(path, device)


def vocoder_digest(path: Path) -> str:
    """Return a vocoder's digest, for the fingerprint.

    Raises:
        ModelError: the directory is none of a vocoder, or a file is missing.
    """
    return _kind_of(path).digest(path)


def _kind_of(path: Path) -> type[Vocoder]:
    for kind in KINDS:
        if kind.can_load(path):
            return kind
    raise ModelError(
        f"{path} is no vocoder: name a directory with speechbrain's unit HiFi-GAN (generator.ckpt), or with EnCodec, "
        "DAC or Mimi of transformers (config.json)"
    )
