"""Compute what the page shows and plays: peaks, a spectrogram, mean spectra of units, and targets as speech."""

from __future__ import annotations

import base64
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.waveforms import decode_flac, encode_flac
from echo_targets.transforms.models.vocoders.base import Vocoder, check_durations, frames_of

HOP = Fraction(320)
FFT = 1024
BANDS = 64
FLOOR = -100.0
STEP = 0.4
"""A spectrogram byte b stands for FLOOR + STEP * b, in dB relative to a full-scale sine."""
PEAKS_PER_S = 100
BLOCK = 1000


def encoded(data: bytes | np.ndarray) -> str:
    """Return bytes, or an array's bytes in little-endian order, as base64."""
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode()


def listen(flac: bytes, hop: Fraction) -> tuple[dict[str, Any], np.ndarray]:
    """Decode one utterance and compute what the page shows of it.

    Args:
        flac: 16 kHz mono FLAC.
        hop: samples at 16 kHz per spectrogram frame; equals the hop of the units if there are any.

    Returns:
        The sound file's value, and the spectrogram, (frames, BANDS) uint8.
    """
    waveform = decode_flac(flac)
    bands = spectrogram(waveform, hop)
    value = {"flac": encoded(flac), "peaks": encoded(peaks(waveform)), "hop": float(hop), "spectrogram": encoded(bands)}
    return value, bands


def voiced(vocoder: Vocoder, target: dict[str, Any]) -> str | None:
    """Return a target's speech as FLAC in base64; None for a target without units.

    Args:
        vocoder: a vocoder of the target's codebook.
        target: a target as on the page.

    Raises:
        ModelError: the vocoder is for another codebook, or needs durations.
        ValueError: a unit is not in the codebook.
    """
    units, durations = ([segment[name] for segment in target["segments"]] for name in ("units", "durations"))
    lasting = None if None in durations else durations
    if not any(codebook for segment in units for codebook in segment):
        return None
    vocoder.check_codebook(target["codebook"])
    check_durations(vocoder, lasting)
    speech = vocoder.speak(frames_of(units, lasting))
    return encoded(encode_flac(np.rint(np.clip(speech, -1, 1) * 32767).astype(np.int16)))


def hop_of(units: dict[str, Any]) -> Fraction:
    """Return the hop of a row of `units`, in samples at 16 kHz."""
    return Fraction(units["hop_samples"] * SAMPLE_RATE, units["sampling_rate"])


def peaks(waveform: np.ndarray) -> np.ndarray:
    """Return the (n,) uint8 peak magnitude of each hundredth of a second; 255 is full scale."""
    width = SAMPLE_RATE // PEAKS_PER_S
    padded = np.pad(np.abs(waveform), (0, -len(waveform) % width)).reshape(-1, width)
    return np.minimum(padded.max(axis=1) * 255, 255).astype(np.uint8)


def spectrogram(waveform: np.ndarray, hop: Fraction) -> np.ndarray:
    """Return the (frames, BANDS) uint8 mean magnitude of each mel band in dB steps, with frames centered on units'."""
    frames = -(-len(waveform) // hop)
    starts = np.arange(frames) * hop.numerator // hop.denominator + FFT - int((FFT - hop) // 2)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(waveform, (FFT, FFT + int(hop))), FFT)
    blocks = [_decibels(windows[starts[place : place + BLOCK]]) for place in range(0, frames, BLOCK)]
    return np.concatenate(blocks) if blocks else np.zeros((0, BANDS), np.uint8)


def _decibels(windows: np.ndarray) -> np.ndarray:
    magnitudes = np.abs(np.fft.rfft(windows * np.hanning(FFT))) / (FFT / 4) @ _bands()
    decibels = 20 * np.log10(np.maximum(magnitudes, 1e-5))
    return np.clip(np.rint((decibels - FLOOR) / STEP), 0, 255).astype(np.uint8)


def centers() -> np.ndarray:
    """Return the (BANDS,) center frequencies of the bands in Hz."""
    return _edges()[1:-1]


@cache
def _edges() -> np.ndarray:
    """Return the band edges in Hz, evenly spaced on the mel scale (O'Shaughnessy 1987) up to half the sampling rate."""
    return 700 * np.expm1(np.linspace(0, np.log1p(SAMPLE_RATE / 2 / 700), BANDS + 2))


@cache
def _bands() -> np.ndarray:
    """Return the (FFT // 2 + 1, BANDS) triangular filters, each normalized to sum 1."""
    bins = np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]
    low, middle, high = _edges()[:-2], _edges()[1:-1], _edges()[2:]
    weights = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    return weights / weights.sum(axis=0)


class MeanSpectra:
    """Mean spectrum and duration of each unit of one codebook, over the utterances with sound.

    The codebook is that of the first utterance; units of other codebooks are ignored.
    """

    def __init__(self) -> None:
        self.codebook = ""
        self.sums = np.zeros((0, BANDS))
        self.frames = np.zeros(0, np.int64)
        self.runs = np.zeros(0, np.int64)

    def add(self, units: dict[str, Any], bands: np.ndarray) -> None:
        """Add an utterance: its row of `units`, and its spectrogram at the units' hop."""
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
        """Return the data from which the page sketches targets; a unit that never occurred has 0 frames."""
        means = self.sums / np.maximum(self.frames, 1)[:, None]
        return {
            "codebook": self.codebook,
            "frames": np.round(self.frames / np.maximum(self.runs, 1), 2).tolist(),
            "bands": encoded(np.rint(means).astype(np.uint8)),
            "centers": np.round(centers(), 1).tolist(),
            "floor": FLOOR,
            "step": STEP,
        }
