"""Sound as the page shows it: peaks, a spectrogram, and what each unit sounds like on average."""

from __future__ import annotations

import base64
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.waveforms import decode_flac

HOP = Fraction(320)
FFT = 1024
BANDS = 64
FLOOR = -100.0
STEP = 0.4
"""A byte of a spectrogram is FLOOR + STEP times its value, in dB of a full-scale sine."""
PEAKS_PER_S = 100
BLOCK = 1000


def encoded(data: bytes | np.ndarray) -> str:
    """Bytes, or an array's bytes in little-endian order, as base64."""
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode()


def listen(flac: bytes, hop: Fraction) -> tuple[dict[str, Any], np.ndarray]:
    """What the page needs of one utterance's audio.

    Args:
        flac: 16 kHz mono.
        hop: samples at 16 kHz of a frame of the spectrogram, those of a unit where there are units.

    Returns:
        The sound file's value, and the spectrogram, (frames, BANDS) uint8.
    """
    waveform = decode_flac(flac)
    bands = spectrogram(waveform, hop)
    value = {"flac": encoded(flac), "peaks": encoded(peaks(waveform)), "hop": float(hop), "spectrogram": encoded(bands)}
    return value, bands


def hop_of(units: dict[str, Any]) -> Fraction:
    """Samples at 16 kHz of a frame of a row of `units`."""
    return Fraction(units["hop_samples"] * SAMPLE_RATE, units["sampling_rate"])


def peaks(waveform: np.ndarray) -> np.ndarray:
    """(n,) uint8: the largest magnitude of each hundredth of a second, 255 is full scale."""
    width = SAMPLE_RATE // PEAKS_PER_S
    padded = np.pad(np.abs(waveform), (0, -len(waveform) % width)).reshape(-1, width)
    return np.minimum(padded.max(axis=1) * 255, 255).astype(np.uint8)


def spectrogram(waveform: np.ndarray, hop: Fraction) -> np.ndarray:
    """(frames, BANDS) uint8: mean magnitude of each mel band in steps of dB, frames centred on those of the units."""
    frames = -(-len(waveform) // hop)
    starts = np.arange(frames) * hop.numerator // hop.denominator + FFT - int((FFT - hop) // 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, (FFT, FFT + int(hop))), FFT)
    blocks = [_decibels(windows[starts[place : place + BLOCK]]) for place in range(0, frames, BLOCK)]
    return np.concatenate(blocks) if blocks else np.zeros((0, BANDS), np.uint8)


def _decibels(windows: np.ndarray) -> np.ndarray:
    magnitudes = np.abs(np.fft.rfft(windows * np.hanning(FFT))) / (FFT / 4) @ _bands()
    decibels = 20 * np.log10(np.maximum(magnitudes, 1e-5))
    return np.clip(np.rint((decibels - FLOOR) / STEP), 0, 255).astype(np.uint8)


def centres() -> np.ndarray:
    """(BANDS,) Hz: the middle of each band."""
    return _edges()[1:-1]


@cache
def _edges() -> np.ndarray:
    """Borders of the bands, evenly spaced on the mel scale (O'Shaughnessy 1987) up to half the sampling rate."""
    return 700 * np.expm1(np.linspace(0, np.log1p(SAMPLE_RATE / 2 / 700), BANDS + 2))


@cache
def _bands() -> np.ndarray:
    """(FFT // 2 + 1, BANDS): triangles, each of sum 1."""
    bins = np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]
    low, middle, high = _edges()[:-2], _edges()[1:-1], _edges()[2:]
    weights = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    return weights / weights.sum(axis=0)


class MeanSpectra:
    """The mean spectrum and duration of each unit of a (first) codebook, over the utterances that were listened to."""

    def __init__(self) -> None:
        self.codebook = ""
        self.sums = np.zeros((0, BANDS))
        self.frames = np.zeros(0, np.int64)
        self.runs = np.zeros(0, np.int64)

    def add(self, units: dict[str, Any], bands: np.ndarray) -> None:
        """Takes in an utterance: its row of `units`, and its spectrogram at the units' hop."""
        if not self.codebook:
            self.codebook, size = units["codebook_id"], units["codebook_size"]
            self.sums, self.frames, self.runs = np.zeros((size, BANDS)), np.zeros(size, int), np.zeros(size, int)
        if units["codebook_id"] != self.codebook:
            return
        runs = np.asarray(units["units"][0], int)
        frames = np.repeat(runs, units["durations"])[: len(bands)]
        np.add.at(self.sums, frames, bands[: len(frames)])
        np.add.at(self.frames, frames, 1)
        np.add.at(self.runs, runs, 1)

    def value(self) -> dict[str, Any]:
        """What the page sketches targets with; a unit that was not heard has 0 frames."""
        means = self.sums / np.maximum(self.frames, 1)[:, None]
        return {
            "codebook": self.codebook,
            "frames": np.round(self.frames / np.maximum(self.runs, 1), 2).tolist(),
            "bands": encoded(np.rint(means).astype(np.uint8)),
            "centres": np.round(centres(), 1).tolist(),
            "floor": FLOOR,
            "step": STEP,
        }
