"""What the tests of drawn mutants share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import pyarrow as pa
from hypothesis import settings

from echo_targets.schemas import TABLES
from echo_targets.schemas.dataset.check import UNREADABLE, Finding, check_file
from tests.schemas.dataset.checked import FINGERPRINT
from tests.schemas.samples import opened, parquet

Draw: TypeAlias = Callable[..., Any]

FEW = settings(max_examples=5)


def findings(data: bytes, name: str) -> list[Finding]:
    """What the command finds in one file: a file that can't be read is a finding too."""
    try:
        with opened(data) as file:
            return list(check_file(file, TABLES[name], "part", FINGERPRINT))
    except UNREADABLE as error:
        return [Finding(name, "part", "readable", str(error))]


def shard(name: str, rows: pa.Table, **about: str) -> bytes:
    return parquet(rows, TABLES[name], FINGERPRINT, about)
