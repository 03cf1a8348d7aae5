"""Whose speech is it? In a two-channel recording each microphone also picks up the other speaker, quietly and late."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from echo_targets.transforms.models.asr.voice_activity import WINDOW
from echo_targets.transforms.stages.segment.scanning import FRAME, Track

BLEED_DB = 10.0
"""Speech is another's if its channel is so much quieter than the other, each compared with its own usual level."""
QUIETER_DB = 6.0
"""A channel that is quieter than another by this much is not taken to measure its usual level."""
LEAST_WINDOWS = 8
"""Windows of speech, a quarter of a second, without which a channel has no speaker."""
SMOOTHED = 25
"""Frames over which levels are averaged: a quarter of a second, so that no syllable decides by itself."""
ECHO_WINDOWS = 12
"""Windows, 0.4 s in all, for which a sound may come back late: a network's echo takes up to a third of a second."""
USUAL_PERCENTILE = 95
FLOOR = 1e-10


def own_speech(tracks: Sequence[Track]) -> list[np.ndarray]:
    """Return masks of the windows in which each channel's own speaker speaks.

    What is much quieter than another channel is, or was up to 0.4 s before, is that channel's sound. Levels are
    relative to the usual level of the channel's speaker, so the microphones' gains may differ. That level is the 95th
    percentile where no other channel is much louder; a channel for which there is no such place has no speaker of its
    own.

    Args:
        tracks: the channels of a recording.

    Returns:
        (num_windows,) bool for each track.
    """
    if len(tracks) == 1:
        return [tracks[0].speech]
    levels = np.stack([_levels(track) for track in tracks])
    usual = [_usual(levels[number], _others(levels, number), track.speech) for number, track in enumerate(tracks)]
    relative = levels - np.nan_to_num(np.array(usual), nan=np.inf)[:, None]  # -inf without a speaker
    return [
        track.speech & (relative[number] > _others(relative, number) - BLEED_DB) for number, track in enumerate(tracks)
    ]


def _others(levels: np.ndarray, number: int) -> np.ndarray:
    """Return the level of the loudest other channel, now or as long before as an echo takes."""
    others = np.delete(levels, number, axis=0).max(axis=0)
    before = np.concatenate([np.full(ECHO_WINDOWS, -np.inf), others])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(before, ECHO_WINDOWS + 1).max(axis=1))


def _usual(own: np.ndarray, others: np.ndarray, speech: np.ndarray) -> float:
    """Return the usual level of a channel's speaker in dB; NaN without a speaker."""
    candidates = own[speech & (own > others - QUIETER_DB)]
    return float(np.percentile(candidates, USUAL_PERCENTILE)) if len(candidates) >= LEAST_WINDOWS else np.nan


def _levels(track: Track) -> np.ndarray:
    """Return the smoothed power of each window in dB, (num_windows,) float64."""
    kernel = np.full(SMOOTHED, 1 / SMOOTHED)
    smooth = np.convolve(track.high_passed.astype(np.float64), kernel, mode="same")
    centers = (np.arange(len(track.speech)) * WINDOW + WINDOW // 2) // FRAME
    return np.asarray(10 * np.log10(np.maximum(smooth[np.minimum(centers, len(smooth) - 1)], FLOOR)))
