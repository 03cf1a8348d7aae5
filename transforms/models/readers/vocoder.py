"""Units read back to text through speech: a vocoder synthesizes a reply and Whisper transcribes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from echo_targets.transforms.models.asr.faster_whisper import FasterWhisper
from echo_targets.transforms.models.asr.long_form import DecodingRules, LongForm
from echo_targets.transforms.models.readers.base import Durations, Reader, Segments
from echo_targets.transforms.models.vocoders.base import check_durations, frames_of
from echo_targets.transforms.models.vocoders.registry import open_vocoder
from echo_targets.transforms.text import normalize
from echo_targets.transforms.threads import in_threads


class VocoderReader(Reader):
    """A reply is synthesized as a whole, with its segments joined, since Whisper is best at whole sentences.

    Replies are synthesized and transcribed one by one, in English, greedily: a text depends only on the units and the
    weights.

    Args:
        path: the vocoder's directory: a unit HiFi-GAN, or a codec, which needs durations.
        whisper: a model as for faster-whisper, or `embedded:tiny.en`.
        device: a torch device.
    """

    def __init__(self, path: Path, whisper: str, device: str) -> None:
        self._vocoder = open_vocoder(path, device)
        self.needs_durations = self._vocoder.needs_durations
        recognizer = FasterWhisper(whisper, device, "en")
        recognizer.setup()
        self._transcribe = LongForm(recognizer, DecodingRules(temperatures=[0.0]))

    def check_codebook(self, codebook_id: str, codebook_size: int) -> None:
        self._vocoder.check_codebook(codebook_id, codebook_size)

    def read_replies(
        self, replies: Sequence[Segments], durations: Sequence[Durations | None] | None = None
    ) -> list[str]:
        lasting = [None] * len(replies) if durations is None else durations
        for each in lasting:
            check_durations(self._vocoder, each)
        frames = [frames_of(segments, each) for segments, each in zip(replies, lasting, strict=True)]
        # One thread computes the samples: with several, the last bits would depend on the number of threads.
        return [self._written(waveform) for waveform in in_threads(self._vocoder.speak, frames, at_once=1)]

    def comparable(self, text: str) -> str:
        """Return the output of Whisper's English normalizer: lower case, no punctuation, digits, full forms."""
        return normalize(text, "en")

    def _written(self, waveform: np.ndarray) -> str:
        if not len(waveform):
            return ""
        (transcription,) = self._transcribe([waveform], [""])
        return transcription.text
