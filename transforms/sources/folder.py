"""A plain folder of audio at any depth, without a manifest; a text file beside an audio file has what is said."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import ClassVar, Literal, NamedTuple

from pydantic import PrivateAttr

from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Files, Item, Source, SourceError, bad_line, file_name, is_missing
from echo_targets.transforms.sources.lines import MAX_LINE, decoded
from echo_targets.transforms.sources.timed_texts.attach import TimedTexts, beside
from echo_targets.transforms.sources.timed_texts.registry import is_timed_text
from echo_targets.transforms.sources.values import BadLine, path_id, shown_path, text

AUDIO = re.compile(
    r"\.(3gp|aac|ac3|aif|aifc|aiff|amr|ape|au|avi|awb|bwf|caf|flac|flv|m4a|m4b|mka|mkv|mov|mp2|mp3|mp4|mpga|oga|ogg|"
    r"opus|rf64|snd|sph|spx|tta|voc|w64|wav|wave|webm|wma|wv)",
    re.IGNORECASE,
)
"""Endings of files that are taken. All others are counted and reported."""
TEXTS = (".normalized.txt", ".txt", ".lab")
"""Endings of text files beside the audio: of LibriTTS, of most others, of MFA and fish-speech."""
TIMES = re.compile(r"\s*(0|\d+\.\d+)[ \t]+(\d+(\.\d+)?)[ \t]+\S")
"""The start of a label file (TIMIT, HTS, Audacity), which has times and is no text."""
SHOWN = 5
"""Number of endings that are named in the report of files that are no audio."""


class _File(NamedTuple):
    """An audio file of a folder.

    Attributes:
        locator: its path below the place that is listed.
        texts: paths of its texts.
        timed_texts: paths of its texts with times.
        other: path of the audio file before it that has the same stem.
    """

    locator: str
    texts: list[str]
    timed_texts: list[str]
    other: str | None


class FolderSource(Source):
    """Audio files below a folder. docs/SOURCES.md says which are taken.

    An item's id is the file's path below the folder, without its ending.

    Attributes:
        folder: a path or a URL. A bucket's file names are all in memory while they are listed.
        timed_texts: True if `talk.srt` is the timed text of `talk.wav`. Only segment uses these.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "folder"
    kind: Literal["folder"]
    folder: str
    timed_texts: bool = False

    _skipped: Counter[str] = PrivateAttr(default_factory=Counter)
    _other_files: Counter[str] = PrivateAttr(default_factory=Counter)
    _without_audio: int = PrivateAttr(default=0)

    @property
    def remarks(self) -> list[str]:
        remarks = [f"skipped {what}: {count:,}" for what, count in sorted(self._skipped.items())]
        if count := self._other_files.total():
            named = [f"{ending or 'without any'} {some:,}" for ending, some in self._other_files.most_common(SHOWN)]
            more = ", …" * (len(self._other_files) > SHOWN)
            remarks.append(f"skipped files without an ending of audio: {count:,} ({', '.join(named)}{more})")
        if self._without_audio:
            remarks.append(f"skipped text files without an audio file of their name: {self._without_audio:,}")
        return remarks

    def items(self) -> Iterator[Item]:
        files = self.files(self.folder)
        self._skipped.clear()
        self._other_files.clear()
        self._without_audio = 0
        attached = TimedTexts(files)
        try:
            with ThreadPoolExecutor(files.probes) as pool:
                found, count = self._found(files), 0
                while chunk := list(islice(found, 1000)):
                    count += len(chunk)
                    yield from pool.map(lambda file: _item(files, file, attached), chunk)
        except OSError as error:
            raise SourceError(f"folder {self.folder}: {error}") from error
        if not count:
            raise SourceError(f"folder {self.folder}: {'; '.join(['has no audio files', *self.remarks])}")

    def open(self, locator: str) -> Raw:
        return self.files(self.folder).open(locator)

    def read(self, locator: str) -> bytes:
        return self.files(self.folder).read_whole(locator)

    def _found(self, files: Files) -> Iterator[_File]:
        """Yield the audio files, and count all others."""
        for folder, names in files.walk(self._skipped):
            endings = {name: os.path.splitext(name) for name in names}
            by_lower = {stem + ending.lower(): name for name, (stem, ending) in endings.items()}
            timed = beside(names) if self.timed_texts else {}
            first: dict[str, str] = {}
            paired: set[str] = set()
            for name, (stem, ending) in endings.items():
                if not AUDIO.fullmatch(ending):
                    continue
                texts = [by_lower[text] for end in TEXTS for text in (stem + end, name + end) if text in by_lower]
                with_times = list(dict.fromkeys([*timed.get(stem, ()), *timed.get(name, ())]))
                paired.update(texts, with_times)
                other = first.setdefault(stem, name)
                yield _File(
                    os.path.join(folder, name),
                    [os.path.join(folder, text) for text in texts],
                    [os.path.join(folder, text) for text in with_times],
                    None if other == name else other,
                )
            for name, (_, ending) in endings.items():
                if ending.lower() in (".txt", ".lab") or (self.timed_texts and is_timed_text(name)):
                    self._without_audio += name not in paired
                elif not AUDIO.fullmatch(ending):
                    self._other_files[ending.lower()] += 1


def _item(files: Files, file: _File, attached: TimedTexts) -> Item:
    shown = shown_path(file.locator)
    try:
        key = path_id(os.path.splitext(file.locator)[0])
        if file.other is not None:
            message = f"{shown}: {shown_path(file.other)} would get the same id: rename one"
            return Item(id=shown, where=shown, error_class="duplicate_id", error=message)
        words = _text(files, file.texts)
        if len(file.timed_texts) > 1:
            names = " and ".join(shown_path(file_name(text)) for text in file.timed_texts)
            raise BadLine(f"has several timed texts, {names}: keep one")
    except BadLine as error:
        return bad_line(shown, f"{shown} {error}")
    size, seconds = files.probe(file.locator, None)
    item = Item(id=key, where=shown, locator=file.locator, size=size, seconds=seconds, text=words)
    return attached.given_to(item, file.timed_texts[0]) if file.timed_texts else item


def _text(files: Files, locators: list[str]) -> str | None:
    """Return the text of an audio file; None if there is none, or only blanks.

    Raises:
        BadLine: a file is not UTF-8, is too long or holds labels; or two differ.
    """
    found: dict[str, str] = {}
    for locator in locators:
        name = file_name(locator)
        try:
            with files.stream(locator) as file:
                data = file.read(MAX_LINE + 1)
            if len(data) > MAX_LINE:
                raise BadLine(f"is longer than {MAX_LINE} bytes")
            words = text(("text", decoded(data)))
        except BadLine as error:
            raise BadLine(f"has a text that can't be read: {name} {error}") from None
        except OSError as error:
            if not is_missing(error):
                raise
            raise BadLine(f"has a text that can't be read: {name}: {error.strerror or error}") from error
        if words is not None and TIMES.match(words):
            raise BadLine(f"has no text: {name} starts with times, as a file of labels does; write the text only")
        if words is not None:
            found[name] = words
    if len({" ".join(words.split()) for words in found.values()}) > 1:
        raise BadLine(f"has different texts in {' and '.join(found)}: remove one")
    return next(iter(found.values()), None)
