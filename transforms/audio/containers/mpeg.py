"""MPEG audio (MP3): consecutive frames with tags between them, and LAME headers that count the frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from echo_targets.transforms.audio.containers.base import SOUND, TOLERANCE, Link, Seekable, find, is_padding, read_at

BIT_RATES = {
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""kbit/s by (is MPEG-1, layer)."""


class Frame(NamedTuple):
    """A frame's header: size in bytes, samples, rate in Hz, offset of a header that counts frames, and layer."""

    size: int
    samples: int
    rate: int
    count_at: int
    layer: int


@dataclass
class _Stream:
    """The current link: its frames, and the count in its first one."""

    start: int
    seconds: float = 0.0
    frames: int = 0
    counted: int = 0
    frame: Frame | None = None
    damage: str | None = None
    cut: str | None = None

    def link(self, end: int) -> Link:
        if self.frame is None:
            return Link(self.start, end)
        frame = self.frame.samples / self.frame.rate
        missing = (self.counted - self.frames) * frame
        promised = self.seconds + missing
        counts_itself = 2.5 * frame  # some headers count their own frame, and the last frame may be truncated
        cut = f"its header counts {promised:.2f} s" if missing > max(TOLERANCE, counts_itself) else None
        return Link(self.start, end, damage=self.damage, cut=cut or self.cut)


def mp3(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of an MP3 file. A new one begins at a header that counts frames, or after a tag."""
    links: list[Link] = []
    stream, at = _Stream(start), start
    while at < end:
        head = read_at(file, at, 64)
        if tag := tag_size(file, at, head, end):
            if stream.frames and head[:3] == b"ID3":
                links.append(stream.link(at))
                stream = _Stream(at)
            at += tag
            continue
        frame = frame_of(head)
        if frame is None:
            following = _next_frame(file, at, end)
            if stream.frames and stream.damage is None and _matters(file, at, following, end, stream):
                if following == end and _only_zeros(file, at, end):
                    stream.cut = f"the last {end - at} bytes are zeros"
                else:
                    stream.damage = f"after {stream.seconds:.2f} s: {following - at} bytes are not MPEG audio"
            at = following
            continue
        if at + frame.size > end:
            break
        counted = _counted(head, frame)
        if counted is None:
            stream.frames += 1
            stream.seconds += frame.samples / frame.rate
        else:
            if stream.frames:
                links.append(stream.link(at))
                stream = _Stream(at)
            stream.counted = counted
        stream.frame = frame
        at += frame.size
    return [*links, stream.link(end)]


def frame_of(head: bytes) -> Frame | None:
    """Return the frame that a header begins, or None if it is not a header."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bit_rate, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bit_rate in (0, 15) or rate == 3:
        return None
    first = version == 3
    hertz = (44_100, 48_000, 32_000)[rate] >> {3: 0, 2: 1, 0: 2}[version]
    samples = 384 if layer == 1 else 1152 if first or layer == 2 else 576
    padding = head[2] >> 1 & 1
    bits = BIT_RATES[first, layer][bit_rate - 1] * 1000
    size = (12 * bits // hertz + padding) * 4 if layer == 1 else samples // 8 * bits // hertz + padding
    mono = head[3] >> 6 == 3
    side = (17 if mono else 32) if first else (9 if mono else 17)
    return Frame(size, samples, hertz, 4 + side, layer)


def _counted(data: bytes, frame: Frame) -> int | None:
    """Return the frame count of a Xing, Info or VBRI header (0 if it has none); None if this is not such a header."""
    for at in (frame.count_at, frame.count_at + 2):  # two bytes of checksum may come first
        if data[at : at + 4] in (b"Xing", b"Info"):
            return int.from_bytes(data[at + 8 : at + 12], "big") if data[at + 7] & 1 else 0
    return int.from_bytes(data[50:54], "big") if data[36:40] == b"VBRI" else None


def tag_size(file: Seekable, at: int, head: bytes, end: int) -> int:
    """Return the size of the tag that begins here in bytes, or 0 if none does."""
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 128:
        size = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
        return 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:8] == b"APETAGEX" and len(head) >= 16:
        return 32 + int.from_bytes(head[12:16], "little")
    if head[:11] == b"LYRICSBEGIN":
        last = next(find(file, re.compile(rb"LYRICSEND|LYRICS200"), at, end), end - 9)
        return last + 9 - at
    if head[:4] == b"TAG+":
        return 227
    return 128 if head[:3] == b"TAG" else 0


def _next_frame(file: Seekable, at: int, end: int) -> int:
    """Return where frames continue: at a header that another one follows, or at a tag."""
    for place in find(file, re.compile(rb"\xff[\xe2-\xff]|ID3[\x02-\x04]\x00|APETAGEX|LYRICSBEGIN"), at + 1, end):
        head = read_at(file, place, 4)
        if head[0] != 0xFF:
            return place
        frame = frame_of(head)
        if frame and (frame_of(read_at(file, place + frame.size, 4)) or place + frame.size == end):
            return place
    return end


def _matters(file: Seekable, at: int, following: int, end: int, stream: _Stream) -> bool:
    """Return True if bytes between frames replace lost speech: more than two frames long, and not padding."""
    assert stream.frame is not None
    if following == end and read_at(file, end - 128, 3) == b"TAG":
        following = max(at, end - 128)
    size = following - at
    if _only_zeros(file, at, following):
        is_whole = 0 < stream.counted <= stream.frames + 1  # some headers count their own frame
        return not (is_whole or is_padding(size, end - stream.start))
    return size > 2 * stream.frame.size


def _only_zeros(file: Seekable, start: int, end: int) -> bool:
    return next(find(file, SOUND, start, end), None) is None
