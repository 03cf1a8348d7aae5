"""Where to cut a channel: at pauses, and where there is none, where it is quietest.

1. Stretches of speech that are less than half a second apart stay together.
2. What is shorter than wanted is joined to the nearer neighbor.
3. What is longer than wanted is cut at its longest pause, or, without one, at the quietest place in its middle.
4. Each cut is extended into the pauses around it; two cuts with a short pause between them meet where it is quietest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.asr.voice_activity import Span
from echo_targets.transforms.stages.segment.scanning import FRAME

Border = Literal["pause", "quietest", "turn", "end"]

SEPARATING_PAUSE = SAMPLE_RATE // 2
LONGEST_INNER_PAUSE = 2 * SAMPLE_RATE
"""What is short is not joined to a neighbor that is farther away."""
QUIET = 10
"""Frames over which the quietest place is searched: a tenth of a second."""


@dataclass(frozen=True)
class Lengths:
    """Wanted lengths of cuts, in samples.

    Attributes:
        shortest: shorter speech is joined to its neighbor, if that is near.
        longest: a cut with its padding is never longer.
        padding: silence to keep before and after the speech.
    """

    shortest: int
    longest: int
    padding: int


@dataclass(frozen=True)
class Cut:
    """A stretch of a channel: its first sample, its exclusive end, and why it ends there."""

    start: int
    end: int
    border: Border


def cut(speech: Sequence[Span], power: np.ndarray, num_samples: int, lengths: Lengths) -> list[Cut]:
    """Cut a channel.

    Args:
        speech: its stretches of speech, in order.
        power: (num_frames,) mean square of each `FRAME` samples.
        num_samples: length of the recording.
        lengths: wanted lengths.

    Returns:
        Cuts in order, without overlap, which together hold all of the speech.
    """
    longest = lengths.longest - 2 * lengths.padding
    pieces: list[tuple[Span, Border]] = []
    for group in _joined(together(speech, SEPARATING_PAUSE), lengths.shortest, longest):
        pieces += _divided(group, power, longest, lengths.shortest)
    return _padded(pieces, power, num_samples, lengths.padding)


def together(speech: Sequence[Span], pause: int) -> list[list[Span]]:
    """Return the stretches in groups between pauses of at least `pause` samples."""
    groups: list[list[Span]] = []
    for span in speech:
        if groups and span[0] - groups[-1][-1][1] < pause:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def _joined(groups: list[list[Span]], shortest: int, longest: int) -> list[list[Span]]:
    """Join groups that are too short to their nearer neighbor, the smallest pause first."""
    groups = list(groups)
    while True:
        pauses = [
            (after[0][0] - before[-1][1], place)
            for place, (before, after) in enumerate(pairwise(groups))
            if min(_length(before), _length(after)) < shortest and after[-1][1] - before[0][0] <= longest
        ]
        pause, place = min(pauses, default=(LONGEST_INNER_PAUSE, 0))
        if pause >= LONGEST_INNER_PAUSE:
            return groups
        groups[place : place + 2] = [groups[place] + groups[place + 1]]


def _length(group: list[Span]) -> int:
    return group[-1][1] - group[0][0]


def _divided(group: list[Span], power: np.ndarray, longest: int, shortest: int) -> list[tuple[Span, Border]]:
    """Return a group in pieces of at most `longest` samples, and why each ends."""
    start, end = group[0][0], group[-1][1]
    if end - start <= longest:
        return [((start, end), "pause")]
    pauses = [
        (after[0] - before[1], place + 1)
        for place, (before, after) in enumerate(pairwise(group))
        if before[1] - start >= shortest and end - after[0] >= shortest
    ]
    if pauses:
        place = max(pauses, key=lambda pause: (pause[0], -pause[1]))[1]
        parts = (group[:place], group[place:])
        return [piece for part in parts for piece in _divided(part, power, longest, shortest)]
    first, last = max(start + shortest, end - longest), min(start + longest, end - shortest)
    if first > last:  # more than one cut is needed: leave room for the others
        first, last = start + longest // 2, start + longest
    middle = _quietest(power, first, last)
    before = [(one, min(other, middle)) for one, other in group if one < middle]
    after = [(max(one, middle), other) for one, other in group if other > middle]
    left = _divided(before, power, longest, shortest)
    left[-1] = (left[-1][0], "quietest")
    return left + _divided(after, power, longest, shortest)


def _quietest(power: np.ndarray, first: int, last: int) -> int:
    """Return the middle of the quietest tenth of a second between two samples."""
    frames = power[-(-first // FRAME) : last // FRAME].astype(np.float64)
    if len(frames) < QUIET:
        return (first + last) // 2
    sums = np.convolve(frames, np.ones(QUIET), mode="valid")
    return (-(-first // FRAME) + int(np.argmin(sums)) + QUIET // 2) * FRAME


def _padded(pieces: list[tuple[Span, Border]], power: np.ndarray, num_samples: int, padding: int) -> list[Cut]:
    """Extend pieces into the pauses around them, at most to where a pause is quietest."""
    meetings = [_quietest(power, before[1], after[0]) for (before, _), (after, _) in pairwise(pieces)]
    starts, ends = [0, *meetings], [*meetings, num_samples]
    cuts: list[Cut] = []
    for ((start, end), border), earliest, latest in zip(pieces, starts, ends, strict=True):
        padded = max(earliest, start - padding), min(latest, end + padding)
        cuts.append(Cut(*padded, "end" if padded[1] == num_samples else border))
    return cuts
