"""Sets of real speech by condition, because short clean clips say nothing about pauses, noise or long recordings.

All sets are made from the clips of ../shared/speech with fixed seeds: the clips themselves, pairs with a pause between
them, clips with noise, and recordings of ten minutes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from benchmarks.common import speech
from echo_targets.schemas import SAMPLE_RATE

Clip: TypeAlias = tuple[np.ndarray, list[str]]
"""A waveform and the texts of the clips that it is made of."""
PAUSES = (0.3, 1.0, 3.0)
SNRS = (0, 5, 10)
PAIR_SECONDS = 29
RECORDING_SECONDS = 600
FLOOR = 1e-4
"""Standard deviation of the noise in pauses, because a microphone never records digital silence."""


@dataclass(frozen=True)
class SpeechSet:
    """Waveforms (float32, 16 kHz mono), and the texts of the clips that each is made of."""

    name: str
    waveforms: list[np.ndarray]
    texts: list[list[str]]

    @property
    def seconds(self) -> float:
        """Total duration in seconds."""
        return sum(map(len, self.waveforms)) / SAMPLE_RATE


def speech_sets(limit: int | None = None, only: str = "", noisy: int = 4) -> Iterator[SpeechSet]:
    """All sets.

    Args:
        limit: of items in each set; None for all.
        only: a part of the name of the sets to make; empty for all.
        noisy: noise is added to every so many-th clip.
    """
    yield from (found for found in _all_sets(limit, noisy) if only in found.name)


def _all_sets(limit: int | None, noisy: int) -> Iterator[SpeechSet]:
    waveforms, texts, _ = speech()
    clips = [(waveform, [text]) for waveform, text in zip(waveforms, texts, strict=True)]
    yield _set("clips", clips, limit)
    for pause in PAUSES:
        pairs = [pair for seed in (1, 2, 3) for pair in _pairs(clips, pause, seed)[:10]]
        yield _set(f"pairs, {pause:g} s pause", pairs, limit)
    for snr in SNRS:
        yield _set(f"clips, noise at {snr} dB", list(_noisy(clips[::noisy], snr)), limit)
    yield _set("recordings of 10 minutes", list(_recordings(clips))[:2], limit)


def _set(name: str, items: list[Clip], limit: int | None) -> SpeechSet:
    waveforms, texts = zip(*items[:limit], strict=True)
    return SpeechSet(name, list(waveforms), list(texts))


def _pairs(clips: list[Clip], pause: float, seed: int) -> list[Clip]:
    """Clips below 14 s, shuffled, two by two, as long as a pair fits into one of Whisper's windows."""
    rng = np.random.default_rng(seed)
    short = [clip for clip in clips if len(clip[0]) < 14 * SAMPLE_RATE]
    order = [short[place] for place in rng.permutation(len(short))]
    pairs = zip(order[::2], order[1::2], strict=False)
    joined = [
        (np.concatenate([one, _pause(rng, pause), two]), [*first, *second]) for (one, first), (two, second) in pairs
    ]
    return [pair for pair in joined if len(pair[0]) <= PAIR_SECONDS * SAMPLE_RATE]


def _noisy(clips: list[Clip], snr: int) -> Iterator[Clip]:
    """White noise, by the mean power of the whole clip."""
    rng = np.random.default_rng(snr)
    for waveform, text in clips:
        level = np.sqrt(np.mean(waveform**2) / 10 ** (snr / 10))
        yield (waveform + level * rng.standard_normal(len(waveform))).astype(np.float32), text


def _recordings(clips: list[Clip]) -> Iterator[Clip]:
    """Clips one after the other, shuffled, with pauses of 0.2 to 2 s."""
    rng = np.random.default_rng(0)
    parts: list[np.ndarray] = []
    texts: list[str] = []
    for place in rng.permutation(len(clips)):
        waveform, text = clips[place]
        parts += [waveform, _pause(rng, rng.uniform(0.2, 2))]
        texts += text
        if sum(map(len, parts)) > RECORDING_SECONDS * SAMPLE_RATE:
            yield np.concatenate(parts), texts
            parts, texts = [], []


def _pause(rng: np.random.Generator, seconds: float) -> np.ndarray:
    return (rng.standard_normal(int(seconds * SAMPLE_RATE)) * FLOOR).astype(np.float32)
