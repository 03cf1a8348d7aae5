"""Scan a recording once, block by block, and keep what is needed to cut it: speech and power over time.

Memory holds a few seconds of sound, and some bytes for each 10 ms of each channel: 15 MB for four hours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.decode import blocks
from echo_targets.transforms.audio.mixing import MIX, Resampler
from echo_targets.transforms.audio.waveforms import BadAudio, Raw, waveform_blocks
from echo_targets.transforms.models.asr.voice_activity import SpeechProbabilities, speech_windows

FRAME = SAMPLE_RATE // 100
"""Samples of a frame of power."""
HALF = 40
"""The mean of so many samples on each side, 5 ms in all, is subtracted: it has what lies below 150 Hz."""
SAME_DB, COPY_DB = -20.0, 10.0
"""Two channels hold the same sound if one is the other times a constant of at most `COPY_DB`, up or down, except for a
rest that is `SAME_DB` below: AAC at 48 kbit/s leaves -28 dB between equal channels, -21 dB if one is 1 dB louder. What
is quieter may be cross-talk."""
SILENT = 1e-12
"""The power of what holds no sound, but for rounding."""


@dataclass(frozen=True)
class Track:
    """What one channel holds.

    Attributes:
        channel: the channel's number; -1 for the mean of all.
        num_samples: length at 16 kHz.
        speech: (num_windows,) bool, for windows of `voice_activity.WINDOW` samples.
        power: (num_frames,) float32, mean square of each 10 ms.
        high_passed: (num_frames,) float32, the same above about 150 Hz, in which hum and offsets count for little.
    """

    channel: int
    num_samples: int
    speech: np.ndarray
    power: np.ndarray
    high_passed: np.ndarray


@dataclass(frozen=True)
class Recording:
    """A scanned recording, with a track for each channel that was asked for."""

    source_rate: int
    num_channels: int
    tracks: list[Track]

    @property
    def num_samples(self) -> int:
        return self.tracks[0].num_samples


def scan(raw: Raw, channel: int, separately: bool) -> Recording:
    """Decode a recording to its end, and find speech and power.

    Args:
        raw: a file, its bytes, or a waveform.
        channel: the channel to scan; -1 for the mean of all. Ignored if `separately`.
        separately: True for a track of each channel.

    Raises:
        BadAudio: the audio can't be used; it has no such channel, or, with `separately`, one channel only or two that
            hold the same sound.
        OSError: the file can't be read.
    """
    scans: list[_ChannelScan] = []
    likeness, rate_of_first = _Likeness(), 0
    count = 0
    for samples, rate, _ in waveform_blocks(*raw) if isinstance(raw, tuple) else blocks(raw):
        if not count:
            count, rate_of_first = samples.shape[1], rate
            if separately and count == 1:
                raise BadAudio("one_channel", "has one channel, but each speaker should have their own: speakers: one")
            scans = [_ChannelScan(number) for number in (range(count) if separately else [channel])]
        if samples.shape[1] != count:
            raise BadAudio("channels_change", f"has {count} channels, and later {samples.shape[1]}; split the file")
        for each in scans:
            each.add(samples, rate)
        if separately:
            likeness.add(samples)
    if separately and likeness.is_same:
        raise BadAudio(
            "same_channels", "has the same sound in all channels, so no speaker has their own: speakers: one"
        )
    return Recording(rate_of_first, count, [each.finish() for each in scans])


class _ChannelScan:
    """Scans one channel."""

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._rate = 0
        self._resampler: Resampler | None = None
        self._probabilities = SpeechProbabilities()
        self._rest = np.zeros(2 * HALF, np.float32)
        """The last samples before the next frame, and those of the frame that have arrived."""
        self._power: list[np.ndarray] = []
        self._count = 0

    def add(self, samples: np.ndarray, rate: int) -> None:
        """Add (frames, channels) float32 at `rate` Hz."""
        if self._channel >= samples.shape[1]:
            raise BadAudio("no_channel", f"has {samples.shape[1]} channels, but channel {self._channel} was requested")
        mono = samples.mean(axis=1) if self._channel == MIX else np.ascontiguousarray(samples[:, self._channel])
        if not (finite := np.isfinite(mono)).all():
            at = self._count / SAMPLE_RATE + float(np.argmin(finite)) / rate
            raise BadAudio("not_finite", f"has samples that are NaN or infinite after {at:.2f} s")
        if rate != self._rate:
            self._finish_rate()
            self._rate, self._resampler = rate, None if rate == SAMPLE_RATE else Resampler(rate)
        self._scan(np.clip(mono, -1, 1) if self._resampler is None else self._resampler(mono))

    def finish(self) -> Track:
        self._finish_rate()
        if len(self._rest) > 2 * HALF:
            self._power.append(_powers(self._rest, len(self._rest) - 2 * HALF))
        power, high_passed = np.concatenate([np.zeros((2, 0), np.float32), *self._power], axis=1)
        return Track(self._channel, self._count, speech_windows(self._probabilities.finish()), power, high_passed)

    def _finish_rate(self) -> None:
        if self._resampler is not None:
            self._scan(self._resampler(np.zeros(0, np.float32), last=True))
            self._resampler = None

    def _scan(self, samples: np.ndarray) -> None:
        self._count += len(samples)
        self._probabilities.add(samples)
        waiting = np.concatenate([self._rest, samples])
        whole = (len(waiting) - 2 * HALF) // FRAME * FRAME
        self._power.append(_powers(waiting[: whole + 2 * HALF], FRAME))
        self._rest = waiting[whole:]


def _powers(samples: np.ndarray, frame: int) -> np.ndarray:
    """Return the mean square of each frame, plain and high-passed, (2, num_frames) float32.

    The high-passed frames are `HALF` samples late.

    Args:
        samples: the 2 * `HALF` samples before the first frame, and whole frames.
        frame: samples of a frame.
    """
    sums = np.concatenate([[0.0], np.cumsum(samples, dtype=np.float64)])
    width = 2 * HALF + 1
    means = (sums[width:] - sums[:-width]) / width
    frames = np.stack([samples[2 * HALF :], samples[HALF:-HALF] - means]).reshape(2, -1, frame)
    return np.asarray(np.square(frames).mean(axis=2), np.float32)


class _Likeness:
    """How far the other channels are copies of the first, apart from their gains and offsets."""

    def __init__(self) -> None:
        self._count = 0
        self._sums = self._products = self._squares = np.zeros(0)

    def add(self, samples: np.ndarray) -> None:
        """Add (frames, channels) float32."""
        exact = samples.astype(np.float64)
        if not self._count:
            self._sums = self._products = self._squares = np.zeros(exact.shape[1])
        self._count += len(exact)
        self._sums = self._sums + exact.sum(axis=0)
        self._products = self._products + exact[:, 0] @ exact
        self._squares = self._squares + np.square(exact).sum(axis=0)

    @property
    def is_same(self) -> bool:
        """True if all channels hold the same sound."""
        means = self._sums / max(1, self._count)
        covariances = self._products - self._count * means[0] * means
        variances = self._squares - self._count * np.square(means)
        if not len(variances) or variances.min() <= self._count * SILENT:
            return False
        rest = 1 - np.square(covariances) / (variances[0] * variances)
        gains_db = 10 * np.log10(variances / variances[0])
        return bool(rest.max() < 10 ** (SAME_DB / 10) and np.abs(gains_db).max() < COPY_DB)
