"""Whether two error rates differ: confidence intervals by a paired bootstrap over clips."""

from __future__ import annotations

from typing import NamedTuple

import jiwer
import numpy as np

RESAMPLES = 10_000


class Interval(NamedTuple):
    """A difference of two error rates, and its 95 % interval."""

    difference: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.difference * 100:+.2f} ({self.low * 100:+.2f} to {self.high * 100:+.2f})"


def errors_by_clip(references: list[str], found: str) -> np.ndarray:
    """Return the word errors in each of the clips that a recording is made of.

    An inserted word counts for the clip of the word that follows it.

    Args:
        references: normalized text of each clip, in order, each with a word at least.
        found: normalized transcript of the whole.

    Returns:
        (clips,) int64.
    """
    ends = np.cumsum([len(text.split()) for text in references])
    errors = np.zeros(len(references), np.int64)
    (chunks,) = jiwer.process_words(" ".join(references), found).alignments
    for chunk in chunks:
        if chunk.type == "equal":
            continue
        count = max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
        words = np.minimum(chunk.ref_start_idx + np.arange(count), max(chunk.ref_start_idx, chunk.ref_end_idx - 1))
        np.add.at(errors, np.minimum(np.searchsorted(ends, words, "right"), len(ends) - 1), 1)
    return errors


def difference(ours: np.ndarray, theirs: np.ndarray, words: np.ndarray, seed: int = 0) -> Interval:
    """Return the difference of two word error rates on the same clips, with its interval.

    Clips are drawn with replacement, for both transcripts alike (Bisani and Ney, ICASSP 2004). What is chosen as the
    best of several contenders is the best by chance too, so against the best the interval lies high.

    Args:
        ours, theirs: word errors of each clip.
        words: of the reference of each clip.
    """
    rng = np.random.default_rng(seed)
    more = ours - theirs
    taken = rng.integers(0, len(words), (RESAMPLES, len(words)))
    low, high = np.percentile(more[taken].sum(1) / words[taken].sum(1), [2.5, 97.5])
    return Interval(float(more.sum() / words.sum()), float(low), float(high))
