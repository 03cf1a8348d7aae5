"""Digests of files."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from echo_targets.transforms.errors import ModelError


@cache
def sha256_of(path: Path) -> str:
    """Return the hex SHA-256 of a file. Cached, since weights do not change while a process runs.

    Raises:
        ModelError: the file can't be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}") from error
