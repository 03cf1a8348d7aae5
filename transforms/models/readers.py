"""The kinds of readers. Which one a directory is of, its files say."""

from __future__ import annotations

from pathlib import Path

from transforms.models.embedded import sha256_of
from transforms.models.reader import Reader
from transforms.models.recognisers import FasterWhisper
from transforms.models.unit_reader import UnitReader
from transforms.models.vocoder import is_vocoder, vocoder_digest
from transforms.models.vocoder_reader import VocoderReader


def open_reader(path: Path, whisper: str, device: str) -> Reader:
    """The reader of a directory.

    Args:
        path: a directory of `echo-targets train reader`, or of a vocoder.
        whisper: what hears a vocoder.
        device: a torch device.

    Raises:
        ModelError: it is neither, or damaged.
    """
    return VocoderReader(path, whisper, device) if is_vocoder(path) else UnitReader.load(path, device)


def reader_weights(path: Path, whisper: str) -> dict[str, str]:
    """What stands for a reader in a fingerprint: digests by name."""
    if is_vocoder(path):
        return {"reader": vocoder_digest(path), "reader_whisper": FasterWhisper.weights(whisper)}
    return {"reader": sha256_of(path / "model.safetensors")}
