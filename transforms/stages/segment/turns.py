"""Turns of a dialogue whose speakers have a channel each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from echo_targets.transforms.models.asr.voice_activity import Span
from echo_targets.transforms.stages.segment.cutting import SEPARATING_PAUSE, together


@dataclass(frozen=True)
class Turn:
    """Speech of one speaker.

    Attributes:
        speaker: position of the speaker's channel.
        start, end: first sample and exclusive end.
        is_inside: True for speech while another speaks and goes on, such as "mm-hm". It is no turn.
    """

    speaker: int
    start: int
    end: int
    is_inside: bool


def turns(speech: Sequence[Sequence[Span]]) -> list[Turn]:
    """Return the turns in order of their start.

    Stretches of one speaker are one turn until another takes a turn. A stretch is half a second or more from the next.
    A turn may begin before the one before it ends, if somebody interrupts.

    Args:
        speech: each speaker's stretches of speech, in order.
    """
    stretches = [[(group[0][0], group[-1][1]) for group in together(spans, SEPARATING_PAUSE)] for spans in speech]
    found: list[Turn] = []
    current: Turn | None = None
    for start, end, speaker in sorted((*span, speaker) for speaker, spans in enumerate(stretches) for span in spans):
        if current and speaker == current.speaker:
            current = replace(current, end=max(current.end, end))
        elif current and _is_inside(start, end, stretches[current.speaker]):
            found.append(Turn(speaker, start, end, is_inside=True))
        else:
            found += [current] if current else []
            current = Turn(speaker, start, end, is_inside=False)
    found += [current] if current else []
    return sorted(found, key=lambda turn: (turn.start, turn.end, turn.is_inside))


def _is_inside(start: int, end: int, others: Sequence[Span]) -> bool:
    """Return True if another speaks during at least half of a stretch, and still at its end."""
    overlap = sum(max(0, min(end, other[1]) - max(start, other[0])) for other in others)
    return 2 * overlap >= end - start and any(first <= end <= last for first, last in others)
