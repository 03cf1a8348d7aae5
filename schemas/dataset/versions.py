"""What identifies a version of a table: a recipe, and a snapshot of the corpus.

A recipe knows nothing of the data, and a shard's id is a digest of its entries, so both stay what they are while a
corpus grows: only the shards around a change get other ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

DIGITS = 16
"""Hex digits of the ids of recipes, shards and snapshots."""
ID = re.compile(r"[0-9a-f]{16}")


class Version(NamedTuple):
    """A version of a table, written `recipe@snapshot`; both are ids of 16 hex digits."""

    recipe: str
    snapshot: str

    def __str__(self) -> str:
        return f"{self.recipe}@{self.snapshot}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Return the version that a text names.

        Raises:
            ValueError: it is not of the form `recipe@snapshot`.
        """
        recipe, at, snapshot = text.partition("@")
        if not (at and ID.fullmatch(recipe) and ID.fullmatch(snapshot)):
            raise ValueError(f"{text!r} is not of the form recipe@snapshot")
        return cls(recipe, snapshot)


@dataclass(frozen=True)
class Recipe:
    """How a table is made: everything its fingerprint is computed from. `upstream` has the recipes of its inputs."""

    stage: str
    version: int
    table: str
    schema_version: str
    parameters: dict[str, Any]
    weights: dict[str, str]
    upstream: dict[str, str]
    fingerprint: str = ""

    def __post_init__(self) -> None:
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", self.digest)

    @property
    def digest(self) -> str:
        """What the fingerprint should be: the digest of all else but the table's name."""
        return fingerprint_of(
            {name: value for name, value in asdict(self).items() if name not in ("table", "fingerprint")}
        )

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode()


@dataclass(frozen=True)
class ShardEntry:
    """A shard of a snapshot: its id, its number of entries, and their estimated length in 16 kHz samples."""

    id: str
    rows: int
    samples: int


@dataclass(frozen=True)
class Snapshot:
    """The shards of a corpus at one time, in order. All tables have the same ids."""

    shards: tuple[ShardEntry, ...]

    @property
    def id(self) -> str:
        """Digest of the shards' ids in order."""
        return fingerprint_of(self.ids)

    @property
    def ids(self) -> list[str]:
        return [shard.id for shard in self.shards]

    def to_json(self) -> bytes:
        shards = ",\n".join(json.dumps(asdict(shard)) for shard in self.shards)
        return f'{{"shards": [\n{shards}\n]}}\n'.encode()

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Snapshot:
        """Return the snapshot that a file describes.

        Raises:
            KeyError, TypeError, ValueError: the file does not describe one.
        """
        shards = tuple(ShardEntry(**shard) for shard in data["shards"])
        if odd := [shard.id for shard in shards if not ID.fullmatch(shard.id)]:
            raise ValueError(f"{odd[0]!r} is not the id of a shard")
        return cls(shards)


def fingerprint_of(value: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(_canonical(value)).hexdigest()[:DIGITS]


def entry_digest(entry: Mapping[str, Any]) -> bytes:
    """Return the SHA-256 of a row of the table `entries`."""
    return hashlib.sha256(_canonical(entry)).digest()


def shard_id(schema_version: str, digests: Iterable[bytes]) -> str:
    """Return a shard's id, 16 hex digits.

    Args:
        schema_version: version of the table `entries`.
        digests: digests of the shard's entries, in order.
    """
    found = hashlib.sha256(schema_version.encode())
    for digest in digests:
        found.update(digest)
    return found.hexdigest()[:DIGITS]


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode(errors="surrogatepass")  # file names may not be valid UTF-8
