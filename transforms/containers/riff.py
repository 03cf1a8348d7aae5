"""WAV, RF64, Wave64, AIFF, AU, CAF and NIST SPHERE: a header that counts the bytes of its samples."""

from __future__ import annotations

import re
from dataclasses import replace

from transforms.containers.base import Link, Seekable, find, read_at

MAX_CHUNKS = 10_000
JOINED = re.compile(rb"RIFF....WAVE(?:fmt |JUNK|LIST|bext)", re.DOTALL)
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN")
W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")


def wav(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of a WAV or RF64 file; several WAV files may have been joined."""
    links: list[Link] = []
    while start < end and (not links or read_at(file, start, 4) in (b"RIFF", b"RIFX", b"RF64", b"BW64")):
        links.append(_wav(file, start, end))
        start = links[-1].end
    return links


def other_riff(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recording of a RIFF file that is no WAV, such as AVI."""
    size = int.from_bytes(read_at(file, start + 4, 4), "little") + 8
    known = size > 8 and not _is_placeholder(size, end - start)
    return [Link(start, end, max(size, end - start), end - start) if known else Link(start, end)]


def _wav(file: Seekable, start: int, end: int) -> Link:
    order = "big" if read_at(file, start, 4) == b"RIFX" else "little"
    at, long_size = start + 12, None
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, 8)
        if len(head) < 8:
            break
        name, size = head[:4], int.from_bytes(head[4:], order)  # type: ignore[arg-type]
        if name == b"ds64":
            long_size = int.from_bytes(read_at(file, at + 16, 8), "little")
        if name == b"data":
            if size == 0xFFFFFFFF and long_size:
                size = long_size
            return _data(file, start, at, size, end, order)
        at += 8 + size + size % 2
    return Link(start, end)


def _data(file: Seekable, start: int, at: int, claimed: int, end: int, order: str) -> Link:
    """Return the link of a WAV whose chunk `data` lies at `at` and claims so many bytes."""
    has = end - at - 8
    if _is_placeholder(claimed, has):
        following = next(find(file, JOINED, at + 8, end), end)
        has = following - at - 8
        return _mended(Link(start, following, has, has), at, order)
    if claimed >= has:
        return Link(start, end, claimed, has)
    after = at + 8 + claimed + claimed % 2
    if not _goes_on(file, after, end):  # the header was written early, and never again
        return _mended(Link(start, end, has, has), at, order)
    unread = 0
    for _ in range(MAX_CHUNKS):
        head = read_at(file, after, 12)
        if len(head) < 8 or head[:4] in (b"RIFF", b"RF64") or not _is_name(head[:4]):
            break
        if head[:4] == b"data":  # libsndfile reads the first such chunk and no other
            unread += int.from_bytes(head[4:8], order)  # type: ignore[arg-type]
        after += 8 + int.from_bytes(head[4:8], order) % (1 << 32)  # type: ignore[arg-type]
        after += (after - at) % 2
    joined = read_at(file, after, 4) in (b"RIFF", b"RF64")
    return Link(start, after if joined else end, claimed + unread, claimed)


def _is_placeholder(claimed: int, has: int) -> bool:
    """Return True if a size is a placeholder: 0, near 2^31 or 2^32, or a whole number of millions from a billion on."""
    near = any(abs(claimed - edge) <= 1 << 20 for edge in (1 << 31, 1 << 32))
    return claimed == 0 < has or (claimed > has and (near or (claimed >= 10**9 and claimed % 10**6 == 0)))


def _goes_on(file: Seekable, after: int, end: int) -> bool:
    """Return True if the bytes after the samples are not samples: a chunk, a tag, another file or padding."""
    rest = read_at(file, after, 4096)
    if len(rest) < 8 or rest.startswith(TAGS) or not rest.strip(b"\0"):
        return True
    size = int.from_bytes(rest[4:8], "little")
    return rest[:4] in (b"RIFF", b"RF64") or (_is_name(rest[:4]) and after + 8 + size <= end + 1)


def _is_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _mended(link: Link, at: int, order: str) -> Link:
    if link.present >= 1 << 32:
        return link
    return replace(link, size_field=(at + 4, link.present.to_bytes(4, order)))  # type: ignore[arg-type]


def wave64(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recording of a Sony Wave64 file."""
    at = start + 40
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, 24)
        size = int.from_bytes(head[16:24], "little")
        if len(head) < 24 or size < 24:
            break
        if head[:4] == b"data":
            return [Link(start, end, size - 24, end - at - 24)]
        at += size + -size % 8
    return [Link(start, end)]


def aiff(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of AIFF or AIFF-C files; several may have been joined."""
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
        links.append(link)
        start = stop
    return links


def au(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recordings of Sun AU files; several may have been joined."""
    links: list[Link] = []
    while start < end and (not links or read_at(file, start, 4) == b".snd"):
        head = read_at(file, start, 12)
        offset, size = (int.from_bytes(head[place : place + 4], "big") for place in (4, 8))
        following = start + offset + size
        stop = following if offset and read_at(file, following, 4) == b".snd" else end
        known = 0 < size < 0xFFFFFFFF
        links.append(Link(start, stop, size, min(size, stop - start - offset)) if known else Link(start, stop))
        start = stop
    return links


def caf(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recording of an Apple CAF file."""
    at = start + 8
    for _ in range(MAX_CHUNKS):
        head = read_at(file, at, 12)
        if len(head) < 12:
            break
        size = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data":
            has = end - at - 12
            return [Link(start, end, has if size < 0 else size, has if size < 0 else min(size, has))]
        at += 12 + max(0, size)
    return [Link(start, end)]


def sphere(file: Seekable, start: int, end: int) -> list[Link]:
    """Return the recording of a NIST SPHERE file."""
    head = read_at(file, start, 1024)
    fields = dict(re.findall(rb"(\w+) -i (\d+)", head))
    coded = re.search(rb"sample_coding -s\d+ \S*,", head)
    counts = [int(fields.get(name, 0)) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    if coded or not all(counts):
        return [Link(start, end)]
    claimed = counts[0] * counts[1] * counts[2]
    size = re.match(rb"NIST_1A\s+(\d+)\s", head)
    return [Link(start, end, claimed, min(claimed, end - start - int(size[1]))) if size else Link(start, end)]
