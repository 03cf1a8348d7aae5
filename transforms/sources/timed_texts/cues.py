"""SubRip (`.srt`) and WebVTT (`.vtt`): cues, each with times and lines of text.

pysubs2 1.8.1 reads both too, but without line numbers: it adds a cue whose times it can't parse (hours above 99) to the
text of the cue before, drops the names of voices, and keeps comments and entities as text.
Formats: https://www.w3.org/TR/webvtt1/, https://www.matroska.org/technical/subtitles.html#srt-subtitles
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from echo_targets.schemas.tables.base import BLANK
from echo_targets.transforms.sources.timed_texts.base import BadTimedText, Phrase, phrase, shown
from echo_targets.transforms.sources.timed_texts.rolling import without_repeats
from echo_targets.transforms.text import join

Words = tuple[str | None, str]
"""A line of a cue: who says it, and the text without markup."""

TIME = r"(?:(\d{1,6}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?"
TIMES = re.compile(rf"[ \t]*{TIME}[ \t]*-->[ \t]*{TIME}(?:[ \t].*)?", re.ASCII)
LIKE_TIMES = re.compile(r".*-->|\s*-?\d+:\d\d:\d\d[.,:]\d+\s*[-=>→–—]+\s*-?\d+:\d\d", re.ASCII)
"""A line that must be one of times, although it can't be parsed."""
MARKUP = re.compile(
    r"</?(?:i|b|u|s|c|em|strong|font|span|ruby|rt|lang|p)(?:[.\s][^<>]*)?>|</v>|<(?:\d+:)?\d\d:\d\d\.\d+>|\{\\[^{}]*\}",
    re.IGNORECASE,
)
BREAK = re.compile(r"<br\s*/?>|\\[Nnh]", re.IGNORECASE)
VOICE = re.compile(r"<v(?:\.[^\s<>]*)?(?:\s([^<>]*))?>", re.IGNORECASE)
ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.IGNORECASE)
EXPECTED = "expected `00:01:02,345 --> 00:01:04,000`"


@dataclass(frozen=True)
class Cue:
    """A cue: its times in seconds, its lines, and the line of the file that has the times."""

    start: float
    end: float
    lines: list[Words]
    line: int


def srt(text: str) -> list[Phrase]:
    """Return the phrases of a SubRip file. A cue's text may have empty lines; it lasts until the next times.

    Raises:
        BadTimedText: a line is malformed, or a cue ends before it starts.
    """
    lines = text.split("\n")
    starts = [number for number, line in enumerate(lines) if LIKE_TIMES.match(line)]
    if not starts:
        raise BadTimedText(1, f"has no times; {EXPECTED}")
    # Whether cues are numbered is seen from the first, so that a number which is said is not taken for one.
    is_numbered = starts[0] > 0 and lines[starts[0] - 1].strip().isdecimal()
    before = _text_until(lines, 0, starts[0], is_numbered)
    if any(line.strip() for line in before):
        raise BadTimedText(1, f"begins with {shown(lines[0])}; expected a cue's number and its times")
    cues = []
    for place, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        text_lines = _text_until(lines, place + 1, end, is_numbered and end < len(lines))
        if is_numbered:
            _check_numbers(lines[place - 1], text_lines, lines[end - 1], place + 2)
        cues.append(_cue(lines[place], text_lines, place + 1))
    return _phrases(cues)


def vtt(text: str) -> list[Phrase]:
    """Return the phrases of a WebVTT file. Comments, styles and regions have none.

    Raises:
        BadTimedText: a line is malformed, or a cue ends before it starts.
    """
    lines = text.split("\n")
    if not re.match(r"WEBVTT(?:[ \t]|$)", lines[0]):
        raise BadTimedText(1, f"begins with {shown(lines[0])}; expected WEBVTT")
    header = lines.index("") if "" in lines else len(lines)
    if any("-->" in line for line in lines[:header]):
        raise BadTimedText(1, "has a cue in its header: put an empty line after WEBVTT")
    return _phrases([cue for number, block in _blocks(lines) for cue in _cues_of(number, block)])


def _text_until(lines: Sequence[str], start: int, end: int, is_numbered: bool) -> Sequence[str]:
    """Return lines[start:end] without the number of the cue that follows."""
    has_number = is_numbered and end > start and lines[end - 1].strip().isdecimal()
    return lines[start : end - 1 if has_number else end]


def _check_numbers(own: str, lines: Sequence[str], following: str, first: int) -> None:
    """Check that a cue's text does not hold the next cue, whose times are missing.

    Args:
        own, following: the lines with the cue's own number, and that of the cue after it.
        lines: the cue's text.
        first: number of its first line.
    """
    if not re.fullmatch(r"\s*\d{1,9}\s*", own):
        return
    number = str(int(own) + 1)
    for place, (before, line, after) in enumerate(zip(lines, lines[1:], lines[2:], strict=False), 1):
        if line.strip() == number != following.strip() and not before.strip() and after.strip():
            raise BadTimedText(first + place, f"cue {number} has no times; {EXPECTED} below its number")


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the first line of each block between empty lines, and its lines. The header is left out."""
    block: list[str] = []
    is_header = True
    for number, line in enumerate([*lines, ""], 1):
        if line:
            block.append(line)
            continue
        if block and not is_header:
            yield number - len(block), block
        block, is_header = [], False


def _cues_of(number: int, block: list[str]) -> Iterator[Cue]:
    """Yield the cues of a block. As in browsers, a line of times begins a cue even without an empty line before it."""
    blank = next((place for place, line in enumerate(block) if line.strip(BLANK)), len(block))
    block, number = block[blank:], number + blank
    starts = [place for place, line in enumerate(block) if LIKE_TIMES.match(line)]
    if not block or re.match(r"(?:NOTE|STYLE|REGION)(?:[ \t]|$)", block[0]):
        return
    if not starts or starts[0] > 1:
        raise BadTimedText(number, f"{shown(block[0])} belongs to no cue; {EXPECTED} before it")
    for place, end in zip(starts, [*starts[1:], len(block)], strict=True):
        yield _cue(block[place], block[place + 1 : end], number + place)


def _cue(times: str, lines: Sequence[str], number: int) -> Cue:
    found = TIMES.fullmatch(times)
    if found is None:
        raise BadTimedText(number, f"{shown(times)} has no valid times; {EXPECTED}")
    start, end = (_seconds(found.groups()[place : place + 4], times, number) for place in (0, 4))
    if end < start:  # an empty cue needs valid times too
        phrase(start, end, None, number)
    return Cue(start, end, list(_lines(lines)), number)


def _seconds(parts: Sequence[str | None], times: str, number: int) -> float:
    hours, minutes, rest, fraction = (part or "0" for part in parts)
    if int(minutes) > 59 or int(rest) > 59:
        raise BadTimedText(number, f"{shown(times)} has more than 59 minutes or seconds; {EXPECTED}")
    return int(hours) * 3600 + int(minutes) * 60 + float(f"{rest}.{fraction}")


def _lines(lines: Sequence[str]) -> Iterator[Words]:
    """Yield what is said in each line, by speaker. A voice lasts until the next one, or the cue's end."""
    speaker: str | None = None
    for line in lines:
        for place, part in enumerate(VOICE.split(line)):
            if place % 2:  # what a voice tag names
                speaker = _plain(part or "") or None
            elif words := _plain(part):
                yield speaker, words


def _plain(line: str) -> str:
    """Return a line without markup. Only entities that end with `;` are decoded: R&D stays as it is."""
    line = MARKUP.sub("", BREAK.sub(" ", line))
    return ENTITY.sub(lambda found: html.unescape(found[0]), line).strip(BLANK)


def _phrases(cues: Sequence[Cue]) -> list[Phrase]:
    """Return a phrase for each speaker of each cue.

    whisper.cpp writes the rest of a phrase that it splits as a cue without a length: it belongs to the cue before.

    Raises:
        BadTimedText: another cue has no length.
    """
    found = []
    repeated = without_repeats([(cue.start, cue.end, cue.lines) for cue in cues])
    placed: list[tuple[Cue, list[Words]]] = []
    for cue, lines in zip(cues, repeated, strict=True):
        if cue.start == cue.end and lines and placed and placed[-1][0].end == cue.start:
            placed[-1][1].extend(lines)
        else:
            placed.append((cue, list(lines)))
    for cue, lines in placed:
        for speaker in dict.fromkeys(speaker for speaker, _ in lines):
            said = join(words for who, words in lines if who == speaker)
            found.append(phrase(cue.start, cue.end, said, cue.line, speaker))
    return found
