"""Stages that open the entries of the plan: what is common to ingest and segment."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import pyarrow as pa

from echo_targets.schemas import ENTRIES, KEY, SAMPLE_RATE
from echo_targets.transforms.audio.waveforms import BadAudio
from echo_targets.transforms.base import Output, Reject, Transform, table_of
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.sources.base import Source, file_name, is_missing, may_be_credentials

Entry = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True)
class _Denied:
    """A row whose file access was denied: a reject, unless the credentials are to blame."""

    reject: Reject
    error: PermissionError


class OfEntries(Transform):
    """A stage that makes a row of each entry from the entry's audio file.

    Attributes:
        openers: threads that open and decode; remote files spend time in transfer.
    """

    reads = (ENTRIES,)
    openers: ClassVar[int] = 8

    @property
    @abstractmethod
    def sources(self) -> dict[str, Source]:
        """The sources by their names in the entries."""

    @abstractmethod
    def rows_of(self, entries: Sequence[Entry], source: Source, file: str) -> list[Row | BadAudio]:
        """Return the row of each entry, or what is wrong with its audio.

        Args:
            entries: an entry, or neighboring entries of one recording.
            source: their source.
            file: the file's name, to be stored and shown.

        Raises:
            BadAudio, BadData: no entry can be used, for this reason.
            OSError: the file can't be read.
        """

    def fingerprint_parameters(self) -> dict[str, Any]:
        return self.parameters.model_dump(mode="json", exclude={"sources"})  # an entry has its source's fingerprint

    def costs(self, rows: pa.Table) -> list[int]:
        return [int(seconds * SAMPLE_RATE) for seconds in rows["seconds"].to_pylist()]

    def __call__(self, batch: pa.Table) -> Output:
        groups = [list(group) for _, group in groupby(batch.to_pylist(), _recording)]
        with ThreadPoolExecutor(self.openers) as pool:
            outcomes = [outcome for found in pool.map(self._outcomes, groups) for outcome in found]
        denied = [outcome for outcome in outcomes if isinstance(outcome, _Denied)]
        for outcome in denied:  # after the whole batch, which may have read another file of the store
            if may_be_credentials(outcome.error):
                raise outcome.error
        rows = [outcome for outcome in outcomes if isinstance(outcome, dict)]
        rejects = [outcome for outcome in outcomes if isinstance(outcome, Reject)]
        return Output(table_of(rows, self.writes), rejects + [outcome.reject for outcome in denied])

    def _outcomes(self, entries: list[Entry]) -> Iterator[Row | Reject | _Denied]:
        if entries[0]["error"] is not None:
            return iter([Reject(entry[KEY], entry["error_class"], entry["error"]) for entry in entries])
        source = self.sources[entries[0]["source"]]
        file = file_name(entries[0]["locator"]) if source.has_files else entries[0][KEY]

        def rejects(error_class: str, message: str) -> list[Reject]:
            return [Reject(entry[KEY], error_class, f"{file} {message}") for entry in entries]

        try:
            found = self.rows_of(entries, source, file)
        except (BadAudio, BadData) as error:
            return iter(rejects(error.error_class, str(error)))
        except OSError as error:
            if not is_missing(error):
                raise
            lost = [Reject(entry[KEY], "missing_file", f"{file}: {error.strerror or error}") for entry in entries]
            return iter([_Denied(reject, error) for reject in lost] if isinstance(error, PermissionError) else lost)
        return (
            row if isinstance(row, dict) else Reject(entry[KEY], row.error_class, f"{file} {row}")
            for entry, row in zip(entries, found, strict=True)
        )


def _recording(entry: Entry) -> tuple[str, ...]:
    """Return what the entries of one recording have in common, and no others."""
    if entry["error"] is not None or entry["recording_id"] is None:
        return (entry[KEY],)
    return (entry["source"], entry["recording_id"], entry["locator"], "")
