"""Stages for measuring runners: one that repeats real speech to any length, and a model of known duration."""

from __future__ import annotations

import hashlib
import time
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from benchmarks.common import speech_rows
from echo_targets.schemas import ENTRIES, KEY, SAMPLE_RATE, TRANSCRIPTS, UTTERANCES
from echo_targets.transforms.audio.waveforms import with_waveforms, without_waveforms
from echo_targets.transforms.base import Output, Parameters, Transform, table_of


@cache
def clips() -> list[tuple[bytes, int]]:
    """Return the FLAC bytes and number of samples of each speech file."""
    import soundfile

    paths = sorted(row["audio"] for row in speech_rows())
    return [(Path(path).read_bytes(), soundfile.info(path).frames) for path in paths]


class Repeat(Transform):
    """Repeats utterances of real speech."""

    name: ClassVar[str] = "repeat"
    version: ClassVar[int] = 1
    reads = (ENTRIES,)
    writes = UTTERANCES

    def costs(self, rows: pa.Table) -> list[int]:
        return [int(seconds * SAMPLE_RATE) for seconds in rows["seconds"].to_pylist()]

    def __call__(self, batch: pa.Table) -> Output:
        rows = []
        for entry in batch.to_pylist():
            audio, samples = clips()[int(entry[KEY]) % len(clips())]
            same = {name: entry[name] for name in UTTERANCES.columns if name in entry}
            made = {"audio": {"bytes": audio, "path": "clip.flac"}, "audio_sha256": hashlib.sha256(audio).digest()}
            rows.append(same | made | {"sampling_rate": SAMPLE_RATE, "num_samples": samples, "synthetic": False})
        return Output(table_of(rows, UTTERANCES))


class SleepParameters(Parameters):
    """Parameters of `Sleep`: seconds of work per second of audio."""

    real_time_factor: float


class Sleep(Transform):
    """A model that takes time but no CPU, like one on a GPU; its audio is still decoded."""

    name: ClassVar[str] = "sleep"
    version: ClassVar[int] = 1
    reads = (UTTERANCES,)
    writes = TRANSCRIPTS
    wants_audio = True
    Parameters = SleepParameters
    parameters: SleepParameters

    def prepare(self, batch: pa.Table) -> pa.Table:
        return with_waveforms(batch)

    def __call__(self, batch: pa.Table) -> Output:
        batch, waveforms = without_waveforms(batch)
        seconds = sum(map(len, waveforms)) / SAMPLE_RATE
        time.sleep(seconds * self.parameters.real_time_factor)
        return Output(table_of((_transcript(row) for row in batch.select([KEY, "language"]).to_pylist()), TRANSCRIPTS))


def _transcript(row: dict[str, Any]) -> dict[str, Any]:
    nothing = {name: None for name in TRANSCRIPTS.columns}
    said = {"text": "", "text_normalized": "", "segments": [], "flags": [], "chars_per_s": 0.0}
    return nothing | said | {KEY: row[KEY], "language": row["language"]}
