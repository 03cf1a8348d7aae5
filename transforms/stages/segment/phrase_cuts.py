"""Where to cut a channel whose phrases are known: between phrases, and for the rest of the speech as without them.

1. Phrases become units. Of two phrases of one speaker that overlap, the first ends where the second starts, since
   captions stay on screen. Those of two speakers are parted where it is quietest, or stay together if they overlap by
   half. Stretches without text, which say only who speaks, are divided at pauses.
2. Units of one speaker, with no more than a second of other speech between them, make cuts. They are cut at gaps of
   half a second; what is longer than wanted, at its longest gap (of equal gaps, the quietest). What is short is joined
   to its nearer neighbor.
3. Up to a second of other speech belongs to the neighboring cut. More becomes cuts without text.
4. Cuts are padded as they are without phrases, but not into their neighbors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.models.asr.voice_activity import Span
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.stages.segment.cutting import (
    LONGEST_INNER_PAUSE,
    QUIET,
    SEPARATING_PAUSE,
    Border,
    Cut,
    Lengths,
    Piece,
    divided,
    joined,
    padded,
    quietest,
    together,
)
from echo_targets.transforms.stages.segment.scanning import FRAME
from echo_targets.transforms.text import join

LONGEST_OUTSIDE = SAMPLE_RATE
"""Samples of speech outside all phrases that may belong to a phrase's cut: captions begin late and end early."""


@dataclass(frozen=True)
class Unit:
    """Phrases that can't be told apart in time, or speech of one speaker without text."""

    start: int
    end: int
    texts: tuple[str, ...]
    speaker: str | None
    border: Border = "phrase"

    @property
    def kind(self) -> tuple[bool, str | None]:
        """What the units of a cut have in common."""
        return bool(self.texts), self.speaker


def cut_by_phrases(
    phrases: Sequence[Phrase], speech: Sequence[Span], power: np.ndarray, num_samples: int, lengths: Lengths
) -> list[Cut]:
    """Cut a channel by its phrases.

    Args:
        phrases: its phrases, each of which starts before `num_samples`.
        speech: its stretches of speech, in order.
        power: (num_frames,) mean square of each `FRAME` samples.
        num_samples: length of the recording.
        lengths: wanted lengths. A cut is longer only if it is one unit with text.

    Returns:
        Cuts in order, without overlap, which together hold all of the speech, and each phrase's text once.
    """
    longest = lengths.longest - 2 * lengths.padding
    units = [
        part
        for unit in _units(phrases, power, num_samples)
        for part in ([unit] if unit.texts else _divided_stretch(unit, speech, power, longest, lengths.shortest))
    ]
    others = [(group[0][0], group[-1][1]) for group in _outside(speech, [(unit.start, unit.end) for unit in units])]
    breaks = [start for start, end in others if end - start > LONGEST_OUTSIDE]
    pieces = [
        _piece(group, longest)
        for run in _runs(units, breaks)
        for group in _grouped(run, power, longest, lengths.shortest)
    ]
    return padded(_with_the_rest(pieces, speech, power, longest, lengths.shortest), power, num_samples, lengths)


def spoken_at_once(phrases: Sequence[Phrase], num_samples: int) -> np.ndarray:
    """Return where phrases of several speakers overlap: (num_frames,) bool, for frames of `FRAME` samples."""
    count = np.zeros(-(-num_samples // FRAME), np.int16)
    for speaker in {phrase.speaker for phrase in phrases}:
        speaks = np.zeros(len(count), bool)
        for phrase in phrases:
            if phrase.speaker == speaker:
                speaks[phrase.start // FRAME : -(-phrase.end // FRAME)] = True
        count += speaks
    return np.asarray(count > 1)


def _units(phrases: Sequence[Phrase], power: np.ndarray, num_samples: int) -> list[Unit]:
    """Return units in order, without overlap."""
    found: list[Unit] = []
    for phrase in sorted(phrases, key=lambda each: (each.start, each.end)):
        texts = () if phrase.text is None else (phrase.text,)
        unit = Unit(phrase.start, min(phrase.end, num_samples), texts, phrase.speaker)
        last = found[-1] if found else None
        if last is None or last.end <= unit.start:
            found.append(unit)
            continue
        is_inside = unit.end <= last.end or unit.start <= last.start
        half = 2 * (last.end - unit.start) >= min(last.end - last.start, unit.end - unit.start)
        if is_inside or (half and last.speaker != unit.speaker and (last.texts or unit.texts)):
            found[-1] = _both(last, unit)
        elif last.speaker == unit.speaker:
            found[-1:] = [replace(last, end=unit.start), unit]
        else:
            middle = quietest(power, unit.start, last.end)
            found[-1:] = [replace(last, end=middle, border="overlap"), replace(unit, start=middle)]
    return found


def _both(last: Unit, unit: Unit) -> Unit:
    """Return two units as one. It has no speaker if two speakers' texts are in it; without text, the longer one's."""
    texts = (*last.texts, *unit.texts)
    longer = max(last, unit, key=lambda each: each.end - each.start)
    speaker = longer.speaker if last.speaker == unit.speaker or not texts else None
    return Unit(last.start, max(last.end, unit.end), texts, speaker, longer.border)


def _divided_stretch(
    unit: Unit, speech: Sequence[Span], power: np.ndarray, longest: int, shortest: int
) -> Iterator[Unit]:
    """Yield the speech in a stretch without text in pieces; all of the stretch if no speech was found in it."""
    inside = [(max(start, unit.start), min(end, unit.end)) for start, end in speech]
    inside = [span for span in inside if span[0] < span[1]] or [(unit.start, unit.end)]
    for group in together(inside, SEPARATING_PAUSE):
        for piece in divided(group, power, longest, shortest):
            border = piece.border if piece.end < unit.end else unit.border
            yield Unit(piece.start, piece.end, (), unit.speaker, border)


def _outside(speech: Sequence[Span], covered: Sequence[Span]) -> list[list[Span]]:
    """Return the speech that is not covered, in groups between pauses of half a second and what is covered."""
    free: dict[int, list[Span]] = {}
    place = 0  # of the first covered stretch that ends after what was looked at
    for start, end in speech:
        while start < end:
            while place < len(covered) and covered[place][1] <= start:
                place += 1
            first, last = covered[place] if place < len(covered) else (end, end)
            if start < first:
                free.setdefault(place, []).append((start, min(end, first)))
            start = max(start, last) if first < end else end
    return [group for spans in free.values() for group in together(spans, SEPARATING_PAUSE)]


def _runs(units: Sequence[Unit], breaks: Sequence[int]) -> Iterator[list[Unit]]:
    """Yield neighboring units that may share a cut: of one speaker, and without other speech between them."""
    number = np.searchsorted(np.asarray(breaks, np.int64), [unit.start for unit in units])
    for _, run in groupby(zip(number.tolist(), units, strict=True), key=lambda each: (each[0], each[1].kind)):
        yield [unit for _, unit in run]


def _grouped(run: list[Unit], power: np.ndarray, longest: int, shortest: int) -> list[list[Unit]]:
    """Return the units of a run in groups that make a cut each."""
    gaps = [(after.start - before.end, -_power_at(power, before.end, after.start)) for before, after in pairwise(run)]
    separate = [place for place, (gap, _) in enumerate(gaps, 1) if gap >= SEPARATING_PAUSE]
    ends = list(pairwise([0, *separate, len(run)]))
    groups: list[tuple[int, int]] = []
    while ends:
        first, last = ends.pop()
        start, end = run[first].start, run[last - 1].end
        if end - start <= longest or last - first == 1:
            groups.append((first, last))
            continue
        places = range(first + 1, last)
        apart = [
            place for place in places if run[place - 1].end - start >= shortest and end - run[place].start >= shortest
        ]
        place = max(apart or places, key=lambda place: gaps[place - 1])
        ends += [(first, place), (place, last)]
    return _joined_groups([run[first:last] for first, last in sorted(groups)], longest, shortest)


def _joined_groups(groups: list[list[Unit]], longest: int, shortest: int) -> list[list[Unit]]:
    """Join groups that are too short to their nearer neighbor, the smallest gap first."""
    while True:
        gaps = [
            (after[0].start - before[-1].end, place)
            for place, (before, after) in enumerate(pairwise(groups))
            if min(before[-1].end - before[0].start, after[-1].end - after[0].start) < shortest
            and after[-1].end - before[0].start <= longest
        ]
        gap, place = min(gaps, default=(LONGEST_INNER_PAUSE, 0))
        if gap >= LONGEST_INNER_PAUSE:
            return groups
        groups[place : place + 2] = [groups[place] + groups[place + 1]]


def _power_at(power: np.ndarray, first: int, last: int) -> float:
    """Return the power of the tenth of a second around the middle of a gap."""
    middle = (first + last) // 2 // FRAME
    around = power[max(0, middle - QUIET // 2) : middle + QUIET // 2]
    return float(around.mean(dtype=np.float64)) if len(around) else 0.0


def _piece(group: list[Unit], longest: int) -> Piece:
    start, end = group[0].start, group[-1].end
    text = join(text for unit in group for text in unit.texts) or None
    border: Border = "long_phrase" if end - start > longest else group[-1].border
    return Piece(start, end, border, text, group[-1].speaker)


def _with_the_rest(
    pieces: Sequence[Piece], speech: Sequence[Span], power: np.ndarray, longest: int, shortest: int
) -> list[Piece]:
    """Return the pieces with the speech that is in none of them: in the nearest one, or in pieces of its own."""
    found = list(pieces)
    rest: dict[int, list[Piece]] = {}
    for group in _outside(speech, [(piece.start, piece.end) for piece in pieces]):
        start, end = group[0][0], group[-1][1]
        after = next((place for place, piece in enumerate(pieces) if piece.start >= end), len(pieces))
        goes_on = 0 < after < len(found) and found[after - 1].end == start and found[after].start == end
        middle = quietest(power, start, end) if goes_on else 0
        parts = {after - 1: (start, middle), after: (middle, end)} if goes_on else _nearest(found, after, start, end)
        grown = {place: _with(found[place], *part) for place, part in parts.items()}
        fit = all(_length(piece) <= max(longest, _length(found[place])) for place, piece in grown.items())
        if grown and fit and end - start <= LONGEST_OUTSIDE:
            for place, piece in grown.items():
                found[place] = piece
        else:
            rest.setdefault(after, []).extend(divided(group, power, longest, shortest))
    others = [piece for each in rest.values() for piece in joined(each, shortest, longest)]
    return sorted([*found, *others], key=lambda piece: piece.start)


def _nearest(pieces: Sequence[Piece], after: int, start: int, end: int) -> dict[int, Span]:
    """Return the place of the piece that is nearest to a stretch of speech, and the stretch; nothing if all are far."""
    distances = {}
    if after > 0:
        distances[after - 1] = start - pieces[after - 1].end
    if after < len(pieces):
        distances[after] = pieces[after].start - end
    near = [(distance, place) for place, distance in distances.items() if distance < SEPARATING_PAUSE]
    return {min(near)[1]: (start, end)} if near else {}


def _with(piece: Piece, start: int, end: int) -> Piece:
    return piece._replace(start=min(start, piece.start), end=max(end, piece.end))


def _length(piece: Piece) -> int:
    return piece.end - piece.start
