"""What an aligner is: it takes speech and its text, and says where each word starts and ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from echo_targets.transforms.text import TextWord, words_of
from echo_targets.transforms.threads import in_threads

SHORTEST_WORD = 320  # samples: one frame of the aligners


@dataclass(frozen=True)
class Word:
    """A word of the text, or a character of a script without spaces, and where it was spoken.

    Attributes:
        symbol: the word as written, without the punctuation around it.
        char_start: of `symbol` in the text.
        char_end: exclusive.
        start_sample: of the 16 kHz signal.
        end_sample: exclusive.
        score: 0 to 1, how well the audio fits the word; None where it was not aligned.
        interpolated: placed between its neighbours, since the aligner could not look for it.
    """

    symbol: str
    char_start: int
    char_end: int
    start_sample: int
    end_sample: int
    score: float | None
    interpolated: bool


@dataclass(frozen=True)
class Alignment:
    """The words of one utterance: in order, without overlap, inside the audio.

    Attributes:
        words: all words of the text, each at least a sample long, or none where the alignment failed.
        coverage: share of the words that were aligned and not interpolated.
        status: `ok` (all were aligned), `partial` (some were interpolated) or `failed`.
        reason: why it failed; empty where it did not.
    """

    words: list[Word]
    coverage: float
    status: Literal["ok", "partial", "failed"]
    reason: str = ""


class Span(NamedTuple):
    """Where an aligner heard a word, in samples, and how well it fits (0 to 1)."""

    start: int
    end: int
    score: float


class Aligner(ABC):
    """Finds the words of a text in speech.

    Attributes:
        at_once: 1 where the model may not be called from several threads.
    """

    at_once: ClassVar[int | None] = None

    @abstractmethod
    def weight_digests(self) -> dict[str, str]:
        """What stands for the aligner's models in a fingerprint, by name. Needs no `setup`."""

    @abstractmethod
    def setup(self) -> None:
        """Loads the models.

        Raises:
            ModelError: they, or a library they need, are not there.
        """

    @abstractmethod
    def _aligned(self, waveform: np.ndarray, words: list[TextWord]) -> Alignment:
        """Align the words of one utterance: float32, 16 kHz mono, not empty, at least a frame for each word."""

    def align(self, waveform: np.ndarray, text: str) -> Alignment:
        """Aligns one utterance: float32, 16 kHz mono."""
        (alignment,) = self([waveform], [text])
        return alignment

    def __call__(self, waveforms: list[np.ndarray], texts: list[str]) -> list[Alignment]:
        """Aligns utterances, each by itself: float32, 16 kHz mono, and what is said in each.

        Raises:
            ValueError: there are not as many texts as waveforms.
        """
        pairs = list(zip(waveforms, texts, strict=True))
        return in_threads(lambda pair: self._checked(*pair), pairs, self.at_once)

    def _checked(self, waveform: np.ndarray, text: str) -> Alignment:
        words = words_of(text)
        return _impossible(words, len(waveform)) or self._aligned(waveform, words)


def failed(reason: str) -> Alignment:
    """An alignment without words."""
    return Alignment([], 0.0, "failed", reason)


def _impossible(words: list[TextWord], num_samples: int) -> Alignment | None:
    """Return the failed alignment of what no aligner can align."""
    frames = -(-num_samples // SHORTEST_WORD)
    if not num_samples:
        return failed("the audio is empty")
    if not words:
        return failed("the text has no words")
    if len(words) > frames:
        return failed(f"the text's {len(words)} words need as many frames; the audio has {frames}")
    return None


def alignment_of(words: list[TextWord], spans: list[Span | None], num_samples: int) -> Alignment:
    """An alignment from where an aligner heard each word.

    A word whose span is empty, outside the audio or taken by the words before it counts as not heard.

    Args:
        words: as `words_of` gives them.
        spans: one for each word, in order; None where the aligner could not look for it. Such words share the time
            between their neighbours in proportion to their characters.
        num_samples: of the utterance at 16 kHz.
    """
    if impossible := _impossible(words, num_samples):
        return impossible
    if not any(spans):
        return failed(
            f"none of the text's {len(words)} words can be spelled in the aligner's symbols; "
            "choose an aligner of its language (align.model)"
        )
    spans = _apart(spans, num_samples)
    heard = sum(span is not None for span in spans)
    if not heard:
        return failed(f"none of the text's {len(words)} words was heard on audio of its own")
    times = _in_order(_filled([word.symbol for word in words], spans, num_samples), num_samples)
    placed = [
        Word(*word, start, end, span and span.score, interpolated=span is None)
        for word, (start, end), span in zip(words, times, spans, strict=True)
    ]
    return Alignment(placed, heard / len(words), "ok" if heard == len(words) else "partial")


def _apart(spans: list[Span | None], num_samples: int) -> list[Span | None]:
    taken, own = 0, list[Span | None]()
    for span in spans:
        if span is not None:
            start, end = max(span.start, taken), min(span.end, num_samples)
            span = Span(start, end, span.score) if start < end else None
            taken = end if span else taken
        own.append(span)
    return own


def _filled(symbols: list[str], spans: list[Span | None], num_samples: int) -> list[tuple[int, int]]:
    times: list[tuple[int, int]] = []
    for missing, run in groupby(range(len(spans)), key=lambda place: spans[place] is None):
        places = list(run)
        if not missing:
            times += [(span.start, span.end) for place in places if (span := spans[place])]
            continue
        left = times[-1][1] if times else 0
        following = spans[places[-1] + 1] if places[-1] + 1 < len(spans) else None
        room = max(0, (following.start if following else num_samples) - left)
        ends = list(accumulate(len(symbols[place]) for place in places))
        borders = [left + room * end // ends[-1] for end in [0, *ends]]
        times += pairwise(borders)
    return times


def _in_order(times: list[tuple[int, int]], num_samples: int) -> list[tuple[int, int]]:
    """Move borders just as far as it takes for words to follow each other, inside the audio, none of them empty.

    There are no more words than frames, so each has room.
    """
    shortest = min(SHORTEST_WORD, num_samples // len(times))
    ordered, earliest = [], 0
    for start, end in times:
        start = max(start, earliest)
        earliest = max(end, start + shortest)
        ordered.append((start, earliest))
    latest = num_samples
    for place, (start, end) in reversed(list(enumerate(ordered))):
        end = min(end, latest)
        latest = min(start, end - shortest)
        ordered[place] = (latest, end)
    return ordered
