"""Units read back to text by ear: a vocoder says a reply, Whisper writes down what it hears."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from transforms.models.reader import Reader
from transforms.models.recognisers import FasterWhisper
from transforms.models.vocoder import Vocoder, whole
from transforms.transcribe import cut_windows, normalize


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
        self._recognise = FasterWhisper(whisper, device, "en", 1)
        self._recognise.setup()

    def check_codebook(self, codebook_id: str, codebook_size: int) -> None:
        self._vocoder.check_codebook(codebook_id, codebook_size)

    def read_replies(self, replies: Sequence[Sequence[Sequence[int]]]) -> list[str]:
        return [self._read(whole(segments)) for segments in replies]

    def comparable(self, text: str) -> str:
        """By Whisper's English normaliser: lower case, no punctuation, numbers as digits, contractions in full."""
        return normalize(text, "en")

    def _read(self, units: list[int]) -> str:
        if not units:
            return ""
        (waveform,) = self._vocoder([units])
        heard = self._recognise([samples for _, samples in cut_windows(waveform)])
        return " ".join(window.text for window in heard if window.text)
