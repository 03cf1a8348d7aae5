"""WebDataset: tar archives in which the files of an utterance share a key, such as `0017.flac`, `0017.json`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, BinaryIO, ClassVar, Literal, NamedTuple

from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Files, Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.folder import AUDIO
from echo_targets.transforms.sources.lines import MAX_LINE, decoded, json_object
from echo_targets.transforms.sources.record import FIELDS, ColumnNames, Fields, item_from
from echo_targets.transforms.sources.shards import listed
from echo_targets.transforms.sources.tar import Member, members, open_member
from echo_targets.transforms.sources.values import BadLine, path_id, shown_path
from echo_targets.transforms.sources.walk import is_hidden

NAME = re.compile(r"((?:.*/)?[^/.]+)\.([^/]*)", re.DOTALL)
"""The key, up to the first dot of the base name, and the ending."""
TEXTS = ("txt", "lab", "normalized.txt", *FIELDS["text"])
"""Endings of files that hold the text."""
PACKED = re.compile(r"(.*\.)?(gz|bz2|xz|zst|zip)", re.IGNORECASE)
SHARDS = 4
"""Archives to list at the same time. The items of so many are in memory."""


class _Audio(NamedTuple):
    member: Member
    seconds: float


@dataclass
class _Sample:
    """The files of a key: audio by its ending; texts and JSON; what is wrong with them."""

    audio: dict[str, _Audio] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    endings: set[str] = field(default_factory=set)
    error: str | None = None


@dataclass
class _Archive:
    """The samples of an archive by key, endings of files that are ignored, and why it can't be read to its end."""

    samples: dict[str, _Sample] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    fault: BadLine | None = None


class WebDatasetSource(Source):
    """Samples of WebDataset archives. The audio is opened inside its archive. docs/SOURCES.md describes the files.

    Attributes:
        tree: the folder of the archives, a path or a URL.
        shards: the archives, as names, wildcards or braces below `tree`: `train-{000000..000127}.tar`.
        columns: names of the JSON's keys if they are not the usual ones. `audio` and `text` may also be the ending of a
            file, such as {"audio": "question.wav"}.
        ignore: keys to ignore, although they have a known name.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "tree"
    kind: Literal["webdataset"]
    tree: str
    shards: str | list[str] = "*.tar"
    columns: ColumnNames = {}
    ignore: list[str] = []

    def items(self) -> Iterator[Item]:
        files = self.files(self.tree)
        self._ignored.clear()
        try:
            shards = iter(listed(files, self.shards))
            with ThreadPoolExecutor(SHARDS) as pool:
                while chunk := list(islice(shards, SHARDS)):
                    for items, ignored in pool.map(lambda shard: self._shard(files, shard), chunk):
                        self._ignored.update(ignored)
                        yield from items
        except OSError as error:
            raise SourceError(f"{self.tree}: {error}") from error

    def open(self, locator: str) -> Raw:
        return open_member(self.files(self.tree), locator)

    def _shard(self, files: Files, shard: str) -> tuple[list[Item], Counter[str]]:
        """Return an archive's items, and its files and keys that are ignored."""
        with files.stream(shard) as file:
            archive = _read(file, self.columns.get("audio"), self.columns.get("text"))
        others = {name: key for name, key in self.columns.items() if name != "audio"}
        fields = Fields(others, self.ignore, usual={"audio": (), "text": TEXTS})
        items = []
        for key, sample in archive.samples.items():
            archive.ignored.update(fields.ignored(sample.record))
            items.append(self._item(shard, key, sample, fields))
        if archive.fault:
            where = shown_path(shard)
            message = f"{where} {archive.fault}; it has {len(items):,} items before that"
            items.append(Item(id=where, where=where, error_class="bad_archive", error=message))
        return items, archive.ignored

    def _item(self, shard: str, key: str, sample: _Sample, fields: Fields) -> Item:
        name = f"{shard.removesuffix('.tar')}/{key}"
        where = shown_path(f"{shard}/{key}")
        try:
            if sample.error:
                raise BadLine(sample.error)
            member, seconds = self._audio(sample)
            if member.fault:
                raise BadLine(f"has audio that {member.fault}")
            for ending, words in sample.texts.items():
                if str(sample.record.get(ending, words)).strip() != words.strip():
                    raise BadLine(f"has a file `.{ending}` and a different `{ending}` in its JSON: remove one")
            found = fields(sample.record | sample.texts)
            known = {"id": found.get("id") or ("key", path_id(name))}
            item = item_from(found | known, where)
        except BadLine as error:
            return bad_line(where, f"{where} {error}")
        lasts = item.section_seconds or item.declared_seconds
        if item.start_seconds and lasts is None:
            seconds = max(0.0, seconds - item.start_seconds)
        return replace(item, locator=member.locator(shard), size=member.size, seconds=lasts or seconds)

    def _audio(self, sample: _Sample) -> _Audio:
        """Return the audio of a sample.

        Raises:
            BadLine: there is none, or more than one.
        """
        endings = [ending for ending in sample.audio if ending == self.columns.get("audio", ending)]
        if len(endings) == 1:
            return sample.audio[endings[0]]
        there = ", ".join(f"`.{ending}`" for ending in sorted(sample.endings))
        if endings:
            raise BadLine(
                f"has several audio files ({there}), because a key ends at the first dot: choose one with "
                "`columns: {audio: ENDING}`, or pack files without other dots in their names"
            )
        wanted = f"file `.{self.columns['audio']}`, as `columns` wants," if "audio" in self.columns else "audio file,"
        raise BadLine(f"has no {wanted} only {there}")


def _read(file: BinaryIO, audio: str | None, text: str | None) -> _Archive:
    """List an open archive.

    Args:
        audio, text: endings of files that hold these, besides the usual ones.
    """
    archive, key = _Archive(), None
    try:
        for member in members(file):
            name = NAME.fullmatch(member.name)
            if not name or any(map(is_hidden, member.name.split("/"))):
                continue
            key, ending = name[1], name[2].lower()
            sample = archive.samples.setdefault(key, _Sample())
            if ending in sample.endings:
                sample.error = f"has two files `.{ending}`: the archive names one twice"
            sample.endings.add(ending)
            if ending == audio or AUDIO.fullmatch(f".{ending.rpartition('.')[2]}"):
                sample.audio[ending] = _Audio(member, member.seconds(file))
            elif ending in (*TEXTS, text, "json"):
                _read_text(sample, ending, member, file)
            elif PACKED.fullmatch(ending):
                sample.error = f"has a compressed file `.{ending}`: decompress it and pack it again"
            else:
                archive.ignored[f".{ending}"] += 1
    except BadLine as error:
        archive.fault = error
        if key is not None:
            archive.samples[key].error = "is the last before the archive breaks off, so its text may be missing"
    return archive


def _read_text(sample: _Sample, ending: str, member: Member, file: BinaryIO) -> None:
    """Add a text or JSON file of the archive to its sample."""
    try:
        if member.fault:
            raise BadLine(member.fault)
        if member.size > MAX_LINE:
            raise BadLine(f"is longer than {MAX_LINE} bytes")
        words = decoded(member.read(file))
        if ending != "json":
            sample.texts[ending] = words
            return
        record = json_object(words)
        if isinstance(record, BadLine):
            raise record
        sample.record = record
    except BadLine as error:
        sample.error = f"has a file `.{ending}` that {error}"
