"""transcribe: what Whisper hears, and the scores that a filter needs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from schemas import KEY, SAMPLE_RATE, TRANSCRIPTS, UTTERANCES
from transforms.audio import with_waveforms, without_waveforms
from transforms.base import Output, Parameters, Transform, rounded, table_of
from transforms.models.recognisers import BACKENDS, Heard
from transforms.models.whisper_encoder import WINDOW_SAMPLES
from transforms.models.whisper_weights import EMBEDDED
from transforms.text import error_rate, normalize

SEARCHED = 10 * SAMPLE_RATE
QUIET_FRAME = SAMPLE_RATE // 5


class TranscribeParameters(Parameters):
    """Parameters of transcribe. The thresholds are those of Whisper (Radford et al. 2022, section 4.5).

    Attributes:
        backend: `faster-whisper`, or `openai-whisper`, which reads checkpoints of transformers too.
        model: `embedded:tiny.en`, a model's directory or file, or a name that the backend downloads.
        language: of the speech; null lets a multilingual model detect it.
        temperatures: tried in turn, for those windows alone whose result so far fails a threshold.
        compression_ratio_threshold: above it, a result repeats itself.
        logprob_threshold: mean log-probability below which a result is not trusted.
        no_speech_threshold: with a low mean log-probability, a probability above it means silence: no fallback.
        best_of: samples to choose from at a temperature above 0.
        seed: of the sampling.
    """

    backend: Literal["faster-whisper", "openai-whisper"] = "faster-whisper"
    model: str = EMBEDDED
    language: str | None = "en"
    temperatures: list[float] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    compression_ratio_threshold: float = 2.4
    logprob_threshold: float = -1.0
    no_speech_threshold: float = 0.6
    best_of: int = 5
    seed: int = 0


@dataclass(frozen=True)
class Window:
    """A stretch of an utterance of at most 30 s."""

    utterance: int
    start: int
    samples: np.ndarray


class Transcribe(Transform):
    """Decodes all windows of a batch at once, then those that failed at the next temperature."""

    name: ClassVar[str] = "transcribe"
    version: ClassVar[int] = 2
    reads = (UTTERANCES,)
    writes = TRANSCRIPTS
    wants_audio = True
    on_device = True
    Parameters = TranscribeParameters
    parameters: TranscribeParameters

    def meaning(self) -> dict[str, Any]:
        return self.parameters.model_dump(mode="json", exclude={"model"})

    def weights(self) -> dict[str, str]:
        return {"whisper": BACKENDS[self.parameters.backend].weights(self.parameters.model)}

    def setup(self) -> None:
        chosen = self.parameters
        self._recognise = BACKENDS[chosen.backend](chosen.model, self.device, chosen.language, chosen.best_of)
        self._recognise.setup()

    def costs(self, rows: pa.Table) -> list[int]:
        # Whisper's encoder sees whole windows, however short the speech in them.
        return [-(-samples // WINDOW_SAMPLES) * WINDOW_SAMPLES for samples in rows["num_samples"].to_pylist()]

    def prepare(self, batch: pa.Table) -> pa.Table:
        return with_waveforms(batch)

    def __call__(self, batch: pa.Table) -> Output:
        batch, waveforms = without_waveforms(batch)
        rows = batch.to_pylist()
        windows = [
            Window(number, start, samples)
            for number, waveform in enumerate(waveforms)
            for start, samples in cut_windows(waveform)
        ]
        heard = self._decode(windows, [row[KEY] for row in rows])
        written = []
        for number, row in enumerate(rows):
            pairs = [
                (window, result) for window, result in zip(windows, heard, strict=True) if window.utterance == number
            ]
            written.append(self._row(row, pairs))
        return Output(table_of(written, TRANSCRIPTS))

    def _decode(self, windows: list[Window], keys: list[str]) -> list[Heard]:
        first, *fallbacks = self.parameters.temperatures
        results = self._recognise([window.samples for window in windows], first)
        for temperature in fallbacks:
            for number, window in enumerate(windows):
                if self._fails(results[number]):
                    # Alone and from a seed of its own: what is sampled must not depend on who else failed.
                    name = f"{self.parameters.seed} {keys[window.utterance]} {window.start} {temperature}"
                    (results[number],) = self._recognise([window.samples], temperature, zlib.crc32(name.encode()))
        return results

    def _fails(self, heard: Heard) -> bool:
        unsure = heard.avg_logprob < self.parameters.logprob_threshold
        if unsure and heard.no_speech_prob > self.parameters.no_speech_threshold:
            return False
        return unsure or heard.compression_ratio > self.parameters.compression_ratio_threshold

    def _row(self, row: dict[str, Any], pairs: list[tuple[Window, Heard]]) -> dict[str, Any]:
        text = " ".join(heard.text for _, heard in pairs if heard.text)
        language = pairs[0][1].language
        normalized = normalize(text, language)
        errors = error_rate(row["reference_text"], normalized, language)
        return {
            KEY: row[KEY],
            "text": text,
            "text_normalized": normalized,
            "language": language,
            "language_prob": rounded(pairs[0][1].language_prob),
            "segments": [
                {
                    "start_sample": window.start,
                    "end_sample": window.start + len(window.samples),
                    "text": heard.text,
                    "avg_logprob": rounded(heard.avg_logprob),
                    "no_speech_prob": rounded(heard.no_speech_prob),
                    "compression_ratio": rounded(heard.compression_ratio),
                }
                for window, heard in pairs
            ],
            "wer_vs_reference": rounded(errors.rate),
            "wer_unit": errors.unit,
            "chars_per_s": rounded(len(text) * SAMPLE_RATE / row["num_samples"]),
            "flags": sorted({flag for _, heard in pairs for flag in self._flags(heard)}),
        }

    def _flags(self, heard: Heard) -> list[str]:
        found = {
            "empty": not heard.text,
            "fallback": heard.temperature > self.parameters.temperatures[0],
            "low_logprob": heard.avg_logprob < self.parameters.logprob_threshold,
            "no_speech": heard.no_speech_prob > self.parameters.no_speech_threshold,
            "repetition": heard.compression_ratio > self.parameters.compression_ratio_threshold,
        }
        return [flag for flag, holds in found.items() if holds]


def cut_windows(waveform: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Cuts long audio where it is quietest in the last 10 s of each 30 s, so that a cut seldom falls into a word.

    Args:
        waveform: (num_samples,) float32 at 16 kHz.

    Returns:
        Start sample and samples of each window; together they are the waveform.
    """
    windows, start = [], 0
    while len(waveform) - start > WINDOW_SAMPLES:
        searched = waveform[start + WINDOW_SAMPLES - SEARCHED : start + WINDOW_SAMPLES]
        energy = np.square(searched.reshape(-1, QUIET_FRAME)).sum(axis=1)
        end = start + WINDOW_SAMPLES - SEARCHED + int(energy.argmin()) * QUIET_FRAME + QUIET_FRAME // 2
        windows.append((start, waveform[start:end]))
        start = end
    return [*windows, (start, waveform[start:])]
