"""A pyarrow file system for object stores of fsspec, with retries, time limits, and the errors of a local disk."""

from __future__ import annotations

import errno
import io
import logging
import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystemHandler, FileType

from echo_targets.schemas.dataset.urls import WEB, without_secrets
from echo_targets.schemas.dataset.web import ForbiddenAddress, open_session
from echo_targets.schemas.errors import UserError

ATTEMPTS = 6
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds. Pauses double, and are reduced by a random amount of up to one half."""

LEAST_SECONDS, LEAST_BYTES_PER_SECOND = 60.0, 100_000
"""Time limit of an operation: a constant plus its bytes at this rate, so that even the slowest transfer ends."""
UNKNOWN_SIZE = 60_000_000

S3_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 30,
    "max_pool_connections": 32,
    "retries": {"mode": "standard", "total_max_attempts": 3},
}
"""Defaults of botocore's `Config`; fsspec's configuration overrides them."""

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
IN_ONE_GET = {"s3": {"max_concurrency": 1}, "s3a": {"max_concurrency": 1}, "gs": {"concurrency": 1}}
"""Options that stop `cat_file` from requesting an object's size first."""

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
NOT_ON_THE_WEB = {400, 404, 410, 414}
DENIED_ON_THE_WEB = {401, 402, 403, 451}
"""Answers of a web server that are about one address. All others (408, 429, 5xx, …) are the server's or the network's
fault, and are tried again."""
PERMANENT = (UserError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors that a retry cannot fix."""


logger = logging.getLogger(__name__)
_jitter = random.SystemRandom()  # independent of the seeded global generator

T = TypeVar("T")


class NoSuchBucket(UserError):
    """The bucket of a URL does not exist."""


class Objects(FileSystemHandler):
    """An object store of fsspec, for pyarrow and for `Bucket`. Paths start with the bucket.

    Each operation has a time limit and is retried with growing pauses if the network or the server fails.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._protocol = root.split("://")[0]
        self._pid = os.getpid()
        self._fs, self.base = _connect(root)

    @property
    def fs(self) -> Any:
        """fsspec's file system; a forked process connects again."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self._fs, _ = _connect(self._root)
        return self._fs

    def url(self, path: str) -> str:
        """Return a path as a URL for messages, without secrets."""
        url = path if self._protocol in WEB else f"{self._protocol}://{path}"  # fsspec keeps a web address whole
        return without_secrets(url)

    def read(self, path: str) -> bytes:
        return self._try(path, lambda: self._call("cat_file", path, **IN_ONE_GET.get(self._protocol, {})))

    def read_range(self, path: str, start: int, end: int) -> bytes:
        def read() -> bytes:
            data: bytes = self._call("cat_file", path, start=start, end=end, size=end - start)
            if self._protocol in WEB and len(data) > end - start:  # a server without ranges sends the whole file
                data = data[start:end]
            if len(data) != end - start:
                raise OSError(errno.EIO, f"received {len(data)} bytes for the range {start} to {end}")
            return data

        return self._try(path, read)

    def write(self, path: str, data: bytes) -> None:
        self._try(path, lambda: self._send("pipe_file", path, data, size=len(data)))

    def create(self, path: str, data: bytes) -> None:
        self._try(path, lambda: self._send("pipe_file", path, data, size=len(data), mode="create"))

    def put(self, local: str, path: str, size: int) -> None:
        def put() -> None:
            self._send("put_file", local, path, size=size)
            if (there := self._call("info", path)["size"]) != size:
                raise OSError(errno.EIO, f"stored {there} of {size} bytes")

        self._try(path, put)

    def info(self, path: str) -> dict[str, Any]:
        return self._try(path, lambda: self._call("info", path))

    def _send(self, operation: str, *arguments: Any, **options: Any) -> None:
        """Send a file. A store has no folders, so if it does not find the place, there is no such bucket."""
        try:
            self._call(operation, *arguments, **options)
        except FileNotFoundError as error:
            if _code(error) == "NoSuchUpload":  # a put in parts that was aborted: try again
                raise OSError(errno.EIO, str(error)) from error
            raise self._no_bucket() from error

    def _no_bucket(self) -> NoSuchBucket:
        bucket = without_secrets("/".join(self._root.split("/")[:3]))
        return NoSuchBucket(f"{bucket}: there is no such bucket; create it, or correct the URL")

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
            except NoSuchBucket:
                raise
            except Exception as raised:
                if self._protocol not in WEB and _code(raised) == "NoSuchBucket":
                    raise self._no_bucket() from raised
                error = _as_disk_error(raised, self.url(path))
                if isinstance(error, PERMANENT) or attempt == ATTEMPTS:
                    raise error from raised
            pause = min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * _jitter.uniform(0.5, 1)
            logger.warning("%s; attempt %d of %d starts in %.1f s", error, attempt + 1, ATTEMPTS, pause)
            time.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    # pyarrow's FileSystemHandler interface

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
        size = len(self.read(path)) if info["size"] is None else info["size"]  # some web servers don't say
        return pa.PythonFile(_Ranges(self, path, size), mode="r")

    def open_input_stream(self, path: str) -> pa.PythonFile:
        return self.open_input_file(path)

    def delete_file(self, path: str) -> None:
        self._try(path, lambda: self._call("rm_file", path))

    def create_dir(self, path: str, recursive: bool) -> None:
        """Do nothing: folders of an object store are only prefixes."""

    def _unsupported(self, *_: Any) -> Any:
        raise NotImplementedError("an object store only stores whole objects; use Storage.write or Storage.writing")

    open_output_stream = open_append_stream = copy_file = move = _unsupported
    delete_dir = delete_dir_contents = delete_root_dir_contents = _unsupported


class _Ranges(io.RawIOBase):
    """A seekable reader of an object that makes one range request per read."""

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
    """Return fsspec's file system for a URL, which this process shares, and the URL's path on it."""
    from fsspec.config import conf
    from fsspec.core import url_to_fs

    protocol = root.split("://")[0]
    if "::" in root:  # fsspec would take it for several URLs, of which any may be a web address
        raise UserError(f"{without_secrets(root)}: `::` in a URL is not supported; name the file in its store")
    options: dict[str, Any] = {"use_listings_cache": False}
    if protocol in WEB:
        options["get_client"] = open_session
    if protocol in ("s3", "s3a"):
        given = {**conf.get("s3", {}), **conf.get("s3a", {})}
        options["config_kwargs"] = S3_CONFIG | given.get("config_kwargs", {})
    if EXTRAS.get(protocol) == "gcs":  # otherwise gcsfs queries the bucket type over gRPC, which may hang for a minute
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    try:
        fs, base = url_to_fs(root, **options)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        how = f"pip install 'echo-targets[{extra}]'" if extra else f"install the library that fsspec needs ({error})"
        raise UserError(f"{without_secrets(root)}: support for {protocol}:// is not installed: {how}") from error
    except ValueError as error:
        raise UserError(without_secrets(f"{root}: {error}")) from error
    if hasattr(fs, "retries"):
        fs.retries = 1  # otherwise s3fs multiplies botocore's attempts by its own
    return fs, base


def _file_info(path: str, info: dict[str, Any]) -> FileInfo:
    if info["type"] != "file":
        return FileInfo(path, FileType.Directory)
    changed = info.get("LastModified") or info.get("mtime")
    return FileInfo(path, FileType.File, size=info["size"], mtime=changed if isinstance(changed, datetime) else None)


def _code(error: Exception) -> Any:
    """Return a store's own word or number for an error, or None."""
    response = getattr(error, "response", None) or getattr(error.__cause__, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else getattr(error, "code", None)


def _as_disk_error(error: Exception, url: str) -> Exception:
    """Translate an error into the one that a local disk would raise, with the URL; a UserError for credentials."""
    if url.split("://")[0] in WEB:
        return _of_the_web(error, url)
    code = _code(error)
    message = f"{type(error).__name__}: {error}" if not isinstance(error, OSError) else error.strerror or str(error)
    if type(error).__name__ in NO_CREDENTIALS:
        return UserError(f"{url}: no credentials ({error}). Set them in the environment; see docs/STORAGE.md.")
    if str(code) in BAD_CREDENTIALS:
        return UserError(f"{url}: the server rejected the credentials ({message})")
    if type(error).__name__ == "ParamValidationError":
        return UserError(f"{url}: {error}")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if isinstance(error, FileExistsError) or code in ("PreconditionFailed", "412"):
        return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), url)
    if isinstance(error, PermissionError) or message.startswith("Forbidden"):
        return PermissionError(errno.EACCES, f"{os.strerror(errno.EACCES)} ({message})", url)
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), url)
    return OSError(errno.EIO, message, url)


def _of_the_web(error: Exception, url: str) -> OSError:
    """What a disk would raise for a web address.

    fsspec says of any failure to look at a file that there is no such file, with what really happened as its cause.
    """
    if isinstance(error, FileNotFoundError):
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    if isinstance(cause := getattr(error, "os_error", error), ForbiddenAddress):
        return ForbiddenAddress(errno.EACCES, cause.strerror, url)
    status, said = getattr(error, "status", None), without_secrets(f"{type(error).__name__}: {error}")
    if isinstance(error, FileNotFoundError) or status in NOT_ON_THE_WEB:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT) + (f" (HTTP {status})" if status else ""), url)
    if type(error).__name__ == "TooManyRedirects" or isinstance(error, ValueError):  # the latter is not a web address
        return FileNotFoundError(errno.ENOENT, f"{os.strerror(errno.ENOENT)} ({said})", url)
    if status in DENIED_ON_THE_WEB:
        return PermissionError(errno.EACCES, f"{os.strerror(errno.EACCES)} (HTTP {status})", url)
    if isinstance(error, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT), url)
    return OSError(errno.EIO, said, url)
