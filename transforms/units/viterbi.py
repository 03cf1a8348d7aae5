"""Most likely segmentation of unit sequences, compiled. Imports numba, so import this only where it is needed.

Viterbi over a trie of the words (Kudo 2018, arXiv 1804.10959, section 3.2), in float64, from left to right. Ties go to
the segmentation with the longest last word. HF `tokenizers`' Unigram model, which works on strings, gives the same ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np

NONE = -1


class Trie:
    """Unit words as a trie. Nodes are stored level by level, with the children of a node next to each other.

    Args:
        words: words of units in [0, num_units); the first `num_units` are the single units in order.
        scores: the words' log-probabilities.
    """

    def __init__(self, words: Sequence[tuple[int, ...]], scores: Sequence[float], num_units: int) -> None:
        ids = {word: id_ for id_, word in enumerate(words)}
        prefixes = {word[:length] for word in words for length in range(1, len(word) + 1)}
        nodes = sorted(prefixes, key=lambda word: (len(word), word))  # node u is the single unit u
        parents = {word: node for node, word in enumerate(nodes)}
        children = np.zeros(len(nodes), np.int64)
        for word in nodes[num_units:]:
            children[parents[word[:-1]]] += 1
        self.units = np.array([word[-1] for word in nodes], np.int64)
        self.ends = num_units + np.cumsum(children)
        self.starts = self.ends - children
        self.words = np.array([ids.get(word, NONE) for word in nodes], np.int64)
        self.scores = np.asarray(scores, np.float64)

    def segment(self, units: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
        """Return the word ids of concatenated sequences.

        Args:
            units: (N,) int64, each in [0, num_units).
            lengths: (S,) int64, the length of each sequence; their sum is N.
        """
        ids, counts = _segment(units, lengths, self.units, self.starts, self.ends, self.words, self.scores)
        return [words.tolist() for words in np.split(ids, np.cumsum(counts)[:-1])] if len(counts) else []


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function. The result is cached for all processes if numba finds a writable folder."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:
        return numba.njit(function)


@_compiled
def _segment(
    units: np.ndarray,
    lengths: np.ndarray,
    node_units: np.ndarray,
    node_starts: np.ndarray,
    node_ends: np.ndarray,
    node_words: np.ndarray,
    scores: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    ids = np.empty(len(units), np.int64)
    counts = np.zeros(len(lengths), np.int64)
    longest = lengths.max() if len(lengths) else 0
    best = np.empty(longest + 1, np.float64)
    came_from = np.empty(longest + 1, np.int64)
    word_at = np.empty(longest + 1, np.int64)
    first, written = 0, 0
    for sequence in range(len(lengths)):
        length = lengths[sequence]
        best[0] = 0.0
        best[1 : length + 1] = -np.inf
        for start in range(length):
            node = units[first + start]
            end = start + 1
            while True:
                word = node_words[node]
                if word != NONE and best[start] + scores[word] > best[end]:
                    best[end], came_from[end], word_at[end] = best[start] + scores[word], start, word
                if end == length:
                    break
                wanted, low, high = units[first + end], node_starts[node], node_ends[node]
                while low < high:
                    middle = (low + high) // 2
                    if node_units[middle] < wanted:
                        low = middle + 1
                    else:
                        high = middle
                if low == node_ends[node] or node_units[low] != wanted:
                    break
                node, end = low, end + 1
        end = length
        while end:
            ids[written + counts[sequence]] = word_at[end]
            counts[sequence] += 1
            end = came_from[end]
        ids[written : written + counts[sequence]] = ids[written : written + counts[sequence]][::-1].copy()
        first, written = first + length, written + counts[sequence]
    return ids[:written], counts
