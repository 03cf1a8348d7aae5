"""Diarization: who speaks when, in one channel. Windows of speech are embedded and clustered.

Agglomerative clustering with average linkage on cosine distances, as in Resemblyzer's and speechbrain's recipes. Speech
of two people at once is given to one of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
from pydantic import Field, PositiveInt

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.base import Parameters
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.models.asr.voice_activity import Span
from echo_targets.transforms.models.speakers.base import SpeakerEncoder
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.stages.segment.cutting import SEPARATING_PAUSE, joined_spans
from echo_targets.transforms.stages.segment.phrase_cuts import LONGEST_OUTSIDE
from echo_targets.transforms.stages.segment.stretches import Load

WINDOW, HOP = SAMPLE_RATE * 8 // 5, SAMPLE_RATE * 4 // 5
"""Samples of a window, and from one window to the next. Embeddings of less than a second are poor."""
AT_ONCE = 60 * SAMPLE_RATE
"""Samples of speech to load at once."""
MOST_WINDOWS = 2000
"""Windows that are clustered together, about half an hour of speech; then their clusters are clustered."""


class DiarizationParameters(Parameters):
    """Parameters of diarization.

    Attributes:
        model: the speaker encoder: `embedded:resemblyzer`, or a directory of speechbrain with an ECAPA-TDNN.
        num_speakers: number of speakers in each recording; null finds it by the threshold.
        threshold: cosine distance above which two clusters are two speakers.
    """

    model: str = "embedded:resemblyzer"
    num_speakers: PositiveInt | None = None
    threshold: float = Field(default=0.4, gt=0, le=2)


LEAST_WINDOWS = 3
"""Windows of a speaker. Fewer, about three seconds in the whole recording, are taken for an odd moment of another."""

Part = tuple[int, int, int]
"""First sample, exclusive end, and speaker."""


def diarize(
    speech: Sequence[Span], load: Load, encoder: SpeakerEncoder, parameters: DiarizationParameters
) -> list[Part]:
    """Return stretches of speech with their speakers, numbered from 0 in the order in which they first speak.

    Args:
        speech: stretches of speech, in order.
        load: loads stretches; called with stretches in order.
        encoder: a speaker encoder that is set up.
        parameters: how to cluster.

    Returns:
        (first sample, exclusive end, speaker), in order. Together they are `speech`.
    """
    pieces = [piece for span in speech for piece in _pieces(span)]
    embeddings: list[np.ndarray] = []
    for group in _groups(pieces):
        for waveform, piece in zip(load(group), group, strict=True):
            places = [(start - piece[0], end - piece[0]) for start, end in _windows(piece)]
            embeddings.append(encoder.embed([waveform[start:end] for start, end in places]))
    if not embeddings:
        return []
    every = np.concatenate(embeddings)
    labels = iter(_without_small(every, cluster(every, parameters)).tolist())
    found = _without_interjections([part for piece in pieces for part in _labeled(piece, labels)])
    order = {label: number for number, label in enumerate(dict.fromkeys(label for *_, label in found))}
    return [(start, end, order[label]) for start, end, label in found]


def with_speakers(phrases: Sequence[Phrase], said: Sequence[Part]) -> list[Phrase]:
    """Return phrases with the speaker who speaks most in each, and a phrase for each long stretch that has no text.

    Args:
        phrases: phrases with text.
        said: stretches of speech with their speakers, in order.
    """
    starts = [start for start, *_ in said]
    found = []
    for phrase in phrases:
        shares: dict[int, int] = {}
        for start, end, speaker in said[max(0, bisect_right(starts, phrase.start) - 1) :]:
            if start >= phrase.end:
                break
            if (shared := min(end, phrase.end) - max(start, phrase.start)) > 0:
                shares[speaker] = shares.get(speaker, 0) + shared
        most = max(shares, key=lambda each: shares[each], default=None)
        found.append(phrase if most is None else replace(phrase, speaker=str(most)))
    covered = joined_spans((phrase.start, phrase.end) for phrase in phrases)
    shortest = LONGEST_OUTSIDE if phrases else 0
    for start, end, speaker in said:
        free = _uncovered((start, end), covered)
        found += [Phrase(first, last, None, str(speaker)) for first, last in free if last - first > shortest]
    return sorted(found, key=lambda phrase: (phrase.start, phrase.end))


def _uncovered(span: Span, covered: Sequence[Span]) -> Iterator[Span]:
    """Yield the parts of a stretch that are in none of the others, which are in order and do not overlap."""
    start, end = span
    for first, last in covered[bisect_right(covered, start, key=lambda each: each[1]) :]:
        if first >= end:
            break
        if start < first:
            yield start, first
        start = last
    if start < end:
        yield start, end


def cluster(embeddings: np.ndarray, parameters: DiarizationParameters) -> np.ndarray:
    """Return the cluster of each embedding.

    Args:
        embeddings: (n, dimension) unit vectors.

    Returns:
        (n,) labels.
    """
    if len(embeddings) <= MOST_WINDOWS:
        return _clustered(embeddings, parameters.threshold, parameters.num_speakers)
    labels, centers = np.zeros(len(embeddings), int), list[np.ndarray]()
    for start in range(0, len(embeddings), MOST_WINDOWS):
        part = embeddings[start : start + MOST_WINDOWS]
        found = _clustered(part, parameters.threshold, None)
        labels[start : start + MOST_WINDOWS] = found + len(centers)
        for label in range(found.max() + 1):
            center = part[found == label].mean(axis=0)
            centers.append(center / max(float(np.linalg.norm(center)), 1e-12))
    is_smaller = len(centers) < len(embeddings)
    joined = cluster(np.stack(centers), parameters) if is_smaller else np.arange(len(centers))
    return np.asarray(joined[labels])


def _clustered(embeddings: np.ndarray, threshold: float, count: int | None) -> np.ndarray:
    if len(embeddings) == 1:
        return np.zeros(1, int)
    try:
        from sklearn.cluster import AgglomerativeClustering
    except ImportError as error:
        raise ModelError(f"{error}: pip install 'echo-targets[speakers]'") from error
    known = (
        {"n_clusters": min(count, len(embeddings))} if count else {"n_clusters": None, "distance_threshold": threshold}
    )
    # Rounded, so that the last bits of a product do not decide between two clusterings.
    distances = np.round(1 - embeddings.astype(np.float64) @ embeddings.T.astype(np.float64), 6)
    found = AgglomerativeClustering(metric="precomputed", linkage="average", **known).fit_predict(distances)
    return np.asarray(found)


def _without_small(embeddings: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return labels in which each cluster of a few windows is part of the nearest larger one, if there is one."""
    sizes = np.bincount(labels)
    large = np.flatnonzero(sizes >= LEAST_WINDOWS)
    if not len(large):
        return labels
    centers = np.stack([embeddings[labels == label].mean(axis=0) for label in large])
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    nearest = large[np.argmax(np.round(embeddings @ centers.T, 6), axis=1)]
    return np.where(sizes[labels] >= LEAST_WINDOWS, labels, nearest)


def _without_interjections(parts: list[Part]) -> list[Part]:
    """Give what is said within a short pause of one speaker to that speaker: a pause that is not one of turns."""
    found = list(parts)
    for place in range(1, len(found) - 1):
        before, (start, end, speaker), after = found[place - 1 : place + 2]
        if before[2] == after[2] != speaker and after[0] - before[1] < SEPARATING_PAUSE:
            found[place] = (start, end, before[2])
    return found


def _pieces(span: Span) -> Iterator[Span]:
    """Yield a stretch in pieces of at most `AT_ONCE` samples."""
    for start in range(span[0], span[1], AT_ONCE):
        yield start, min(start + AT_ONCE, span[1])


def _groups(pieces: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield neighboring pieces in groups of about `AT_ONCE` samples."""
    before = np.cumsum([0, *(end - start for start, end in pieces)])
    for _, group in groupby(zip(before.tolist(), pieces, strict=False), key=lambda each: each[0] // AT_ONCE):
        yield [piece for _, piece in group]


def _windows(piece: Span) -> list[Span]:
    """Return the windows of a piece; the last one ends with it."""
    start, end = piece
    count = max(0, -(-(end - start - WINDOW) // HOP)) + 1
    starts = [max(start, min(start + number * HOP, end - WINDOW)) for number in range(count)]
    return [(first, min(first + WINDOW, end)) for first in starts]


def _labeled(piece: Span, labels: Iterator[int]) -> Iterator[Part]:
    """Yield a piece in parts of one label: each moment has that of the window whose center is nearest."""
    windows = _windows(piece)
    centers = [(start + end) // 2 for start, end in windows]
    borders = [piece[0], *((one + other) // 2 for one, other in pairwise(centers)), piece[1]]
    parts = zip(borders, borders[1:], [next(labels) for _ in windows], strict=False)
    for label, run in groupby(parts, key=lambda part: part[2]):
        same = list(run)
        yield same[0][0], same[-1][1], label
