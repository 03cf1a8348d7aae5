"""The kinds of encoders. Which one a checkpoint is of, its files say."""

from __future__ import annotations

from transforms.models.encoder import Encoder
from transforms.models.fairseq2_encoder import Fairseq2Encoder
from transforms.models.speechbrain_encoder import SpeechbrainEncoder
from transforms.models.ssl_encoders import SslEncoder
from transforms.models.whisper_encoder import WhisperEncoder

KINDS: tuple[type[Encoder], ...] = (SpeechbrainEncoder, SslEncoder, Fairseq2Encoder, WhisperEncoder)
"""In the order in which they are asked; Whisper's comes last, since it takes names of models too."""


def open_encoder(model: str) -> Encoder:
    """The encoder of a checkpoint.

    Args:
        model: a directory, a file, `embedded:NAME`, or a name that openai-whisper downloads.
    """
    kind = next(kind for kind in KINDS if kind.reads(model))
    return kind(model)
