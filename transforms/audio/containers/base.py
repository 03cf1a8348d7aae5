"""A recording inside a file, and a view of its bytes."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

TOLERANCE = 0.05
"""Seconds that may be missing: no syllable is shorter, and encoders' delays and padding are below it."""
WINDOW = 1 << 20
FARTHEST = 1 << 62
SOUND = re.compile(rb"[^\0]")
"""A byte that is not padding."""
PADDING = 1 << 13
"""Zeros after a recording that count as padding. A truncated download into a preallocated file has more."""
PADDING_SHARE = 0.25


class Seekable(Protocol):
    """The methods of an open file that this package uses."""

    def seek(self, offset: int, whence: int = ..., /) -> Any: ...

    def read(self, size: int = ..., /) -> bytes: ...


class BadAudio(Exception):
    """Audio that can't be used.

    Attributes:
        error_class: a short word to count by.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


@dataclass(frozen=True)
class Link:
    """One recording of a file. Most files hold one; joined files hold several, one after the other.

    Attributes:
        start, end: position of its bytes in the file.
        claimed, present: bytes of audio that the container claims to hold, and that it holds.
        size_field: correction of the container's byte count, which decoders trust: its position and new bytes.
        damage: what is broken in the middle, so that times after it are wrong.
        cut: what is missing at the end.
    """

    start: int
    end: int
    claimed: int = 0
    present: int = 0
    size_field: tuple[int, bytes] | None = None
    damage: str | None = None
    cut: str | None = None


class Span(io.RawIOBase):
    """The bytes of a link as a file. It has no name, so that no library guesses a format by extension.

    Attributes:
        failure: the storage's error, if any. Libraries that call back from C would lose it.
    """

    def __init__(self, file: Seekable, link: Link) -> None:
        super().__init__()
        self._file = file
        self._link = link
        self._position = 0
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._link.end - self._link.start}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        at = self._link.start + self._position
        try:
            data = read_at(self._file, at, min(len(buffer), self._link.end - at))
        except OSError as error:
            self.failure = error
            return 0
        view = memoryview(buffer).cast("B")
        view[: len(data)] = data
        if self._link.size_field is not None:
            place, mended = self._link.size_field
            for number, byte in enumerate(mended, place - at):
                if 0 <= number < len(data):
                    view[number] = byte
        self._position += len(data)
        return len(data)

    def raise_failure(self) -> None:
        """Raise the storage's error, if any."""
        if self.failure is not None:
            raise self.failure


def size_of(file: Seekable) -> int:
    """Return the size of an open file in bytes."""
    return int(file.seek(0, os.SEEK_END))


def read_at(file: Seekable, at: int, size: int) -> bytes:
    """Return up to `size` bytes from a position; none beyond the end, whatever a header claims."""
    file.seek(min(at, FARTHEST))
    return file.read(max(0, size))


def find(file: Seekable, pattern: re.Pattern[bytes], start: int, end: int) -> Iterator[int]:
    """Yield the positions where a pattern of at most 64 bytes matches, loading a window at a time."""
    overlap = 64
    while start < end:
        window = read_at(file, start, min(WINDOW + overlap, end - start))
        last = start + len(window) >= end or len(window) < WINDOW
        for match in pattern.finditer(window):
            if last or match.start() < WINDOW:
                yield start + match.start()
        if last:
            return
        start += WINDOW


def is_padding(zeros: int, size: int) -> bool:
    """Return True if so many zeros count as padding: at most 8 KiB, and less than a quarter of `size`."""
    return zeros <= PADDING and zeros < PADDING_SHARE * size


def zeros_at_end(file: Seekable, start: int, end: int) -> int:
    """Return the number of zeros at the end of a range of bytes."""
    at = end
    while at > start:
        window = read_at(file, max(start, at - WINDOW), min(WINDOW, at - start))
        sounding = len(window.rstrip(b"\0"))
        at -= len(window) - sounding
        if sounding or not window:
            break
    return end - at


def split(link: Link, starts: list[int]) -> list[Link]:
    """Return a link cut at the given positions."""
    edges = [link.start, *starts, link.end]
    return [Link(a, b) for a, b in pairwise(edges)]
