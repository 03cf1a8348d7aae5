"""Containers by their first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable

from echo_targets.transforms.audio.containers.amr import amr
from echo_targets.transforms.audio.containers.base import Link, Seekable, find, read_at, size_of, split
from echo_targets.transforms.audio.containers.flv import flv
from echo_targets.transforms.audio.containers.mp4_matroska import matroska, mp4
from echo_targets.transforms.audio.containers.mpeg import frame_of, mp3
from echo_targets.transforms.audio.containers.ogg import ogg
from echo_targets.transforms.audio.containers.riff import W64_RIFF, aiff, au, caf, other_riff, sphere, wav, wave64
from echo_targets.transforms.audio.containers.trailing_data import reject_other_within

Walk = Callable[[Seekable, int, int], list[Link]]

FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
TTA = re.compile(rb"TTA1[\x01-\x03]\x00")
WAVPACK = re.compile(
    rb"wvpk.{4}[\x02-\x10]\x04.{6}\0{4}(?!\0{4}).{4}.["
    + re.escape(bytes(flags for flags in range(256) if flags & 0x08))
    + b"]",
    re.DOTALL,
)
"""The first block of a recording: it starts at sample 0, holds samples, and is the first of its channels' blocks."""


def _joined(pattern: re.Pattern[bytes]) -> Walk:
    """Return a walk that splits a file where its first bytes occur again."""

    def walk(file: Seekable, start: int, end: int) -> list[Link]:
        links = split(Link(start, end), list(find(file, pattern, start + 1, end)))
        for link in links:
            reject_other_within(file, _first_frame(file, link), link.end, may_hold_mp3=False)
        return links

    return walk


def _first_frame(file: Seekable, link: Link) -> int:
    """Return where FLAC's frames begin. Its metadata may hold the header of the original WAV, so it is skipped."""
    at = link.start
    if read_at(file, at, 4) != b"fLaC":
        return at + 1
    at, last = at + 4, False
    while not last and at < link.end:
        head = read_at(file, at, 4)
        last = len(head) < 4 or head[0] > 127
        at += 4 + int.from_bytes(head[1:4], "big")
    return at


WALKS: dict[bytes, tuple[str, Walk]] = {
    b"RIFF": ("wav", wav),
    b"RIFX": ("wav", wav),
    b"RF64": ("wav", wav),
    b"BW64": ("wav", wav),
    b"FORM": ("aiff", aiff),
    b".snd": ("au", au),
    b"caff": ("caf", caf),
    b"NIST_1A": ("sphere", sphere),
    W64_RIFF: ("wave64", wave64),
    b"OggS": ("ogg", ogg),
    b"fLaC": ("flac", _joined(FLAC)),
    b"FLV\x01": ("flv", flv),
    b"TTA1": ("tta", _joined(TTA)),
    b"wvpk": ("wavpack", _joined(WAVPACK)),
    b"#!AMR": ("amr", amr),
    b"\x1a\x45\xdf\xa3": ("matroska", matroska),
}
"""By first bytes: the container's name, and the function that finds the recordings in it."""
TS_PACKET = 188
MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")


def links(file: Seekable) -> tuple[str, list[Link]]:
    """Return the name of a file's container (empty if unknown) and the recordings in it, in order."""
    end = size_of(file)
    head = read_at(file, 0, 16)
    if head.startswith(b"RIFF") and head[8:12] != b"WAVE":
        return "", other_riff(file, 0, end)
    for magic, (name, walk) in WALKS.items():
        if head.startswith(magic):
            return name, walk(file, 0, end)
    if head[4:8] in MP4_BOXES:
        return "mp4", mp4(file, 0, end)
    if head[:3] == b"ID3":
        size = 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
        if read_at(file, size, 4) == b"fLaC":
            return "flac", _joined(FLAC)(file, size, end)
        return "mp3", mp3(file, 0, end)
    if (frame := frame_of(head)) and frame_of(read_at(file, frame.size, 4)):
        return "mp3", mp3(file, 0, end)
    if _is_adts(head) or _is_mpeg_ts(file):
        reject_other_within(file, 1, end, may_hold_mp3=True)
    return "", [Link(0, end)]


def _is_adts(head: bytes) -> bool:
    return head[:1] == b"\xff" and head[1] & 0xF6 == 0xF0


def _is_mpeg_ts(file: Seekable) -> bool:
    return all(read_at(file, number * TS_PACKET, 1) == b"\x47" for number in range(3))
