"""ingest: open, decode and check each entry of the plan, and store it as 16 kHz mono FLAC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from echo_targets.schemas import ENTRIES, KEY, SAMPLE_RATE, UTTERANCES
from echo_targets.transforms.audio.sections import SectionReader
from echo_targets.transforms.audio.waveforms import (
    Audio,
    BadAudio,
    Limits,
    Section,
    encode_flac,
    load_sections,
    reader_of,
)
from echo_targets.transforms.base import Parameters
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.sources.base import Source
from echo_targets.transforms.sources.cuts import CutsSource
from echo_targets.transforms.sources.registry import AnySource, named
from echo_targets.transforms.stages.of_entries import Entry, OfEntries, Row


class IngestParameters(Parameters):
    """Parameters of ingest.

    Attributes:
        sources: the corpora, in order.
        min_seconds, max_seconds: shorter and longer audio is rejected.
    """

    sources: list[Annotated[AnySource | CutsSource, Field(discriminator="kind")]]
    min_seconds: float = 0.1
    max_seconds: float = 3600.0


class Ingest(OfEntries):
    """Load each entry of the plan. Neighboring cuts of a recording are decoded in one pass."""

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 6
    writes = UTTERANCES
    Parameters = IngestParameters
    parameters: IngestParameters

    def __init__(self, parameters: Any, device: str = "cpu") -> None:
        super().__init__(parameters, device)
        self._sources = named(self.parameters.sources)
        self._last: tuple[tuple[str, str | None], SectionReader] | None = None
        """The last recording and its reader, which continues where the last batch ended."""

    @property
    def sources(self) -> dict[str, Source]:
        return self._sources

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        """Return the entries, each with the system text that any entry of its dialogue states."""
        entries = shard[ENTRIES.name]
        states = pc.and_(pc.is_valid(entries["system_text"]), pc.is_null(entries["error"]))
        stated = entries.filter(pc.and_(states, pc.is_valid(entries["dialogue_id"]))).combine_chunks()
        place = pc.index_in(window["dialogue_id"].combine_chunks(), value_set=stated["dialogue_id"].combine_chunks())
        texts = pc.coalesce(window["system_text"].combine_chunks(), stated["system_text"].combine_chunks().take(place))
        return window.set_column(window.schema.names.index("system_text"), ENTRIES.schema.field("system_text"), texts)

    def rows_of(self, entries: Sequence[Entry], source: Source, file: str) -> list[Row | BadAudio]:
        limits = Limits(self.parameters.min_seconds, self.parameters.max_seconds)
        if entries[0]["timed_text"] is not None:
            raise BadData(
                "timed_text",
                "names a timed text, which only segment uses: cut it with `echo-targets run recordings`, or list "
                "`timed_text` under the source's `ignore`",
            )
        wanted = [(entry["channel"], _section(entry)) for entry in entries]
        recording = (entries[0]["source"], entries[0]["recording_id"])
        (last, self._last) = (self._last, None)  # a thread that decodes has the reader to itself
        is_last = recording[1] is not None and last is not None and last[0] == recording
        reader = last[1] if last and is_last else reader_of(source.open(entries[0]["locator"]))
        loaded = load_sections(reader, limits, wanted, entries[0]["declared_seconds"])
        if recording[1] is not None:
            self._last = recording, reader
        return [
            _row(entry, audio, file, source) if isinstance(audio, Audio) else audio
            for entry, audio in zip(entries, loaded, strict=True)
        ]


def _section(entry: Entry) -> Section:
    return Section(entry["start_seconds"] or 0.0, entry["section_seconds"])


def _row(entry: Entry, audio: Audio, path: str, source: Source) -> Row:
    same = (
        "recording_id",
        "overlap",
        "dialogue_id",
        "turn",
        "role",
        "corpus",
        "split",
        "language",
        "channel",
        "speaker_id",
        "reference_text",
        "system_text",
        "license",
    )
    start = end = None
    if entry["recording_id"] is not None:
        start = round(entry["start_seconds"] * SAMPLE_RATE)
        end = start + round(entry["section_seconds"] * SAMPLE_RATE)
    return {
        KEY: entry[KEY],
        **{name: entry[name] for name in same},
        "start_sample": start,
        "end_sample": end,
        "audio": {"bytes": encode_flac(audio.pcm), "path": path},
        "audio_sha256": audio.sha256,
        "sampling_rate": audio.source_rate,
        "num_samples": len(audio.pcm),
        "spoken_text": source.spoken_text(entry["locator"]),
        "synthetic": source.synthetic,
    }
