"""CTM (words), STM (utterances) and RTTM (speakers): lines of words with times, of one or more recordings.

Format: sclite's and md-eval's manuals, https://github.com/usnistgov/SCTK/blob/master/doc/infmts.htm
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from echo_targets.transforms.sources.timed_texts.base import BadTimedText, Phrase, phrase, seconds, shown

UNKNOWN = frozenset(("<NA>", "NA", "null"))
SILENCES = frozenset(("<eps>", "<sil>", "sil", "sp", "<p:>"))
"""Words of aligners for silence, in lower case."""
IGNORED = "ignore_time_segment_in_scoring"
FIRST_TAG = re.compile(r"<([^<>\s]*)>(?:\s+|$)")
LABELS = re.compile(r"[^,]*,.*|[A-Z][A-Z0-9]?(?:_[A-Z])?")
"""Labels of an utterance, such as `<o,f0,male>`, `<O>`, `<NA>` and `<F0_M>`; but not `<unk>`, which is a word."""
BRACED = re.compile(r"\{[^{}]*\}")
OTHER_RTTM = re.compile(
    "SPKR-INFO|SEGMENT|NON-SPEECH|NON-LEX|NOSCORE|NO_RT_METADATA|LEXEME|FILLER|EDIT|IP|SU|CB|A/P|;;.*"
)
"""Types of RTTM lines that say nothing about who speaks when."""
SHORTEST_SECONDS = 0.01
"""Given to what lasts 0.00 s: times are written in hundredths."""


class Row(NamedTuple):
    """A line: its number, the words in front, and the rest."""

    line: int
    words: list[str]
    rest: str


def ctm(text: str, names: Sequence[str]) -> list[Phrase]:
    """Return the words of a recording: `name channel start duration word [confidence [type speaker]]`.

    Args:
        text: the file's text.
        names: names that the recording may have in the file, the preferred one first.

    Raises:
        BadTimedText: a line is malformed, or none has one of the names.
    """

    def word_of(row: Row, channel: int | None) -> Phrase | None:
        _, _, start, duration, word = row.words
        others = row.rest.split()
        speaker = others[2] if len(others) > 2 and others[2] not in UNKNOWN else None
        if channel is None and row.words[1] not in UNKNOWN:  # NeMo writes the speaker in the place of the channel
            speaker = row.words[1]
        if start == "*":
            raise BadTimedText(row.line, f"is a part of alternatives, {shown(word)}: choose what is said")
        begin = seconds(start, row.line, "the start")
        end = begin + (seconds(duration, row.line, "the duration") or SHORTEST_SECONDS)
        return None if word.lower() in SILENCES else phrase(begin, end, word, row.line, speaker, channel)

    return _read(text, names, 5, "name channel start duration word", word_of)


def stm(text: str, names: Sequence[str]) -> list[Phrase]:
    """Return the utterances of a recording: `name channel speaker start end [<labels>] text`.

    A stretch without words, or to be ignored in scoring, is no phrase. Args and Raises: as for `ctm`.
    """

    def utterance_of(row: Row, channel: int | None) -> Phrase | None:
        _, _, speaker, start, end = row.words
        begin, end_at = seconds(start, row.line, "the start"), seconds(end, row.line, "the end")
        tag = FIRST_TAG.match(row.rest)
        said = row.rest[tag.end() :] if tag and LABELS.fullmatch(tag[1]) else row.rest
        if not said or said.lower() == IGNORED:
            return None
        for braced in BRACED.findall(said):
            if " / " in braced:
                raise BadTimedText(row.line, f"has the alternatives {shown(braced)}: choose what is said")
        return phrase(begin, end_at, said, row.line, speaker, channel)

    return _read(text, names, 5, "name channel speaker start end text", utterance_of)


def rttm(text: str, names: Sequence[str]) -> list[Phrase]:
    """Return who speaks when: `SPEAKER name channel start duration <NA> <NA> speaker <NA> <NA>`.

    Args and Raises: as for `ctm`.
    """

    def stretch_of(row: Row, channel: int | None) -> Phrase:
        start, duration = row.words[2], row.words[3]
        begin = seconds(start, row.line, "the start")
        end = begin + (seconds(duration, row.line, "the duration") or SHORTEST_SECONDS)
        speaker = None if row.words[6] in UNKNOWN else row.words[6]
        return phrase(begin, end, None, row.line, speaker, channel)

    kept = []
    for number, line in enumerate(text.split("\n"), 1):
        kind, *words = line.split() or [";;"]
        if kind != "SPEAKER" and not OTHER_RTTM.fullmatch(kind):
            raise BadTimedText(number, f"begins with {shown(kind)}; expected SPEAKER")
        if kind == "SPEAKER" and len(words) > 9:
            raise BadTimedText(number, "has more than ten words: write names of recordings and speakers without blanks")
        kept.append(" ".join(words) if kind == "SPEAKER" else "")
    expected = "SPEAKER name channel start duration <NA> <NA> speaker <NA> <NA>"
    return _read("\n".join(kept), names, 7, expected, stretch_of)


def _read(
    text: str, names: Sequence[str], count: int, expected: str, make: Callable[[Row, int | None], Phrase | None]
) -> list[Phrase]:
    """Return what `make` makes of the recording's lines; it gets a row of `count` words and a channel from 0."""
    rows = next((rows for name in names if (rows := list(_rows(text, name, count, expected)))), None)
    if rows is None:
        known = dict.fromkeys(line.split()[0] for line in text.split("\n") if line.strip() and line[:2] != ";;")
        others = ", ".join(list(known)[:5]) or "no recording"
        raise BadTimedText(0, f"has no line of {names[0]}, but of {others}: name the recording alike in both")
    from_zero = any(row.words[1] == "0" for row in rows)
    made = (make(row, _channel(row.words[1], from_zero)) for row in rows)
    return [each for each in made if each is not None]


def _rows(text: str, name: str, count: int, expected: str) -> Iterator[Row]:
    """Yield the lines that begin with a name. Only these are looked at: a file may have those of a whole corpus."""
    number, last = 1, 0
    for found in re.finditer(rf"^[ \t]*{re.escape(name)}(?:[ \t].*)?$", text, re.MULTILINE):
        number += text.count("\n", last, found.start())
        last = found.start()
        words = re.split(r"[ \t]+", found[0].strip(" \t"), maxsplit=count)
        if len(words) < count:
            raise BadTimedText(number, f"has {len(words)} words; expected `{expected}`")
        yield Row(number, words[:count], words[count] if len(words) > count else "")


def _channel(word: str, from_zero: bool) -> int | None:
    """Return a channel counted from 0; None if the word names none.

    Channels are counted from 1 or A; in files that name a channel 0, from 0.
    """
    if re.fullmatch("[A-Ha-h]", word):
        return ord(word.upper()) - ord("A")
    return int(word) - (not from_zero) if re.fullmatch(r"\d{1,3}", word, re.ASCII) else None
