"""Kaldi's data directories: `wav.scp`, and where they exist `segments`, `text`, `utt2spk` and others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar, Literal, NamedTuple

from pydantic import PrivateAttr

from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Files, Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.lines import text_lines
from echo_targets.transforms.sources.manifest import probed
from echo_targets.transforms.sources.record import section
from echo_targets.transforms.sources.values import BadLine, channel, identifier, language, place, text

TABLES = ("text", "utt2spk", "utt2lang", "reco2file_and_channel")
"""Files that may be missing, besides `segments`."""
ARCHIVE = re.compile(r"\S+:\d+")
"""A file inside a Kaldi archive: its path and a position."""
TO_THE_END = re.compile(r"-1(\.0*)?")
"""The end time of a segment that lasts until the recording's end."""
SIDES = {"A": 0, "B": 1}
"""Kaldi's names of the channels of a call."""


class _Row(NamedTuple):
    """A line of a table after its key."""

    line: int
    value: str


@dataclass
class _Directory:
    """The tables of a data directory, and error items of their bad lines."""

    tables: dict[str, dict[str, _Row]] = field(default_factory=dict)
    errors: list[Item] = field(default_factory=list)
    shared: Counter[str] = field(default_factory=Counter)

    def value(self, table: str, key: str) -> str | None:
        row = self.tables[table].get(key)
        return row.value if row else None


class KaldiSource(Source):
    """Utterances of a Kaldi data directory. docs/SOURCES.md describes its files. All of them are kept in memory.

    Attributes:
        tree: the data directory, such as `data/train`; a path or a URL.
        audio_dir: the folder or URL that relative paths in `wav.scp` start from, which is usually the recipe's; by
            default `tree`.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "tree"
    kind: Literal["kaldi"]
    tree: str
    audio_dir: str | None = None

    _remarks: list[str] = PrivateAttr(default_factory=list)

    @property
    def remarks(self) -> list[str]:
        return self._remarks

    def items(self) -> Iterator[Item]:
        files, audio = self.files(self.tree), self.files(self.audio_dir or self.tree)
        try:
            data = _read(files)
            has_segments = bool(data.tables["segments"])
            listed = "segments" if has_segments else "wav.scp"
            utterances = data.tables[listed]
            self._remarks = list(_remarks(data, utterances))
            with ThreadPoolExecutor(audio.probes) as pool:
                rows = iter(utterances.items())
                while chunk := list(islice(rows, 1000)):
                    yield from pool.map(lambda row: _item(data, listed, row[0], row[1], audio), chunk)
        except OSError as error:
            raise SourceError(f"{self.tree}: {error}") from error
        for key, row in data.tables["text"].items():
            if key not in utterances:
                yield _error(
                    "text", row.line, f"utterance {key!r} has no audio in {listed}; add it, or remove the line"
                )
        yield from data.errors

    def open(self, locator: str) -> Raw:
        return self.files(self.audio_dir or self.tree).open(locator)


def _read(files: Files) -> _Directory:
    data = _Directory()
    for name in ("wav.scp", "segments", *TABLES):
        table = data.tables.setdefault(name, {})
        try:
            file = files.stream(name)
        except FileNotFoundError:
            if name == "wav.scp":
                raise
            continue
        with file:
            for number, line in text_lines(file, name):
                if isinstance(line, BadLine):
                    data.errors.append(_error(name, number, str(line)))
                    continue
                key, *rest = re.split(r"[ \t]+", line.strip(" \t"), maxsplit=1)
                if first := table.get(key):
                    data.errors.append(_error(name, number, f"{key!r} is already in line {first.line}; remove one"))
                else:
                    table[key] = _Row(number, rest[0] if rest else "")
    data.shared = Counter(row.value for row in data.tables["wav.scp"].values())
    return data


def _remarks(data: _Directory, utterances: dict[str, _Row]) -> Iterator[str]:
    """Yield what the tables lack."""
    texts, segments = data.tables["text"], data.tables["segments"]
    if texts and (silent := sum(key not in texts for key in utterances)):
        yield f"utterances without a line in text: {silent:,}"
    if segments:
        used = {next(iter(row.value.split()), "") for row in segments.values()}
        if unused := sum(key not in used for key in data.tables["wav.scp"]):
            yield f"skipped recordings of wav.scp without a segment: {unused:,}"


def _item(data: _Directory, listed: str, key: str, row: _Row, audio: Files) -> Item:
    try:
        recording, begins, ends, side = key, "", "", ""
        if listed == "segments":
            words = row.value.split()
            if len(words) not in (3, 4):
                raise BadLine("is not followed by RECORDING START END [CHANNEL]")
            recording, begins, ends, side = (*words, "")[:4]
        path = data.value("wav.scp", recording)
        if path is None:
            raise BadLine(f"has the recording {recording!r}, which is not in wav.scp; add it")
        start, lasts, _ = section(
            ("start", begins or None), ("end", None if TO_THE_END.fullmatch(ends) else ends or None), ("duration", None)
        )
        item = Item(
            id=identifier(("utterance", key)) or key,
            where=f"{listed}:{row.line}",
            start_seconds=start,
            section_seconds=lasts,
            text=text(("text", data.value("text", key))),
            speaker_id=identifier(("utt2spk", data.value("utt2spk", key))),
            language=language(("utt2lang", data.value("utt2lang", key))),
            channel=_channel(data, recording, path, side),
        )
        return probed(audio, item, _path(path))
    except BadLine as error:
        return _error(listed, row.line, f"{key!r} {error}")


def _path(value: str) -> str:
    """Return the path of a line of `wav.scp`.

    Raises:
        BadLine: it is a command, or a place in an archive, or leads out of the folder.
    """
    value = value.strip()
    if value.endswith("|") or value in ("", "-"):
        raise BadLine(
            "has a command in wav.scp, which is not run: name the file that it decodes, of any format, or write its "
            "output to a file"
        )
    if ARCHIVE.fullmatch(value):
        raise BadLine("is in a Kaldi archive: write it to a file, for instance with wav-copy, and name that in wav.scp")
    return place(("wav.scp", value))


def _channel(data: _Directory, recording: str, path: str, side: str) -> int | None:
    """Return the channel of a recording's file; None for the only one.

    A segment may name it. Otherwise `reco2file_and_channel` says which side of a call a recording is. If each side has
    a file, that has one channel, whatever the side is called.
    """
    if not side and data.shared[path] > 1:
        words = (data.value("reco2file_and_channel", recording) or "").split()
        side = words[1] if len(words) > 1 else ""
    return channel(("channel", SIDES.get(side, side or None)))


def _error(name: str, line: int, message: str) -> Item:
    where = f"{name}:{line}"
    return bad_line(where, f"{name}, line {line}: {message}")
