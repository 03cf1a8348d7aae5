"""MP4 and Matroska (M4A, MOV, WebM, MKV): boxes that state their length."""

from __future__ import annotations

import re

from echo_targets.transforms.audio.containers.base import Link, Seekable, find, read_at
from echo_targets.transforms.audio.containers.trailing_data import recording_at, reject_other

MAX_BOXES = 1_000_000
EBML = re.compile(rb"\x1a\x45\xdf\xa3(?:[\x80-\xff]|[\x40-\x7f].|\x01.{7})\x42\x86\x81\x01", re.DOTALL)
FTYP = re.compile(rb"\x00\x00\x00.ftyp", re.DOTALL)
SEGMENT = b"\x18\x53\x80\x67"


def mp4(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of an MP4 file; there are several if files were joined."""
    links: list[Link] = []
    at, first, fragmented = start, start, False
    for _ in range(MAX_BOXES):
        head = read_at(file, at, 16)
        if len(head) < 8 or recording_at(file, at, end) not in (None, "MP4"):
            break
        if not any(head[:8]):  # padding
            at = next(find(file, FTYP, at, end), end)
            continue
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        elif size == 0:
            size = end - at
        if size < 8:
            break
        if head[4:8] == b"ftyp" and at > first:
            links.append(Link(first, at))
            first, fragmented = at, False
        fragmented |= head[4:8] == b"moof"
        at += size
    if first < at < end:
        reject_other(file, at, end)
    cut = "its last fragment is incomplete" if fragmented and at > end else None
    return [*links, Link(first, end, max(at, end) - first, end - first, cut=cut)]


def matroska(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of a WebM or Matroska file; there are several if files were joined."""
    starts = [start, *find(file, EBML, start + 1, end)]
    return [_matroska(file, first, last) for first, last in zip(starts, [*starts[1:], end], strict=True)]


def _matroska(file: Seekable, start: int, end: int) -> Link:
    head = read_at(file, start, 4096)
    at = 4 + _width(head[4:])
    at += _number(head[4:]) or 0
    if head[at : at + 4] != SEGMENT or at + 5 > len(head):
        return Link(start, end)
    size = _number(head[at + 4 :])
    if size is None:  # a live stream
        return Link(start, end)
    claimed = at + 4 + _width(head[at + 4 :]) + size
    reject_other(file, start + claimed, end)
    return Link(start, end, max(claimed, end - start), end - start)


def _width(data: bytes) -> int:
    return 9 - data[0].bit_length() if data and data[0] else 8


def _number(data: bytes) -> int | None:
    """Return the variable-length integer at the start of the bytes; None for the value that means "unknown"."""
    width = _width(data)
    value = int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1)
    return None if value == (1 << 7 * width) - 1 else value
