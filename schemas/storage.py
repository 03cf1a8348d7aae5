"""Where files lie: a folder of this machine, or a bucket that fsspec reaches (`s3://`, `gs://`).

A file appears under its name whole or not at all. A folder gives that by a temporary name beside it and a rename; an
object store, which has no rename, by one complete put. Errors are those of a disk: FileNotFoundError, PermissionError,
or another OSError for whatever else a network or a server does wrong.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import random
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, ClassVar, TypeVar

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileSystemHandler, FileType, PyFileSystem

from schemas.base import UserError

TEMPORARY = ".tmp-"

ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds; a pause is twice as long as the one before it, less a random part of up to a half."""

LEAST_SECONDS, LEAST_BYTES_PER_SECOND = 60.0, 100_000
"""An operation may last so long, and longer by what its bytes take at this rate: even a trickle ends."""
UNKNOWN_SIZE = 60_000_000

S3_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 30,
    "max_pool_connections": 32,
    "retries": {"mode": "standard", "total_max_attempts": 3},
}
"""botocore's `Config`, where fsspec's configuration does not say otherwise."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
IN_ONE_GET = {"s3": {"max_concurrency": 1}, "s3a": {"max_concurrency": 1}, "gs": {"concurrency": 1}}
"""Keeps `cat_file` from asking for an object's size first, where it would."""

NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "UnauthorizedSSOTokenError",
    "ProfileNotFound",
    "DefaultCredentialsError",
}
BAD_CREDENTIALS = {
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "401",
}
LASTING = (UserError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""What trying again does not mend."""

logger = logging.getLogger(__name__)
_jitter = random.SystemRandom()  # not the generator that a seed is given to

T = TypeVar("T")


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


class Objects(FileSystemHandler):
    """An object store that fsspec reaches, for pyarrow and for `Bucket`; paths begin with the bucket.

    Each operation is tried again with growing pauses while the network or the server is at fault, and is bounded in
    time.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._protocol = root.split("://")[0]
        self._pid = os.getpid()
        self._fs, self.base = _connect(root)

    @property
    def fs(self) -> Any:
        """fsspec's file system; a process that was forked makes its own."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._fs, _ = _connect(self._root)
        return self._fs

    def url(self, path: str) -> str:
        return f"{self._protocol}://{path}"

    def read(self, path: str) -> bytes:
        return self._try(path, lambda: self._call("cat_file", path, **IN_ONE_GET.get(self._protocol, {})))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        def read() -> bytes:
            data: bytes = self._call("cat_file", path, start=start, end=end, size=end - start)
            if len(data) != end - start:
                raise OSError(errno.EIO, f"{len(data)} bytes came of {start} to {end}")
            return data

        return self._try(path, read)

    def write(self, path: str, data: bytes) -> None:
        self._try(path, lambda: self._call("pipe_file", path, data, size=len(data)))

    def create(self, path: str, data: bytes) -> None:
        self._try(path, lambda: self._call("pipe_file", path, data, size=len(data), mode="create"))

    def put(self, local: str, path: str, size: int) -> None:
        def put() -> None:
            self._call("put_file", local, path, size=size)
            if (there := self._call("info", path)["size"]) != size:
                raise OSError(errno.EIO, f"{there} bytes are there of {size}")

        self._try(path, put)

    def info(self, path: str) -> dict[str, Any]:
        return self._try(path, lambda: self._call("info", path))

    def _call(self, operation: str, *arguments: Any, size: int = UNKNOWN_SIZE, **options: Any) -> Any:
        if not self.fs.async_impl:
            return getattr(self.fs, operation)(*arguments, **options)
        from fsspec.asyn import sync

        seconds = LEAST_SECONDS + size / LEAST_BYTES_PER_SECOND
        return sync(self.fs.loop, getattr(self.fs, f"_{operation}"), *arguments, timeout=seconds, **options)

    def _try(self, path: str, operation: Callable[[], T]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return operation()
            except Exception as raised:
                error = _as_disk_error(raised, self.url(path))
                if isinstance(error, LASTING) or attempt == ATTEMPTS:
                    raise error from raised
            pause = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * _jitter.uniform(0.5, 1)
            logger.warning("%s; attempt %d of %d follows in %.1f s", error, attempt + 1, ATTEMPTS, pause)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    # what pyarrow asks of a file system

    def get_type_name(self) -> str:
        return f"fsspec+{self._protocol}"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: list[str]) -> list[FileInfo]:
        return [self._file_info(path) for path in paths]

    def _file_info(self, path: str) -> FileInfo:
        try:
            return _file_info(path, self.info(path))
        except FileNotFoundError:
            return FileInfo(path, FileType.NotFound)

    def get_file_info_selector(self, selector: FileSelector) -> list[FileInfo]:
        folder = selector.base_dir.rstrip("/")
        try:
            if selector.recursive:
                found = list(self._try(folder, lambda: self._call("find", folder, detail=True)).values())
            else:
                found = self._try(folder, lambda: self._call("ls", folder, detail=True))
        except FileNotFoundError:
            if selector.allow_not_found:
                return []
            raise
        named = ((info["name"].rstrip("/"), info) for info in found)
        return [_file_info(name, info) for name, info in named if name != folder]

    def open_input_file(self, path: str) -> pa.PythonFile:
        info = self.info(path)
        if info["type"] != "file":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.url(path))
        return pa.PythonFile(_Ranges(self, path, info["size"]), mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def delete_file(self, path: str) -> None:
        self._try(path, lambda: self._call("rm_file", path))

    def create_dir(self, path: str, recursive: bool) -> None:
        """Folders are prefixes: there is nothing to make."""

    def _not_here(self, *_: Any) -> Any:
        raise NotImplementedError("an object store puts whole objects: use Storage.write and Storage.writing")

    open_output_stream = open_append_stream = copy_file = move = _not_here
    delete_dir = delete_dir_contents = delete_root_dir_contents = _not_here


class _Ranges(io.RawIOBase):
    """An object to read from anywhere in it, a request a read."""

    def __init__(self, objects: Objects, path: str, size: int) -> None:
        super().__init__()
        self._objects, self._path, self._size = objects, path, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        data = self._objects.read_range(self._path, self._position, self._position + wanted)
        self._position += wanted
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _connect(root: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, shared by all of its kind in this process, and the URL's path on it."""
    from fsspec.config import conf
    from fsspec.core import url_to_fs

    protocol = root.split("://")[0]
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in ("s3", "s3a"):
        given = {**conf.get("s3", {}), **conf.get("s3a", {})}
        options["config_kwargs"] = S3_CONFIG | given.get("config_kwargs", {})
    if EXTRAS.get(protocol) == "gcs":  # or gcsfs asks for the bucket's kind over gRPC, a minute long where that fails
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        fs, base = url_to_fs(root, **options)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        how = f"pip install 'echo-targets[{extra}]'" if extra else f"install what fsspec needs for it ({error})"
        raise UserError(f"{root}: {protocol}:// is not installed here; {how}") from error
    except ValueError as error:
        raise UserError(f"{root}: {error}") from error
    if hasattr(fs, "retries"):
        fs.retries = 1  # s3fs would multiply botocore's own attempts by its own, without an end in sight
    return fs, base


def _file_info(path: str, info: dict[str, Any]) -> FileInfo:
    if info["type"] != "file":
        return FileInfo(path, FileType.Directory)
    changed = info.get("LastModified") or info.get("mtime")
    return FileInfo(path, FileType.File, size=info["size"], mtime=changed if isinstance(changed, datetime) else None)


def _as_disk_error(error: Exception, url: str) -> Exception:
    """What a disk would raise, naming the URL; a UserError for credentials."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(error, "code", None)
    said = f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else error.strerror or str(error)
    if type(error).__name__ in NO_CREDENTIALS:
        return UserError(f"{url}: no credentials ({error}); they are taken from the environment, see docs/STORAGE.md")
    if str(code) in BAD_CREDENTIALS:
        return UserError(f"{url}: the server refuses the credentials ({said})")
    if type(error).__name__ == "ParamValidationError":
        return UserError(f"{url}: {error}")
    if code == "NoSuchBucket":
        return FileNotFoundError(errno.ENOENT, "No such bucket", url)
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412"):
        return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), url)
    if isinstance(error, PermissionError) or said.startswith("Forbidden"):
        return PermissionError(errno.EACCES, f"{os.strerror(errno.EACCES)} ({said})", url)
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), url)
    return OSError(errno.EIO, said, url)
