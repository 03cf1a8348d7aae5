"""transcribe: transcribe speech with Whisper, with the scores that filters need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import model_validator

from echo_targets.schemas import KEY, SAMPLE_RATE, TRANSCRIPTS, UTTERANCES
from echo_targets.transforms.audio.waveforms import with_waveforms, without_waveforms
from echo_targets.transforms.base import Output, Transform, rounded, table_of
from echo_targets.transforms.models.asr.base import DecodedWindow
from echo_targets.transforms.models.asr.long_form import DecodingRules, LongForm, Segment, Transcription
from echo_targets.transforms.models.asr.registry import BACKENDS
from echo_targets.transforms.models.asr.voice_activity import VoiceActivity
from echo_targets.transforms.models.whisper.encoder import WINDOW_SAMPLES
from echo_targets.transforms.models.whisper.weights import EMBEDDED
from echo_targets.transforms.text import error_rate, normalize

MOST_UNCOVERED = SAMPLE_RATE
"""Longest stretch of speech, in samples, that may lie outside all segments before the row is flagged."""

WHISPERS_CODES = {"nb": "no", "fil": "tl", "jv": "jw", "yue": "zh"}
"""Languages for which Whisper has another code, or that it was trained to transcribe as another language."""


class TranscribeParameters(DecodingRules):
    """Parameters of transcribe.

    Attributes:
        backend: `faster-whisper`, or `openai-whisper`, which also loads transformers checkpoints.
        model: `embedded:tiny.en`, a model's directory or file, or a name that the backend downloads.
        language: of the speech; null lets a multilingual model detect it.
        best_of: candidates to sample at a temperature above 0.
        encoder_dtype: dtype of the encoder's matrix products. `auto` is float32 on a CPU, float16 on a GPU.
        decoder_dtype: dtype of the decoder. `auto` is float16 on a GPU; on a CPU it is int8 for faster-whisper and
            float32 for openai-whisper, which has no int8.
        The others are those of `DecodingRules`.
    """

    backend: Literal["faster-whisper", "openai-whisper"] = "faster-whisper"
    model: str = EMBEDDED
    language: str | None = "en"
    best_of: int = 5
    encoder_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    decoder_dtype: Literal["auto", "int8", "float32", "float16"] = "auto"

    @model_validator(mode="after")
    def _can_decode(self) -> Self:
        if self.backend == "openai-whisper" and self.decoder_dtype == "int8":
            raise ValueError("backend openai-whisper cannot decode in int8: set decoder_dtype to float32 or float16")
        return self

    def resolved(self, device: str) -> Self:
        if device == "cpu":
            decoder = "int8" if self.backend == "faster-whisper" else "float32"
            chosen = {"encoder_dtype": "float32", "decoder_dtype": decoder}
        else:
            chosen = {"encoder_dtype": "float16", "decoder_dtype": "float16"}
        return self.model_copy(update={name: dtype for name, dtype in chosen.items() if getattr(self, name) == "auto"})


class Transcribe(Transform):
    """Transcribe the utterances of a batch together."""

    name: ClassVar[str] = "transcribe"
    version: ClassVar[int] = 6
    reads = (UTTERANCES,)
    writes = TRANSCRIPTS
    wants_audio = True
    on_device = True
    Parameters = TranscribeParameters
    parameters: TranscribeParameters

    def fingerprint_parameters(self) -> dict[str, Any]:
        return self.parameters.model_dump(mode="json", exclude={"model"})

    def weight_digests(self) -> dict[str, str]:
        whisper = BACKENDS[self.parameters.backend].weight_digest(self.parameters.model)
        return {"whisper": whisper, "vad": VoiceActivity().weight_digest()}

    def setup(self) -> None:
        chosen = self.parameters
        dtypes = (chosen.encoder_dtype, chosen.decoder_dtype)
        recognizer = BACKENDS[chosen.backend](chosen.model, self.device, chosen.language, chosen.best_of, *dtypes)
        recognizer.setup()
        self.transcribe = LongForm(recognizer, chosen)

    def costs(self, rows: pa.Table) -> list[int]:
        # Whisper's encoder processes whole windows, however short the speech in them.
        return [-(-samples // WINDOW_SAMPLES) * WINDOW_SAMPLES for samples in rows["num_samples"].to_pylist()]

    def prepare(self, batch: pa.Table) -> pa.Table:
        return with_waveforms(batch)

    def __call__(self, batch: pa.Table) -> Output:
        batch, waveforms = without_waveforms(batch)
        rows = batch.to_pylist()
        found = self.transcribe(waveforms, [row[KEY] for row in rows])
        return Output(table_of(map(self._row, rows, found), TRANSCRIPTS))

    def _row(self, row: dict[str, Any], found: Transcription) -> dict[str, Any]:
        language = found.windows[0].language
        normalized = normalize(found.text, language)
        errors = error_rate(row["reference_text"], normalized, language)
        return {
            KEY: row[KEY],
            "text": found.text,
            "text_normalized": normalized,
            "language": language,
            "language_prob": rounded(found.windows[0].language_prob),
            "segments": [_segment(segment) for segment in found.segments],
            "speech_covered": rounded(found.speech_covered),
            "wer_vs_reference": rounded(errors.rate),
            "wer_unit": errors.unit,
            "chars_per_s": rounded(len(found.text) * SAMPLE_RATE / row["num_samples"]),
            "flags": self._flags(found, row["language"]),
        }

    def _flags(self, found: Transcription, language: str = "") -> list[str]:
        """Return the flags of a transcription, given the language of its utterance."""

        def is_any(broken: Callable[[DecodedWindow], bool]) -> bool:
            return any(broken(window) for window in found.windows)

        chosen = self.parameters
        flags = {
            "empty": not found.text,
            "fallback": is_any(lambda window: window.temperature > chosen.temperatures[0]),
            "low_logprob": is_any(lambda window: window.avg_logprob < chosen.logprob_threshold),
            "no_speech": is_any(lambda window: window.no_speech_prob > chosen.no_speech_threshold),
            "other_language": chosen.language is not None and is_other_language(language, chosen.language),
            "repetition": is_any(lambda window: window.compression_ratio > chosen.compression_ratio_threshold),
            "uncovered_speech": any(end - start > MOST_UNCOVERED for start, end in found.uncovered)
            or any(map(found.is_sparse, found.segments)),
        }
        return [flag for flag, holds in flags.items() if holds]


def is_other_language(language: str, told: str) -> bool:
    """Return True if an utterance's language (BCP 47) is known and differs from the one given to Whisper."""
    base = language.split("-")[0].lower()
    return base not in ("", "und", told) and WHISPERS_CODES.get(base) != told


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "start_sample": segment.start,
        "end_sample": segment.end,
        "text": segment.text,
        "avg_logprob": rounded(segment.window.avg_logprob),
        "no_speech_prob": rounded(segment.window.no_speech_prob),
        "compression_ratio": rounded(segment.window.compression_ratio),
    }
