"""Storage backends: a folder on this machine, or a bucket reached through fsspec (`s3://`, `gs://`).

A file appears under its name completely or not at all. A folder achieves this with a temporary file and a rename; an
object store, which has no rename, with one complete put. All backends raise the errors of a local disk:
FileNotFoundError, PermissionError, or another OSError for any other failure of a network or server.
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
from echo_targets.schemas.dataset.urls import as_path, is_file_url

TEMPORARY = ".tmp-"


def is_url(place: str) -> bool:
    """Return True if a place is a URL of a store, and False if it is a local path or a file URL."""
    return "://" in place and not is_file_url(place)


def split(place: str) -> tuple[str, str]:
    """Return a file's folder and its name; the folder of a bare name is `.`.

    Raises:
        UserError: the place is a file URL that names no local path.
    """
    place = as_path(place)
    if is_url(place):
        folder, _, name = place.rpartition("/")
        return folder, name
    return os.path.dirname(place) or ".", os.path.basename(place)


def open_root(root: str) -> tuple[FileSystem, str]:
    """Return the file system of a root and the root's path on it. Connections are made on first use.

    Args:
        root: local path or URL. Credentials for a URL come from the environment.

    Raises:
        UserError: the protocol is unknown, its library is not installed, or a file URL names no local path.
    """
    if is_url(root):
        objects = Objects(root)
        return PyFileSystem(objects), objects.base
    from pathlib import Path

    return FileSystem.from_uri(Path(as_path(root)).absolute().as_uri())


def storage_of(filesystem: FileSystem, base: str) -> Storage:
    """Return the storage for a result of `open_root`."""
    if isinstance(filesystem, PyFileSystem) and isinstance(filesystem.handler, Objects):
        return Bucket(filesystem, base)
    return Folder(filesystem, base)


def open_storage(root: str) -> Storage:
    """Return the storage of a root; raises the errors of `open_root`."""
    return storage_of(*open_root(root))


class Storage(ABC):
    """Access to the files below a root, by their paths below it. Nothing is cached: each call sees the current state.

    Attributes:
        filesystem: file system for pyarrow's readers.
        base: path of the root on it.
        remote: True if reads go over a network, as range requests.
    """

    remote: ClassVar[bool]

    def __init__(self, filesystem: FileSystem, base: str) -> None:
        self.filesystem = filesystem
        self.base = base.rstrip("/")

    def path(self, *parts: str) -> str:
        """Return a path on the file system."""
        return "/".join((self.base, *parts))

    def where(self, *parts: str) -> str:
        """Return a file's path or URL for messages."""
        return self.path(*parts)

    def open(self, path: str) -> pa.NativeFile:
        """Open a file for random access.

        Raises:
            FileNotFoundError: there is no such file.
        """
        return self.filesystem.open_input_file(self.path(path))

    def read(self, path: str) -> bytes:
        """Return the contents of a file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self.open(path) as file:
            data: bytes = file.read()
        return data

    def size(self, path: str) -> int | None:
        """Return the size of a file in bytes, or None if there is no such file."""
        size: int | None = self.filesystem.get_file_info(self.path(path)).size
        return size

    def find(self, folder: str) -> list[str]:
        """Return the sorted paths of all files below a folder; empty if there is no such folder."""
        selector = FileSelector(self.path(folder), allow_not_found=True, recursive=True)
        found = self.filesystem.get_file_info(selector)
        return sorted(file.path.removeprefix(f"{self.base}/") for file in found if file.type == FileType.File)

    def list(self, folder: str) -> list[str]:
        """Return the sorted names of the files in a folder; empty if there is no such folder."""
        found = self.filesystem.get_file_info(FileSelector(self.path(folder), allow_not_found=True))
        return sorted(file.base_name for file in found if file.type == FileType.File)

    def delete(self, path: str) -> None:
        """Delete a file if it exists."""
        with suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path(path))

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write a file atomically: a reader sees the old contents or the new."""

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Create a file if it does not exist; if several writers try at once, exactly one succeeds.

        `data` must identify the writer: over a network, where the response to a put can be lost, an existing file with
        the same bytes counts as created by this call.

        Returns:
            True if this call created the file.
        """

    @abstractmethod
    def writing(self, path: str) -> Writing:
        """Start a large file that is written, read back and checked, and then put in place."""

    @abstractmethod
    def sweep(self, folder: str) -> None:
        """Delete temporary files that killed processes left in a folder."""


class Writing(ABC):
    """A file that is not yet in place. Finish with `put` or `discard`; `discard` after `put` does nothing."""

    @abstractmethod
    def sink(self) -> pa.NativeFile:
        """Open the file for writing."""

    @abstractmethod
    def source(self) -> pa.NativeFile:
        """Open the written bytes for reading."""

    @abstractmethod
    def put(self) -> None:
        """Put the complete file in place under its name."""

    @abstractmethod
    def discard(self) -> None:
        """Abandon the file and delete what was written."""


# -- a folder ---------------------------------------------------------------------------------------------------------


class Folder(Storage):
    """A folder on this machine."""

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
        """Create a file on a file system without hard links; a reader may briefly see it empty."""
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
    """A file written under a temporary name in the same folder, then renamed."""

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
            os.fsync(file.fileno())  # otherwise a power failure could leave a manifest with an empty shard
        self._storage.filesystem.move(self._storage.path(self.temporary), self._storage.path(self._path))
        self._over = True

    def discard(self) -> None:
        if not self._over:
            with suppress(OSError):  # if this fails, `sweep` deletes the file the next time the stage is opened
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
        """Do nothing: an incomplete put never appears under a name."""


class _Uploaded(Writing):
    """A file spooled to an unnamed local temporary file, which vanishes with the process, then put as a whole."""

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
