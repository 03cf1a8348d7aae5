"""Transcribe speech of any length with Whisper, and decode again where speech is left without text."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.base import Parameters
from echo_targets.transforms.models.asr.base import DecodedWindow, Recognizer
from echo_targets.transforms.models.asr.voice_activity import Span, VoiceActivity
from echo_targets.transforms.models.whisper.encoder import WINDOW_SAMPLES
from echo_targets.transforms.text import join
from echo_targets.transforms.threads import in_threads

SEARCHED = 10 * SAMPLE_RATE
"""The end of a full window in which a pause is looked for."""
QUIET_FRAME = SAMPLE_RATE // 5
SHORTEST_PAUSE = SAMPLE_RATE // 5
LONG_PAUSE = SAMPLE_RATE
"""A pause in which Whisper ends a segment. A segment that runs over one often has the text of one side only.

It is also the shortest gap between two segments that is decoded again: timestamps are off by some tenths of a second.
"""
SLACK = SAMPLE_RATE * 3 // 10
LEAST_SPEECH = SAMPLE_RATE // 2
"""Speech that is worth decoding again. Less is a very short word, or the end of one that its segment cuts off."""
TRIES = 3
"""How often the gaps of an utterance are decoded: a gap that gets some text leaves smaller ones."""
SPARSE_SPEECH = SAMPLE_RATE * 2
SPARSE_TEXT = 7
"""Bytes of text for a second of speech, below which a segment of at least `SPARSE_SPEECH` lacks text.

Slow readers have 10 or more. Whisper may end a segment late and leave out a second speaker who is much quieter: such
segments had 0.6 to 5.5 where a sentence was lost. A byte is a letter in Latin script; of other scripts, which have
several bytes a letter, less is found.
"""
DIGIT_BYTES = 5
"""What a digit counts: "1851" is said in four words."""
MORE_TEXT = 5
"""Characters by which the parts of a segment must exceed it to replace it: fewer are another spelling of the same."""


class DecodingRules(Parameters):
    """When a result is not trusted (Radford et al. 2022, section 4.5), and what is tried then.

    Attributes:
        temperatures: tried in turn, only for windows whose result so far repeats itself.
        compression_ratio_threshold: above it, a result repeats itself.
        logprob_threshold: mean log-probability below which a result is flagged.
        no_speech_threshold: with a low mean log-probability, a probability above it means silence: no text.
        seed: of the sampling.
    """

    temperatures: list[float] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    compression_ratio_threshold: float = 2.4
    logprob_threshold: float = -1.0
    no_speech_threshold: float = 0.6
    seed: int = 0

    def is_silent(self, window: DecodedWindow) -> bool:
        """Return True if Whisper says that nobody speaks in the window."""
        return window.avg_logprob < self.logprob_threshold and window.no_speech_prob > self.no_speech_threshold

    def fails(self, window: DecodedWindow) -> bool:
        """Return True if the window should be decoded at the next temperature.

        Whisper's authors do so at a low mean log-probability too. In noise that costs several times the decoding, and
        the samples have no fewer errors than the greedy text (benchmarks.transcribe); it is flagged instead.
        """
        return not self.is_silent(window) and window.compression_ratio > self.compression_ratio_threshold

    def is_likely(self, window: DecodedWindow) -> bool:
        """Return True if the text of a window passes both thresholds."""
        return window.avg_logprob >= self.logprob_threshold and not self.fails(window)

    def best(self, attempts: list[DecodedWindow]) -> DecodedWindow:
        """Return the last attempt if it passes, else the likeliest."""
        return attempts[-1] if not self.fails(attempts[-1]) else max(attempts, key=lambda window: window.avg_logprob)


@dataclass(frozen=True)
class Segment:
    """A phrase with its place in the utterance.

    Attributes:
        start, end: samples at 16 kHz; `end` is exclusive.
        text: without the space that may start it.
        window: the result that it is a part of.
    """

    start: int
    end: int
    text: str
    window: DecodedWindow


@dataclass
class Transcription:
    """What was said in an utterance.

    Attributes:
        speech: stretches that the voice activity detector calls speech.
        windows: results of all windows, in the order of decoding.
        segments: in order, without overlap.
    """

    speech: list[Span]
    windows: list[DecodedWindow] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)

    @property
    def text(self) -> str:
        return join(segment.text for segment in self.segments)

    @property
    def uncovered(self) -> list[Span]:
        """Stretches of speech outside all segments, in order."""
        return _without(self.speech, [(segment.start, segment.end) for segment in self.segments])

    @property
    def speech_covered(self) -> float | None:
        """Share of the speech inside segments; None without speech."""
        speech = _length(self.speech)
        return 1 - _length(self.uncovered) / speech if speech else None

    def gaps(self, num_samples: int) -> list[Span]:
        """Return the stretches without text that hold speech: after the last segment, or of more than a second.

        They are cut in long pauses.
        """
        borders = [0, *(border for segment in self.segments for border in (segment.start, segment.end)), num_samples]
        found = []
        for start, end in zip(borders[::2], borders[1::2], strict=True):
            if end == num_samples or end - start > LONG_PAUSE:
                found += self._parts(start, end)
        return found

    def doubtful(self) -> list[tuple[Segment, list[Span]]]:
        """Return the segments that run over a long pause or lack text, each with its stretches of speech."""
        parts = [
            (
                segment,
                self._parts(segment.start, segment.end, SHORTEST_PAUSE if self.is_sparse(segment) else LONG_PAUSE),
            )
            for segment in self.segments
        ]
        return [(segment, spans) for segment, spans in parts if len(spans) > 1]

    def is_sparse(self, segment: Segment) -> bool:
        """Return True if a segment has too little text for the speech in it."""
        speech = _length(_inside(self.speech, segment.start, segment.end))
        size = len(segment.text.encode()) + sum(map(str.isdigit, segment.text)) * (DIGIT_BYTES - 1)
        return speech >= SPARSE_SPEECH and size * SAMPLE_RATE < SPARSE_TEXT * speech

    def replace(self, doubtful: list[Segment], others: list[Segment]) -> None:
        """Replace segments of this transcription by others."""
        self.segments = [each for each in self.segments if each not in doubtful] + others
        self.windows += [each.window for each in others]
        self.settle()

    def settle(self) -> None:
        """Put segments in order; where two overlap, the first one ends where the second starts."""
        ordered = sorted(self.segments, key=lambda segment: segment.start)
        clipped = [replace(one, end=min(one.end, two.start)) for one, two in pairwise(ordered)]
        self.segments = [segment for segment in [*clipped, *ordered[-1:]] if segment.start < segment.end]

    def _parts(self, start: int, end: int, pause: int = LONG_PAUSE) -> list[Span]:
        """Return the parts between pauses that hold speech enough, each up to the next one."""
        groups: list[list[Span]] = []
        for span in self._speech_in(start, end):
            if groups and span[0] - groups[-1][-1][1] < pause:
                groups[-1].append(span)
            else:
                groups.append([span])
        starts = [group[0][0] for group in groups if _length(group) >= LEAST_SPEECH]
        return list(zip(starts, [*starts[1:], end], strict=False))

    def _speech_in(self, start: int, end: int) -> list[Span]:
        """Return the speech between two borders that timestamps gave, so that its first word is whole.

        A timestamp is off by some tenths of a second: speech that begins just before the first border belongs to it.
        """
        earlier = [first for first, last in self.speech if start - SLACK < first < start < last]
        return _inside(self.speech, min(earlier, default=start), end)


@dataclass(frozen=True)
class _Stretch:
    """A part of an utterance that waits to be decoded, at most 30 s.

    Attributes:
        utterance: its place in the batch.
        start, end: samples.
    """

    utterance: int
    start: int
    end: int


class LongForm:
    """Transcribes utterances of any length, in batches.

    A window that ends inside a phrase is followed by one that starts with that phrase, as in openai-whisper's
    `transcribe`. Where a segment runs over a long pause or has too little text for its speech, or the voice activity
    detector finds speech that no segment covers, the parts are decoded by themselves. An utterance's result does not
    depend on the others.

    Args:
        recognizer: a Whisper, set up by the caller.
        rules: when a window is decoded again at another temperature.
    """

    def __init__(self, recognizer: Recognizer, rules: DecodingRules) -> None:
        self._recognizer, self._rules = recognizer, rules
        self._voice = VoiceActivity()
        self._voice.setup()

    def __call__(self, waveforms: Sequence[np.ndarray], keys: Sequence[str]) -> list[Transcription]:
        """Transcribe utterances.

        Args:
            waveforms: (num_samples,) float32, 16 kHz mono.
            keys: name each utterance; they seed what is sampled.
        """
        found = [Transcription(speech) for speech in in_threads(self._voice, waveforms)]
        whole = [
            _Stretch(place, start, end)
            for place, (waveform, transcription) in enumerate(zip(waveforms, found, strict=True))
            for start, end in cut_windows(waveform, transcription.speech)
        ]
        self._decode(whole, waveforms, keys, found)
        self._recheck(waveforms, keys, found)
        tried: set[_Stretch] = set()
        for _ in range(TRIES):
            gaps = [gap for gap in _gaps(waveforms, found) if gap not in tried]
            tried.update(gaps)
            self._decode(gaps, waveforms, keys, found, only_likely=True)
        return found

    def _decode(
        self,
        stretches: list[_Stretch],
        waveforms: Sequence[np.ndarray],
        keys: Sequence[str],
        found: list[Transcription],
        only_likely: bool = False,
    ) -> None:
        """Decode stretches, each to its end, and add the results to `found`.

        Args:
            only_likely: True leaves out text with a low mean log-probability, or that repeats itself. In noise, what is
                decoded from a gap is often made up; the gap then stays without text, and is flagged.
        """
        while stretches:
            windows = self._windows(stretches, waveforms, keys)
            following: list[_Stretch] = []
            for stretch, window in zip(stretches, windows, strict=True):
                transcription = found[stretch.utterance]
                transcription.windows.append(window)
                if self._rules.is_silent(window) or (only_likely and not self._rules.is_likely(window)):
                    continue
                segments = [
                    Segment(stretch.start + phrase.start, stretch.start + phrase.end, phrase.text.strip(), window)
                    for phrase in window.phrases
                ]
                transcription.segments += [each for each in segments if not self._is_invented(each, transcription)]
                resume = stretch.start + window.resume
                if window.resume >= LEAST_SPEECH and resume < stretch.end:  # a step must lead somewhere
                    following.append(_Stretch(stretch.utterance, resume, stretch.end))
            stretches = following
        for transcription in found:
            transcription.settle()

    def _recheck(self, waveforms: Sequence[np.ndarray], keys: Sequence[str], found: list[Transcription]) -> None:
        """Decode the parts of doubtful segments by themselves, and take them where they have more text."""
        doubtful = [transcription.doubtful() for transcription in found]
        parts = [
            _Stretch(place, *span) for place, segments in enumerate(doubtful) for _, spans in segments for span in spans
        ]
        apart = [Transcription(transcription.speech) for transcription in found]
        self._decode(parts, waveforms, keys, apart)
        for transcription, segments, decoded in zip(found, doubtful, apart, strict=True):
            replaced, others = list[Segment](), list[Segment]()
            for segment, spans in segments:
                inside = [each for each in decoded.segments if spans[0][0] <= each.start < segment.end]
                if len(join(each.text for each in inside)) >= len(segment.text) + MORE_TEXT:
                    replaced.append(segment)
                    others += inside
            transcription.replace(replaced, others)

    def _is_invented(self, segment: Segment, transcription: Transcription) -> bool:
        """Return True if both Whisper and the voice activity detector say that nobody speaks in a segment."""
        unlikely = segment.window.no_speech_prob > self._rules.no_speech_threshold
        return unlikely and not _inside(transcription.speech, segment.start, segment.end)

    def _windows(
        self, stretches: list[_Stretch], waveforms: Sequence[np.ndarray], keys: Sequence[str]
    ) -> list[DecodedWindow]:
        first, *fallbacks = self._rules.temperatures
        samples = [waveforms[stretch.utterance][stretch.start : stretch.end] for stretch in stretches]
        encoded = self._recognizer.encode(samples)
        attempts = [[window] for window in self._recognizer.decode(encoded, first)]
        for temperature in fallbacks:
            for place, stretch in enumerate(stretches):
                if self._rules.fails(attempts[place][-1]):
                    # By itself and from its own seed: what is sampled must not depend on which others fail.
                    name = f"{self._rules.seed} {keys[stretch.utterance]} {stretch.start} {temperature}"
                    attempts[place] += self._recognizer.decode([encoded[place]], temperature, zlib.crc32(name.encode()))
        return [self._rules.best(each) for each in attempts]


def cut_windows(waveform: np.ndarray, speech: list[Span]) -> list[Span]:
    """Cut long audio into windows of at most 30 s, in pauses.

    The cut lies in the middle of the longest pause in the last 10 s of a full window. Without a pause, it lies where a
    fifth of a second is quietest.

    Args:
        waveform: (num_samples,) float32 at 16 kHz.
        speech: its stretches of speech, in samples.

    Returns:
        First sample of each window and one past its last; together they cover the waveform.
    """
    windows, start = [], 0
    while len(waveform) - start > WINDOW_SAMPLES:
        searched = (start + WINDOW_SAMPLES - SEARCHED, start + WINDOW_SAMPLES)
        pause = max(_without([searched], speech), key=_span_length, default=searched)
        if _span_length(pause) < SHORTEST_PAUSE or pause == searched:
            energy = np.square(waveform[slice(*searched)].reshape(-1, QUIET_FRAME)).sum(axis=1)
            quietest = searched[0] + int(energy.argmin()) * QUIET_FRAME
            pause = (quietest, quietest + QUIET_FRAME)
        end = sum(pause) // 2
        windows.append((start, end))
        start = end
    return [*windows, (start, len(waveform))]


def _gaps(waveforms: Sequence[np.ndarray], found: list[Transcription]) -> Iterable[_Stretch]:
    for place, (waveform, transcription) in enumerate(zip(waveforms, found, strict=True)):
        for start, end in transcription.gaps(len(waveform)):
            speech = [(first - start, last - start) for first, last in _inside(transcription.speech, start, end)]
            for first, last in cut_windows(waveform[start:end], speech):
                yield _Stretch(place, start + first, start + last)


def _inside(spans: list[Span], start: int, end: int) -> list[Span]:
    clipped = [(max(first, start), min(last, end)) for first, last in spans]
    return [(first, last) for first, last in clipped if first < last]


def _without(spans: list[Span], others: list[Span]) -> list[Span]:
    """The parts of spans that lie outside others; both in order, without overlap."""
    left = []
    for start, end in spans:
        for first, last in _inside(others, start, end):
            if start < first:
                left.append((start, first))
            start = last
        if start < end:
            left.append((start, end))
    return left


def _length(spans: list[Span]) -> int:
    return sum(map(_span_length, spans))


def _span_length(span: Span) -> int:
    return span[1] - span[0]
