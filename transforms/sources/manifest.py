"""A folder of audio with a manifest: JSON lines, or tab-separated values under a header line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar, Literal

from echo_targets.schemas.dataset.storage import split
from echo_targets.schemas.errors import UserError
from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Files, Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.lines import json_lines, tsv_records
from echo_targets.transforms.sources.record import ColumnNames, Fields, item_from
from echo_targets.transforms.sources.timed_texts.attach import TimedTexts
from echo_targets.transforms.sources.values import BadLine, place


class ManifestSource(Source):
    """Items of a manifest, one per line, each with an id and an audio path. docs/MANIFESTS.md describes the keys.

    Attributes:
        manifest: the `.jsonl` or `.tsv` file, a path or a URL. Its audio paths are absolute, URLs, or relative to the
            manifest; a relative path must not lead out of the manifest's folder.
        columns: names of the manifest's columns if they are not the usual ones, such as {"text": "utterance"}.
        ignore: columns to ignore, although they have a known name.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "manifest"
    kind: Literal["manifest"]
    manifest: str
    columns: ColumnNames = {}
    ignore: list[str] = []

    def items(self) -> Iterator[Item]:
        folder, name = self._files, split(self.manifest)[1]
        ending = os.path.splitext(name)[1].lower()
        if ending == ".csv":
            raise SourceError(f"manifest {self.manifest}: is comma-separated; save it tab-separated, as .tsv")
        texts = TimedTexts(folder)
        fields, missing, keys = Fields(self.columns, self.ignore), set(self.columns.values()), list[str]()
        self._ignored.clear()
        try:
            with folder.stream(name) as file, ThreadPoolExecutor(folder.probes) as pool:
                lines = (tsv_records if ending in (".tsv", ".txt") else json_lines)(file, self.manifest)
                while chunk := list(islice(lines, 1000)):
                    for _, record in chunk:
                        if isinstance(record, dict):
                            keys = keys or list(record)
                            missing.difference_update(record)
                            self._ignored.update(fields.ignored(record))
                    yield from pool.map(lambda line: self._item(line, fields, texts), chunk)
        except IsADirectoryError as error:
            raise SourceError(
                f"manifest {self.manifest}: is not a file; for a folder of audio, use kind: folder"
            ) from error
        except OSError as error:
            raise SourceError(f"manifest {self.manifest}: {error}") from error
        if keys and missing:
            field = next(field for field, column in self.columns.items() if column in missing)
            raise SourceError(
                f"manifest {self.manifest}: columns.{field} is {self.columns[field]!r}, but no line has it; "
                f"the first line has {', '.join(keys)}"
            )

    def open(self, locator: str) -> Raw:
        return self._files.open(locator)

    def read(self, locator: str) -> bytes:
        return self._files.read_whole(locator)

    @property
    def _files(self) -> Files:
        return self.files(split(self.manifest)[0])

    def _item(self, line: tuple[int, dict[str, Any] | BadLine], fields: Fields, texts: TimedTexts) -> Item:
        number, record = line
        name = split(self.manifest)[1]
        where = f"{name}:{number}"
        try:
            if isinstance(record, BadLine):
                raise record
            found = fields(record)
            item = item_from(found, where)
            item = probed(self._files, item, place(found.get("audio", ("audio", None))))
            return item if item.timed_text is None else texts.given_to(item, item.timed_text)
        except SourceError:
            raise
        except (BadLine, UserError) as error:
            return bad_line(where, f"{name}, line {number}: {error}")


def probed(folder: Files, item: Item, locator: str) -> Item:
    """Return an item with its locator, its file's size and, as far as known, its duration.

    Raises:
        BadLine: the locator's URL scheme is not supported.
        SourceError: it is a web address, and the source does not allow these.
    """
    lasts = item.section_seconds or item.declared_seconds
    try:
        size, seconds = folder.probe(locator, lasts)
        if size is None and "\\" in locator:  # the path was written on Windows
            slashed = place(("audio", locator.replace("\\", "/")))
            size, seconds = folder.probe(slashed, lasts)
            locator = slashed if size is not None else locator
    except SourceError:
        raise
    except UserError as error:
        raise BadLine(str(error)) from error
    if item.start_seconds and lasts is None:
        seconds = max(0.0, seconds - item.start_seconds)
    return replace(item, locator=locator, size=size, seconds=seconds)
