"""Praat's TextGrid, long and short: tiers of intervals with labels.

As in Praat itself, free-standing numbers, quoted texts and flags count in both forms; all else is for people.
praatio 6.2.2 searches for words such as `item [` instead, and fails on labels that contain them.
Format: https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from echo_targets.schemas.tables.base import BLANK
from echo_targets.transforms.sources.timed_texts.base import NUMBER, BadTimedText, Phrase, phrase, seconds, shown
from echo_targets.transforms.sources.timed_texts.nist import SILENCES
from echo_targets.transforms.text import join

TOKEN = re.compile(rf'"([^"]*(?:""[^"]*)*)"|(?<!\S)({NUMBER.pattern})(?!\S)|(<(?:exists|absent)>)|(?<!\S)![^\n]*')
WORDS = re.compile(r"(?:(.+?) ?- ?)?words?", re.IGNORECASE)
PHONES = re.compile(r"(?:.+ ?- ?)?(?:phones?|phonemes?|segments?|syllables?)", re.IGNORECASE)
PART_SECONDS = 0.01
"""A file whose time begins later holds a part of a recording."""


@dataclass(frozen=True)
class Tier:
    """A tier's name, its labelled intervals (start and end as written, label, line), and the line of its name."""

    name: str
    intervals: list[tuple[str, str, str, int]] | None
    """None for a tier of points."""
    line: int


def textgrid(text: str, wanted: Sequence[str]) -> list[Phrase]:
    """Return the phrases of a TextGrid.

    Without names, tiers called `words`, or `SPEAKER - words`, have the text; otherwise the only tier of intervals that
    is not of phones.

    Args:
        text: the file's text.
        wanted: names of the tiers with text. Of several, each has the text of the speaker whose name it is.

    Raises:
        BadTimedText: the file is malformed, or it is unclear which tiers have the text.
    """
    found = []
    for tier, speaker in _chosen(_tiers(text), wanted):
        for start, end, label, line in tier.intervals or ():
            said = join(label.split("\n")).strip(BLANK)
            if said and said.lower() not in SILENCES:
                times = seconds(start, line, "xmin"), seconds(end, line, "xmax")
                found.append(phrase(*times, said, line, speaker))
    return found


def _chosen(tiers: Sequence[Tier], wanted: Sequence[str]) -> list[tuple[Tier, str | None]]:
    """Return the tiers with text, and whose it is."""
    named = ", ".join(shown(tier.name) for tier in tiers) or "none"
    if wanted:
        chosen = [tier for tier in tiers if tier.name in wanted]
        if not chosen:
            raise BadTimedText(0, f"has none of the wanted tiers; it has {named}: correct stages.segment.tiers")
        if points := [tier for tier in chosen if tier.intervals is None]:
            raise BadTimedText(
                points[0].line, f"tier {shown(points[0].name)} has points, which have no end: choose another"
            )
        return [(tier, tier.name if len(wanted) > 1 else None) for tier in chosen]
    words = [(tier, found[1]) for tier in tiers if tier.intervals is not None and (found := WORDS.fullmatch(tier.name))]
    if words:
        return words
    others = [tier for tier in tiers if tier.intervals is not None and not PHONES.fullmatch(tier.name)]
    if len(others) != 1:
        raise BadTimedText(0, f"has the tiers {named}: list those with the text in stages.segment.tiers")
    return [(others[0], None)]


class _Tokens:
    """The numbers, texts and flags of a file, one after the other."""

    def __init__(self, text: str) -> None:
        self._found = [found for found in TOKEN.finditer(text) if found.lastindex]
        self._ends = [found.start() for found in re.finditer("\n", text)]
        self._place = 0

    @property
    def line(self) -> int:
        """The line of the next token, from 1."""
        at = self._found[self._place].start() if self._place < len(self._found) else (self._ends or [0])[-1]
        return bisect_left(self._ends, at) + 1

    def next(self, group: int, name: str) -> str:
        """Return the next token, which must be of a kind: 1 a text, 2 a number, 3 a flag."""
        line = self.line
        if self._place == len(self._found):
            raise BadTimedText(line, f"ends where {name} is expected: the file is cut short; export it again")
        found = self._found[self._place]
        if found.lastindex != group:
            raise BadTimedText(line, f"has {shown(found[0])} instead of {name}: export it again from Praat")
        self._place += 1
        return found[group].replace('""', '"') if group == 1 else found[group]


def _tiers(text: str) -> list[Tier]:
    if text.startswith('"Praat chronological') or text.startswith("ooBinaryFile"):
        raise BadTimedText(1, "is not a TextGrid as text: save it in Praat with `Save as text file`")
    tokens = _Tokens(text)
    kind, contents = tokens.next(1, "the file type"), tokens.next(1, "the class")
    if not kind.startswith("ooTextFile") or contents != "TextGrid":
        raise BadTimedText(1, f"is a {shown(kind)} of class {shown(contents)}; expected a TextGrid")
    line, begins = tokens.line, tokens.next(2, "xmin")
    if float(begins) > PART_SECONDS:
        remedy = "shift its times in Praat, so that they start at 0"
        raise BadTimedText(line, f"begins at {begins} s, so its times are those of a longer recording: {remedy}")
    tokens.next(2, "xmax")
    if tokens.next(3, "<exists>") == "<absent>":
        return []
    return [_tier(tokens) for _ in range(_count(tokens))]


def _tier(tokens: _Tokens) -> Tier:
    line, kind = tokens.line, tokens.next(1, "a tier's class")
    if kind not in ("IntervalTier", "TextTier"):
        raise BadTimedText(line, f"has the tier class {shown(kind)}; expected IntervalTier or TextTier")
    name = tokens.next(1, "a tier's name")
    tokens.next(2, "xmin")
    tokens.next(2, "xmax")
    count = _count(tokens)
    if kind == "TextTier":
        for _ in range(count):
            tokens.next(2, "a point's time")
            tokens.next(1, "a point's mark")
        return Tier(name, None, line)
    intervals = []
    for _ in range(count):
        at = tokens.line
        start, end = tokens.next(2, "an interval's xmin"), tokens.next(2, "an interval's xmax")
        intervals.append((start, end, tokens.next(1, "an interval's text"), at))
    return Tier(name, intervals, line)


def _count(tokens: _Tokens) -> int:
    line, word = tokens.line, tokens.next(2, "a size")
    if not word.isdecimal():
        raise BadTimedText(line, f"size {shown(word)} is not a whole number: export it again from Praat")
    return int(word[:9])
