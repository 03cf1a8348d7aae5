"""WAV, RF64, Wave64, AIFF, AU, CAF and NIST SPHERE: containers whose header counts the bytes of samples."""

from __future__ import annotations

import re
from dataclasses import replace

from echo_targets.transforms.audio.containers.base import TOLERANCE, Link, Seekable, find, read_at
from echo_targets.transforms.audio.containers.trailing_data import (
    after_padding,
    recording_at,
    reject_other,
    reject_other_within,
    reject_unknown,
)

MAX_CHUNKS = 10_000
MAX_BYTE_RATE = 1 << 20
"""Maximum credible bytes per second in a header: 96 kHz in stereo at 32 bits is less."""
WAVES = (b"RIFF", b"RIFX", b"RF64", b"BW64")
CHUNKS = (b"LIST", b"INFO", b"id3 ", b"ID3 ", b"bext", b"cue ", b"smpl", b"PEAK", b"fact", b"iXML", b"_PMX", b"JUNK")
"""Chunks after the samples that may themselves be truncated."""
JOINED = re.compile(rb"RIFF....WAVE(?:fmt |JUNK|LIST|bext)", re.DOTALL)
CAF = re.compile(rb"caff\x00\x01\x00\x00desc\x00{4}")
NIST = b"NIST_1A\n"
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")


def wav(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of a WAV or RF64 file; there are several if WAV files were joined."""
    links: list[Link] = []
    while start < end and (not links or _is_wave(file, start)):
        links.append(_wav(file, start, end))
        start = links[-1].end
    return links


def other_riff(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recording of a RIFF file that is not WAV, such as AVI."""
    size = int.from_bytes(read_at(file, start + 4, 4), "little") + 8
    known = size > 8 and not _is_placeholder(size, end - start)
    if known:
        reject_other(file, start + size + size % 2, end, but="AVI")
    return [Link(start, end, max(size, end - start), end - start) if known else Link(start, end)]


def _wav(file: Seekable, start: int, end: int) -> Link:
    order = "big" if read_at(file, start, 4) == b"RIFX" else "little"
    at, long_size, byte_rate = start + 12, None, 0
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, 8)
        if len(head) < 8:
            break
        name, size = head[:4], int.from_bytes(head[4:], order)  # type: ignore[arg-type]
        if name == b"ds64":
            long_size = int.from_bytes(read_at(file, at + 16, 8), "little")
        if name == b"fmt ":
            byte_rate = int.from_bytes(read_at(file, at + 16, 4), order)  # type: ignore[arg-type]
        if name == b"data":
            if size == 0xFFFFFFFF and long_size:
                size = long_size
            return _data(file, start, at, size, end, order, round(TOLERANCE * min(byte_rate, MAX_BYTE_RATE)))
        at += 8 + size + size % 2
    return Link(start, end)


def _data(file: Seekable, start: int, at: int, claimed: int, end: int, order: str, allowed: int) -> Link:
    """Return the link of a WAV file whose chunk `data` is at `at` and claims `claimed` bytes.

    Raises:
        BadAudio: another recording follows, or more than `allowed` bytes that may be samples.
    """
    has = end - at - 8
    if _is_placeholder(claimed, has) and _after_chunks(file, at + 8, end, order) != (end, 0):
        following = next(find(file, JOINED, at + 8, end), end)
        reject_other_within(file, at + 8, following, may_hold_mp3=True)
        has = following - at - 8
        return _mended(Link(start, following, has, has), at, order)
    if claimed >= has:
        return Link(start, end, claimed, has)
    after, unread = _after_chunks(file, at + 8 + claimed, end, order)
    following = after_padding(file, after, end)
    if _is_wave(file, following):
        return Link(start, following, claimed + unread, claimed)
    reject_unknown(file, after, end, allowed)
    return Link(start, after, claimed + unread, claimed)


def _after_chunks(file: Seekable, at: int, end: int, order: str) -> tuple[int, int]:
    """Return the end of the chunks after the samples, and the bytes of samples in them, which libsndfile ignores.

    Not all writers put the byte of padding before a chunk.
    """
    unread = 0
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, 9)
        if not _is_name(head[:4]) and _is_name(head[1:5]):
            at, head = at + 1, head[1:]
            head += read_at(file, at + len(head), 1)
        size = int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
        fits = at + 8 + size <= end + 1 or head[:4] in (*CHUNKS, b"data")
        if len(head) < 8 or not _is_name(head[:4]) or not fits or recording_at(file, at, end):
            break
        if head[:4] == b"data":
            unread += size
        at += 8 + size
    return min(at, end), unread


def _is_wave(file: Seekable, at: int) -> bool:
    head = read_at(file, at, 12)
    return head[:4] in WAVES and head[8:] == b"WAVE"


def _is_placeholder(claimed: int, has: int) -> bool:
    """Return True if a size is a placeholder: 0, near 2^31 or 2^32, or a whole number of millions above a billion."""
    near = any(abs(claimed - edge) <= 1 << 20 for edge in (1 << 31, 1 << 32))
    return claimed == 0 < has or (claimed > has and (near or (claimed >= 10**9 and claimed % 10**6 == 0)))


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _mended(link: Link, at: int, order: str) -> Link:
    if link.present >= 1 << 32:
        return link
    return replace(link, size_field=(at + 4, link.present.to_bytes(4, order)))  # type: ignore[arg-type]


def wave64(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of a Sony Wave64 file; there are several if files were joined."""
    links: list[Link] = []
    while start < end and (not links or read_at(file, start, 16) == W64_RIFF):
        link, start = _wave64(file, start, end)
        links.append(link)
    return links


def _wave64(file: Seekable, start: int, end: int) -> tuple[Link, int]:
    """Return a link that ends with its samples (libsndfile would read on), and the end of its chunks."""
    at, link = start + 40, Link(start, end)
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, 24)
        size = int.from_bytes(head[16:24], "little")
        if len(head) < 24 or size < 24 or recording_at(file, at, end):
            break
        if head[:4] == b"data":
            link = Link(start, min(end, at + size), size - 24, min(size - 24, end - at - 24))
        elif at + size > end:
            break
        at += size + -size % 8
    if not link.claimed:
        return link, end
    if read_at(file, at, 16) != W64_RIFF:
        reject_unknown(file, at, end)
    return link, at


def aiff(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of an AIFF or AIFF-C file; there are several if files were joined."""
    links: list[Link] = []
    while start < end and (not links or read_at(file, start, 4) == b"FORM"):
        size = int.from_bytes(read_at(file, start + 4, 4), "big") + 8
        following = start + size + size % 2
        stop = following if read_at(file, following, 4) == b"FORM" else end
        at, link = start + 12, Link(start, stop)
        for _ in range(MAX_CHUNKS):
            head = read_at(file, at, 8)
            if len(head) < 8:
                break
            size = int.from_bytes(head[4:], "big")
            if head[:4] == b"SSND":
                link = Link(start, stop, size - 8, min(size - 8, stop - at - 16))
            at += 8 + size + size % 2
        if stop == end and link.claimed:
            reject_other(file, following, end)
        links.append(link)
        start = stop
    return links


def au(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of a Sun AU file; there are several if files were joined."""
    links: list[Link] = []
    while start < end and (not links or read_at(file, start, 4) == b".snd"):
        head = read_at(file, start, 12)
        offset, size = (int.from_bytes(head[place : place + 4], "big") for place in (4, 8))
        following = start + offset + size
        stop = following if offset and read_at(file, following, 4) == b".snd" else end
        known = 0 < size < 0xFFFFFFFF
        if known and stop == end:
            reject_unknown(file, following, end)
        links.append(Link(start, stop, size, min(size, stop - start - offset)) if known else Link(start, stop))
        start = stop
    return links


def caf(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of an Apple CAF file; there are several if files were joined."""
    starts = [start, *find(file, CAF, start + 1, end)]
    return [_caf(file, first, last) for first, last in zip(starts, [*starts[1:], end], strict=True)]


def _caf(file: Seekable, start: int, end: int) -> Link:
    at, link = start + 8, Link(start, end)
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, min(12, end - at))
        size = int.from_bytes(head[4:], "big", signed=True)
        if len(head) < 12 or not _is_name(head[:4]) or recording_at(file, at, end):
            break
        if head[:4] == b"data":
            has = end - at - 12
            link = Link(start, end, has if size < 0 else size, has if size < 0 else min(size, has))
            if size < 0:
                return link
        at += 12 + max(0, size)
    if link.claimed:
        reject_unknown(file, at, end)
    return link


def sphere(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of a NIST SPHERE file; there are several if files were joined."""
    links: list[Link] = []
    while start < end and (not links or read_at(file, start, len(NIST)) == NIST):
        links.append(_sphere(file, start, end))
        start = links[-1].end
    return links


def _sphere(file: Seekable, start: int, end: int) -> Link:
    head = read_at(file, start, 1024)
    fields = dict(re.findall(rb"(\w+) -i (\d+)", head))
    coded = re.search(rb"sample_coding -s\d+ \S*,", head)
    counts = [int(fields.get(name, 0)) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    size = re.match(rb"NIST_1A\s+(\d+)\s", head)
    if coded or not all(counts) or not size:
        return Link(start, end)
    claimed = counts[0] * counts[1] * counts[2]
    following = start + int(size[1]) + claimed
    stop = following if read_at(file, following, len(NIST)) == NIST else end
    if stop == end:
        reject_unknown(file, following, end)
    stop = min(following, end)  # otherwise libsndfile would read on
    return Link(start, stop, claimed, min(claimed, stop - start - int(size[1])))
