"""Rolling captions, as YouTube makes them: each cue shows the last line again, above the new one.

A line is shown in up to three cues: as new, in a cue of 10 ms by itself, and above the next line.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

Line = TypeVar("Line")

LEAST, SHARE = 3, 0.5
"""Captions roll if this share of the cues of two lines or more begin with the last line and go on; and if there are so
many of these, or of cues that show the last line for a moment."""
HELD_SECONDS = 0.02
NEAR_SECONDS = 0.1


def without_repeats(cues: Sequence[tuple[float, float, list[Line]]]) -> list[list[Line]]:
    """Return the lines of each cue without those that roll on from the cue before. Other captions stay as they are.

    Args:
        cues: start and end in seconds, and lines.
    """
    shown = [cue for cue in cues if cue[2]]
    repeats = {id(after): _repeated(before, after) for before, after in pairwise(shown)}
    long = [cue for cue in shown[1:] if len(cue[2]) > 1]
    rolling = [cue for cue in long if 0 < repeats[id(cue)] < len(cue[2])]
    held = [cue for cue in shown[1:] if repeats[id(cue)] == len(cue[2]) and cue[1] - cue[0] < HELD_SECONDS]
    if len(rolling) + len(held) < LEAST or len(rolling) < SHARE * len(long):
        return [lines for _, _, lines in cues]
    return [cue[2][repeats.get(id(cue), 0) :] for cue in cues]


def _repeated(before: tuple[float, float, list[Line]], after: tuple[float, float, list[Line]]) -> int:
    """Return how many lines at the start of a cue are the last ones of the cue before it."""
    if after[0] - before[1] > NEAR_SECONDS:
        return 0
    counts = range(min(len(before[2]), len(after[2])), 0, -1)
    return next((count for count in counts if before[2][-count:] == after[2][:count]), 0)
