"""A folder of audio with a manifest: JSON lines, or tab-separated values under a header line."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO, ClassVar, Literal

from schemas.base import UserError
from schemas.storage import is_url, split
from transforms.audio import Raw
from transforms.sources.base import Files, Item, Source, SourceError, files

ALIASES: dict[str, tuple[str, ...]] = {
    "id": ("id", "utterance_id"),
    "audio": ("audio", "path", "audio_filepath", "file_name", "file"),
    "text": ("text", "reference_text", "transcript", "transcription", "sentence"),
    "duration": ("duration", "seconds"),
    "speaker_id": ("speaker_id", "speaker"),
    "dialogue_id": ("dialogue_id",),
    "turn": ("turn",),
    "role": ("role",),
    "split": ("split",),
    "language": ("language", "lang"),
    "channel": ("channel",),
}
MAX_LINE = 1 << 20


class BadLine(Exception):
    """A manifest line that names no item; says what is wrong with it."""


class ManifestSource(Source):
    """Items of a manifest, one a line, each with an id and an audio path.

    Attributes:
        manifest: the `.jsonl` or `.tsv` file, a path or a URL. Its audio paths are absolute, or URLs, or relative to
            it; a relative path may not lead out of the manifest's folder.
        columns: names of the manifest's columns where they are not the usual ones, as {"text": "utterance"}.
    """

    has_files: ClassVar[bool] = True
    kind: Literal["manifest"]
    manifest: str
    columns: dict[str, str] = {}

    def items(self) -> Iterator[Item]:
        folder, name = self._files, split(self.manifest)[1]
        try:
            with folder.stream(name) as file, ThreadPoolExecutor(folder.probes) as pool:
                lines = _tsv(file, self.manifest) if name.lower().endswith((".tsv", ".txt")) else _jsonl(file)
                while chunk := list(islice(lines, 1000)):
                    yield from pool.map(self._item, chunk)
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"manifest {self.manifest}: {error}") from error

    def open(self, locator: str) -> Raw:
        return self._files.open(locator)

    @property
    def _files(self) -> Files:
        return files(split(self.manifest)[0])

    def _item(self, line: tuple[int, dict[str, Any] | BadLine]) -> Item:
        number, record = line
        name = os.path.basename(self.manifest)
        where = f"{name}:{number}"
        try:
            if isinstance(record, BadLine):
                raise record
            return self._read(record, where)
        except BadLine as error:
            return Item(id=where, where=where, error_class="bad_line", error=f"{name}, line {number}: {error}")

    def _read(self, record: dict[str, Any], where: str) -> Item:
        def value(name: str) -> Any:
            for alias in (self.columns[name],) if name in self.columns else ALIASES[name]:
                if record.get(alias) not in (None, ""):
                    return record[alias]
            return None

        item = item_from(value, where)
        audio = value("audio")
        if not isinstance(audio, str) or not is_url(audio):
            audio = inner_path(audio)
        try:
            size, seconds = self._files.probe(audio, item.seconds)
        except UserError as error:  # a URL of no known kind
            raise BadLine(str(error)) from error
        return replace(item, locator=audio, size=size, seconds=seconds)


def inner_path(audio: Any) -> str:
    """An audio path as a file writes it, relative to itself or absolute.

    Raises:
        BadLine: it is no path, or it leads out of the file's folder.
    """
    if not isinstance(audio, str) or "\0" in audio:
        raise BadLine("has no audio path")
    path = os.path.normpath(audio)
    if path.split(os.sep)[0] == os.pardir:
        raise BadLine(f"audio path {path!r} leads out of the manifest's folder")
    return path


def item_from(value: Any, where: str) -> Item:
    """An item from a record's values, `value(name)` giving None for what is not there.

    Raises:
        BadLine: a value is missing or of the wrong kind.
    """
    key = value("id")
    if not isinstance(key, str | int) or isinstance(key, bool):
        raise BadLine("has no id")
    numbers: dict[str, Any] = {}
    for name, kind in (("turn", int), ("channel", int), ("duration", float)):
        try:
            numbers[name] = None if value(name) is None else kind(value(name))
        except (TypeError, ValueError):
            raise BadLine(f"{name} {value(name)!r} is not a number") from None
    if (value("dialogue_id") is None) != (numbers["turn"] is None):
        raise BadLine("has only one of dialogue_id and turn")
    if numbers["turn"] is not None and not 0 <= numbers["turn"] < 2**15:
        raise BadLine(f"turn {numbers['turn']} is outside [0, 32767]")
    if numbers["channel"] is not None and not -1 <= numbers["channel"] < 128:
        raise BadLine(f"channel {numbers['channel']} is outside [-1, 127]")
    if numbers["duration"] is not None and not 0 <= numbers["duration"] < 1e6:
        raise BadLine(f"duration {numbers['duration']} is outside [0, 1e6] s")
    if value("role") not in (None, "user", "assistant", "narrator"):
        raise BadLine(f"role {value('role')!r} is none of user, assistant, narrator")

    def word(name: str) -> str | None:
        return None if value(name) is None else str(value(name))

    return Item(
        id=str(key),
        where=where,
        seconds=numbers["duration"] or 0.0,
        text=word("text"),
        dialogue_id=word("dialogue_id"),
        turn=numbers["turn"],
        role=value("role"),
        channel=numbers["channel"],
        speaker_id=word("speaker_id"),
        split=word("split"),
        language=word("language"),
    )


def _jsonl(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape")
    number = 0
    while line := text.readline(MAX_LINE):
        number += 1
        if line.strip():
            yield number, _json_object(line)


def _json_object(line: str) -> dict[str, Any] | BadLine:
    try:
        record = json.loads(line)
        json.dumps(record, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (UnicodeEncodeError, ValueError, RecursionError) as error:
        return BadLine(f"is not JSON ({error})")
    return record if isinstance(record, dict) else BadLine("is not a JSON object")


def _tsv(file: BinaryIO, manifest: str) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    rows = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(rows, None)
    if header is None:
        raise SourceError(f"manifest {manifest}: is empty, expected a header line")
    for number, row in enumerate(rows, 2):
        if len(row) == len(header):
            yield number, dict(zip(header, row, strict=True))
        elif row:
            yield number, BadLine(f"has {len(row)} columns, the header has {len(header)}")
