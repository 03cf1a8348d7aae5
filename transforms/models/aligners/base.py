"""The interface of an aligner: from speech and its text it finds where each word starts and ends."""

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
    """A word of the text (or a character of a script without spaces) and where it is spoken.

    Attributes:
        symbol: the word as written, without the punctuation around it.
        char_start: first character of `symbol` in the text.
        char_end: exclusive.
        start_sample: first sample in the 16 kHz signal.
        end_sample: exclusive.
        score: 0 to 1, how well the audio fits the word; None if it was not aligned.
        interpolated: True if it was placed between its neighbors because the aligner could not search for it.
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
        words: all words of the text, each at least a sample long, or none if the alignment failed.
        coverage: share of the words that were aligned and not interpolated.
        status: `ok` (all were aligned), `partial` (some were interpolated) or `failed`.
        reason: why it failed; empty if it did not.
    """

    words: list[Word]
    coverage: float
    status: Literal["ok", "partial", "failed"]
    reason: str = ""


class Span(NamedTuple):
    """Where an aligner found a word, in samples, and how well the audio fits it (0 to 1)."""

    start: int
    end: int
    score: float


class Aligner(ABC):
    """Finds the words of a text in speech.

    Attributes:
        at_once: 1 if the model must not be called from several threads.
    """

    at_once: ClassVar[int | None] = None

    @abstractmethod
    def weight_digests(self) -> dict[str, str]:
        """Return the digests of the aligner's models by name, for the fingerprint. Needs no `setup`."""

    @abstractmethod
    def setup(self) -> None:
        """Load the models.

        Raises:
            ModelError: a model, or a library that it needs, is missing.
        """

    @abstractmethod
    def _aligned(self, waveform: np.ndarray, words: list[TextWord], text: str) -> Alignment:
        """Align the words of a text in one utterance: float32, 16 kHz mono, with at least a frame per word."""

    def align(self, waveform: np.ndarray, text: str) -> Alignment:
        """Align one utterance: float32, 16 kHz mono."""
        (alignment,) = self([waveform], [text])
        return alignment

    def __call__(self, waveforms: list[np.ndarray], texts: list[str]) -> list[Alignment]:
        """Align utterances (float32, 16 kHz mono) with their texts, each independently.

        Raises:
            ValueError: the numbers of texts and waveforms differ.
        """
        pairs = list(zip(waveforms, texts, strict=True))
        return in_threads(lambda pair: self._checked(*pair), pairs, self.at_once)

    def _checked(self, waveform: np.ndarray, text: str) -> Alignment:
        words = words_of(text)
        return _impossible(words, len(waveform)) or self._aligned(waveform, words, text)


def failed(reason: str) -> Alignment:
    """Return a failed alignment, without words."""
    return Alignment([], 0.0, "failed", reason)


def _impossible(words: list[TextWord], num_samples: int) -> Alignment | None:
    """Return a failed alignment if no aligner could succeed, else None."""
    frames = -(-num_samples // SHORTEST_WORD)
    if not num_samples:
        return failed("the audio is empty")
    if not words:
        return failed("the text has no words")
    if len(words) > frames:
        return failed(f"the text has {len(words)} words, but the audio has room for {frames}")
    return None


def alignment_of(words: list[TextWord], spans: list[Span | None], num_samples: int) -> Alignment:
    """Return an alignment from the spans that an aligner found.

    A word counts as not found if its span is empty, outside the audio, or taken by the words before it.

    Args:
        words: as `words_of` returns them.
        spans: one per word, in order; None if the aligner could not search for the word. Such words share the time
            between their neighbors in proportion to their characters.
        num_samples: samples of the utterance at 16 kHz.
    """
    if impossible := _impossible(words, num_samples):
        return impossible
    if not any(spans):
        return failed(
            f"none of the text's {len(words)} words can be spelled in the aligner's symbols; "
            "set align.model to a model of the text's language"
        )
    spans = _apart(spans, num_samples)
    found = sum(span is not None for span in spans)
    if not found:
        return failed(f"none of the text's {len(words)} words has audio of its own")
    times = _in_order(_filled([word.symbol for word in words], spans, num_samples), num_samples)
    placed = [
        Word(*word, start, end, span and span.score, interpolated=span is None)
        for word, (start, end), span in zip(words, times, spans, strict=True)
    ]
    return Alignment(placed, found / len(words), "ok" if found == len(words) else "partial")


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
    """Move borders just far enough that words follow each other, lie inside the audio, and are not empty.

    There are no more words than frames, so there is room for each.
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
