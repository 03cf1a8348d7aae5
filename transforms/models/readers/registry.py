"""The list of reader kinds. The kind is chosen from the directory's files."""

from __future__ import annotations

from pathlib import Path

from echo_targets.transforms.digests import sha256_of
from echo_targets.transforms.models.asr.faster_whisper import FasterWhisper
from echo_targets.transforms.models.readers.base import Reader
from echo_targets.transforms.models.readers.ctc import UnitReader
from echo_targets.transforms.models.readers.vocoder import VocoderReader
from echo_targets.transforms.models.vocoders.registry import is_vocoder, vocoder_digest


def open_reader(path: Path, whisper: str, device: str) -> Reader:
    """Return the reader of a directory.

    Args:
        path: a directory of `echo-targets train reader`, or of a vocoder: a unit HiFi-GAN or a codec.
        whisper: the Whisper model that transcribes a vocoder's speech.
        device: a torch device.

    Raises:
        ModelError: the directory is neither, or is damaged.
    """
    return VocoderReader(path, whisper, device) if is_vocoder(path) else UnitReader.load(path, device)


def reader_weights(path: Path, whisper: str) -> dict[str, str]:
    """Return a reader's digests by name, for the fingerprint."""
    if is_vocoder(path):
        return {"reader": vocoder_digest(path), "reader_whisper": FasterWhisper.weight_digest(whisper)}
    return {"reader": sha256_of(path / "model.safetensors")}
