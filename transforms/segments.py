"""Where a streamed reply is cut, and what each piece is in characters and in recorded units."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from transforms.base import Parameters
from transforms.codebook import collapse, expand

SENTENCE_END, CLAUSE_END, WORD_END, INSIDE = 1.0, 0.5, 0.05, 0.0


class SegmentRule(Parameters):
    """EchoX's read/write policy over the scores of a reply's tokens (released inference code).

    A cut falls after token i where its score is the highest of tokens i - lookahead .. i + lookahead, and the
    segment has either `max_tokens` behind it, or `min_tokens` and a score above `threshold`. A token that the reply
    ends too soon after, so that its look-ahead is not whole, is never cut at.

    Attributes:
        lookahead: tokens seen on both sides, on the left as far as the reply goes back.
        min_tokens, max_tokens: tokens between the segment's first and token i.
        threshold: score that a cut before `max_tokens` needs.
    """

    lookahead: int = 5
    min_tokens: int = 20
    max_tokens: int = 50
    threshold: float = 0.1

    def ends(self, scores: Sequence[float]) -> list[int]:
        """Exclusive end of each segment, the reply's end last; empty for an empty reply."""
        ends: list[int] = []
        start = 0
        for token, score in enumerate(scores[: -self.lookahead or None]):  # the tail is never cut: no look-ahead
            window = scores[max(0, token - self.lookahead) : token + self.lookahead + 1]
            length = token - start
            long_enough = length >= self.max_tokens or (score > self.threshold and length >= self.min_tokens)
            if long_enough and score == max(window):
                ends.append(token + 1)
                start = token + 1
        return ends if not scores or (ends and ends[-1] == len(scores)) else [*ends, len(scores)]


def text_scores(text: str, offsets: Sequence[tuple[int, int]]) -> list[float]:
    """Scores from the text alone, for replies that no language model has read: high where a reader would pause.

    Args:
        text: the reply.
        offsets: character span of each token.

    Returns:
        One score a token: the end of a sentence above that of a clause, above that of a word.
    """
    return [_score(text, end) for _, end in offsets]


def _score(text: str, end: int) -> float:
    followed = end >= len(text) or text[end].isspace()
    if end == 0 or not followed:
        return INSIDE
    last = text[end - 1]
    return SENTENCE_END if last in ".?!" else CLAUSE_END if last in ",;:" else WORD_END


def recorded_segments(
    units: Sequence[int],
    durations: Sequence[int],
    frame_samples: float,
    words: Sequence[dict[str, Any]],
    char_ends: Sequence[int],
) -> list[np.ndarray] | None:
    """A recording's own units, cut where the text is cut.

    A border lies in the middle of the pause between the last word before it and the first word after it.

    Args:
        units, durations: the recording's collapsed units.
        frame_samples: 16 kHz samples a frame.
        words: the `items` of its word alignment over the same text.
        char_ends: exclusive character end of each segment.

    Returns:
        (n,) int16 collapsed units of each segment, or None where a border has no timed word on one of its sides.
    """
    frames = expand(np.asarray(units), np.asarray(durations))
    borders = [0]
    for end in char_ends[:-1]:
        before = [word["end_sample"] for word in words if word["char_end"] <= end]
        after = [word["start_sample"] for word in words if word["char_start"] >= end]
        if not before or not after or before[-1] is None or after[0] is None:
            return None
        border = round((before[-1] + after[0]) / 2 / frame_samples)
        borders.append(min(max(border, borders[-1]), len(frames)))
    borders.append(len(frames))
    return [collapse(frames[start:end])[0] for start, end in pairwise(borders)]
