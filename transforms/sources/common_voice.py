"""A language of a Common Voice release, as it is unpacked: `train.tsv` and others beside the folder `clips`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Files, Item, Source, SourceError, bad_line
from echo_targets.transforms.sources.lines import tsv_records
from echo_targets.transforms.sources.record import Fields, item_from
from echo_targets.transforms.sources.values import BadLine, number, path_id, place

FIELDS_OF_A_CLIP = Fields(usual={"id": (), "audio": ("path",), "text": ("sentence",), "duration": ()})
DURATIONS = "clip_durations.tsv"
PARTS_OF_VALIDATED = ("train", "dev", "test")

_Row = tuple[str, int, dict[str, Any] | BadLine]
"""The split, the line's number in its file, and the line."""


class CommonVoiceSource(Source):
    """Clips of a Common Voice release (Ardila et al. 2020). A clip's id is its file name without the ending.

    Attributes:
        tree: the folder of a language, such as `cv-corpus-17.0-2024-03-15/en`; a path or a URL.
        splits: names of the TSV files to take, without the ending. `validated` contains train, dev and test.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "tree"
    kind: Literal["common-voice"]
    tree: str
    splits: list[str] = ["train"]
    corpus: str = "common-voice"
    license: str = "CC0-1.0"

    @field_validator("splits")
    @classmethod
    def _takes_each_clip_once(cls, splits: list[str]) -> list[str]:
        if "validated" in splits and (parts := [split for split in splits if split in PARTS_OF_VALIDATED]):
            raise ValueError(f"validated contains {', '.join(parts)}: name either")
        return splits

    def items(self) -> Iterator[Item]:
        files = self.files(self.tree)
        try:
            seconds = _durations(files)
            rows = self._rows(files)
            with ThreadPoolExecutor(files.probes) as pool:
                while chunk := list(islice(rows, 1000)):
                    yield from pool.map(lambda row: _item(files, row, seconds), chunk)
        except OSError as error:
            raise SourceError(f"{self.tree}: {error}") from error

    def open(self, locator: str) -> Raw:
        return self.files(self.tree).open(locator)

    def _rows(self, files: Files) -> Iterator[_Row]:
        for split in self.splits:
            try:
                file = files.stream(f"{split}.tsv")
            except FileNotFoundError:
                there = [name.removesuffix(".tsv") for name in files.find("", depth=0, suffix=".tsv")]
                hint = f"it has {', '.join(there)}" if there else "name a language's folder, such as cv-corpus-17.0/en"
                raise SourceError(f"{self.tree}: has no {split}.tsv; {hint}") from None
            with file:
                for line, record in tsv_records(file, f"{split}.tsv"):
                    yield split, line, record


def _item(files: Files, row: _Row, seconds: dict[str, float]) -> Item:
    split, line, record = row
    where = f"{split}.tsv:{line}"
    try:
        if isinstance(record, BadLine):
            raise record
        fields = FIELDS_OF_A_CLIP(record)
        name = place(fields.get("audio", ("path", None)))
        name = name if os.path.splitext(name)[1] else f"{name}.mp3"  # as in the first releases
        locator = place(("path", f"clips/{name}"))
        item = item_from(
            fields | {"id": ("path", path_id(os.path.splitext(name)[0])), "split": ("split", split)}, where
        )
        size, lasts = files.probe(locator, seconds.get(name))
        return replace(item, locator=locator, size=size, seconds=lasts)
    except BadLine as error:
        return bad_line(where, f"{split}.tsv, line {line}: {error}")


def _durations(files: Files) -> dict[str, float]:
    """Return the seconds of each clip; those without a valid duration are left to the clip's header."""
    seconds: dict[str, float] = {}
    try:
        file = files.stream(DURATIONS)
    except FileNotFoundError:
        return seconds
    with file:
        for _, record in tsv_records(file, DURATIONS):
            if isinstance(record, BadLine):
                continue
            try:
                seconds[str(record.get("clip"))] = (number(("ms", record.get("duration[ms]")), 0, 1e9) or 0.0) / 1000
            except BadLine:
                continue
    return seconds
