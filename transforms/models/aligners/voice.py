"""Alignment of the embedded voice's own speech, by the durations of its phonemes, without a search.

A pause belongs to the word before it, whose last sound the voice prolongs.
"""

from __future__ import annotations

import numpy as np

from echo_targets.transforms.models.aligners.base import Aligner, Alignment, Span, alignment_of, failed
from echo_targets.transforms.models.checkpoints.embedded import HIBARI_VOICE
from echo_targets.transforms.models.voices.narrator import VOICE_LAG, Narrator
from echo_targets.transforms.text import TextWord


class VoiceAligner(Aligner):
    """Aligns what the embedded voice spoke at its own pace, many times as fast as `CtcAligner`.

    The alignment fails for other speech, which is known by its length, and for texts with numbers or abbreviations,
    whose words are not those that the voice says.
    """

    at_once = 1

    def weight_digests(self) -> dict[str, str]:
        return {HIBARI_VOICE.path: HIBARI_VOICE.sha256}

    def setup(self) -> None:
        self._narrator = Narrator()

    def _aligned(self, waveform: np.ndarray, words: list[TextWord], text: str) -> Alignment:
        times = self._narrator.times(text)
        if times is None:
            return failed("the embedded voice does not speak this text word by word; set align.method to ctc")
        if times.num_samples != len(waveform):
            return failed("the audio is not the embedded voice at its own pace; set align.method to ctc")
        starts, ends = (
            [max(0, sample - VOICE_LAG) for sample in samples] for samples in zip(*times.words, strict=True)
        )
        for place in times.borders():  # the space between two words sounds like the next one
            starts[place + 1] = ends[place]
        spans = [Span(start, end, 1.0) for start, end in zip(starts, ends, strict=True)]
        return alignment_of(words, [*spans], len(waveform))
