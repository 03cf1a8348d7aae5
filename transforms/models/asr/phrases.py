"""Cut Whisper's tokens with timestamps into phrases (openai-whisper, `transcribe.py`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

TICK_SAMPLES = 320
"""Samples at 16 kHz between two timestamps: 20 ms."""


@dataclass(frozen=True)
class Phrase:
    """A stretch of text between two timestamps.

    Attributes:
        start: first sample at 16 kHz, counted from the start of the decoded audio.
        end: exclusive; above `start`.
        text: as decoded; it starts with a space if the language separates words by spaces.
    """

    start: int
    end: int
    text: str


def split_phrases(
    tokens: Sequence[int], first_timestamp: int, num_samples: int, decode: Callable[[list[int]], str]
) -> tuple[list[Phrase], int]:
    """Cut a window's tokens into phrases.

    Whisper closes a phrase with one timestamp and opens the next with another. After the last pair of timestamps it may
    begin a phrase that it does not close, because the window ends inside it; that phrase is left to the next window.

    Args:
        tokens: text and timestamps, without the prompt and the end-of-text token.
        first_timestamp: id of the timestamp 0.00.
        num_samples: length of the window's audio, without padding.
        decode: decodes text tokens to text.

    Returns:
        Phrases inside the window, in order, and the sample at which decoding must continue: `num_samples` unless a
        phrase was left unclosed.
    """
    pairs = [
        place
        for place in range(1, len(tokens))
        if tokens[place - 1] >= first_timestamp and tokens[place] >= first_timestamp
    ]
    closed = len(tokens) >= 2 and tokens[-2] < first_timestamp <= tokens[-1]
    if not pairs:
        return _phrases([tokens], first_timestamp, num_samples, decode), num_samples
    ends = [*pairs, len(tokens)] if closed else pairs
    pieces = [tokens[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    unclosed = any(token < first_timestamp for token in tokens[ends[-1] :])
    resume = (tokens[ends[-1] - 1] - first_timestamp) * TICK_SAMPLES if unclosed else num_samples
    return _phrases(pieces, first_timestamp, num_samples, decode), min(resume, num_samples) or num_samples


def _phrases(
    pieces: Sequence[Sequence[int]], first_timestamp: int, num_samples: int, decode: Callable[[list[int]], str]
) -> list[Phrase]:
    phrases: list[Phrase] = []
    earliest = 0
    for piece in pieces:
        ticks = [token - first_timestamp for token in piece if token >= first_timestamp]
        start = max(earliest, ticks[0] * TICK_SAMPLES) if ticks else earliest
        # Without a closing timestamp the phrase runs to the end of the audio.
        end = min(num_samples, ticks[-1] * TICK_SAMPLES) if len(ticks) > 1 else num_samples
        text = decode([token for token in piece if token < first_timestamp])
        if text.strip() and start < end:
            phrases.append(Phrase(start, end, text))
            earliest = end
    return phrases
