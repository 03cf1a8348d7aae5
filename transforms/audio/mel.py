"""Mel spectrograms with librosa's defaults, which DNSMOS and Resemblyzer were trained on."""

from __future__ import annotations

from functools import cache

import numpy as np

from echo_targets.schemas import SAMPLE_RATE

HZ_PER_MEL, LINEAR_MELS, STEP = 200 / 3, 15, np.log(6.4) / 27
"""Slaney's scale: 15 mels of 66.7 Hz up to 1 kHz; from there, 27 mels multiply the frequency by 6.4."""


def mel_spectrogram(waveform: np.ndarray, frame: int, hop: int, bands: int) -> np.ndarray:
    """Return the power in triangular mel bands of equal area, as `librosa.feature.melspectrogram` does.

    Args:
        waveform: (num_samples,) float32 at 16 kHz.
        frame: samples of a frame, which has a Hann window; frames are centered, with zeros around the sound.
        hop: samples from frame to frame.
        bands: number of bands between 0 and 8 kHz.

    Returns:
        (1 + num_samples // hop, bands) float32.
    """
    padded = np.pad(waveform, frame // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frame) / frame)
    frames = np.lib.stride_tricks.sliding_window_view(padded, frame)[::hop][: 1 + len(waveform) // hop]
    power = np.square(np.abs(np.fft.rfft(frames * window)))
    return np.asarray(power @ _filters(frame, bands), np.float32)


@cache
def _filters(frame: int, bands: int) -> np.ndarray:
    """Return the bands' weights, (frame // 2 + 1, bands) float64."""
    edges = _hertz(np.linspace(0, _mels(SAMPLE_RATE / 2), bands + 2))
    bins = np.fft.rfftfreq(frame, 1 / SAMPLE_RATE)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])


def _mels(hertz: float) -> float:
    mels = hertz / HZ_PER_MEL
    return mels if mels < LINEAR_MELS else LINEAR_MELS + float(np.log(mels / LINEAR_MELS)) / STEP


def _hertz(mels: np.ndarray) -> np.ndarray:
    over = np.maximum(mels - LINEAR_MELS, 0)
    return HZ_PER_MEL * np.minimum(mels, LINEAR_MELS) * np.exp(STEP * over)
