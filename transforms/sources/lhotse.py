"""lhotse: cut sets, Shar folders, and recordings with supervisions, as JSON lines."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO, ClassVar, Literal, cast

from pydantic import PrivateAttr, model_validator

from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import MEMBER, Files, Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.lhotse_cut import OWN_NAMES, Place, of_cut, utterance
from echo_targets.transforms.sources.lines import json_lines
from echo_targets.transforms.sources.manifest import probed
from echo_targets.transforms.sources.record import ColumnNames, Fields
from echo_targets.transforms.sources.shards import listed
from echo_targets.transforms.sources.tar import Member, members, open_member
from echo_targets.transforms.sources.values import BadLine, place, shown_path

MAX_LINE = 1 << 26
"""Maximum length of a line, in bytes: a cut of hours may have thousands of aligned words."""
CUTS_OF_SHAR = re.compile(r"cuts(\.[^/]*?)?\.jsonl(\.gz)?$")
NO_AUDIO = ("json", "nodata", "nometa")
"""Endings of a Shar archive's files that are no audio: lhotse's Recording, and placeholders."""

_Found = tuple[str, Item, Place | None]
"""The file that lists an item, the item without its locator, and where its audio is."""


class LhotseSource(Source):
    """Supervisions of lhotse's cuts or recordings. docs/SOURCES.md says what becomes an item, and what is rejected.

    Attributes:
        tree: the folder that holds the files below; a path or a URL.
        cuts: names, wildcards or braces of cut sets: `cuts_train.jsonl.gz`; of a Shar folder `cuts.*.jsonl.gz`.
        recordings, supervisions: the same of these two, instead of cuts. Recordings without supervisions have no text.
        audio_dir: the folder or URL that relative paths of audio start from; by default `tree`.
        columns: names of the fields if they are not lhotse's own, such as {"text": "pnc_text"}, a key of `custom`.
        ignore: keys to ignore, such as a `language` that is no code.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "tree"
    kind: Literal["lhotse"]
    tree: str
    cuts: str | list[str] | None = None
    recordings: str | list[str] | None = None
    supervisions: str | list[str] | None = None
    audio_dir: str | None = None
    columns: ColumnNames = {}
    ignore: list[str] = []

    _silent: int = PrivateAttr(default=0)
    _repeated: int = PrivateAttr(default=0)

    @model_validator(mode="after")
    def _has_one_list(self) -> LhotseSource:
        if (self.cuts is None) == (self.recordings is None):
            raise ValueError("name either cuts, or recordings with supervisions")
        if self.cuts is not None and self.supervisions is not None:
            raise ValueError("cuts have their supervisions; name supervisions only with recordings")
        return self

    @property
    def remarks(self) -> list[str]:
        counts = {"recordings without a supervision": self._silent, "supervisions of earlier cuts": self._repeated}
        return [f"skipped {what}: {count:,}" for what, count in counts.items() if count]

    def items(self) -> Iterator[Item]:
        files = self.files(self.tree)
        audio = self.files(self.audio_dir or self.tree)
        self._silent = self._repeated = 0
        fields = Fields(self.columns, self.ignore, usual=OWN_NAMES)
        shar, seen = _Shar(files), dict[str, int]()
        try:
            found = self._cuts(files, fields) if self.cuts else self._recordings(files, fields)
            with ThreadPoolExecutor(audio.probes) as pool:
                while chunk := list(islice(found, 1000)):
                    shar.prepare(chunk)
                    yield from self._new(pool.map(lambda one: _located(one, audio, shar), chunk), seen)
            yield from shar.faults
        except OSError as error:
            raise SourceError(f"{self.tree}: {error}") from error

    def open(self, locator: str) -> Raw:
        if MEMBER.fullmatch(locator):
            return open_member(self.files(self.tree), locator)
        return self.files(self.audio_dir or self.tree).open(locator)

    def _new(self, items: Iterator[Item], seen: dict[str, int]) -> Iterator[Item]:
        """Yield the items that are not the same utterance as an earlier one.

        A supervision is in several cuts if these overlap, as windows and cuts trimmed to other supervisions do.
        """
        for item in items:
            of_shar = MEMBER.fullmatch(item.locator)  # which stores the audio of each cut
            at = None if of_shar else (item.locator, round(item.start_seconds or 0.0, 2))
            utterance = hash((item.text, item.speaker_id, round(item.seconds, 2), at))
            if item.error is None and seen.get(item.id) == utterance:
                self._repeated += 1
                continue
            seen[item.id] = utterance
            yield item

    def _cuts(self, files: Files, fields: Fields) -> Iterator[_Found]:
        for name, where, cut in _records(files, self.cuts or []):
            if isinstance(cut, Item):
                yield name, cut, None
                continue
            for item, there in of_cut(cut, where, fields):
                yield name, item, there

    def _recordings(self, files: Files, fields: Fields) -> Iterator[_Found]:
        recordings: dict[str, dict[str, Any]] = {}
        for name, where, recording in _records(files, self.recordings or []):
            if isinstance(recording, Item):
                yield name, recording, None
            elif self.supervisions is None:
                whole = {key: recording.get(key) for key in ("id", "duration")} | {
                    "channel": recording.get("channel_ids")
                }
                yield name, *utterance(recording, whole, where, fields)
            elif recordings.setdefault(key := str(recording.get("id")), recording) is not recording:
                yield name, _error(where, f"has the id {key!r} of another recording: remove one"), None
        silent = set(recordings)
        for name, where, supervision in _records(files, self.supervisions or []):
            if isinstance(supervision, Item):
                yield name, supervision, None
                continue
            key = str(supervision.get("recording_id"))
            silent.discard(key)
            if key in recordings:
                yield name, *utterance(recordings[key], supervision, where, fields)
            else:
                yield (
                    name,
                    _error(where, f"has the recording_id {key!r}, which is not among the recordings: add it"),
                    None,
                )
        self._silent = len(silent)


def _located(found: _Found, audio: Files, shar: _Shar) -> Item:
    """Return an item with its locator, size and duration."""
    name, item, there = found
    if there is None:
        return item
    try:
        if there.kind == "shar":
            archive, member = shar.find(name, there.source)
            return replace(item, locator=member.locator(archive), size=member.size)
        return probed(audio, item, place(("source", there.source)))
    except BadLine as error:
        return _error(item.where, str(error))


def _error(where: str, message: str) -> Item:
    return bad_line(where, f"{where} {message}")


class _Shar:
    """The archives of a Shar folder: `recording.000007.tar` has the audio of `cuts.000007.jsonl.gz`, by cut ids.

    Attributes:
        faults: an error item for each archive that can't be read to its end.
    """

    def __init__(self, files: Files) -> None:
        self.faults: list[Item] = []
        self._files = files
        self._members: dict[str, dict[str, Member]] = {}

    def prepare(self, found: list[_Found]) -> None:
        """List the archives of these items, and forget all others."""
        names = {name for name, _, there in found if there and there.kind == "shar"}
        self._members = {
            name: self._members[name] if name in self._members else self._listed(name) for name in sorted(names)
        }

    def find(self, name: str, cut: str) -> tuple[str, Member]:
        """Return the archive and the member that hold the audio of a cut.

        Raises:
            BadLine: there is none.
        """
        archive, member = _archive(name), self._members[name].get(cut)
        if member is None:
            raise BadLine(f"is cut {cut!r}, for which {archive} has no audio")
        if member.fault:
            raise BadLine(f"has audio in {archive} that {member.fault}")
        return archive, member

    def _listed(self, name: str) -> dict[str, Member]:
        archive, found = _archive(name), dict[str, Member]()
        with self._files.stream(archive) as file:
            try:
                for member in members(file):
                    key, _, ending = member.name.rpartition(".")
                    if ending not in NO_AUDIO:
                        found[key] = member
            except BadLine as error:
                where = shown_path(archive)
                self.faults.append(Item(id=where, where=where, error_class="bad_archive", error=f"{where} {error}"))
        return found


def _archive(name: str) -> str:
    return CUTS_OF_SHAR.sub(lambda cuts: f"recording{cuts[1] or ''}.tar", name)


def _records(files: Files, patterns: str | list[str]) -> Iterator[tuple[str, str, dict[str, Any] | Item]]:
    """Yield the objects of files of JSON lines, compressed or not; for a line that is none, an error item.

    Yields:
        The file, the place for messages, and the object.
    """
    for name in listed(files, patterns):
        with _opened(files, name) as file:
            for number, record in json_lines(file, name, MAX_LINE):
                where = f"{name}:{number}"
                if isinstance(record, BadLine):
                    yield name, where, _error(where, str(record))
                else:
                    yield name, where, record


@contextmanager
def _opened(files: Files, name: str) -> Iterator[BinaryIO]:
    """Open a file that may be compressed with gzip.

    Raises:
        SourceError: it is damaged or incomplete.
    """
    with files.stream(name) as raw, gzip.open(raw) if name.endswith(".gz") else nullcontext(raw) as file:
        try:
            yield cast(BinaryIO, file)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise SourceError(f"{files.place}/{name}: {error}; copy it again") from error
