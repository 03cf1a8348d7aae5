"""A phrase of a timed text, and what all formats have in common: encodings, lines and times."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

from echo_targets.schemas import SAMPLE_RATE

LONGEST_SECONDS = 1e6
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


@dataclass(frozen=True)
class Phrase:
    """A stretch of a recording, and what is said in it.

    Attributes:
        start, end: first sample and exclusive end at 16 kHz.
        text: what is said; None if the file only says who speaks.
        speaker: the speaker's name in the file.
        channel: the channel, counted from 0.
        line: the line of the file, from 1, for messages.
    """

    start: int
    end: int
    text: str | None
    speaker: str | None = None
    channel: int | None = None
    line: int = 0


class BadTimedText(Exception):
    """A timed text can't be used.

    Args:
        line: the line to blame, from 1; 0 for the whole file.
        message: what is wrong, and what to do.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


def decoded(data: bytes) -> str:
    """Return a file's text with all line ends as LF. UTF-16 needs its byte order mark.

    Raises:
        BadTimedText: the file is empty, or in another encoding.
    """
    mark, encoding = next(((mark, name) for mark, name in BOMS if data.startswith(mark)), (b"", "utf-8"))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: len(mark) + error.start].count(b"\n") + 1
        remedy = "convert it, for example with iconv -f WINDOWS-1252 -t UTF-8"
        raise BadTimedText(line, f"is not {encoding.upper()}: {remedy}") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise BadTimedText(line, "holds a NUL: save it as UTF-8, or as UTF-16 with a byte order mark")
    if not text.strip():
        raise BadTimedText(0, "is empty: export it again, or list the recording without it")
    return text


def seconds(word: str, line: int, name: str) -> float:
    """Return a number of seconds that is not negative.

    Args:
        word: the number as the file has it.
        line: its line.
        name: what it means, for messages.

    Raises:
        BadTimedText: the word is not a number, or is out of range.
    """
    if not NUMBER.fullmatch(word):
        raise BadTimedText(line, f"{name} {shown(word)} is not a number of seconds: correct it")
    if not 0 <= float(word) <= LONGEST_SECONDS:
        raise BadTimedText(line, f"{name} {shown(word)} is outside [0, {LONGEST_SECONDS:g}] s: correct it")
    return float(word)


def phrase(
    start: float, end: float, text: str | None, line: int, speaker: str | None = None, channel: int | None = None
) -> Phrase:
    """Return a phrase whose times are given in seconds.

    Raises:
        BadTimedText: it does not end after it starts.
    """
    if not start < end:
        raise BadTimedText(line, f"ends at {end:.2f} s, but starts at {start:.2f} s: correct its times")
    first = round(start * SAMPLE_RATE)
    return Phrase(first, max(round(end * SAMPLE_RATE), first + 1), text, speaker, channel, line)


def shown(value: str) -> str:
    """Return a part of a file for a message."""
    return repr(value if len(value) <= 60 else f"{value[:60]}…")
