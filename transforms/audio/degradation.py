"""How far a recording is degraded, from its samples alone: bandwidth, clipping, noise.

docs/FILTERS.md says how far each score can be trusted.
"""

from __future__ import annotations

import numpy as np

from echo_targets.schemas import SAMPLE_RATE

FRAME, HOP = 512, SAMPLE_RATE // 100
BELOW_PEAK_DB = 50.0
LOWEST_BIN = 125 * FRAME // SAMPLE_RATE
"""First bin outside the main lobe of a constant offset."""
BLACKMAN_HARRIS = (0.35875, -0.48829, 0.14128, -0.01168)
"""Coefficients of the window (Harris 1978). Its side lobes, at -92 dB, do not reach into an empty band."""

PLATEAU, PLATEAU_SAMPLES = 0.95, 3
"""Resampling makes a plateau uneven; unclipped speech seldom stays so near its peak for three samples."""
DIGITAL_SILENCE = SAMPLE_RATE // 100
"""Samples. A longer run of zeros was not recorded, but inserted by a noise gate, an editor or a codec."""

SMALLEST = 0.5 / 32_768 / np.e
SNR_STEP_DB, LOWEST_SNR_DB = 2, -10
WADA = (
    *(0.41215, 0.41497, 0.42007, 0.42865, 0.44213, 0.46184, 0.4888, 0.52342, 0.56544, 0.61388, 0.66735, 0.72419),
    *(0.78279, 0.84167, 0.89966, 0.95583, 1.00954, 1.06039, 1.10814, 1.15269, 1.19407, 1.23234, 1.26763, 1.3001),
    *(1.32992, 1.35727),
)
"""log E|x| - E log|x| at -10, -8, … 40 dB, computed from the model of Kim and Stern (the test computes it again)."""


def bandwidth_hz(waveform: np.ndarray) -> float | None:
    """Return the highest frequency at which the mean power spectrum is less than 50 dB below its peak.

    This is `BandwidthEstimationProcessor` of NeMo Speech Data Processor (`sdp/processors/tts/metrics.py`), with its
    defaults: frames of 512 samples every 10 ms, Blackman-Harris window, mean over all frames. Zeros are only added to
    sounds shorter than a frame: a recording that is cut in the middle of a word would seem to have all frequencies.
    The peak is looked for above 125 Hz, since a constant offset may be far louder than speech.

    Args:
        waveform: (num_samples,) float32 at 16 kHz.

    Returns:
        A multiple of 31.25 up to 8000; None for digital silence.
    """
    padded = np.pad(waveform, (0, max(0, FRAME - len(waveform))))
    phase = 2 * np.pi * np.arange(FRAME) / FRAME
    window = sum(part * np.cos(number * phase) for number, part in enumerate(BLACKMAN_HARRIS))
    power = np.zeros(FRAME // 2 + 1)
    frames = np.lib.stride_tricks.sliding_window_view(padded, FRAME)[::HOP]
    for start in range(0, len(frames), 1000):  # ten seconds at a time bound the memory of a long recording
        power += np.square(np.abs(np.fft.rfft(frames[start : start + 1000] * window))).sum(axis=0)
    loud = np.flatnonzero(power > power[LOWEST_BIN:].max() * 10 ** (-BELOW_PEAK_DB / 10))
    return float(loud[-1] * SAMPLE_RATE / FRAME) if len(loud) else None


def clipped_share(waveform: np.ndarray) -> float:
    """Return the share of samples on a plateau: three and more in a row at 95 % or more of the extreme of their sign.

    The plateau is looked for at the recording's own extremes, since clipped audio is often scaled down afterwards.

    Args:
        waveform: (num_samples,) float32.
    """
    clipped = 0
    for side in (waveform, -waveform):
        peak = float(side.max(initial=0.0))
        if peak > 0:
            there = np.concatenate([[False], side >= PLATEAU * peak, [False]])
            starts, ends = np.flatnonzero(np.diff(there.astype(np.int8))).reshape(-1, 2).T
            lengths = ends - starts
            clipped += int(lengths[lengths >= PLATEAU_SAMPLES].sum())
    return clipped / len(waveform)


def snr_db(waveform: np.ndarray) -> float | None:
    """Estimate the signal-to-noise ratio in dB from the distribution of amplitudes (WADA-SNR, Kim and Stern 2008).

    The amplitudes of clean speech follow a gamma distribution with shape 0.4, those of noise a Gaussian one, so the
    statistic log E|x| - E log|x| grows with the ratio. `WADA` holds its expected values.

    Digital silence is left out, since the estimator would take it for speech without noise. So is a constant offset,
    which it would take for noise. Samples below half a 16-bit step get the geometric mean of such sizes.

    Args:
        waveform: (num_samples,) float32, decoded from 16-bit samples.

    Returns:
        A number from -10 to 40, which also stand for everything beyond them; None for digital silence.
    """
    recorded = waveform[_recorded(waveform)].astype(np.float64)
    if not recorded.any():
        return None
    size = np.maximum(np.abs(recorded - recorded.mean()), SMALLEST)
    statistic = np.log(size.mean()) - np.log(size).mean()
    return float(np.interp(statistic, WADA, LOWEST_SNR_DB + SNR_STEP_DB * np.arange(len(WADA))))


def _recorded(waveform: np.ndarray) -> np.ndarray:
    """Return a mask of the samples outside digital silence."""
    zero = np.concatenate([[False], waveform == 0, [False]])
    starts, ends = np.flatnonzero(np.diff(zero.astype(np.int8))).reshape(-1, 2).T
    recorded = np.ones(len(waveform), bool)
    for start, end in zip(starts, ends, strict=True):
        if end - start > DIGITAL_SILENCE:
            recorded[start:end] = False
    return recorded
