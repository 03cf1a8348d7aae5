"""Data that follows a recording in its file: padding, tags, text, or another recording that no decoder would reach."""

from __future__ import annotations

import re

from echo_targets.transforms.audio.containers.base import SOUND, BadAudio, Seekable, find, read_at
from echo_targets.transforms.audio.containers.mpeg import frame_of, tag_size

RECORDINGS = {
    "WAV": rb"(?:RIFF|RIFX|RF64|BW64).{4}WAVE(?:fmt |JUNK|LIST|bext|ds64|fact)",
    "AVI": rb"RIFF.{4}AVI LIST",
    "FLAC": rb"fLaC[\x00\x80]\x00\x00\x22",
    "Ogg": rb"OggS\x00\x02\x00{8}.{4}\x00{4}",
    "AIFF": rb"FORM.{4}AIF[FC]",
    "AU": rb"\.snd\x00\x00.{6}\x00\x00\x00[\x01-\x1b]\x00",
    "CAF": rb"caff\x00\x01\x00\x00desc",
    "MP4": rb"\x00\x00\x00.ftyp[\w ]{4}",
    "Wave64": rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00",
    "SPHERE": rb"NIST_1A\n",
    "Matroska": rb"\x1a\x45\xdf\xa3.{1,8}\x42\x86\x81\x01",
    "AMR": rb"#!AMR(?:-WB)?\n",
}
"""The first bytes of recordings other than MP3, long enough not to occur in samples by chance."""
COUNTED = (13, 15, 21, 23, 36, 38)
"""Offset of LAME's frame count from the start of an MP3 frame, by version, channels and checksum."""
ANCHORS = {
    **dict.fromkeys((b"RIFF", b"RIFX", b"RF64", b"BW64", b"fLaC", b"OggS\x00\x02", b"FORM", b".snd\x00\x00"), (0,)),
    **dict.fromkeys((b"caff\x00\x01", b"\x1a\x45\xdf\xa3", b"#!AMR", b"ID3", b"NIST_1A\n", b"riff\x2e\x91"), (0,)),
    b"ftyp": (4,),
    b"Xing\x00\x00": COUNTED,
    b"Info\x00\x00": COUNTED,
}
"""Bytes to search for, and the offsets before them at which a recording may begin. Searching for literals is ten times
faster than searching for a pattern of alternatives."""
MP3_FRAMES = 4
"""Consecutive frames of one rate that distinguish MP3 from text and noise."""
JUNK = 400
"""Bytes after the samples to ignore, whatever they are: 50 ms of speech at 8 kHz and 8 bits."""
TEXT = 1 << 16
"""Bytes of text after a recording to ignore."""


def after_padding(file: Seekable, at: int, end: int) -> int:
    """Return the position of the first byte after a recording that is neither a zero nor part of a tag."""
    while at < end:
        at = next(find(file, SOUND, at, end), end)
        head = read_at(file, at, min(64, end - at))
        size = tag_size(file, at, head, end)
        if not size:
            return at
        at += size
    return end


def recording_at(file: Seekable, at: int, end: int) -> str | None:
    """Return the name of the recording that begins at a position, or None."""
    head = read_at(file, at, min(64, max(0, end - at)))
    for name, start in RECORDINGS.items():
        if re.match(start, head, re.DOTALL):
            return name
    if head[:3] == b"ID3":
        at += tag_size(file, at, head, end)
    return "MP3" if _is_mp3(file, at, end) else None


def _is_mp3(file: Seekable, at: int, end: int) -> bool:
    rates = set()
    for _ in range(MP3_FRAMES):
        frame = frame_of(read_at(file, at, 4))
        if frame is None or frame.layer == 1 or at + frame.size > end:
            return False
        rates.add(frame.rate)
        at += frame.size
    return len(rates) == 1


def reject_other(file: Seekable, at: int, end: int, but: str = "") -> None:
    """Raise BadAudio if a recording begins at a position (after any padding), unless its name is `but`."""
    at = after_padding(file, at, end)
    name = recording_at(file, at, end)
    if name is not None and name != but:
        raise _joined(name, at)


def reject_other_within(file: Seekable, start: int, end: int, may_hold_mp3: bool) -> None:
    """Raise BadAudio if another recording begins anywhere in data whose own end is unknown.

    Args:
        file: the open file.
        start, end: where to look.
        may_hold_mp3: True if the data's own codec may be MP3.
    """
    for anchor, places in ANCHORS.items():
        for found in find(file, re.compile(re.escape(anchor)), start, end):
            for at in (found - place for place in places if found - place >= start):
                name = recording_at(file, at, end)
                if name is not None and not (may_hold_mp3 and name == "MP3"):
                    raise _joined(name, at)


def reject_unknown(file: Seekable, at: int, end: int, allowed: int = JUNK) -> None:
    """Raise BadAudio if more than `allowed` bytes follow the samples and are neither tags nor text: perhaps samples.

    Args:
        file: the open file.
        at: end of the samples and chunks.
        end: end of the file.
        allowed: number of bytes to ignore, whatever they are.
    """
    reject_other(file, at, end)
    at = after_padding(file, at, end)
    size = end - at
    if size > allowed and not (size < TEXT and _is_text(read_at(file, at, size))):
        raise BadAudio(
            "damaged",
            f"is damaged: by its header the samples end at byte {at}, but {size} bytes of unknown data follow; cut "
            "them off, or, if they are samples, correct the header",
        )


def _is_text(data: bytes) -> bool:
    """Return True for text in UTF-8 or an older 8-bit encoding, without control characters except line ends."""
    return not re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", data) and sum(byte < 128 for byte in data) > 0.7 * len(data)


def _joined(name: str, at: int) -> BadAudio:
    return BadAudio(
        "joined", f"is followed by another recording, which no decoder would reach: {name} at byte {at}; split the file"
    )
