"""Ogg (RFC 3533): numbered pages with checksums, and marks where a stream begins and ends."""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

from echo_targets.transforms.audio.containers.base import Link, Seekable, find, read_at
from echo_targets.transforms.audio.containers.trailing_data import reject_other

BEGINS, ENDS = 2, 4
CAPTURE = re.compile(b"OggS")
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Stream:
    """A logical stream of audio: rate of its positions in Hz, last position in seconds, number of the next page."""

    rate: int
    seconds: float = 0.0
    following: int = 0
    ended: bool = False


@dataclass
class _Chain:
    """The current link; `partial` is True if its last page is truncated."""

    start: int
    streams: dict[int, _Stream] = field(default_factory=dict)
    has_data: bool = False
    damage: str | None = None
    partial: bool = False

    def link(self, end: int) -> Link:
        open_streams = [stream for stream in self.streams.values() if not stream.ended]
        cut = "its last page does not end the stream" if open_streams else None
        cut = cut or ("its last page is truncated" if self.partial else None)
        return Link(self.start, end, damage=self.damage, cut=cut)


def ogg(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of an Ogg file: the links of its chain."""
    links: list[Link] = []
    chain = _Chain(start)
    at = start
    while at < end:
        head = read_at(file, at, 27 + 255)
        table = head[27 : 27 + head[26]] if len(head) > 26 else b""
        size = 27 + len(table) + sum(table)
        if head[:4] != b"OggS" or at + size > end:
            break
        if head[5] & BEGINS and chain.has_data:
            links.append(chain.link(at))
            chain = _Chain(at)
        _take(chain, head, len(table), read_at(file, at, size))
        at += size
    chain.partial = read_at(file, at, min(4, max(0, end - at))) == b"OggS"
    if at < end and not chain.partial:
        reject_other(file, at, end)
        if next(find(file, CAPTURE, at, end), None) is not None:
            seconds = max((stream.seconds for stream in chain.streams.values()), default=0.0)
            chain.damage = chain.damage or f"after {seconds:.2f} s: what follows is not an Ogg page"
    return [*links, chain.link(end)]


def _take(chain: _Chain, head: bytes, segments: int, page: bytes) -> None:
    """Record the contents of one page."""
    serial, number = int.from_bytes(head[14:18], "little"), int.from_bytes(head[18:22], "little")
    if head[5] & BEGINS:
        rate = _rate(page[27 + segments :])
        if rate:
            chain.streams[serial] = _Stream(rate)
    else:
        chain.has_data = True
    stream = chain.streams.get(serial)
    if stream is None:
        return
    if not _is_whole(page):
        chain.damage = chain.damage or f"after {stream.seconds:.2f} s: the checksum of an Ogg page is wrong"
    elif number != stream.following and not head[5] & BEGINS:
        pages = f"Ogg page {number} follows page {stream.following - 1}"
        chain.damage = chain.damage or f"after {stream.seconds:.2f} s: {pages}"
    position = int.from_bytes(head[6:14], "little", signed=True)
    if position > 0:
        stream.seconds = position / stream.rate
    stream.following = number + 1
    stream.ended = bool(head[5] & ENDS)


def _rate(packet: bytes) -> int:
    """Return the rate in Hz of a stream's positions from its first packet; 0 if it is not known audio."""
    if packet.startswith(b"OpusHead"):
        return 48_000
    if packet.startswith(b"\x01vorbis"):
        return int.from_bytes(packet[12:16], "little")
    if packet.startswith(b"\x7fFLAC"):
        return int.from_bytes(packet[27:30], "big") >> 4
    if packet.startswith(b"Speex   "):
        return int.from_bytes(packet[36:40], "little")
    return 0


def _is_whole(page: bytes) -> bool:
    """Return True if a page's CRC is right: zlib's polynomial with reversed bits, initial value 0 and no inversion."""
    reversed_bits = zlib.crc32((page[:22] + bytes(4) + page[26:]).translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    checksum = int(f"{reversed_bits:032b}"[::-1], 2)
    return checksum == int.from_bytes(page[22:26], "little")
