"""A LibriSpeech tree: <split>/<speaker>/<chapter>/<speaker>-<chapter>.trans.txt beside its FLAC files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from transforms.audio import header_seconds
from transforms.sources.base import Item, Source, SourceError


class LibriSpeechSource(Source):
    """Utterances of a LibriSpeech tree (Panayotov et al. 2015).

    Attributes:
        tree: the folder that holds the splits, such as `LibriSpeech`.
        splits: which of them, such as ["train-clean-100"].
    """

    has_files: ClassVar[bool] = True
    kind: Literal["librispeech"]
    tree: str
    splits: list[str]
    corpus: str = "librispeech"
    license: str = "CC-BY-4.0"

    def items(self) -> Iterator[Item]:
        for split in self.splits:
            transcripts = sorted(Path(self.tree, split).glob("*/*/*.trans.txt"))
            if not transcripts:
                raise SourceError(f"{Path(self.tree, split)}: no <speaker>/<chapter>/*.trans.txt below it")
            for transcript in transcripts:
                yield from self._chapter(transcript, split)

    def open(self, locator: str) -> Path:
        return Path(self.tree, locator)

    def _chapter(self, transcript: Path, split: str) -> Iterator[Item]:
        for number, line in enumerate(transcript.read_text(encoding="utf-8").splitlines(), 1):
            where = f"{transcript.name}:{number}"
            key, _, text = line.strip().partition(" ")
            if key.count("-") != 2 or not key.replace("-", "").isalnum():
                message = f"{transcript.name}, line {number}: does not start with an utterance id"
                yield Item(id=where, where=where, error_class="bad_line", error=message)
                continue
            path = transcript.parent / f"{key}.flac"
            exists = path.is_file()
            yield Item(
                id=key,
                where=where,
                locator=str(path.relative_to(self.tree)),
                size=path.stat().st_size if exists else None,
                seconds=(header_seconds(path) if exists else None) or 0.0,
                text=text.lower(),
                split=split,
                speaker_id=key.split("-")[0],
            )
