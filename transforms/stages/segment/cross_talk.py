"""Whose speech is it? In a two-channel recording each microphone also picks up the other speaker, more quietly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from echo_targets.transforms.models.asr.voice_activity import WINDOW
from echo_targets.transforms.stages.segment.scanning import FRAME, Track

BLEED_DB = 10.0
"""Speech is another's if its channel is so much quieter than the other, each compared with its own usual level."""
SMOOTHED = 25
"""Frames over which levels are averaged: a quarter of a second, so that no syllable decides by itself."""
USUAL_PERCENTILE = 95
FLOOR = 1e-10


def own_speech(tracks: Sequence[Track]) -> list[np.ndarray]:
    """Return masks of the windows in which each channel's own speaker speaks.

    Levels are relative to the channel's usual level of speech (the 95th percentile), so the microphones' gains do not
    matter. If a channel has no speech of its own, its usual level is that of the sound it picks up; so channels
    without speech that is louder than in all others have none.

    Args:
        tracks: the channels of a recording.

    Returns:
        (num_windows,) bool for each track.
    """
    speech = [track.speech for track in tracks]
    absolute = [_levels(track) for track in tracks]
    heard = [(level[mask] if mask.any() else np.full(1, -np.inf)) for level, mask in zip(absolute, speech, strict=True)]
    usual = [float(np.percentile(levels, USUAL_PERCENTILE)) for levels in heard]
    relative = [level - (base if np.isfinite(base) else 0.0) for level, base in zip(absolute, usual, strict=True)]
    masks = []
    for number, mask in enumerate(speech):
        others = [level for other, level in enumerate(relative) if other != number and np.isfinite(usual[other])]
        masks.append(mask & (relative[number] > np.max(others, axis=0) - BLEED_DB) if others else mask)
    return masks


def _levels(track: Track) -> np.ndarray:
    """Return the smoothed power of each window in dB, (num_windows,) float64."""
    kernel = np.full(SMOOTHED, 1 / SMOOTHED)
    smooth = np.convolve(track.power.astype(np.float64), kernel, mode="same")
    centers = (np.arange(len(track.speech)) * WINDOW + WINDOW // 2) // FRAME
    return 10 * np.log10(np.maximum(smooth[np.minimum(centers, len(smooth) - 1)], FLOOR))
