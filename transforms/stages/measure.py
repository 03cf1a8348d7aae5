"""measure: score the audio's loudness, speech, silence and quality, and its text's rate and repetition, for publish.

Each score is a function of its row only. docs/FILTERS.md has the sources, and typical scores of real speech.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas import KEY, MEASURES, SAMPLE_RATE, TRANSCRIPTS, UTTERANCES
from echo_targets.transforms.audio.degradation import bandwidth_hz, clipped_share, snr_db
from echo_targets.transforms.audio.waveforms import with_waveforms, without_waveforms
from echo_targets.transforms.base import Output, Parameters, Transform, rounded, table_of
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.asr.voice_activity import Span, VoiceActivity
from echo_targets.transforms.models.mos.dnsmos import Dnsmos, OpinionScores
from echo_targets.transforms.models.speakers.registry import open_speaker_encoder
from echo_targets.transforms.text import is_character, normalize, pieces
from echo_targets.transforms.threads import in_threads

GATE_SAMPLES = SAMPLE_RATE * 4 // 10
RUN_WORDS = 5
WINDOW_WORDS = 100
"""About 30 s of speech. The share of unique words falls with text length; thresholds are meant for texts this long."""


class MeasureParameters(Parameters):
    """What to measure beyond the scores that cost next to nothing.

    Attributes:
        dnsmos: True adds the DNSMOS scores, which take far longer than all the others.
        speaker_model: speaker encoder for the embeddings: `embedded:resemblyzer` or a speechbrain directory.
    """

    dnsmos: bool = False
    speaker_model: str | None = None


class Measure(Transform):
    """Measure every utterance. Rejects none."""

    name: ClassVar[str] = "measure"
    version: ClassVar[int] = 3
    reads = (UTTERANCES, TRANSCRIPTS)
    writes = MEASURES
    wants_audio = True
    Parameters = MeasureParameters
    parameters: MeasureParameters

    def fingerprint_parameters(self) -> dict[str, Any]:
        return self.parameters.model_dump(mode="json", exclude={"speaker_model"})

    def weight_digests(self) -> dict[str, str]:
        model = self.parameters.speaker_model
        return {
            "vad": VoiceActivity().weight_digest(),
            **(Dnsmos().weight_digests() if self.parameters.dnsmos else {}),
            **({"speaker_model": open_speaker_encoder(model).weight_digest()} if model else {}),
        }

    def setup(self) -> None:
        self._speech = VoiceActivity()
        self._speech.setup()
        self._opinion = Dnsmos() if self.parameters.dnsmos else None
        if self._opinion:
            self._opinion.setup()
        model = self.parameters.speaker_model
        self._encoder = open_speaker_encoder(model) if model else None
        if self._encoder:
            self._encoder.setup()
        try:
            import torchaudio  # noqa: F401
        except ImportError as error:
            raise ModelError(f"{error}: pip install 'echo-targets[align]'") from error

    def prepare(self, batch: pa.Table) -> pa.Table:
        return with_waveforms(batch)

    def __call__(self, batch: pa.Table) -> Output:
        batch, waveforms = without_waveforms(batch)
        texts = text_of(batch)
        rates = chars_per_s(texts, batch["num_samples"])
        spoken = in_threads(self._speech, waveforms)
        rows = [
            {
                KEY: key,
                **sound,
                "speaker_embedding": voice,
                "chars_per_s": rounded(rate) if text else None,
                **repetition(pieces(normalize(text, ""))),
            }
            for key, sound, voice, text, rate in zip(
                batch[KEY].to_pylist(),
                in_threads(self._sound, zip(waveforms, spoken, strict=True)),
                self._voices(waveforms, spoken),
                texts.to_pylist(),
                rates.to_pylist(),
                strict=True,
            )
        ]
        return Output(table_of(rows, MEASURES))

    def _sound(self, heard: tuple[np.ndarray, list[Span]]) -> dict[str, Any]:
        waveform, speech = heard
        opinion = self._opinion(waveform) if self._opinion else None
        return {
            "loudness_lufs": rounded(loudness(waveform)),
            **silence(speech, len(waveform)),
            "bandwidth_hz": bandwidth_hz(waveform),
            "clipped_share": rounded(clipped_share(waveform)),
            "snr_db": rounded(snr_db(waveform)),
            **{f"dnsmos_{name}": rounded(opinion and getattr(opinion, name)) for name in OpinionScores._fields},
        }

    def _voices(self, waveforms: list[np.ndarray], spoken: list[list[Span]]) -> Sequence[np.ndarray | None]:
        """Return an embedding of each utterance's speech; None without an encoder or speech.

        A constant offset, as some of LibriSpeech has, would be taken for a part of the voice.
        """
        if self._encoder is None:
            return [None] * len(waveforms)
        voices = [
            np.concatenate([waveform[:0], *(waveform[start:end] for start, end in speech)])
            for waveform, speech in zip(waveforms, spoken, strict=True)
        ]
        found = self._encoder.embed([voice - voice.mean() if len(voice) else voice for voice in voices]).round(4)
        return [vector if vector.any() else None for vector in found]


def text_of(rows: pa.Table | pa.RecordBatch) -> pa.Array | pa.ChunkedArray:
    """Return the trimmed text of utterances that transcripts are joined to: the reference, else the transcript."""
    reference = pc.fill_null(rows["reference_text"], "")
    transcript = pc.fill_null(pc.struct_field(rows[TRANSCRIPTS.name], "text"), "")
    return pc.utf8_trim_whitespace(pc.if_else(pc.equal(reference, ""), transcript, reference))


def chars_per_s(texts: pa.Array | pa.ChunkedArray, num_samples: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return characters per second of audio, as float64."""
    seconds = pc.divide(num_samples.cast(pa.float64()), float(SAMPLE_RATE))
    return pc.divide(pc.utf8_length(texts).cast(pa.float64()), seconds)


def loudness(waveform: np.ndarray) -> float | None:
    """Return integrated loudness in LUFS (ITU-R BS.1770-4) in float64; None below the -70 LUFS gate or under 0.4 s.

    torchaudio clips samples that its filter raises above full scale, so speech at full scale measures up to 0.3 LU too
    low.

    Args:
        waveform: (num_samples,) float32 at 16 kHz.
    """
    import torch
    from torchaudio.functional import loudness as measured

    if len(waveform) < GATE_SAMPLES:
        return None
    lufs = float(measured(torch.from_numpy(waveform.astype(np.float64))[None], SAMPLE_RATE))
    return lufs if math.isfinite(lufs) else None


def silence(speech: list[Span], num_samples: int) -> dict[str, Any]:
    """Return the share of the audio that is speech, and its longest stretch without speech."""
    borders = [(0, 0), *speech, (num_samples, num_samples)]
    return {
        "speech_share": rounded(sum(end - start for start, end in speech) / num_samples),
        "longest_silence_samples": max(after[0] - before[1] for before, after in pairwise(borders)),
    }


def repetition(words: list[str]) -> dict[str, Any]:
    """Score a text for repetition typical of recognizer hallucinations.

    The first three scores follow Granary's rules (arXiv 2505.13404; NeMo Speech Data Processor,
    `DetectWhisperHallucinationFeatures`), on words without punctuation. The last is Gopher's share of characters in
    duplicate 5-grams (arXiv 2112.11446, table A1). All are None if there are no words.

    In scripts without spaces each character counts as a word. The share of unique words is the exception: a few
    characters spell a whole language, so there each pair of neighboring characters counts as a word.
    """
    if not words:
        names = ("unique_word_share", "longest_word", "longest_word_excess", "repeated_share")
        return dict.fromkeys(names)
    lengths, distinct = sorted(map(len, words)), _pairs_of_characters(words)
    runs = [tuple(words[start : start + RUN_WORDS]) for start in range(len(words) - RUN_WORDS + 1)]
    counts = Counter(runs)
    repeated = {start + place for start, run in enumerate(runs) if counts[run] > 1 for place in range(RUN_WORDS)}
    return {
        "unique_word_share": rounded(_least_unique_share(distinct)),
        "longest_word": lengths[-1],
        "longest_word_excess": rounded(lengths[-1] / lengths[-2] - 1) if len(words) > 1 else None,
        "repeated_share": rounded(sum(len(words[place]) for place in repeated) / sum(lengths)),
    }


def _pairs_of_characters(words: list[str]) -> list[str]:
    """Return the words, with each run of characters replaced by its pairs of neighbors."""
    made: list[str] = []
    for characters, run in groupby(words, is_character):
        row = list(run)
        made += ["".join(pair) for pair in pairwise(row)] if characters and len(row) > 1 else row
    return made


def _least_unique_share(words: list[str]) -> float:
    """Return the smallest share of unique words over all stretches of WINDOW_WORDS words, or over a shorter text."""
    counts: Counter[str] = Counter(words[:WINDOW_WORDS])
    least = len(counts)
    for leaves, comes in zip(words, words[WINDOW_WORDS:], strict=False):
        counts[comes] += 1
        counts[leaves] -= 1
        if not counts[leaves]:
            del counts[leaves]
        least = min(least, len(counts))
    return least / min(len(words), WINDOW_WORDS)
