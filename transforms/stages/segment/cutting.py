"""Where to cut a channel: at pauses, and where there is none, where it is quietest.

1. Stretches of speech that are less than half a second apart stay together.
2. What is longer than wanted is cut at its longest pause, or, without one, where it is quietest.
3. What is shorter than wanted is joined to the nearer neighbor.
4. Each cut is extended into the pauses around it; two cuts with a short pause between them meet where it is quietest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.asr.voice_activity import Span
from echo_targets.transforms.stages.segment.scanning import FRAME

Border = Literal["pause", "quietest", "turn", "end", "phrase", "long_phrase", "overlap"]

SEPARATING_PAUSE = SAMPLE_RATE // 2
LONGEST_INNER_PAUSE = 2 * SAMPLE_RATE
"""What is short is not joined to a neighbor that is farther away."""
QUIET = 10
"""Frames over which the quietest place is searched: a tenth of a second."""
REACH = SAMPLE_RATE // 2
"""How far beyond its padding a cut may go if it would end in a loud place."""
LOUD = 4.0
"""A place is loud if its power is so many times that of the quietest place near it."""
NEARLY, SILENT = 1.5, 1e-9
"""A place counts as quietest if its power is at most so many times that of the quietest, plus what nobody hears."""


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


class Piece(NamedTuple):
    """Speech that makes a cut: first sample, exclusive end, why it ends there, and what a file says of it."""

    start: int
    end: int
    border: Border
    text: str | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class Cut:
    """A piece with the silence around it that it keeps."""

    start: int
    end: int
    border: Border
    text: str | None = None
    speaker: str | None = None


def cut(speech: Sequence[Span], power: np.ndarray, num_samples: int, lengths: Lengths) -> list[Cut]:
    """Cut a channel.

    Args:
        speech: its stretches of speech, in order.
        power: (num_frames,) mean square of each `FRAME` samples, in which hum should not count (`Track.high_passed`).
        num_samples: length of the recording.
        lengths: wanted lengths.

    Returns:
        Cuts in order, without overlap, which together hold all of the speech.
    """
    longest = lengths.longest - 2 * lengths.padding
    groups = together(speech, SEPARATING_PAUSE)
    pieces = [piece for group in groups for piece in divided(group, power, longest, lengths.shortest)]
    return padded(joined(pieces, lengths.shortest, longest), power, num_samples, lengths)


def joined_spans(spans: Iterable[Span]) -> list[Span]:
    """Return stretches in order, joined where they overlap or meet."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def together(speech: Sequence[Span], pause: int) -> list[list[Span]]:
    """Return the stretches in groups between pauses of at least `pause` samples."""
    groups: list[list[Span]] = []
    for span in speech:
        if groups and span[0] - groups[-1][-1][1] < pause:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def divided(group: list[Span], power: np.ndarray, longest: int, shortest: int) -> list[Piece]:
    """Return a group in pieces of at most `longest` samples."""
    pieces: list[Piece] = []
    left = [group]
    while left:
        group = left.pop()
        start, end = group[0][0], group[-1][1]
        if end - start <= longest:
            pieces.append(Piece(start, end, "pause"))
            continue
        pauses = [
            (after[0] - before[1], -place)
            for place, (before, after) in enumerate(pairwise(group), 1)
            if before[1] - start >= shortest and end - after[0] >= shortest
        ]
        if pauses:
            place = -max(pauses)[1]
            left += [group[place:], group[:place]]
            continue
        first, last = max(start + shortest, end - longest), min(start + longest, end - shortest)
        if first > last:  # more than one cut is needed: leave room for the others
            first, last = start + longest // 2, start + longest
        middle = quietest(power, first, last)
        pieces.append(Piece(start, max(min(other, middle) for one, other in group if one < middle), "quietest"))
        left.append([(max(one, middle), other) for one, other in group if other > middle])
    return pieces


def joined(pieces: list[Piece], shortest: int, longest: int) -> list[Piece]:
    """Join pieces that are too short to their nearer neighbor, the smallest pause first."""
    pieces = list(pieces)
    while True:
        pauses = [
            (after.start - before.end, place)
            for place, (before, after) in enumerate(pairwise(pieces))
            if min(before.end - before.start, after.end - after.start) < shortest
            and after.end - before.start <= longest
        ]
        pause, place = min(pauses, default=(LONGEST_INNER_PAUSE, 0))
        if pause >= LONGEST_INNER_PAUSE:
            return pieces
        before, after = pieces[place : place + 2]
        pieces[place : place + 2] = [Piece(before.start, after.end, after.border)]


def quietest(power: np.ndarray, first: int, last: int) -> int:
    """Return the middle of a quietest tenth of a second between two samples, the nearest to their center."""
    frames = power[-(-first // FRAME) : last // FRAME].astype(np.float64)
    if len(frames) < QUIET:
        return (first + last) // 2
    sums = np.convolve(frames, np.ones(QUIET), mode="valid")
    places = np.flatnonzero(sums <= NEARLY * sums.min() + SILENT)
    nearest = int(places[np.argmin(np.abs(places - len(sums) // 2))])
    return (-(-first // FRAME) + nearest + QUIET // 2) * FRAME


def padded(pieces: list[Piece], power: np.ndarray, num_samples: int, lengths: Lengths) -> list[Cut]:
    """Extend pieces into the pauses around them, at most to where a pause is quietest.

    Voice activity detection may miss a soft consonant before or after: a cut that would end in a loud place goes on to
    where it is quiet, as far as its length allows.
    """
    if not pieces:
        return []
    meetings = [quietest(power, before.end, after.start) for before, after in pairwise(pieces)]
    cuts: list[Cut] = []
    for piece, earliest, latest in zip(pieces, [0, *meetings], [*meetings, num_samples], strict=True):
        start, end = max(earliest, piece.start - lengths.padding), min(latest, piece.end + lengths.padding)
        wider = (
            _quiet_edge(power, start, max(earliest, start - REACH)),
            _quiet_edge(power, end, min(latest, end + REACH)),
        )
        if wider[1] - wider[0] <= lengths.longest:
            start, end = wider
        border = "end" if end == num_samples and piece.border != "long_phrase" else piece.border
        cuts.append(Cut(start, end, border, piece.text, piece.speaker))
    return cuts


def _quiet_edge(power: np.ndarray, near: int, far: int) -> int:
    """Return an edge of a cut, or, if it is loud there, the quietest place up to another."""
    first, last = sorted((near, far))
    at = near // FRAME
    here = power[max(0, at - QUIET // 2) : at + QUIET // 2]
    between = power[first // FRAME : last // FRAME]
    if len(between) < QUIET or here.mean(dtype=np.float64) <= LOUD * _least(between) + SILENT:
        return near
    return quietest(power, first, last)


def _least(power: np.ndarray) -> float:
    """Return the power of the quietest tenth of a second."""
    return float(np.convolve(power.astype(np.float64), np.ones(QUIET), mode="valid").min() / QUIET)
