"""Files that are not audio but are often found where audio is expected."""

from __future__ import annotations

import re

from echo_targets.transforms.audio.containers.base import BadAudio, Seekable, read_at, size_of, zeros_at_end

GIT_LFS = b"version https://git-lfs.github.com/spec/"
PAGE = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!doctype html|html|head|body|script)\b", re.I | re.S)
MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml\b", re.I)
JSON = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*"')
PACKED = {
    b"\x1f\x8b\x08": "gzip",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
}
HEAD = 1024


def reject_other_file(file: Seekable) -> None:
    """Raise BadAudio if an open file is a web page, a Git LFS pointer, an archive or only zeros."""
    head = read_at(file, 0, HEAD)
    problem = _described(head)
    if problem is None and not any(head) and zeros_at_end(file, 0, size := size_of(file)) == size:
        problem = "holds only zeros: fetch it again"
    if problem is not None:
        raise BadAudio("unreadable", problem)


def _described(head: bytes) -> str | None:
    """Describe a file by its first bytes, and what to do about it; None if it may be audio."""
    if head.startswith(GIT_LFS):
        return "is a Git LFS pointer: run git lfs pull"
    if PAGE.match(head):
        return "is an HTML page, such as a server's error or login page: fetch it again"
    if MARKUP.match(head):
        return "is an XML document, such as a server's error: fetch it again"
    if JSON.match(head):
        return "is a JSON document, such as a server's error: fetch it again"
    if head[257:262] == b"ustar":
        return "is a tar archive: unpack it"
    kind = next((kind for magic, kind in PACKED.items() if head.startswith(magic)), None)
    return f"is a {kind} file: unpack it" if kind else None
