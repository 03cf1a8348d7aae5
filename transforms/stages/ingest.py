"""ingest: open, decode and check each entry of the plan, and store it as 16 kHz mono FLAC."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from echo_targets.schemas import ENTRIES, KEY, SAMPLE_RATE, UTTERANCES
from echo_targets.transforms.audio.waveforms import Audio, BadAudio, Limits, Section, encode_flac, load
from echo_targets.transforms.base import Output, Parameters, Reject, Transform, table_of
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.sources.base import Source, file_name, is_missing, may_be_credentials
from echo_targets.transforms.sources.registry import AnySource, named

OPENERS = 8
"""Threads that open and decode. More than there are processors, because remote files spend time in transfer."""


class IngestParameters(Parameters):
    """Parameters of ingest.

    Attributes:
        sources: the corpora, in order.
        min_seconds, max_seconds: shorter and longer audio is rejected.
    """

    sources: list[AnySource]
    min_seconds: float = 0.1
    max_seconds: float = 3600.0


@dataclass(frozen=True)
class _Denied:
    """A row whose file access was denied: a reject, unless the credentials are to blame."""

    reject: Reject
    error: PermissionError


class Ingest(Transform):
    """Load each entry of the plan."""

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 4
    reads = (ENTRIES,)
    writes = UTTERANCES
    Parameters = IngestParameters
    parameters: IngestParameters

    def __init__(self, parameters: Any, device: str = "cpu") -> None:
        super().__init__(parameters, device)
        self._sources = named(self.parameters.sources)

    def fingerprint_parameters(self) -> dict[str, Any]:
        return self.parameters.model_dump(mode="json", exclude={"sources"})  # an entry has its source's fingerprint

    def costs(self, rows: pa.Table) -> list[int]:
        return [int(seconds * SAMPLE_RATE) for seconds in rows["seconds"].to_pylist()]

    def __call__(self, batch: pa.Table) -> Output:
        with ThreadPoolExecutor(OPENERS) as pool:
            outcomes = list(pool.map(self._ingest, batch.to_pylist()))
        denied = [outcome for outcome in outcomes if isinstance(outcome, _Denied)]
        for outcome in denied:  # after the whole batch, which may have read another file of the store
            if may_be_credentials(outcome.error):
                raise outcome.error
        rows = [outcome for outcome in outcomes if isinstance(outcome, dict)]
        rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)]
        return Output(table_of(rows, UTTERANCES), rejects + [outcome.reject for outcome in denied])

    def _ingest(self, entry: dict[str, Any]) -> dict[str, Any] | Reject | _Denied:
        key, source = entry[KEY], self._sources[entry["source"]]
        if entry["error"] is not None:
            return Reject(key, entry["error_class"], entry["error"])
        file = file_name(entry["locator"]) if source.has_files else key
        limits = Limits(self.parameters.min_seconds, self.parameters.max_seconds)
        try:
            raw = source.open(entry["locator"])
            audio = load(raw, limits, entry["channel"], _section(entry), entry["declared_seconds"])
        except (BadAudio, BadData) as error:
            return Reject(key, error.error_class, f"{file} {error}")
        except OSError as error:
            if not is_missing(error):
                raise
            reject = Reject(key, "missing_file", f"{file}: {error.strerror or error}")
            return _Denied(reject, error) if isinstance(error, PermissionError) else reject
        return _row(entry, audio, file, source)


def _section(entry: dict[str, Any]) -> Section | None:
    if entry["start_seconds"] is None and entry["section_seconds"] is None:
        return None
    return Section(entry["start_seconds"] or 0.0, entry["section_seconds"])


def _row(entry: dict[str, Any], audio: Audio, path: str, source: Source) -> dict[str, Any]:
    same = (
        "dialogue_id",
        "turn",
        "role",
        "corpus",
        "split",
        "language",
        "channel",
        "speaker_id",
        "reference_text",
        "license",
    )
    return {
        KEY: entry[KEY],
        **{name: entry[name] for name in same},
        "audio": {"bytes": encode_flac(audio.pcm), "path": path},
        "audio_sha256": audio.sha256,
        "sampling_rate": audio.source_rate,
        "num_samples": len(audio.pcm),
        "spoken_text": source.spoken_text(entry["locator"]),
        "synthetic": source.synthetic,
    }
