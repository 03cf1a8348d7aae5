"""Transcribe speech of any length with Whisper, and decode again any speech that was left without text."""

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
"""The last part of a full window, in which a pause is searched for."""
QUIET_FRAME = SAMPLE_RATE // 5
SHORTEST_PAUSE = SAMPLE_RATE // 5
LONG_PAUSE = SAMPLE_RATE
"""A pause at which Whisper ends a segment. A segment that spans one often has the text of one side only.

It is also the shortest gap between two segments that is decoded again: timestamps are off by some tenths of a second.
"""
SLACK = SAMPLE_RATE * 3 // 10
LEAST_SPEECH = SAMPLE_RATE // 2
"""Minimum speech to decode again. Less is a very short word, or the end of a word that its segment cuts off."""
TRIES = 3
"""How often an utterance's gaps are decoded: text that is found in a gap leaves smaller gaps."""
SPARSE_SPEECH = SAMPLE_RATE * 2
SPARSE_TEXT = 7
"""A segment with at least `SPARSE_SPEECH` of speech lacks text if it has fewer bytes of text per second of speech.

Slow readers have 10 or more. Whisper may end a segment late and omit a second speaker who is much quieter; segments
that lost a sentence in this way had 0.6 to 5.5. In Latin script a byte is a letter; in scripts with several bytes per
letter, fewer of these segments are found.
"""
DIGIT_BYTES = 5
"""Bytes that a digit counts as: "1851" is spoken as four words."""
MORE_TEXT = 5
"""A segment is replaced if its parts have at least this many characters more; fewer may be a change of spelling."""


class DecodingRules(Parameters):
    """When to distrust a result (Radford et al. 2022, section 4.5), and how to decode it again.

    Attributes:
        temperatures: to try in turn; the later ones only for windows whose result repeats itself.
        compression_ratio_threshold: a result above it repeats itself.
        logprob_threshold: a result whose mean log-probability is below it is flagged.
        no_speech_threshold: a no-speech probability above it, with a low mean log-probability, means silence: no text.
        seed: of the sampling.
    """

    temperatures: list[float] = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    compression_ratio_threshold: float = 2.4
    logprob_threshold: float = -1.0
    no_speech_threshold: float = 0.6
    seed: int = 0

    def is_silent(self, window: DecodedWindow) -> bool:
        """Return True if Whisper considers the window silent."""
        return window.avg_logprob < self.logprob_threshold and window.no_speech_prob > self.no_speech_threshold

    def fails(self, window: DecodedWindow) -> bool:
        """Return True if the window should be decoded at the next temperature.

        Whisper's authors also do so at a low mean log-probability. In noise that multiplies the time of decoding, and
        the samples have no fewer errors than the greedy text (benchmarks.transcribe), so the window is only flagged.
        """
        return not self.is_silent(window) and window.compression_ratio > self.compression_ratio_threshold

    def is_likely(self, window: DecodedWindow) -> bool:
        """Return True if the text of a window passes both thresholds."""
        return window.avg_logprob >= self.logprob_threshold and not self.fails(window)

    def best(self, attempts: list[DecodedWindow]) -> DecodedWindow:
        """Return the last attempt if it passes, else the most likely one."""
        return attempts[-1] if not self.fails(attempts[-1]) else max(attempts, key=lambda window: window.avg_logprob)


@dataclass(frozen=True)
class Segment:
    """A phrase with its place in the utterance.

    Attributes:
        start, end: samples at 16 kHz; `end` is exclusive.
        text: without its leading space.
        window: the result that the segment is part of.
    """

    start: int
    end: int
    text: str
    window: DecodedWindow


@dataclass
class Transcription:
    """Transcription of an utterance.

    Attributes:
        speech: stretches of speech, according to the voice activity detector.
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
        """Return the stretches without text that hold speech: after the last segment, or longer than a second.

        They are cut at long pauses.
        """
        borders = [0, *(border for segment in self.segments for border in (segment.start, segment.end)), num_samples]
        found = []
        for start, end in zip(borders[::2], borders[1::2], strict=True):
            if end == num_samples or end - start > LONG_PAUSE:
                found += self._parts(start, end)
        return found

    def doubtful(self) -> list[tuple[Segment, list[Span]]]:
        """Return the segments that span a long pause or lack text, each with its stretches of speech."""
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
        """Replace segments of this transcription with others."""
        self.segments = [each for each in self.segments if each not in doubtful] + others
        self.windows += [each.window for each in others]
        self.settle()

    def settle(self) -> None:
        """Sort the segments. If two overlap, the first one ends where the second starts."""
        ordered = sorted(self.segments, key=lambda segment: segment.start)
        clipped = [replace(one, end=min(one.end, two.start)) for one, two in pairwise(ordered)]
        self.segments = [segment for segment in [*clipped, *ordered[-1:]] if segment.start < segment.end]

    def _parts(self, start: int, end: int, pause: int = LONG_PAUSE) -> list[Span]:
        """Return the parts between pauses that hold enough speech, each extended to the next one."""
        groups: list[list[Span]] = []
        for span in self._speech_in(start, end):
            if groups and span[0] - groups[-1][-1][1] < pause:
                groups[-1].append(span)
            else:
                groups.append([span])
        starts = [group[0][0] for group in groups if _length(group) >= LEAST_SPEECH]
        return list(zip(starts, [*starts[1:], end], strict=False))

    def _speech_in(self, start: int, end: int) -> list[Span]:
        """Return the speech between two borders that are timestamps, with its first word complete.

        Timestamps are off by some tenths of a second, so speech that begins just before the first border is included.
        """
        earlier = [first for first, last in self.speech if start - SLACK < first < start < last]
        return _inside(self.speech, min(earlier, default=start), end)


@dataclass(frozen=True)
class _Stretch:
    """A part of an utterance that is to be decoded, at most 30 s.

    Attributes:
        utterance: its index in the batch.
        start, end: samples.
    """

    utterance: int
    start: int
    end: int


class LongForm:
    """Transcribes utterances of any length, in batches.

    If a window ends inside a phrase, the next window starts with that phrase, as in openai-whisper's `transcribe`. If a
    segment spans a long pause or has too little text for its speech, or the voice activity detector finds speech that
    no segment covers, the parts are decoded separately. An utterance's result does not depend on the others.

    Args:
        recognizer: a Whisper recognizer, set up by the caller.
        rules: when to decode a window again at another temperature.
    """

    def __init__(self, recognizer: Recognizer, rules: DecodingRules) -> None:
        self._recognizer, self._rules = recognizer, rules
        self._voice = VoiceActivity()
        self._voice.setup()

    def __call__(self, waveforms: Sequence[np.ndarray], keys: Sequence[str]) -> list[Transcription]:
        """Transcribe utterances.

        Args:
            waveforms: (num_samples,) float32, 16 kHz mono.
            keys: the utterances' keys; they seed the sampling.
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
            only_likely: True drops text with a low mean log-probability, or that repeats itself. In noise, text that is
                decoded from a gap is often hallucinated; the gap then stays without text, and is flagged.
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
                transcription.segments += [each for each in segments if not self._is_hallucinated(each, transcription)]
                resume = stretch.start + window.resume
                if window.resume >= LEAST_SPEECH and resume < stretch.end:  # progress must be made
                    following.append(_Stretch(stretch.utterance, resume, stretch.end))
            stretches = following
        for transcription in found:
            transcription.settle()

    def _recheck(self, waveforms: Sequence[np.ndarray], keys: Sequence[str], found: list[Transcription]) -> None:
        """Decode the parts of doubtful segments separately, and use them if they have more text."""
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

    def _is_hallucinated(self, segment: Segment, transcription: Transcription) -> bool:
        """Return True if both Whisper and the voice activity detector find no speech in a segment."""
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
                    # Decode alone and with its own seed: a sample must not depend on which other windows fail.
                    name = f"{self._rules.seed} {keys[stretch.utterance]} {stretch.start} {temperature}"
                    attempts[place] += self._recognizer.decode([encoded[place]], temperature, zlib.crc32(name.encode()))
        return [self._rules.best(each) for each in attempts]


def cut_windows(waveform: np.ndarray, speech: list[Span]) -> list[Span]:
    """Cut long audio at pauses into windows of at most 30 s.

    The cut is in the middle of the longest pause in the last 10 s of a full window. Without a pause, it is at the
    quietest fifth of a second.

    Args:
        waveform: (num_samples,) float32 at 16 kHz.
        speech: the audio's stretches of speech, in samples.

    Returns:
        First sample and exclusive end of each window; together they cover the waveform.
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
    """Return the parts of spans that lie outside others; both are sorted and do not overlap."""
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
