"""The embedded voice with word times from its own durations, which no aligner has to search for.

The voice's network predicts the number of frames of each phoneme and renders exactly those frames. The frame counts are
an internal tensor of the graph; this module makes it an output. A word is the phonemes between two space tokens.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np

from echo_targets.transforms.models.checkpoints.embedded import HIBARI_VOICE
from echo_targets.transforms.models.voices.delivery import PLAIN, Delivery, deliver
from echo_targets.transforms.models.voices.hibari import HibariVoice
from echo_targets.transforms.text import words_of
from echo_targets.transforms.verbalize import FINAL_WORD

DURATIONS = b"/Clip_output_0"
FRAME_SAMPLES = 400
"""Length of a duration frame in samples at 16 kHz; 600 samples at 24 kHz."""

VOICE_LAG = 640
"""Samples (40 ms) from the audible border of a word to the start of the space token that represents it.

The durations lag behind the audio that they produce, and a space token sounds like the first phoneme of the next word.
Measured without an aligner by `python -m benchmarks.borders --voice`: sibilance starts 35 ms (25 to 50) before the
space that precedes a word's sibilant, and ends 35 ms (25 to 47) before the space that follows one; spectral change
peaks 43 to 30 ms before the space. Kokoro, from which this voice was distilled, corrects its timestamps similarly: it
subtracts three frames (75 ms) and splits each space in half, which is 50 to 38 ms before the space.
"""
LONGEST_SPACE = 4 * FRAME_SAMPLES
"""A longer space is a pause, whose border is a stretch of silence rather than a point in time."""


class Times(NamedTuple):
    """Where the voice speaks the words of a text, in samples at 16 kHz, according to its durations.

    Attributes:
        words: start and end of each word.
        phonemes: each token and its start, for measuring the durations themselves.
        num_samples: length of the whole.
    """

    words: list[tuple[int, int]]
    phonemes: list[tuple[str, int]]
    num_samples: int

    def borders(self) -> dict[int, int]:
        """Return the sample of the border after each word, by word index, except at pauses and after the last word."""
        return {
            place: end - VOICE_LAG
            for place, ((_, end), (start, _)) in enumerate(pairwise(self.words))
            if start - end <= LONGEST_SPACE
        }


class Said(NamedTuple):
    """Synthesized speech (float32, 16 kHz mono) and where its words are."""

    waveform: np.ndarray
    times: Times


class Narrator:
    """Synthesizes texts with the embedded voice and locates each word.

    Raises:
        ModelError: hibari is not installed, or its weights are not the pinned ones.
    """

    def __init__(self) -> None:
        self._voice = HibariVoice()
        self._voice.setup()
        from hibari import Hibari

        # Protobuf merges message fields that occur twice, so appending a graph (field 7) adds an output to it.
        output = _field(7, _field(12, _field(1, DURATIONS)))
        self._timed = Hibari(model=HIBARI_VOICE.locate().read_bytes() + output, threads=1)

    def times(self, text: str, speed: float = 1.0) -> Times | None:
        """Return where the words of a text would be; None if the voice has other words than `words_of` (numbers)."""
        words, phonemes, length = list[tuple[int, int]](), list[tuple[str, int]](), 0
        for sentence in self._timed.split_sentences(FINAL_WORD.sub(r"\1 .", text)):
            if (found := self._sentence(sentence, speed, length)) is None:
                return None
            words, phonemes, length = words + found.words, phonemes + found.phonemes, found.num_samples
        return Times(words, phonemes, length) if words else None

    def _sentence(self, text: str, speed: float, first: int) -> Times | None:
        """Return the times of one sentence, which starts at sample `first`."""
        import onnxruntime

        phonemes, spans = self._phonemes(text)
        if [word for word, _ in spans] != [symbol for symbol, _, _ in words_of(text)]:
            return None
        if [phonemes] != self._timed.phonemize(text):
            return None
        known = [phoneme in self._timed.vocab for phoneme in phonemes]
        inputs = {"ids": np.array([self._timed.ids(phonemes)]), "speed": np.array([speed], np.float32)}
        only = onnxruntime.RunOptions()
        only.only_execute_path_to_fetches = True
        (frames,) = self._timed.sess.run([DURATIONS.decode()], inputs, only)
        starts = [first + round(start) * FRAME_SAMPLES for start in accumulate(frames.tolist(), initial=0.0)]
        places = [0, *accumulate(known)]  # index among the phonemes that the voice knows; the first token is silence
        return Times(
            [(starts[1 + places[first]], starts[1 + places[last]]) for _, (first, last) in spans],
            [(phoneme, starts[1 + places[place]]) for place, phoneme in enumerate(phonemes)],
            starts[-1],
        )

    def say(self, text: str, delivery: Delivery = PLAIN) -> Said | None:
        """Synthesize a text; None if its words differ from those of `words_of`, or the pitch from the voice's."""
        times = None if delivery.pitch else self.times(text, delivery.speed)
        if times is None:
            return None
        waveform = deliver(self._voice, text, delivery)
        if len(waveform) != times.num_samples:
            raise RuntimeError(f"{text!r}: {len(waveform)} samples, but the durations add up to {times.num_samples}")
        return Said(waveform, times)

    def _phonemes(self, text: str) -> tuple[str, list[tuple[str, tuple[int, int]]]]:
        """Return the phonemes of a text, and each word's spelling with its first and last phoneme (exclusive)."""
        from hibari.g2p import PUNCTS
        from hibari.g2p.normalize import normalize

        g2p = self._timed.g2p
        phonemes, spelling, spans = "", "", []
        first = last = 0
        for token in [*g2p.phonemize_tokens(g2p.tokenize(normalize(text)))]:
            for phoneme in token.phonemes or "":
                if phoneme not in PUNCTS and not phoneme.isspace():
                    first, last = (first if last else len(phonemes)), len(phonemes) + 1
                phonemes += phoneme
            spelling += token.text
            if token.whitespace:
                phonemes += " " if phonemes else ""  # a sentence may begin with a dash, which has no phoneme
                if last:
                    spans.append((_symbol(spelling), (first, last)))
                spelling, first, last = "", 0, 0
        return phonemes.strip(), [*spans, (_symbol(spelling), (first, last))] if last else spans


def _symbol(spelling: str) -> str:
    return next((symbol for symbol, _, _ in words_of(spelling)), "")


def _field(number: int, content: bytes) -> bytes:
    """Encode a length-delimited protobuf field of fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content
