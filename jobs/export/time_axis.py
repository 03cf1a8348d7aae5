"""Where the turns of a dialogue lie on one time axis: as they were recorded, or else one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, combinations
from typing import Any

from echo_targets.schemas import SAMPLE_RATE

GAP_SAMPLES = SAMPLE_RATE // 4
"""Silence between two turns whose recording is not known."""

Row = Mapping[str, Any]


def starts_of(turns: Sequence[Row], lengths: Sequence[int]) -> list[int]:
    """Return where each turn starts, in samples.

    Args:
        turns: the turns in order, with `role`, `synthetic`, and their row of `entries`, which may be missing.
        lengths: their samples.
    """
    recorded = _recorded(turns, lengths)
    if recorded is not None:
        return recorded
    return list(accumulate((length + GAP_SAMPLES for length in lengths[:-1]), initial=0))


def _recorded(turns: Sequence[Row], lengths: Sequence[int]) -> list[int] | None:
    """Return where turns that are sections or channels of one file start in it, from the first one on.

    None if they are not, or if two of them overlap that share a channel of the file or a speaker: each would have the
    other's voice.
    """
    entries = [turn.get("entries") for turn in turns]
    files = {(entry["source"], entry["locator"]) if entry else None for entry in entries}
    if len(files) != 1 or None in files or any(turn["synthetic"] for turn in turns):
        return None
    places = [round((entry["start_seconds"] or 0) * SAMPLE_RATE) for entry in entries if entry]
    each = zip(places, lengths, turns, (entry["channel"] for entry in entries if entry), strict=True)
    for (start, length, turn, channel), (other, other_length, other_turn, other_channel) in combinations(each, 2):
        overlap = min(start + length, other + other_length) - max(start, other)
        if overlap > 0 and (channel == other_channel or turn["role"] == other_turn["role"]):
            return None
    return [place - min(places) for place in places]
