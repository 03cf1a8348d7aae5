"""The kinds of encoders. Which one a checkpoint is of, its files say."""

from __future__ import annotations

from echo_targets.transforms.models.encoders.base import Encoder
from echo_targets.transforms.models.encoders.fairseq2 import Fairseq2Encoder
from echo_targets.transforms.models.encoders.hubert import SslEncoder
from echo_targets.transforms.models.encoders.speechbrain import SpeechbrainEncoder
from echo_targets.transforms.models.encoders.whisper import WhisperEncoder

KINDS: tuple[type[Encoder], ...] = (SpeechbrainEncoder, SslEncoder, Fairseq2Encoder, WhisperEncoder)
"""In the order in which they are asked; Whisper's comes last, since it takes names of models too."""


def open_encoder(model: str) -> Encoder:
    """The encoder of a checkpoint.

    Args:
        model: a directory, a file, `embedded:NAME`, or a name that openai-whisper downloads.
    """
    kind = next(kind for kind in KINDS if kind.can_load(model))
    return kind(model)
