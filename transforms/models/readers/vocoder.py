"""Units read back to text by ear: a vocoder says a reply, Whisper writes down what it hears."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from echo_targets.transforms.models.asr.faster_whisper import FasterWhisper
from echo_targets.transforms.models.asr.long_form import DecodingRules, LongForm
from echo_targets.transforms.models.readers.base import Reader
from echo_targets.transforms.models.voices.vocoder import Vocoder, whole
from echo_targets.transforms.text import normalize
from echo_targets.transforms.threads import in_threads


class VocoderReader(Reader):
    """A reply is said as a whole, its segments joined, since Whisper hears whole sentences best.

    Replies are said and heard one by one, and English, greedily: a text is a function of its units and the weights.

    Args:
        path: the vocoder's directory.
        whisper: a model as faster-whisper takes it, or `embedded:tiny.en`.
        device: a torch device.
    """

    def __init__(self, path: Path, whisper: str, device: str) -> None:
        self._vocoder = Vocoder(path, device)
        recognizer = FasterWhisper(whisper, device, "en")
        recognizer.setup()
        self._transcribe = LongForm(recognizer, DecodingRules(temperatures=[0.0]))

    def check_codebook(self, codebook_id: str, codebook_size: int) -> None:
        self._vocoder.check_codebook(codebook_id, codebook_size)

    def read_replies(self, replies: Sequence[Sequence[Sequence[int]]]) -> list[str]:
        # one thread computes the samples: shared, their last bits would hang on how many there are
        said = in_threads(self._say, [whole(segments) for segments in replies], at_once=1)
        return [self._hear(waveform) for waveform in said]

    def comparable(self, text: str) -> str:
        """By Whisper's English normalizer: lower case, no punctuation, numbers as digits, contractions in full."""
        return normalize(text, "en")

    def _say(self, units: list[int]) -> np.ndarray:
        (waveform,) = self._vocoder([units]) if units else [np.zeros(0, np.float32)]
        return waveform

    def _hear(self, waveform: np.ndarray) -> str:
        if not len(waveform):
            return ""
        (transcription,) = self._transcribe([waveform], [""])
        return transcription.text
