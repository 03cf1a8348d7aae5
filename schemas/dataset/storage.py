"""Where files lie: a folder of this machine, or a bucket that fsspec reaches (`s3://`, `gs://`).

A file appears under its name whole or not at all. A folder gives that by a temporary name beside it and a rename; an
object store, which has no rename, by one complete put. Errors are those of a disk: FileNotFoundError, PermissionError,
or another OSError for whatever else a network or a server does wrong.
"""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import ClassVar

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, PyFileSystem

from echo_targets.schemas.dataset.object_store import Objects

TEMPORARY = ".tmp-"


def is_url(place: str) -> bool:
    """Whether a place is a URL, not a path of this machine."""
    return "://" in place


def split(place: str) -> tuple[str, str]:
    """A file's folder and its name; the folder of a bare name is `.`."""
    if is_url(place):
        folder, _, name = place.rpartition("/")
        return folder, name
    return os.path.dirname(place) or ".", os.path.basename(place)


def open_root(root: str) -> tuple[FileSystem, str]:
    """The file system that a root is on, and the root's path there. Cheap: connections are made when they are used.

    Args:
        root: a path of this machine or a URL. Credentials of a URL come from the environment.

    Raises:
        UserError: no such kind of URL, or what reaches it is not installed.
    """
    if is_url(root) and not root.startswith("file://"):
        objects = Objects(root)
        return PyFileSystem(objects), objects.base
    from pathlib import Path

    return FileSystem.from_uri(root if is_url(root) else Path(root).absolute().as_uri())


def storage_of(filesystem: FileSystem, base: str) -> Storage:
    """What `open_root` gives, as a storage."""
    if isinstance(filesystem, PyFileSystem) and isinstance(filesystem.handler, Objects):
        return Bucket(filesystem, base)
    return Folder(filesystem, base)


def open_storage(root: str) -> Storage:
    """The storage below a root; raises as `open_root` does."""
    return storage_of(*open_root(root))


class Storage(ABC):
    """Files below a root, by their paths below it. Nothing is cached: each call sees what is there now.

    Attributes:
        filesystem: for pyarrow's readers.
        base: the root's path on it.
        remote: whether reading is asking over a network, in ranges.
    """

    remote: ClassVar[bool]

    def __init__(self, filesystem: FileSystem, base: str) -> None:
        self.filesystem = filesystem
        self.base = base.rstrip("/")

    def path(self, *parts: str) -> str:
        """A path on the file system."""
        return "/".join((self.base, *parts))

    def where(self, *parts: str) -> str:
        """A file's place as a person would write it."""
        return self.path(*parts)

    def open(self, path: str) -> pa.NativeFile:
        """A file to read from anywhere in it.

        Raises:
            FileNotFoundError: there is none.
        """
        return self.filesystem.open_input_file(self.path(path))

    def read(self, path: str) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: there is none.
        """
        with self.open(path) as file:
            data: bytes = file.read()
        return data

    def size(self, path: str) -> int | None:
        """Bytes of a file; None where there is none."""
        size: int | None = self.filesystem.get_file_info(self.path(path)).size
        return size

    def find(self, folder: str) -> list[str]:
        """Paths of all files below a folder, in order; empty where there is no such folder."""
        selector = FileSelector(self.path(folder), allow_not_found=True, recursive=True)
        found = self.filesystem.get_file_info(selector)
        return sorted(file.path.removeprefix(f"{self.base}/") for file in found if file.type == FileType.File)

    def list(self, folder: str) -> list[str]:
        """Names of the files in a folder, in order; empty where there is no such folder."""
        found = self.filesystem.get_file_info(FileSelector(self.path(folder), allow_not_found=True))
        return sorted(file.base_name for file in found if file.type == FileType.File)

    def delete(self, path: str) -> None:
        """Removes a file, if it is there."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(path))

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Puts a file in place in one step: a reader sees the old one or the new one."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Puts a file in place if there is none; of several that try at once, one does.

        `data` must tell who writes: over a network, a file of the same bytes counts as one's own, since the answer
        to a put can be lost.

        Returns:
            Whether the file is one's own.
        """

    @abstractmethod
    def writing(self, path: str) -> Writing:
        """A large file to be written, read back, and then put in place."""

    @abstractmethod
    def sweep(self, folder: str) -> None:
        """Removes what killed processes left in a folder."""


class Writing(ABC):
    """A file that is not yet in place. Ends with `put` or `discard`; `discard` after `put` does nothing."""

    @abstractmethod
    def sink(self) -> pa.NativeFile:
        """Where its bytes go."""

    @abstractmethod
    def source(self) -> pa.NativeFile:
        """Its bytes, read back from where they went."""

    @abstractmethod
    def put(self) -> None:
        """Puts it under its name, whole."""

    @abstractmethod
    def discard(self) -> None:
        """Gives it up."""


# -- a folder ---------------------------------------------------------------------------------------------------------


class Folder(Storage):
    """A folder of this machine."""

    remote = False

    def write(self, path: str, data: bytes) -> None:
        writing = self.writing(path)
        try:
            with writing.sink() as file:
                file.write(data)
            writing.put()
        finally:
            writing.discard()

    def create(self, path: str, data: bytes) -> bool:
        writing = self.writing(path)
        try:
            with writing.sink() as file:
                file.write(data)
            os.link(self.path(writing.temporary), self.path(path))
            return True
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        finally:
            writing.discard()
        return self._create_without_link(path, data)

    def _create_without_link(self, path: str, data: bytes) -> bool:
        """For file systems without hard links; a reader may find the file empty for a moment."""
        try:
            with open(self.path(path), "xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def writing(self, path: str) -> _Renamed:
        self.filesystem.create_dir(os.path.dirname(self.path(path)), recursive=True)
        return _Renamed(self, path)

    def sweep(self, folder: str) -> None:
        for name in self.list(folder):
            if TEMPORARY in name:
                self.delete(f"{folder}/{name}" if folder else name)


class _Renamed(Writing):
    """Under a temporary name in the same folder, then moved."""

    def __init__(self, storage: Folder, path: str) -> None:
        self._storage, self._path = storage, path
        self.temporary = f"{path}{TEMPORARY}{uuid.uuid4().hex}"
        self._over = False

    def sink(self) -> pa.NativeFile:
        return self._storage.filesystem.open_output_stream(self._storage.path(self.temporary))

    def source(self) -> pa.NativeFile:
        return self._storage.open(self.temporary)

    def put(self) -> None:
        with open(self._storage.path(self.temporary), "rb") as file:
            os.fsync(file.fileno())  # or a power cut could leave a manifest beside an empty shard
        self._storage.filesystem.move(self._storage.path(self.temporary), self._storage.path(self._path))
        self._over = True

    def discard(self) -> None:
        if not self._over:
            with suppress(OSError):  # what can't be removed now is swept when the stage is opened again
                self._storage.delete(self.temporary)
        self._over = True


# -- a bucket ---------------------------------------------------------------------------------------------------------


class Bucket(Storage):
    """A prefix of an object store."""

    remote = True

    @property
    def _objects(self) -> Objects:
        objects: Objects = self.filesystem.handler
        return objects

    def where(self, *parts: str) -> str:
        return self._objects.url(self.path(*parts))

    def read(self, path: str) -> bytes:
        return self._objects.read(self.path(path))

    def write(self, path: str, data: bytes) -> None:
        self._objects.write(self.path(path), data)

    def create(self, path: str, data: bytes) -> bool:
        try:
            self._objects.create(self.path(path), data)
        except FileExistsError:
            with suppress(FileNotFoundError):
                return self.read(path) == data
            return False
        return True

    def writing(self, path: str) -> Writing:
        return _Uploaded(self._objects, self.path(path))

    def sweep(self, folder: str) -> None:
        """Nothing to do: what was not put whole never had a name."""


class _Uploaded(Writing):
    """In a local temporary file without a name, so that it is gone however the process ends; then one complete put."""

    def __init__(self, objects: Objects, path: str) -> None:
        self._objects, self._path = objects, path
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `put` or `discard`)
        self._place = f"/dev/fd/{self._spool.fileno()}"

    def sink(self) -> pa.NativeFile:
        return pa.OSFile(self._place, "wb")

    def source(self) -> pa.NativeFile:
        return pa.OSFile(self._place, "rb")

    def put(self) -> None:
        self._objects.put(self._place, self._path, os.fstat(self._spool.fileno()).st_size)
        self._spool.close()

    def discard(self) -> None:
        self._spool.close()
