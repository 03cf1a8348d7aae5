"""CTC forced alignment of words (Kürzinger et al. 2020, arXiv 2007.09127)."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np

from echo_targets.transforms.models.aligners.base import Aligner, Alignment, Span, alignment_of, failed
from echo_targets.transforms.models.aligners.pauses import Levels
from echo_targets.transforms.text import TextWord

HOP_SAMPLES = 320
HALF_BLANK = 960
"""Maximum samples (60 ms) by which a word begins before its first peak or ends after its last one.

Of words without a pause between them, 95 % have at most 120 ms of blanks between their peaks.
"""
LONGEST_TOKEN = 6_400
"""Samples (400 ms) around a peak within which the word's sound must begin or end."""
WILDCARD_COST = 0.1
"""Log-probability by which a wildcard's frame is below the best token's, so that it does not absorb neighbors."""
MOST_CELLS = 2**31
"""Maximum cells of the Viterbi pass (frames x symbols and blanks), one byte each: about 20 minutes of speech."""


class Peak(NamedTuple):
    """The frames [start, end) of a token, and its highest log-probability there."""

    start: int
    end: int
    log_prob: float


class TokenAligner(Aligner):
    """Forced alignment by the tokens of a CTC recognizer: phonemes or letters.

    Attributes:
        blank: id of the blank; known after `setup`.
        lag: samples by which peaks follow the sound.
    """

    blank: int
    lag: ClassVar[int] = 0

    @abstractmethod
    def tokens(self, symbol: str) -> tuple[int, ...] | None:
        """Return the ids of a word's tokens; None if it can't be spelled."""

    @abstractmethod
    def emissions(self, waveform: np.ndarray) -> np.ndarray:
        """Return log-probabilities of the tokens, with the word boundary counted as blank.

        Args:
            waveform: float32, 16 kHz mono, of any length.

        Returns:
            (frames, tokens) float32. Frame t is centered at sample 320 t.
        """

    def _aligned(self, waveform: np.ndarray, words: list[TextWord], text: str) -> Alignment:
        tokens = [self.tokens(word.symbol) for word in words]
        if not any(tokens):
            return alignment_of(words, [None] * len(words), len(waveform))
        return align_tokens(words, tokens, self.emissions(waveform), self.blank, waveform, self.lag)


def align_tokens(
    words: list[TextWord],
    tokens: list[tuple[int, ...] | None],
    log_probs: np.ndarray,
    blank: int,
    waveform: np.ndarray,
    lag: int = 0,
) -> Alignment:
    """Align words along the likeliest CTC path of their tokens.

    Args:
        words: as `words_of` returns them.
        tokens: ids of each word's tokens; None if the word can't be spelled.
        log_probs: (frames of 320 samples, tokens) float32.
        blank: id of the blank.
        waveform: the utterance, float32, 16 kHz mono.
        lag: samples by which peaks follow the sound.
    """
    wildcard, first = log_probs.max(1) - np.float32(WILDCARD_COST), log_probs.shape[1]
    log_probs = np.column_stack([log_probs, wildcard, wildcard])
    targets, owners = _targets(tokens, (first, first + 1))
    if (needed := frames_needed(targets)) > len(log_probs):
        return failed(f"the text needs {needed} frames, but the audio has {len(log_probs)}")
    if len(log_probs) * (2 * len(targets) + 1) > MOST_CELLS:
        return failed(
            f"{len(targets)} symbols on {len(log_probs)} frames need over {MOST_CELLS / 2**30:g} GiB of memory; "
            "cut the recording into shorter utterances"
        )
    peaks: list[list[Peak]] = [[] for _ in words]
    for owner, peak in zip(owners, viterbi(log_probs, targets, blank), strict=True):
        peaks[owner].append(peak)
    spans = zip(_spans(peaks, Levels(waveform), lag), tokens, strict=True)
    return alignment_of(words, [span if known else None for span, known in spans], len(waveform))


def viterbi(log_probs: np.ndarray, targets: list[int], blank: int) -> list[Peak]:
    """Return the frames of each target on the likeliest CTC path.

    Args:
        log_probs: (frames, tokens) float32.
        targets: token ids without blanks; the path must fit into the frames.
        blank: id of the blank.
    """
    import torch
    from torchaudio.functional import forced_align

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torchaudio.functional._alignment.forced_align has been deprecated")
        emissions, labels = torch.from_numpy(log_probs), torch.tensor(targets, dtype=torch.int32)
        path, _ = forced_align(emissions[None], labels[None], blank=blank)
    tokens = path[0].numpy()
    changes = np.flatnonzero(np.diff(tokens)) + 1
    starts, ends = np.append(0, changes), np.append(changes, len(tokens))
    runs = zip(starts.tolist(), ends.tolist(), strict=True)
    return [
        Peak(start, end, float(log_probs[start:end, tokens[start]].max()))
        for start, end in runs
        if tokens[start] != blank
    ]


def _targets(phonemes: list[tuple[int, ...] | None], wildcards: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Return the token sequence, and the index of each token's word.

    Two wildcards alternate, because CTC needs a blank between equal tokens; so each word keeps a frame of its own.
    """
    targets: list[int] = []
    owners: list[int] = []
    for word, ids in enumerate(phonemes):
        ids = ids or (wildcards[targets[-1:] == [wildcards[0]]],)
        targets += ids
        owners += [word] * len(ids)
    return targets, owners


def frames_needed(targets: Sequence[int]) -> int:
    """Return the number of frames that a CTC path needs; a blank separates equal neighbors."""
    return len(targets) + sum(one == next_ for one, next_ in pairwise(targets))


def _spans(words: list[list[Peak]], levels: Levels, lag: int) -> list[Span]:
    """Return each word's span, at least a frame long, from the peaks of its tokens."""
    befores = [None, *(peaks[-1] for peaks in words)]
    afters = [*(peaks[0] for peaks in words), None]
    borders = [_border(before, after, levels, lag) for before, after in zip(befores, afters, strict=True)]
    spans, earliest = [], 0
    for peaks, (_, start), (end, _) in zip(words, borders, borders[1:], strict=False):
        start = max(start, earliest)
        earliest = max(end, start + HOP_SAMPLES)
        spans.append(Span(start, earliest, math.exp(sum(peak.log_prob for peak in peaks) / len(peaks))))
    return spans


def _border(before: Peak | None, after: Peak | None, levels: Levels, lag: int) -> tuple[int, int]:
    """Return where one word ends and the next one starts, between the peaks around the border.

    A silence between the peaks separates the words. Without one they share the blanks, since CTC shows where tokens
    are but not how far they extend. If noise may hide a longer pause, neither word extends far into it.
    """
    end = before.end * HOP_SAMPLES - lag if before else 0
    start = after.start * HOP_SAMPLES - lag if after else levels.num_samples
    share = min((start - end) // (2 if before and after else 1), HALF_BLANK)
    silences = levels.silences(
        before.start * HOP_SAMPLES - lag if before else 0, after.end * HOP_SAMPLES if after else levels.num_samples
    )
    falls = [begin for begin, _ in silences if begin <= end + LONGEST_TOKEN]
    rises = [over for _, over in silences if over >= start - LONGEST_TOKEN]
    hidden = not (before and after) or start - end > LONGEST_TOKEN
    begins = rises[-1] if rises else start - share
    return falls[0] if falls else end + share if hidden else begins, begins
