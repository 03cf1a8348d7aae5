"""A Multilingual LibriSpeech tree: <split>/transcripts.txt and segments.txt next to <split>/audio/<speaker>/<book>/."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import ClassVar, Literal

from pydantic import Field

from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Files, Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.lines import Line, text_lines
from echo_targets.transforms.sources.values import BadLine, text


class MlsSource(Source):
    """Utterances of one language of MLS (Pratap et al. 2020).

    Attributes:
        tree: the language's folder, such as `mls_english`; a path or a URL.
        splits: names of the splits to take.
        audio: the corpus's file format, of the two that it is published in.
        share: share of the corpus to take, chosen by a digest of each id, so always the same utterances.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "tree"
    kind: Literal["mls"]
    tree: str
    splits: list[str] = ["train"]
    audio: Literal["flac", "opus"] = "flac"
    share: float = Field(1.0, gt=0, le=1)
    corpus: str = "mls"
    license: str = "CC-BY-4.0"

    def items(self) -> Iterator[Item]:
        tree = self.files(self.tree)
        with ThreadPoolExecutor(tree.probes) as pool:
            for split in self.splits:
                try:
                    yield from self._split(tree, split, pool)
                except OSError as error:
                    raise SourceError(f"{self.tree}/{split}: {error}") from error

    def open(self, locator: str) -> Raw:
        return self.files(self.tree).open(locator)

    def _split(self, tree: Files, split: str, pool: ThreadPoolExecutor) -> Iterator[Item]:
        seconds: dict[str, float] = {}
        for _, line in _lines(tree, f"{split}/segments.txt"):
            if isinstance(line, BadLine):  # the duration is then taken from the audio
                continue
            key, _, start, end = (*line.split("\t"), "", "", "")[:4]
            if self._takes(key):
                seconds[key] = _difference(start, end)
        name = f"{split}/transcripts.txt"

        def item(numbered: Line) -> Item:
            number, line = numbered
            where = f"{name}:{number}"
            try:
                if isinstance(line, BadLine):
                    raise line
                key, tab, rest = line.partition("\t")
                if key.count("_") != 2 or not key.replace("_", "").isalnum() or not tab:
                    raise BadLine("is not an utterance id, a tab and a text")
                words = text(("text", rest))
            except BadLine as error:
                return bad_line(where, f"{name}, line {number}: {error}")
            speaker, book, _ = key.split("_")
            locator = f"{split}/audio/{speaker}/{book}/{key}.{self.audio}"
            size, lasts = tree.probe(locator, seconds.get(key))
            return Item(
                id=key,
                where=where,
                locator=locator,
                size=size,
                seconds=lasts,
                text=words,
                split=split,
                speaker_id=speaker,
            )

        taken = (
            (number, line)
            for number, line in _lines(tree, name)
            if isinstance(line, BadLine) or self._takes(line.partition("\t")[0])
        )
        while chunk := list(islice(taken, 1000)):
            yield from pool.map(item, chunk)

    def _takes(self, key: str) -> bool:
        drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
        return drawn < self.share * 2**64


def _lines(tree: Files, name: str) -> Iterator[Line]:
    with tree.stream(name) as file:
        yield from text_lines(file, name)


def _difference(start: str, end: str) -> float:
    """Return the seconds of a segment; 0 if its times are not numbers, so that the audio's header is used."""
    try:
        return max(0.0, float(end) - float(start))
    except ValueError:
        return 0.0
