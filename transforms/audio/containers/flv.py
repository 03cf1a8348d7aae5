"""Flash video (FLV): tags with timestamps. The first tag may state the recording's duration."""

from __future__ import annotations

import re
import struct

from echo_targets.transforms.audio.containers.base import Link, Seekable, find, read_at, split
from echo_targets.transforms.audio.containers.trailing_data import recording_at, reject_other

FLV = re.compile(rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09")
DURATION = re.compile(rb"\x00\x08duration\x00(.{8})", re.DOTALL)
KINDS = (8, 9, 18)
"""Types of tags: audio, video and metadata."""
METADATA = 1 << 16
SLACK = 0.5
"""By how many seconds the last tag may begin before the end that the metadata states."""


def flv(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of an FLV file; there are several if files were joined."""
    return [_flv(file, link) for link in split(Link(start, end), list(find(file, FLV, start + 1, end)))]


def _flv(file: Seekable, link: Link) -> Link:
    at, last, promised = link.start + 13, 0.0, 0.0
    while at < link.end:
        head = read_at(file, at, 11)
        size = int.from_bytes(head[1:4], "big")
        if len(head) < 11 or head[0] & 31 not in KINDS or recording_at(file, at, link.end):
            break
        if head[0] == 18 and not promised and (found := DURATION.search(read_at(file, at + 11, min(size, METADATA)))):
            promised = struct.unpack(">d", found[1])[0]
        if at + 11 + size <= link.end:
            last = max(last, int.from_bytes(head[7:8] + head[4:7], "big") / 1000)
        at += 11 + size + 4
    reject_other(file, at, link.end)
    cut = f"its header says {promised:.2f} s" if promised - last > SLACK else None
    return Link(link.start, link.end, cut=cut)
