"""Files inside tar archives. Each is located by its bytes, so it can be opened without unpacking the archive.

A locator is `ARCHIVE::OFFSET+SIZE::NAME`: the archive's path, where the file's bytes are in it, and the file's name.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from echo_targets.transforms.audio.containers.base import Link, Span, read_at, size_of
from echo_targets.transforms.audio.waveforms import header_seconds
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.sources.base import BYTES_PER_SECOND, MEMBER, Files
from echo_targets.transforms.sources.values import BadLine

COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of compressed archives, in which no file can be found by its position."""


class Member(NamedTuple):
    """A file inside an archive.

    Attributes:
        name: its path in the archive, without a leading `./`.
        offset, size: its bytes in the archive.
        fault: why its bytes are not those of a file; None if they are.
    """

    name: str
    offset: int
    size: int
    fault: str | None

    def locator(self, archive: str) -> str:
        return f"{archive}::{self.offset}+{self.size}::{self.name}"

    def read(self, file: BinaryIO) -> bytes:
        """Return the file's bytes from the open archive."""
        return read_at(file, self.offset, self.size)

    def seconds(self, file: BinaryIO) -> float:
        """Return the duration of an audio file of the open archive, by its header or its size."""
        span = Span(file, Link(self.offset, self.offset + self.size))
        return header_seconds(span) or self.size / BYTES_PER_SECOND


def members(file: BinaryIO) -> Iterator[Member]:
    """Yield the files of an open archive, in order. Between two, the archive may be read at other positions.

    `tarfile` takes a broken or missing header for the archive's end, so the end is checked here.

    Raises:
        BadLine: the archive is compressed, damaged or incomplete. Raised after the files before that place.
    """
    size = size_of(file)
    start = read_at(file, 0, 8)
    for magic, kind in COMPRESSED.items():
        if start.startswith(magic):
            raise BadLine(f"is compressed with {kind}, so its files can't be opened one by one; decompress it")
    file.seek(0)
    try:
        archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (closing it would do nothing)
        before = -1
        while (info := archive.next()) is not None:
            if info.size < 0 or info.offset <= before:  # a forged size, by which `tarfile` would never end
                raise BadLine(f"has a damaged header of {info.name!r}; copy it again")
            before = info.offset
            archive.members = []  # type: ignore[attr-defined]  # otherwise every header would stay in memory
            if info.isreg() or info.islnk() or info.issym():
                if info.offset_data + info.size > size:
                    raise BadLine(f"is truncated inside of {info.name!r}; copy it again")
                fault = None if info.isreg() and info.sparse is None else "is a link or has holes; pack the file itself"
                yield Member(info.name.removeprefix("./"), info.offset_data, info.size, fault)
        _check_end(file, archive.offset, size)
    except tarfile.TarError as error:
        raise BadLine(f"is not a readable tar archive ({error}); copy it again") from error


def open_member(files: Files, locator: str) -> bytes:
    """Return the bytes that a locator names.

    Raises:
        BadData: the archive is shorter than when it was listed.
        OSError: the archive can't be read.
    """
    found = MEMBER.fullmatch(locator)
    assert found, locator
    archive, offset, size = found[1], int(found[2]), int(found[3])
    data = files.read(archive, offset, size)
    if len(data) < size:
        raise BadData("truncated", f"is incomplete: {archive} has become shorter; run the job again to list it again")
    return data


def _check_end(file: BinaryIO, end: int, size: int) -> None:
    """Check that an archive ends with a block of zeros, and that nothing follows but zeros.

    Raises:
        BadLine: it does not.
    """
    if not read_at(file, end, tarfile.BLOCKSIZE):
        raise BadLine("has no end mark: it is truncated, or its writer was stopped; copy it again")
    for at in range(end, size, tarfile.RECORDSIZE):
        block = read_at(file, at, tarfile.RECORDSIZE)
        if rest := block.lstrip(b"\0"):
            first = at + len(block) - len(rest)
            what = "another archive follows" if first >= end + tarfile.BLOCKSIZE else "its header is damaged"
            raise BadLine(f"can't be read from byte {first} on: {what}; copy it again, or split it")
