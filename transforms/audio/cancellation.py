"""Stretches of a recording in which the mean of its channels loses what each channel holds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

STRETCH_SECONDS = 0.5
CANCELLED = 0.06
"""Share of the power that independent channels keep in their mean, below which they cancel each other.

Speech at 16 kHz whose inverted copy is one sample late keeps 0.05 of it at most in most stretches.
"""
QUIET = 0.01
"""Share of the recording's power below which a stretch is a pause, whose noise may cancel."""
MIN_STRETCHES = 2


@dataclass(frozen=True)
class _Stretch:
    """Mean squares without the offset: of the mean of the channels, and of that mean if they were independent."""

    start: float
    kept: float
    independent: float


class Cancellation:
    """Power of the channels and of their mean, by stretches of half a second."""

    def __init__(self) -> None:
        self._stretches: list[_Stretch] = []
        self._pending: list[np.ndarray] = []
        self._frames = 0
        self._start = self._rate = 0.0

    def add(self, samples: np.ndarray, rate: int, start: float) -> None:
        """Take the next samples.

        Args:
            samples: (frames, channels) float32.
            rate: Hz.
            start: seconds before them.
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
        """Return where the first cancelled stretch begins and how long all of them are, in seconds, or None.

        One stretch is not enough unless it is all that sounds.

        Args:
            floor: power at and below which a stretch is silent.
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
        """Measure the stretch that is pending; less than half of one counts only where there is no other."""
        pending, frames = self._pending, self._frames
        self._pending, self._frames = [], 0
        if not frames or (self._stretches and frames < STRETCH_SECONDS * self._rate / 2):
            return
        samples = np.concatenate(pending).astype(np.float64)
        independent = float(samples.var(axis=0).sum()) / samples.shape[1] ** 2
        kept = float(samples.mean(axis=1).var())
        if math.isfinite(independent):
            self._stretches.append(_Stretch(self._start, kept, independent))
