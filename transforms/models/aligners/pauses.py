"""Silences between words, found in the audio, because an aligner's peaks do not show them."""

from __future__ import annotations

import numpy as np

HOP = 80
"""Samples between levels."""
WINDOW = 160
"""Samples over which a level is measured."""

DEPTH_DB = 30.0
"""A silence is at least this far below the loud parts of the speech, ..."""
ABOVE_FLOOR_DB = 10.0
"""... or, in a noisy recording, at most this far above the quietest moment between the words."""
CLEAR_DB = 15.0
"""Noise that is less than this below the loud parts of the speech hides pauses, so none are searched for."""
SHORTEST = 1_600
"""Samples (100 ms). The closure of a plosive is also silent, but shorter."""


class Levels:
    """The levels of a waveform.

    Args:
        waveform: float32, 16 kHz mono.

    Attributes:
        num_samples: length of the waveform.
    """

    def __init__(self, waveform: np.ndarray) -> None:
        self.num_samples = len(waveform)
        power = np.cumsum(np.concatenate([np.zeros(1), np.square(waveform, dtype=np.float64)]))
        middles = np.arange(0, len(waveform), HOP) + HOP // 2
        first, last = np.maximum(middles - WINDOW // 2, 0), np.minimum(middles + WINDOW // 2, len(waveform))
        self._decibels = 10 * np.log10((power[last] - power[first]) / np.maximum(last - first, 1) + 1e-12)
        self._loud = float(np.percentile(self._decibels, 95)) if len(waveform) else 0.0

    def silences(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the silences within [start, end): first sample and exclusive end of each."""
        first, last = max(0, -(-start // HOP)), max(0, end // HOP)
        levels = self._decibels[first:last]
        if not len(levels):
            return []
        silent = max(self._loud - DEPTH_DB, float(levels.min()) + ABOVE_FLOOR_DB)
        if silent > self._loud - CLEAR_DB:
            return []
        edges = np.flatnonzero(np.diff(np.concatenate([[False], levels < silent, [False]]).astype(np.int8)))
        runs = (edges.reshape(-1, 2) + first) * HOP
        return [(int(begin), min(int(over), self.num_samples)) for begin, over in runs if over - begin >= SHORTEST]
