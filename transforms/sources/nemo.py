"""NeMo manifests, whose lines have no id; with audio in files, or in the archives of a tarred data set."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar, Literal

from echo_targets.schemas.dataset.storage import is_url
from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import MEMBER, Files, Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.lines import json_lines
from echo_targets.transforms.sources.manifest import probed
from echo_targets.transforms.sources.record import ColumnNames, Fields, item_from
from echo_targets.transforms.sources.shards import listed
from echo_targets.transforms.sources.tar import Member, members, open_member
from echo_targets.transforms.sources.values import BadLine, integer, is_missing, path_id, place, shown_path

NUMBERS = re.compile(r"\d+")
"""Numbers of a name; archives and manifests are paired by the last."""
REPEATED = re.compile(r"-sub\d+(?=\.[^.]*$)")
"""What NeMo adds to the name of an archive's file for each further section of it."""
NO_TEXT = "-"
"""How manifests for diarization say that nobody knows the text."""

_Line = tuple[str, int, dict[str, Any] | BadLine]
"""The manifest, the line's number in it, and its object."""


class NemoSource(Source):
    """Lines of NeMo manifests. docs/SOURCES.md describes the keys, and docs/MANIFESTS.md the rules for their values.

    The id of a line is its `audio_filepath` without its ending, with the section's times if it has an `offset`.

    Attributes:
        tree: the folder that holds the manifests and archives; a path or a URL.
        manifests: names, wildcards or braces below `tree`: `sharded_manifests/manifest_{0..7}.json`.
        tars: the archives of a tarred data set, such as `audio_{0..7}.tar`. A line's archive is the one with the number
            of its `shard_id`, or of the manifest's name.
        columns: names of the manifest's keys if they are not the usual ones.
        ignore: keys to ignore, although they have a known name.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "tree"
    kind: Literal["nemo"]
    tree: str
    manifests: str | list[str]
    tars: str | list[str] | None = None
    columns: ColumnNames = {}
    ignore: list[str] = []

    def items(self) -> Iterator[Item]:
        files, fields = self.files(self.tree), Fields(self.columns, self.ignore)
        self._ignored.clear()
        try:
            archives = _Archives(files, listed(files, self.tars)) if self.tars else None
            lines = self._lines(files, fields)
            with ThreadPoolExecutor(files.probes) as pool:
                while chunk := list(islice(lines, 1000)):
                    yield from (map if archives else pool.map)(
                        lambda line: _item(line, fields, archives or files), chunk
                    )
            yield from archives.faults if archives else ()
        except OSError as error:
            raise SourceError(f"{self.tree}: {error}") from error

    def open(self, locator: str) -> Raw:
        files = self.files(self.tree)
        return open_member(files, locator) if MEMBER.fullmatch(locator) else files.open(locator)

    def _lines(self, files: Files, fields: Fields) -> Iterator[_Line]:
        for manifest in listed(files, self.manifests):
            with files.stream(manifest) as file:
                for number, record in json_lines(file, manifest):
                    if not isinstance(record, BadLine):
                        self._ignored.update(fields.ignored(record))
                    yield manifest, number, record


def _item(line: _Line, fields: Fields, audio: Files | _Archives) -> Item:
    manifest, number, record = line
    where = f"{manifest}:{number}"
    try:
        if isinstance(record, BadLine):
            raise record
        if not is_missing(record.get("_skipme")) and record["_skipme"]:
            raise BadLine("is marked `_skipme`: remove the line, or the mark")
        found = fields(record)
        path = place(found.get("audio", ("audio_filepath", None)))
        item = item_from({"id": ("id", path_id(os.path.splitext(path)[0]))} | found, where)
        if item.text == NO_TEXT:
            item = replace(item, text=None)
        if "id" not in found and item.start_seconds is not None:
            end = "" if item.section_seconds is None else f"{item.start_seconds + item.section_seconds:.3f}"
            item = replace(item, id=f"{item.id}-{item.start_seconds:.3f}-{end}")
        if isinstance(audio, _Archives):
            archive, member = audio.find(path, record.get("shard_id"), manifest)
            lasts = item.section_seconds or item.declared_seconds or 0.0
            return replace(item, locator=member.locator(archive), size=member.size, seconds=lasts)
        absolute = is_url(path) or os.path.isabs(path)
        return probed(audio, item, path if absolute else os.path.join(os.path.dirname(manifest), path))
    except BadLine as error:
        return bad_line(where, f"{manifest}, line {number}: {error}")


class _Archives:
    """The files of a tarred data set's archives, which are listed when they are first needed.

    Attributes:
        faults: an error item for each archive that can't be read to its end.
    """

    def __init__(self, files: Files, names: list[str]) -> None:
        self.faults: list[Item] = []
        self._files, self._members = files, dict[str, dict[str, Member]]()
        self._names: dict[int | None, str] = {}
        for name in names:
            other = self._names.setdefault(_number(name), name)
            if other != name:
                raise SourceError(
                    f"{files.place}: {other} and {name} have the same number; make a source of each folder of archives"
                )

    def find(self, path: str, shard: Any, manifest: str) -> tuple[str, Member]:
        """Return the archive and the member that a line names.

        Raises:
            BadLine: there is none.
        """
        number = integer(("shard_id", shard), 0, 2**31)
        if number is None:
            number = _number(manifest) if len(self._names) > 1 else next(iter(self._names))
        archive = self._names.get(number)
        if archive is None:
            raise BadLine(f"is in archive {number}, but `tars` names {', '.join(map(str, self._names))} only")
        if archive not in self._members:
            self._members[archive] = self._listed(archive)
        there = self._members[archive]
        member = there.get(path) or there.get(REPEATED.sub("", path))
        if member is None:
            raise BadLine(f"{path} is not in {archive}")
        if member.fault:
            raise BadLine(f"{path} in {archive} {member.fault}")
        return archive, member

    def _listed(self, archive: str) -> dict[str, Member]:
        found: dict[str, Member] = {}
        with self._files.stream(archive) as file:
            try:
                for member in members(file):
                    found[member.name] = member
            except BadLine as error:
                where = shown_path(archive)
                self.faults.append(Item(id=where, where=where, error_class="bad_archive", error=f"{where} {error}"))
        return found


def _number(name: str) -> int | None:
    numbers = NUMBERS.findall(os.path.basename(name))
    return int(numbers[-1]) if numbers else None
