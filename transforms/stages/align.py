"""align: find where each word of the reference text, or of the transcript, is spoken in the audio."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import pyarrow as pa

from echo_targets.schemas import ALIGNMENTS, KEY, TRANSCRIPTS, UTTERANCES
from echo_targets.transforms.audio.waveforms import with_waveforms, without_waveforms
from echo_targets.transforms.base import Output, Parameters, Reject, Transform, rounded, table_of
from echo_targets.transforms.models.aligners.attention import AttentionAligner
from echo_targets.transforms.models.aligners.base import Aligner, Alignment
from echo_targets.transforms.models.aligners.hama import CtcAligner
from echo_targets.transforms.models.aligners.letters import LetterAligner, LetterCtc
from echo_targets.transforms.models.aligners.registry import open_letters
from echo_targets.transforms.models.aligners.voice import VoiceAligner
from echo_targets.transforms.models.whisper.weights import EMBEDDED

CHECKED_TEXTS = 100
"""Texts per shard that are checked against the model's letters before anything runs."""


class AlignParameters(Parameters):
    """Parameters of align.

    Attributes:
        method: `ctc` (phoneme emissions and Viterbi), `attention` (Whisper's cross-attention), or `voice` (what the
            embedded voice spoke, by its own durations).
        model: for `ctc`, a directory of a transformers, fairseq2 or speechbrain `EncoderASR` checkpoint: wav2vec2,
            HuBERT or WavLM with a CTC head over letters, which aligns its own language; null for the embedded model of
            English phonemes. For `attention`, a Whisper model, as for `transcribe`; null for the embedded one.
        language: the text's language, which a multilingual Whisper or MMS model must be given.
        text: which text to align; `reference` uses the transcript if a row has no reference.
    """

    method: Literal["ctc", "attention", "voice"] = "ctc"
    model: str | None = None
    language: str = "en"
    text: Literal["reference", "transcript"] = "reference"


class Align(Transform):
    """Forced alignment of words."""

    name: ClassVar[str] = "align"
    version: ClassVar[int] = 5
    reads = (UTTERANCES, TRANSCRIPTS)
    writes = ALIGNMENTS
    wants_audio = True
    on_device = True
    Parameters = AlignParameters
    parameters: AlignParameters

    def fingerprint_parameters(self) -> dict[str, Any]:
        only_attention = set() if self.parameters.method == "attention" else {"language"}
        return self.parameters.model_dump(mode="json", exclude={"model"} | only_attention)

    def weight_digests(self) -> dict[str, str]:
        return self._open().weight_digests()

    def check_entries(self, shards: Iterable[pa.Table]) -> None:
        """Check that a letter model can spell the reference texts. Checks `CHECKED_TEXTS` texts per shard."""
        if self.parameters.text == "reference" and (letters := self._letters()):
            texts = (text for shard in shards for text in shard["reference_text"].to_pylist()[:CHECKED_TEXTS] if text)
            letters.vocabulary().check_texts(texts)

    def setup(self) -> None:
        self._aligner = self._open()
        self._aligner.setup()

    def _open(self) -> Aligner:
        chosen = self.parameters
        if chosen.method == "attention":
            return AttentionAligner(chosen.model or EMBEDDED, self.device, chosen.language)
        if chosen.method == "voice":
            return VoiceAligner()
        letters = self._letters()
        return LetterAligner(letters) if letters else CtcAligner()

    def _letters(self) -> LetterCtc | None:
        """Return the letter model that the parameters name, or None."""
        chosen = self.parameters
        if chosen.method != "ctc" or chosen.model is None:
            return None
        return open_letters(chosen.model, self.device, chosen.language)

    def prepare(self, batch: pa.Table) -> pa.Table:
        return with_waveforms(batch)

    def __call__(self, batch: pa.Table) -> Output:
        batch, waveforms = without_waveforms(batch)
        texts, rejects = [], []
        for row, waveform in zip(batch.to_pylist(), waveforms, strict=True):
            source, text = self._text(row)
            if text:
                texts.append((row[KEY], source, text, waveform))
            else:
                rejects.append(Reject(row[KEY], "no_text", f"{row['audio']['path']} has no {source} to align"))
        alignments = self._aligner([waveform for *_, waveform in texts], [text for _, _, text, _ in texts])
        rows = [_row(key, source, alignment) for (key, source, _, _), alignment in zip(texts, alignments, strict=True)]
        return Output(table_of(rows, ALIGNMENTS), rejects)

    def _text(self, row: dict[str, Any]) -> tuple[str, str | None]:
        if self.parameters.text == "reference" and row["reference_text"]:
            return "reference", row["reference_text"]
        transcript = row["transcripts"]
        return "transcript", transcript and transcript["text"]


def _row(key: str, source: str, alignment: Alignment) -> dict[str, Any]:
    return {
        KEY: key,
        "tier": "word",
        "text_source": source,
        "items": [vars(word) | {"score": rounded(word.score)} for word in alignment.words],
        "coverage": rounded(alignment.coverage),
        "status": alignment.status,
        "reason": alignment.reason or None,
    }
