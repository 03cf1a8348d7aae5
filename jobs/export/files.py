"""Files of an export. Each appears under its name as a whole, and the same rows give the same bytes."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from echo_targets.schemas.dataset.storage import Storage

STATE = ".export"
"""Folder of what a finished export does not need."""
WRITERS = 8
"""Files that are written at once; a disk or a store takes longer to answer than to receive a file."""


def json_line(value: Any) -> bytes:
    """Return a value as JSON in ASCII on one line, which every loader reads whatever its locale."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode() + b"\n"


class FileWriter:
    """Writes small files in threads. Use it as a context manager: the end of the block waits until all are there."""

    def __init__(self, out: Storage) -> None:
        self._out = out
        self._pool = ThreadPoolExecutor(WRITERS)
        self._waiting = deque[Future[None]]()

    def __enter__(self) -> FileWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for each in self._waiting:
                each.result()

    def put(self, path: str, data: bytes) -> None:
        """Start to write a file; waits while as many are being written as there are threads.

        Raises:
            OSError: an earlier file could not be written.
        """
        if len(self._waiting) == WRITERS:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._out.write, path, data))


@contextmanager
def writing(out: Storage, path: str) -> Iterator[pa.NativeFile]:
    """Open a large file, and put it in place at the end of the block unless that raises."""
    file = out.writing(path)
    try:
        with file.sink() as sink:
            yield sink
        file.put()
    finally:
        file.discard()


class Tar:
    """Writes a tar archive to an open file. Times and owners are left out."""

    def __init__(self, sink: pa.NativeFile) -> None:
        self._sink = sink

    def add(self, name: str, data: bytes) -> None:
        """Add a file; its name has at most 100 characters."""
        about = tarfile.TarInfo(name)
        about.size = len(data)
        padding = bytes(-len(data) % tarfile.BLOCKSIZE)
        self._sink.write(b"".join([about.tobuf(tarfile.USTAR_FORMAT), data, padding]))

    def close(self) -> None:
        """Write the end of the archive."""
        self._sink.write(bytes(2 * tarfile.BLOCKSIZE))


def gzipped(sink: pa.NativeFile) -> gzip.GzipFile:
    """Open a gzip stream that records neither a time nor a name."""
    return gzip.GzipFile(filename="", mode="wb", fileobj=sink, mtime=0)


def part(split: str, number: int) -> str:
    """Return the path of a piece's lines, from which `finish` makes an index."""
    return f"{STATE}/lines/{split}-{number:05d}"


def join(
    out: Storage, path: str, parts: Iterable[str], between: bytes = b"", ends: tuple[bytes, bytes] = (b"", b"")
) -> None:
    """Write the lines of several files as one file.

    Args:
        between: what separates the lines, beside their line feeds.
        ends: what comes before the first line and after the last.
    """
    with writing(out, path) as sink:
        sink.write(ends[0])
        is_first = True
        for name in parts:
            for line in out.read(name).splitlines(keepends=True):
                sink.write(line if is_first or not between else between + line)
                is_first = False
        sink.write(ends[1])
