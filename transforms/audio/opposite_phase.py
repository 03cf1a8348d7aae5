"""Detection of stretches of a recording in which the channels cancel each other in their mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

STRETCH_SECONDS = 0.5
CANCELLED = 0.06
"""Channels count as cancelling if their mean keeps less than this share of the power that the mean of independent
channels would have.

For 16 kHz speech whose inverted copy is one sample late, the share is at most 0.05 in most stretches.
"""
QUIET = 0.01
"""A stretch below this share of the recording's power is a pause. The noise of pauses may cancel."""
MIN_STRETCHES = 2


@dataclass(frozen=True)
class _Stretch:
    """Mean squares without the offset: of the channels' mean, and of that mean if the channels were independent."""

    start: float
    kept: float
    independent: float


class OppositePhase:
    """Power of the channels and of their mean, in stretches of half a second."""

    def __init__(self) -> None:
        self._stretches: list[_Stretch] = []
        self._pending: list[np.ndarray] = []
        self._frames = 0
        self._start = self._rate = 0.0

    def add(self, samples: np.ndarray, rate: int, start: float) -> None:
        """Add the next samples.

        Args:
            samples: (frames, channels) float32.
            rate: Hz.
            start: seconds of the recording before these samples.
        """
        if self._pending and (rate != self._rate or samples.shape[1] != self._pending[0].shape[1]):
            self._close()
        if not self._pending:
            self._start = start
        self._rate = rate
        size = int(STRETCH_SECONDS * rate)
        while len(samples):
            taken, samples = samples[: size - self._frames], samples[size - self._frames :]
            self._pending.append(taken)
            self._frames += len(taken)
            if self._frames == size:
                end = self._start + size / rate
                self._close()
                self._start = end

    def found(self, floor: float) -> tuple[float, float] | None:
        """Return the start of the first cancelled stretch and the total length of all, in seconds, or None.

        A single stretch does not count, unless all other stretches are silent.

        Args:
            floor: power of a silent stretch; higher power is sound.
        """
        self._close()
        if not self._stretches:
            return None
        mean = sum(stretch.independent for stretch in self._stretches) / len(self._stretches)
        loud = [stretch for stretch in self._stretches if stretch.independent > max(floor, QUIET * mean)]
        cancelled = [stretch for stretch in loud if stretch.kept < CANCELLED * stretch.independent]
        if not cancelled or len(cancelled) < min(MIN_STRETCHES, len(loud)):
            return None
        return cancelled[0].start, len(cancelled) * STRETCH_SECONDS

    def _close(self) -> None:
        """Measure the pending stretch. Less than half a stretch counts only if there is no other."""
        pending, frames = self._pending, self._frames
        self._pending, self._frames = [], 0
        if not frames or (self._stretches and frames < STRETCH_SECONDS * self._rate / 2):
            return
        samples = np.concatenate(pending).astype(np.float64)
        independent = float(samples.var(axis=0).sum()) / samples.shape[1] ** 2
        kept = float(samples.mean(axis=1).var())
        if math.isfinite(independent):
            self._stretches.append(_Stretch(self._start, kept, independent))
