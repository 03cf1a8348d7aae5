"""Tables: an Arrow schema, a version, and the rules that every row must satisfy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

KEY = "utterance_id"
SAMPLE_RATE = 16_000

LARGEST_CODEBOOK = 65_536
"""Maximum number of entries of a codebook. Units are int32 for every size, because Parquet stores 16-bit integers in
32 bits, so a narrower type would not make files smaller."""

BLANK = (
    "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
    "\u180e\u200b\u200c\u200d\u2060\ufeff"
)
"""White space as defined by `str.isspace`, zero-width characters, and the byte order mark."""

Mask: TypeAlias = pa.BooleanArray | pa.ChunkedArray


@dataclass(frozen=True)
class Rule:
    """A condition that every row must satisfy, checked on whole columns.

    Attributes:
        name: short name, unique in its table; findings are reported under it.
        says: the condition in words.
        broken: returns a mask of the rows that violate the rule; null counts as satisfied.
    """

    name: str
    says: str
    broken: Callable[[pa.RecordBatch], Mask]


@dataclass(frozen=True)
class Table:
    """One kind of shard.

    Attributes:
        name: name of the table and of its folder below the root, for example `units` or `training/t2c`.
        version: semantic version of the schema: major for a changed or removed column, minor for a new nullable one.
        schema: Arrow schema of the file, without metadata.
        means: meaning of each column, with its physical unit if it has one.
        rules: rules on the row's own columns.
        cross_rules: rules that compare a row with its utterance. They also see some of the utterance's columns, named
            like `utterances.num_samples`. A row without an utterance is reported separately.
        unchecked: leaf columns that the row check does not read (audio bytes, which the file's digest covers).
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
    """Return a field, which is non-null by default."""
    return pa.field(name, kind, nullable=nullable)


def list_of(kind: pa.DataType) -> pa.ListType:
    """Return a list type whose elements are never null."""
    return pa.list_(pa.field("element", kind, nullable=False))


CATEGORY = pa.dictionary(pa.int32(), pa.string())
AUDIO = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

TURN = {
    KEY: "the utterance's key, the same in every table",
    "dialogue_id": "the dialogue that the utterance belongs to",
    "turn": "index of the turn in its dialogue, from 0",
}
ORIGIN = {
    "corpus": "name of the corpus in the configuration",
    "split": "split of the corpus, such as train or test",
    "language": "language of the speech, as the corpus names it",
    "speaker_id": "speaker, as the corpus names them",
    "license": "license of the recording and its text",
}
RECORDING = {
    "recording_id": "the recording that the utterance was cut from; null if it was not cut by this pipeline",
    "overlap": "share of the cut in which others speak; null if it was not cut by this pipeline",
}
SYSTEM = {
    "system_text": "system text of the utterance's dialogue, or of an utterance without one; null if it has none",
}
SOUND = {
    "audio": "the sound, as `datasets` stores it",
    "audio.bytes": "16 kHz mono FLAC with 16-bit samples",
    "audio.path": "name of the source file, not a path on disk",
    "num_samples": "length of the audio in samples at 16 kHz",
}
"""Meanings of columns that several tables have."""
