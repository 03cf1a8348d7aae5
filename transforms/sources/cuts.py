"""Cuts of recordings, as the stage segment found them, listed from the dataset in which it wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import model_validator

from echo_targets.schemas import CUTS, ENTRIES, KEY, SAMPLE_RATE
from echo_targets.schemas.dataset.layout import Dataset, LayoutError, must_be_readable
from echo_targets.transforms.audio.waveforms import Raw
from echo_targets.transforms.sources.base import Item, Source, SourceError
from echo_targets.transforms.sources.registry import AnySource

OF_ENTRIES = ("source", "locator", "size", "split", "language", "system_text")


class CutsSource(Source):
    """The cuts of a source of recordings. Each becomes an utterance, and the turns of a recording a dialogue.

    Attributes:
        root: the dataset that has the table `cuts`.
        recordings: the source of the recordings, as it was given to segment. By default, the cuts have its corpus,
            split, language and license.
    """

    has_files: ClassVar[bool] = True
    listed_in: ClassVar[str] = "root"
    kind: Literal["cuts"]
    root: str
    recordings: AnySource

    @model_validator(mode="before")
    @classmethod
    def _of_recordings(cls, values: Any) -> Any:
        given = values.get("recordings") if isinstance(values, dict) else None
        same = ("corpus", "split", "language", "license", "allow_http")
        inherited = {name: given[name] for name in same if name in given} if isinstance(given, dict) else {}
        return inherited | values if isinstance(values, dict) else values

    def fingerprint_parameters(self) -> dict[str, Any]:
        return super().fingerprint_parameters() | {"recordings": self.recordings.fingerprint_parameters()}

    def weight_digests(self) -> dict[str, str]:
        return self.recordings.weight_digests()

    @property
    def synthetic(self) -> bool:
        return self.recordings.synthetic

    def open(self, locator: str) -> Raw:
        return self.recordings.open(locator)

    def items(self) -> Iterator[Item]:
        dataset, name = Dataset(self.root), f"{self.recordings.corpus}/{self.recordings.split}"
        try:
            version = dataset.current(CUTS.name)
            must_be_readable(dataset, CUTS.name)
            entries = dataset.recipe(CUTS.name, version.recipe).upstream[ENTRIES.name]
            recordings, is_empty = 0, True
            for shard in dataset.snapshot(version.snapshot).ids:
                cuts = self._rows(dataset, CUTS.name, version.recipe, shard, [KEY, "cuts"])
                planned = self._rows(dataset, ENTRIES.name, entries, shard, [KEY, *OF_ENTRIES])
                places = {entry[KEY]: entry for entry in planned.to_pylist()}
                for row in cuts.to_pylist():
                    if places[row[KEY]]["source"] == name:
                        recordings += 1
                        is_empty = is_empty and not row["cuts"]
                        yield from self._items(row, places[row[KEY]])
        except (LayoutError, OSError) as error:
            raise SourceError(f"{self.corpus}: {self.root} has no cuts ({error}); run segment first") from error
        if is_empty:
            what = f"its {recordings:,} recordings have no speech" if recordings else f"it has no recording of {name}"
            raise SourceError(f"{self.corpus}: {self.root} has no cuts: {what}")

    def _rows(self, dataset: Dataset, table: str, recipe: str, shard: str, columns: list[str]) -> pa.Table:
        manifest = dataset.manifest(table, recipe, shard)
        if manifest is None:
            raise LayoutError(f"{dataset.where(table, recipe, shard)}.json: no such file")
        with dataset.open(manifest.output.path) as file:
            return file.read(columns)

    def _items(self, row: dict[str, Any], entry: dict[str, Any]) -> Iterator[Item]:
        recording = row[KEY]
        for cut in row["cuts"]:
            start, end, channel = cut["start_sample"], cut["end_sample"], cut["channel"]
            # The place names a cut, not its number, so that other cuts do not rename it.
            key = f"{recording}-{'' if channel < 0 else f'{channel}-'}{start:010d}"
            yield Item(
                id=key,
                where=f"{recording} at {start / SAMPLE_RATE:.2f} s",
                locator=entry["locator"],
                size=entry["size"],
                seconds=(end - start) / SAMPLE_RATE,
                start_seconds=start / SAMPLE_RATE,
                section_seconds=(end - start) / SAMPLE_RATE,
                recording_id=recording,
                overlap=cut["overlap"],
                dialogue_id=None if cut["turn"] is None else recording,
                turn=cut["turn"],
                role=cut["role"],
                system=entry["system_text"],
                split=entry["split"],
                language=entry["language"],
                channel=channel,
                speaker_id=cut["speaker_id"],
                text=cut["text"],
            )
