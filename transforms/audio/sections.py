"""Sections of a file: which of its samples make an utterance, and one pass of decoding for many of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from echo_targets.transforms.audio.blocks import Block
from echo_targets.transforms.audio.containers.base import BadAudio

MISMATCH_SECONDS = 0.5
"""By how much a duration may differ from the declared one."""
KEPT_SECONDS = 60.0
"""Decoded sound that is kept: the next section may start before the last one ends, if two people speak at once."""


@dataclass(frozen=True)
class Section:
    """The part of a file that makes an utterance.

    Attributes:
        start: its start in the file, in seconds.
        seconds: its duration; None extends to the end of the file.
    """

    start: float = 0.0
    seconds: float | None = None

    @property
    def end(self) -> float:
        return np.inf if self.seconds is None else self.start + self.seconds

    def __str__(self) -> str:
        return f"the section from {self.start:.2f} s" + ("" if self.seconds is None else f" to {self.end:.2f} s")


class _Placed(NamedTuple):
    """A block with its place: frame `first` of a run of one rate, before which the file has `base` seconds."""

    samples: np.ndarray
    rate: int
    base: float
    first: int

    @property
    def start(self) -> float:
        return self.base + self.first / self.rate

    @property
    def end(self) -> float:
        return self.base + (self.first + len(self.samples)) / self.rate

    def within(self, section: Section) -> np.ndarray:
        """Return the samples that belong to a section, whose borders are rounded to samples of the source."""
        start = round((section.start - self.base) * self.rate) - self.first
        end = (
            len(self.samples) if section.seconds is None else round((section.end - self.base) * self.rate) - self.first
        )
        return self.samples[max(0, start) : max(0, end)]

    def completes(self, section: Section) -> bool:
        """Return True if the section ends in this block."""
        return section.seconds is not None and round((section.end - self.base) * self.rate) <= self.first + len(
            self.samples
        )


class SectionReader:
    """Decodes a file in one pass, as far as its sections are requested in the order of their starts.

    Otherwise, and for a section more than `KEPT_SECONDS` back, decoding starts again: only time is lost.
    """

    def __init__(self, decode: Callable[[float], Iterator[Block]]) -> None:
        """Take a function that decodes the file; samples before the given time in seconds may be skipped."""
        self._decode = decode
        self._blocks: Iterator[_Placed] | None = None
        self._recent = deque[_Placed]()
        self._ended: float | None = None

    def read(self, sections: Sequence[Section], take: Callable[[int, np.ndarray, int], bool]) -> dict[int, BadAudio]:
        """Decode sections, and stop at the end of the last one.

        Args:
            sections: the sections.
            take: called with a section's number, its next samples ((frames, channels) float32) and their rate in Hz;
                returns False if it wants no more of this section.

        Returns:
            The problems of the sections that could not be decoded to their end, by their number.

        Raises:
            OSError: the file can't be read.
        """
        active = dict(enumerate(sections))
        failed: dict[int, BadAudio] = {}
        try:
            for block in self._from(min(section.start for section in sections)):
                for number, section in list(active.items()):
                    taken = block.within(section)
                    if (len(taken) and not take(number, taken, block.rate)) or block.completes(section):
                        del active[number]
                if not active:
                    return failed
        except BadAudio as error:
            self._blocks = None
            return {number: error for number in active}
        lasts = self._ended or 0.0
        for number, section in active.items():
            if (section.start and section.start >= lasts) or lasts + MISMATCH_SECONDS < section.end < np.inf:
                message = f"lasts {lasts:.2f} s, but {section} was requested"
                failed[number] = BadAudio("section_outside", message)
        return failed

    def _from(self, start: float) -> Iterator[_Placed]:
        """Yield the blocks from one that holds a time, or that begins before it."""
        if self._blocks is None or not self._recent or self._recent[0].start > start:
            self._blocks, self._ended = self._placed(start), None
            self._recent.clear()
        yield from [block for block in self._recent if block.end > start]
        for block in self._blocks:
            self._recent.append(block)
            while len(self._recent) > 1 and self._recent[0].end < block.end - KEPT_SECONDS:
                self._recent.popleft()
            yield block

    def _placed(self, start: float) -> Iterator[_Placed]:
        base, done, current = 0.0, 0, 1  # of the current run of one rate: seconds before it, frames so far, rate
        for samples, rate, skipped in self._decode(start):
            if rate != current:
                base, done, current = base + done / current, 0, rate
            done += skipped
            yield _Placed(samples, rate, base, done)
            done += len(samples)
        self._ended = base + done / current
