"""A LibriSpeech tree: <split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt next to its FLAC files."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal

from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Files, Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.lines import Line, text_lines
from echo_targets.transforms.sources.values import BadLine, text


class LibriSpeechSource(Source):
    """Utterances of a LibriSpeech tree (Panayotov et al. 2015).

    Attributes:
        tree: the folder that holds the splits, such as `LibriSpeech`; a path or a URL.
        splits: names of the splits to take, such as ["train-clean-100"].
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "tree"
    kind: Literal["librispeech"]
    tree: str
    splits: list[str]
    corpus: str = "librispeech"
    license: str = "CC-BY-4.0"

    def items(self) -> Iterator[Item]:
        tree = self.files(self.tree)
        chapters = {split: self._transcripts(tree, split) for split in self.splits}
        with ThreadPoolExecutor(tree.probes) as pool:
            for split, transcripts in chapters.items():
                try:
                    for transcript in transcripts:
                        yield from self._chapter(tree, transcript, split, pool)
                except OSError as error:
                    raise SourceError(f"{self.tree}/{split}: {error}") from error

    def open(self, locator: str) -> Raw:
        return self.files(self.tree).open(locator)

    def _transcripts(self, tree: Files, split: str) -> list[str]:
        try:
            found = tree.find(split, depth=2, suffix=".trans.txt")
        except OSError as error:
            raise SourceError(f"{self.tree}/{split}: {error}") from error
        if not found:
            raise SourceError(f"{self.tree}/{split}: has no <speaker>/<chapter>/*.trans.txt")
        return found

    def _chapter(self, tree: Files, transcript: str, split: str, pool: ThreadPoolExecutor) -> Iterator[Item]:
        with tree.stream(transcript) as file:
            lines = list(text_lines(file, transcript))
        folder, _, name = transcript.rpartition("/")

        def item(numbered: Line) -> Item:
            number, line = numbered
            where = f"{name}:{number}"
            try:
                if isinstance(line, BadLine):
                    raise line
                key, rest = (*line.split(maxsplit=1), "")[:2]
                if key.count("-") != 2 or not key.replace("-", "").isalnum():
                    raise BadLine("does not start with an utterance id")
                words = text(("text", rest.lower()))
            except BadLine as error:
                return bad_line(where, f"{name}, line {number}: {error}")
            locator = f"{folder}/{key}.flac"
            size, seconds = tree.probe(locator, None)
            return Item(
                id=key,
                where=where,
                locator=locator,
                size=size,
                seconds=seconds,
                text=words,
                split=split,
                speaker_id=key.split("-")[0],
            )

        named = set()
        for found in pool.map(item, lines):
            named.add(found.locator)
            yield found
        for locator in tree.find(folder, depth=0, suffix=".flac"):
            if locator not in named:
                where = locator.rpartition("/")[2]
                yield bad_line(where, f"{where}: {name} has no line for it; add one, or remove the file")
