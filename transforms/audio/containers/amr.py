"""AMR (RFC 4867): frames whose first byte gives their length."""

from __future__ import annotations

import re

from echo_targets.transforms.audio.containers.base import SOUND, Link, Seekable, find, read_at, split
from echo_targets.transforms.audio.containers.trailing_data import reject_other_within

AMR = re.compile(rb"#!AMR(?:-WB)?\n")
NARROW_BAND = (13, 14, 16, 18, 20, 21, 27, 32, 6)
WIDE_BAND = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6)
"""Bytes of a frame by type, including its first byte. Frames of higher types have only the first byte."""
FRAME_SECONDS = 0.02
PADDING = 64
"""Zeros at the end that are not frames."""


def amr(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of an AMR file; there are several if files were joined."""
    starts = list(find(file, AMR, start + 1, end))
    return [_amr(file, link) for link in split(Link(start, end), starts)]


def _amr(file: Seekable, link: Link) -> Link:
    """Return a link without the zeros at its end, which a decoder would take for frames of type 0.

    A frame of zeros lacks even the quality bit, which every encoder sets.
    """
    head = AMR.match(read_at(file, link.start, 9))
    reject_other_within(file, link.start + 1, link.end, may_hold_mp3=False)
    if head is None:  # several channels
        return link
    sizes = WIDE_BAND if b"WB" in head[0] else NARROW_BAND
    at, frames = link.start + len(head[0]), 0
    while at < link.end:
        frame = read_at(file, at, min(max(sizes), link.end - at))
        kind = frame[0] >> 3 & 15
        size = sizes[kind] if kind < len(sizes) else 1
        if not any(frame[:size]):
            break
        frames += 1
        at += size
    zeros = next(find(file, SOUND, at, link.end), link.end) - at if at < link.end else 0
    if at + zeros < link.end:
        return Link(link.start, link.end, damage=f"after {frames * FRAME_SECONDS:.2f} s: {zeros} bytes are zeros")
    return Link(link.start, min(at, link.end), cut=f"the last {zeros} bytes are zeros" if zeros > PADDING else None)
