"""What a table is: its Arrow schema, its version, and the rules that every row of it must keep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

KEY = "utterance_id"
SAMPLE_RATE = 16_000

LARGEST_CODEBOOK = 65_536
"""Most entries of a codebook. Units are int32 whatever its size: Parquet stores both integers of 16 and of 32 bits in
32, so the narrower type would save no byte of a file."""

BLANK = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
    "\u180e\u200b\u200c\u200d\u2060\ufeff"
)
"""White space as `str.isspace` has it, zero-width characters, and the byte order mark."""

Mask: TypeAlias = pa.BooleanArray | pa.ChunkedArray


@dataclass(frozen=True)
class Rule:
    """A statement that every row must keep, checked on whole columns.

    Attributes:
        name: short, unique inside its table; findings are reported under it.
        says: the statement, for a person.
        broken: gives a mask of the rows that break it (null counts as kept).
    """

    name: str
    says: str
    broken: Callable[[pa.RecordBatch], Mask]


@dataclass(frozen=True)
class Table:
    """One kind of shard.

    Attributes:
        name: also its folder below the root, for example `units` or `training/t2c`.
        version: semantic version of the schema: major for a changed or removed column, minor for a new nullable one.
        schema: the Arrow schema of the file, without metadata.
        means: what each column means, with its unit where it has one.
        rules: what each row keeps by itself.
        cross_rules: what each row keeps towards its utterance. They see the row's own columns and some of the
            utterance's, as `utterances.num_samples`; a row without an utterance is a finding of its own.
        unchecked: leaf columns that the row check does not read (audio bytes, covered by the file's digest).
        row_group_rows: rows per Parquet row group.
    """

    name: str
    version: str
    schema: pa.Schema
    means: Mapping[str, str]
    rules: tuple[Rule, ...] = ()
    cross_rules: tuple[Rule, ...] = ()
    unchecked: tuple[str, ...] = ()
    row_group_rows: int = 1000

    @property
    def columns(self) -> list[str]:
        return list(self.schema.names)


def column(name: str, kind: pa.DataType, nullable: bool = False) -> pa.Field:
    """A field, non-null unless said otherwise."""
    return pa.field(name, kind, nullable=nullable)


def list_of(kind: pa.DataType) -> pa.ListType:
    """A list whose elements are never null."""
    return pa.list_(pa.field("element", kind, nullable=False))


CATEGORY = pa.dictionary(pa.int32(), pa.string())
AUDIO = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

TURN = {
    KEY: "the utterance's key, the same in every table",
    "dialogue_id": "the dialogue that the utterance is a turn of",
    "turn": "place of the turn in its dialogue, from 0",
}
ORIGIN = {
    "corpus": "the corpus's name in the configuration",
    "split": "the corpus's part: train, test and so on",
    "language": "language of the speech, as the corpus names it",
    "speaker_id": "the corpus's name for the speaker",
    "license": "licence of the recording and its text",
}
SOUND = {
    "audio": "16 kHz mono FLAC of 16-bit samples; path is the source's name, not a place",
    "num_samples": "samples of the audio at 16 kHz",
}
"""What columns mean that several tables have."""
