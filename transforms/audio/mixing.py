"""Mix channels to one and resample to 16 kHz, block by block, and check the decoded samples."""

from __future__ import annotations

import numpy as np

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.containers.base import BadAudio
from echo_targets.transforms.audio.opposite_phase import OppositePhase

MIX = -1
"""Channel number of the mean of all channels."""

SILENCE_DBFS = -60.0
SILENCE_FRAME = SAMPLE_RATE // 10
DEAD = 1e-4
"""A channel whose samples span less than this carries nothing."""
FAR_BEYOND = 2.0
BEYOND_SHARE = 0.01


class Mixer:
    """Mixes and resamples an utterance (soxr, high quality) as it is decoded.

    Attributes:
        seconds: duration so far.
        source_rate: rate of the first samples, in Hz.
        size: number of samples so far, over all channels.
    """

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._resampler: Resampler | None = None
        self._blocks: list[np.ndarray] = []
        self._rate = 0
        self._base = 0.0
        self._frames = 0
        self._channels: list[_Channel] = []
        self._mono = _Channel()
        self._opposite_phase = OppositePhase()
        self._few = self._many = 0
        self._beyond = self._sounding = 0
        self.source_rate = 0
        self.size = 0

    @property
    def seconds(self) -> float:
        return self._base + (self._frames / self._rate if self._rate else 0.0)

    def add(self, samples: np.ndarray, rate: int) -> None:
        """Add the next samples.

        Args:
            samples: (frames, channels) float32.
            rate: Hz.

        Raises:
            BadAudio: the channel does not exist, or a sample is not finite.
        """
        count = samples.shape[1]
        if self._channel >= count:
            raise BadAudio("no_channel", f"has {count} channels, but channel {self._channel} was requested")
        mono = samples.mean(axis=1) if self._channel == MIX else np.ascontiguousarray(samples[:, self._channel])
        finite = np.isfinite(mono)
        if not finite.all():
            first = self.seconds + int(finite.argmin()) / rate
            raise BadAudio("not_finite", f"has samples that are NaN or infinite, the first after {first:.2f} s")
        self._measure(samples, mono)
        if self._channel == MIX and count > 1:
            self._opposite_phase.add(samples, rate, self.seconds)
        if rate != self._rate:
            self._finish_run()
            self._base, self._frames, self._rate = self.seconds, 0, rate
            self.source_rate = self.source_rate or rate
            self._resampler = None if rate == SAMPLE_RATE else Resampler(rate)
        self._frames += len(mono)
        self.size += samples.size
        self._blocks.append(mono if self._resampler is None else self._resampler(mono))

    def finish(self) -> np.ndarray:
        """Return the utterance: (num_samples,) int16 at 16 kHz.

        Raises:
            BadAudio: the audio is silent, has only an offset, has channels that cancel or are dead, or is far beyond
                full scale.
        """
        self._finish_run()
        live = [channel for channel in self._channels if channel.range > DEAD]
        gain = 1.0
        if self._channel == MIX and self._few == self._many and live:
            gain = len(self._channels) / len(live)  # a dead channel would only make the others quieter
        self._check_scale()
        pcm = self._pcm(gain)
        self._check_cancelled()
        if self._mono.range < 10 ** (SILENCE_DBFS / 20) or _loudest_dbfs(pcm) < SILENCE_DBFS:
            self._raise_silent(live)
        return pcm

    def _pcm(self, gain: float) -> np.ndarray:
        """Return the blocks as 16-bit integers, freeing them one by one."""
        pcm = np.empty(sum(map(len, self._blocks)), np.int16)
        end = len(pcm)
        while self._blocks:
            block = self._blocks.pop()
            scaled = np.rint(block * np.float32(gain * 32768))
            pcm[end - len(block) : end] = np.clip(scaled, -32768, 32767)
            end -= len(block)
        return pcm

    def _measure(self, samples: np.ndarray, mono: np.ndarray) -> None:
        count = samples.shape[1]
        self._few, self._many = min(self._few or count, count), max(self._many, count)
        while len(self._channels) < count:
            self._channels.append(_Channel())
        for number in range(count):
            self._channels[number].add(samples[:, number])
        self._mono.add(mono)
        level = np.abs(mono)
        self._beyond += int(np.count_nonzero(level > 1.0))
        self._sounding += int(np.count_nonzero(level > DEAD))

    def _finish_run(self) -> None:
        if self._resampler is not None:
            self._blocks.append(self._resampler(np.zeros(0, np.float32), last=True))
            self._resampler = None

    def _check_scale(self) -> None:
        peak = max(-self._mono.least, self._mono.most)
        if peak > FAR_BEYOND and self._beyond > BEYOND_SHARE * self._sounding:
            raise BadAudio(
                "beyond_full_scale",
                f"is far beyond full scale: its samples reach {peak:.5g}, and float samples must lie in [-1, 1]; "
                "divide them by the full scale of the original integers, such as 32768",
            )

    def _check_cancelled(self) -> None:
        found = self._opposite_phase.found(10 ** (SILENCE_DBFS / 10))
        if found is not None:
            first, seconds = found
            raise BadAudio(
                "cancelled_channels",
                f"has {self._many} channels that cancel each other in their mean for {seconds:.1f} s, first at "
                f"{first:.1f} s, for example because one is inverted; take a single channel: channel: 0",
            )

    def _raise_silent(self, live: list[_Channel]) -> None:
        if self._channel != MIX and live and self._channels[self._channel] not in live:
            others = ", ".join(str(number) for number, channel in enumerate(self._channels) if channel in live)
            raise BadAudio("dead_channel", f"is silent in channel {self._channel}; channel {others} has sound")
        offset = self._mono.mean
        if abs(offset) > 10 ** (SILENCE_DBFS / 20):
            raise BadAudio("offset_only", f"has no sound, only a constant offset of {offset:.3f} of full scale")
        lasts = f"{self.seconds:.1f} s"
        raise BadAudio("silent", f"is silent: no tenth of a second in {lasts} is above {SILENCE_DBFS:g} dBFS")


class _Channel:
    """Statistics of a channel's samples."""

    def __init__(self) -> None:
        self.count = 0
        self.total = self.squares = 0.0
        self.least, self.most = np.inf, -np.inf

    def add(self, values: np.ndarray) -> None:
        if not len(values):
            return
        self.count += len(values)
        self.total += float(values.sum(dtype=np.float64))
        self.squares += float(np.square(values, dtype=np.float64).sum())
        self.least = min(self.least, float(values.min()))
        self.most = max(self.most, float(values.max()))

    @property
    def mean(self) -> float:
        return self.total / max(1, self.count)

    @property
    def power(self) -> float:
        """Mean square of the samples, without their offset."""
        return self.squares / max(1, self.count) - self.mean**2

    @property
    def range(self) -> float:
        return self.most - self.least


class Resampler:
    """Resamples to 16 kHz. The result does not depend on how the samples are cut into blocks."""

    def __init__(self, rate: int) -> None:
        import soxr

        self._stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")

    def __call__(self, mono: np.ndarray, last: bool = False) -> np.ndarray:
        # Clip before resampling: a single sample beyond full scale would ring for milliseconds.
        return np.asarray(self._stream.resample_chunk(np.clip(mono, -1, 1).astype(np.float32), last=last))


def _loudest_dbfs(pcm: np.ndarray) -> float:
    """Return the power of the loudest tenth of a second, without its offset, in dBFS."""
    power = 0.0
    for start in range(0, max(1, len(pcm)), 1000 * SILENCE_FRAME):
        frames = pcm[start : start + 1000 * SILENCE_FRAME]
        if 0 < len(frames) < SILENCE_FRAME and not start:
            frames = np.pad(frames, (0, SILENCE_FRAME - len(frames)), mode="edge")
        frames = frames[: len(frames) // SILENCE_FRAME * SILENCE_FRAME].reshape(-1, SILENCE_FRAME)
        if len(frames):
            power = max(power, float(frames.var(axis=1, dtype=np.float64).max()) / 32768.0**2)
    return float(10 * np.log10(max(power, 1e-12)))
