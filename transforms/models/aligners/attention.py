"""Word alignment from Whisper's cross-attention, while the decoder is forced to write the text.

The method is openai-whisper's `whisper.timing.find_alignment`: dynamic time warping over the attention of a few
heads. It is a second opinion on the CTC aligner. Its words follow each other without gaps, so pauses are found in the
audio's silences and assigned to the nearest border.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.aligners.base import SHORTEST_WORD, Aligner, Alignment, Span, alignment_of, failed
from echo_targets.transforms.models.aligners.pauses import Levels
from echo_targets.transforms.models.whisper.settings import settings_of
from echo_targets.transforms.models.whisper.weights import (
    EMBEDDED,
    check_alignment_heads,
    check_text,
    choose_alignment_heads,
    directory_of,
    load_whisper,
    weights_of,
)
from echo_targets.transforms.text import TextWord, is_character

if TYPE_CHECKING:
    from whisper.model import Whisper
    from whisper.timing import WordTiming
    from whisper.tokenizer import Tokenizer

WINDOW_SAMPLES = 30 * SAMPLE_RATE
SHORTEST_SAMPLES = 640

ATTENTION_LAG = 1_600
"""Samples (100 ms) by which the jump of the attention follows a word's start.

Medians measured with tiny.en on 210 LibriSpeech utterances: 57 ms after a sibilant and 157 ms before one. The start is
where the balance of energy above 3.5 kHz and below 2.5 kHz turns; 221 words.
"""


FARTHEST_PAUSE = 3_200
"""Samples (200 ms). A silence at most this far from a border counts as a pause between its words."""


class AttentionAligner(Aligner):
    """Alignment by cross-attention, for utterances up to 30 s.

    Args:
        model: as for `load_whisper`.
        device: a torch device.
        language: the text's language, which a multilingual model must be given.
    """

    at_once = 1  # openai-whisper captures the attention with hooks on the model

    def __init__(self, model: str = EMBEDDED, device: str = "cpu", language: str = "en") -> None:
        self.model, self.device, self.language = model, device, language

    def weight_digests(self) -> dict[str, str]:
        check_alignment_heads(self.model)
        return {"whisper": weights_of(self.model)}

    def setup(self) -> None:
        self._whisper: Whisper = load_whisper(self.model, self.device)
        from whisper.tokenizer import get_tokenizer

        check_text(self.model, self._whisper)
        choose_alignment_heads(self.model, self._whisper)
        self._median_filter = settings_of(directory_of(self.model)).median_filter
        many, languages = self._whisper.is_multilingual, self._whisper.num_languages
        try:
            shared = get_tokenizer(many, num_languages=languages, language=self.language)
        except ValueError as error:
            raise ModelError(f"{error}: set align.language to one of Whisper's codes, such as en, de or zh") from error
        self._tokenizer: Tokenizer = replace(shared)
        # Split into characters: by spaces, as for most languages, a sentence without spaces would be a single word.
        vars(self._tokenizer)["split_to_word_tokens"] = self._tokenizer.split_tokens_on_unicode

    def _aligned(self, waveform: np.ndarray, words: list[TextWord], text: str) -> Alignment:
        import whisper
        from whisper.timing import find_alignment

        if not SHORTEST_SAMPLES <= len(waveform) <= WINDOW_SAMPLES:
            return failed(f"the audio has {len(waveform)} samples, not {SHORTEST_SAMPLES} to {WINDOW_SAMPLES}")
        spoken = _written(words)
        # Encode word by word: a token that spans two characters would give both the same time.
        tokens = [token for word in spoken for token in self._tokenizer.encode(word, disallowed_special=())]
        room = self._whisper.dims.n_text_ctx - len(self._tokenizer.sot_sequence) - 2
        if len(tokens) > room:
            return failed(f"the text has {len(tokens)} tokens, but the decoder has room for {room}")
        mel = whisper.log_mel_spectrogram(waveform, self._whisper.dims.n_mels, padding=WINDOW_SAMPLES - len(waveform))
        timings = find_alignment(
            self._whisper,
            self._tokenizer,
            tokens,
            mel.to(self.device),
            len(waveform) // whisper.audio.HOP_LENGTH,
            medfilt_width=self._median_filter,
        )
        spans = self._spans(timings, [len(word.encode()) for word in spoken])
        return alignment_of(words, [*_parted(spans, Levels(waveform))], len(waveform))

    def _spans(self, timings: list[WordTiming], lengths: list[int]) -> list[Span]:
        # Whisper times pieces of words. Pieces and words have the same bytes, so byte offsets map one to the other.
        token_bytes = self._tokenizer.encoding.decode_single_token_bytes
        ends = list(accumulate(sum(len(token_bytes(token)) for token in timing.tokens) for timing in timings))
        pieces = list(zip(timings, pairwise([0, *ends]), strict=True))
        return [
            _span([timing for timing, (first, last) in pieces if first < end and last > start])
            for start, end in pairwise([0, *accumulate(lengths)])
        ]


def _written(words: list[TextWord]) -> list[str]:
    """Return words as Whisper writes them: with a leading space, except characters and words that follow directly."""
    ends = [-1, *(word.char_end for word in words)]
    glued = (is_character(word.symbol) or word.char_start == end for word, end in zip(words, ends, strict=False))
    return [word.symbol if together else f" {word.symbol}" for word, together in zip(words, glued, strict=True)]


def _span(timings: list[WordTiming]) -> Span:
    attended = [round(seconds * SAMPLE_RATE) for seconds in (timings[0].start, timings[-1].end)]
    start, end = (max(0, sample - ATTENTION_LAG) for sample in attended)
    if attended[0] < attended[1]:
        end = max(end, start + SHORTEST_WORD)  # for a first word that the lag would move before the audio
    tokens = sum(len(timing.tokens) for timing in timings)
    return Span(start, end, float(sum(timing.probability * len(timing.tokens) for timing in timings) / tokens))


def _parted(spans: list[Span], levels: Levels) -> list[Span]:
    """Cut silences out of words that follow each other without gaps."""
    if not spans:
        return spans
    borders = np.array([spans[0].start, *(span.end for span in spans)])
    ends, starts = borders.tolist(), borders.tolist()
    for begin, over in levels.silences(0, levels.num_samples):
        distances = np.maximum(np.maximum(begin - borders, borders - over), 0)
        if distances[nearest := int(distances.argmin())] <= FARTHEST_PAUSE:
            ends[nearest], starts[nearest] = min(ends[nearest], begin), max(starts[nearest], over)
    shortest = [SHORTEST_WORD if span.start < span.end else 0 for span in spans]  # empty words stay empty
    return [
        Span(start, max(end, start + least), span.score)
        for start, end, span, least in zip(starts, ends[1:], spans, shortest, strict=False)
    ]
