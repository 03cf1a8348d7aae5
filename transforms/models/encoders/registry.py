"""The list of encoder kinds. The kind is chosen from the checkpoint's files."""

from __future__ import annotations

from echo_targets.transforms.models.encoders.base import Encoder
from echo_targets.transforms.models.encoders.fairseq2 import Fairseq2Encoder
from echo_targets.transforms.models.encoders.self_supervised import SslEncoder
from echo_targets.transforms.models.encoders.speechbrain import SpeechbrainEncoder
from echo_targets.transforms.models.encoders.whisper import WhisperEncoder

KINDS: tuple[type[Encoder], ...] = (SpeechbrainEncoder, SslEncoder, Fairseq2Encoder, WhisperEncoder)
"""In order of precedence. Whisper is last, since it also accepts names of models."""


def open_encoder(model: str) -> Encoder:
    """Return the encoder of a checkpoint.

    Args:
        model: a directory, a file, `embedded:NAME`, or a name that openai-whisper downloads.
    """
    kind = next(kind for kind in KINDS if kind.can_load(model))
    return kind(model)
