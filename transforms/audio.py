"""Audio in and out: any file to 16 kHz mono, and the 16-bit FLAC that shards hold.

soundfile (libsndfile) reads WAV, FLAC, MP3 and OGG by their content; PyAV with its own FFmpeg takes what is left,
AAC and M4A among it. A file's extension is never believed.
"""

from __future__ import annotations

import hashlib
import io
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas import SAMPLE_RATE

MAX_RATE = 768_000
MAX_CHANNELS = 64
MIX = -1
"""Channel number of the mean of all channels."""

DECODERS = 2

SILENCE_DBFS = -60.0
SILENCE_FRAME = SAMPLE_RATE // 10

Raw = Path | bytes | tuple[np.ndarray, int]
"""What a source gives: a file, a file's bytes, or a float32 mono waveform and its rate in Hz."""


class BadAudio(Exception):
    """Audio that can't be used.

    Attributes:
        error_class: a short word to count by.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(message)
        self.error_class = error_class


@dataclass(frozen=True)
class Limits:
    """Bounds on an utterance, in seconds."""

    min_seconds: float
    max_seconds: float


@dataclass(frozen=True)
class Audio:
    """An utterance as it is stored.

    Attributes:
        pcm: (num_samples,) int16 at 16 kHz, mono.
        source_rate: Hz, of the source.
    """

    pcm: np.ndarray
    source_rate: int

    @property
    def sha256(self) -> bytes:
        """Digest of the samples as little-endian 16-bit integers."""
        return hashlib.sha256(self.pcm.astype("<i2").tobytes()).digest()


def load(raw: Raw, limits: Limits, channel: int = MIX) -> Audio:
    """Decodes, checks, picks or mixes channels, and resamples (soxr, high quality) to 16 kHz.

    Args:
        raw: a file, its bytes, or a waveform.
        limits: shorter or longer audio is refused; the longer before it is decoded where its header tells.
        channel: which channel to take, `MIX` for the mean of all.

    Raises:
        BadAudio: empty, unreadable, cut short, not finite, silent, too short, too long, or without the channel.
    """
    import soxr

    samples, rate = (raw[0][:, None], raw[1]) if isinstance(raw, tuple) else _decode(raw, limits)
    if channel >= samples.shape[1]:
        raise BadAudio("no_channel", f"has {samples.shape[1]} channels, channel {channel} was asked for")
    mono = samples.mean(axis=1) if channel == MIX else samples[:, channel]
    if not np.isfinite(mono).all():
        raise BadAudio("not_finite", f"has {np.count_nonzero(~np.isfinite(mono))} samples that are NaN or infinite")
    seconds = len(mono) / rate
    if seconds < limits.min_seconds:
        raise BadAudio("too_short", f"lasts {seconds:.3f} s, less than min_seconds={limits.min_seconds:g}")
    _check_length(seconds, limits)
    if rate != SAMPLE_RATE:
        mono = soxr.resample(mono.astype(np.float32), rate, SAMPLE_RATE)
    pcm = np.clip(np.rint(mono * 32768), -32768, 32767).astype(np.int16)
    if _loudest_dbfs(pcm) < SILENCE_DBFS:
        raise BadAudio("silent", f"is silent: no tenth of a second above {SILENCE_DBFS:g} dBFS in {seconds:.1f} s")
    return Audio(pcm, rate)


def encode_flac(pcm: np.ndarray) -> bytes:
    """16 kHz mono int16 samples as a FLAC file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """A shard's FLAC bytes as (num_samples,) float32 in [-1, 1)."""
    import soundfile

    waveform, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    return np.asarray(waveform)


def with_waveforms(batch: pa.Table) -> pa.Table:
    """A batch with its `audio.bytes` decoded, in threads, to a column `waveform`: lists of float32 at 16 kHz."""
    encoded = pc.struct_field(batch["audio"], "bytes").combine_chunks()
    one_each = pa.LargeListArray.from_arrays(np.arange(len(encoded) + 1), encoded)
    paths = pa.table({"path": pc.struct_field(batch["audio"], "path")}).to_struct_array()
    batch = batch.set_column(batch.column_names.index("audio"), "audio", paths)
    return batch.append_column("waveform", waveforms_of(one_each).flatten())


def waveforms_of(turns: pa.LargeListArray) -> pa.LargeListArray:
    """Lists of encoded audio, decoded in threads: lists of lists of float32 at 16 kHz."""
    with ThreadPoolExecutor(DECODERS) as pool:
        waveforms = list(pool.map(decode_flac, turns.flatten().to_pylist()))
    samples = np.concatenate(waveforms) if waveforms else np.zeros(0, np.float32)
    decoded = pa.LargeListArray.from_arrays(np.cumsum([0, *map(len, waveforms)]), samples)
    return pa.LargeListArray.from_arrays(np.cumsum([0, *turns.value_lengths().to_pylist()]), decoded)


def without_waveforms(batch: pa.Table) -> tuple[pa.Table, list[np.ndarray]]:
    """What `with_waveforms` was given, without the audio's bytes, and the waveforms: (num_samples,) float32 each."""
    waveforms = [
        values.flatten().to_numpy().copy()  # a copy, since torch wants to be able to write
        for chunk in batch["waveform"].chunks
        for values in (chunk[row : row + 1] for row in range(len(chunk)))
    ]
    return batch.drop_columns(["waveform"]), waveforms


def header_seconds(file: Path | BinaryIO) -> float | None:
    """Duration that a file's header claims, or None where libsndfile can't tell."""
    import soundfile

    try:
        return float(soundfile.info(str(file) if isinstance(file, Path) else file).duration)
    except (soundfile.SoundFileError, OSError):
        return None


def _check_length(seconds: float, limits: Limits) -> None:
    if seconds > limits.max_seconds:
        raise BadAudio("too_long", f"lasts {seconds:.0f} s, more than max_seconds={limits.max_seconds:g}")


def _decode(raw: Path | bytes, limits: Limits) -> tuple[np.ndarray, int]:
    """(frames, channels) float32 and the rate in Hz."""
    import soundfile

    size = raw.stat().st_size if isinstance(raw, Path) else len(raw)
    if size == 0:
        raise BadAudio("empty", "is empty")
    try:
        return _decode_soundfile(raw, limits)
    except soundfile.SoundFileError as error:
        reason = str(error).removeprefix("Error opening ").split(": ", 1)[-1]
    # read here, so that a disk's fault is an OSError and not a file that is refused
    return _decode_av(raw.read_bytes() if isinstance(raw, Path) else raw, limits, reason)


def _decode_soundfile(raw: Path | bytes, limits: Limits) -> tuple[np.ndarray, int]:
    import soundfile

    with soundfile.SoundFile(str(raw) if isinstance(raw, Path) else io.BytesIO(raw)) as file:
        if file.samplerate > MAX_RATE or file.channels > MAX_CHANNELS:
            raise BadAudio("bad_header", f"claims {file.channels} channels at {file.samplerate} Hz")
        _check_length(file.frames / file.samplerate, limits)
        if shortfall := re.search(r"data +: (\d+) \(should be (\d+)\)", file.extra_info):
            claims, has = map(int, shortfall.groups())
            if has < claims < 2**31:  # a stream's header claims the largest size there is
                raise BadAudio("truncated", f"is cut short: {has} of {claims} bytes of audio")
        try:
            samples = file.read(dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            at = f"after {file.tell()} of {file.frames} frames"
            raise BadAudio("truncated", f"is damaged or cut short {at}") from error
        if len(samples) < file.frames:
            raise BadAudio("truncated", f"is cut short: {len(samples)} of {file.frames} frames")
        return samples, file.samplerate


def _decode_av(raw: bytes, limits: Limits, soundfile_reason: str) -> tuple[np.ndarray, int]:
    import av

    blocks: list[np.ndarray] = []
    try:
        with av.open(io.BytesIO(raw), "r", metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise BadAudio("unreadable", "holds no audio")
            stream = container.streams.audio[0]
            rate, channels = stream.rate, stream.channels
            if not 0 < rate <= MAX_RATE or channels > MAX_CHANNELS:
                raise BadAudio("bad_header", f"claims {channels} channels at {rate} Hz")
            resampler = av.AudioResampler(format="fltp", rate=rate)
            frames = 0
            for decoded in container.decode(stream):
                for frame in resampler.resample(decoded):
                    blocks.append(frame.to_ndarray())
                    frames += frame.samples
                    _check_length(frames / rate, limits)
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError) as error:
        detail = getattr(error, "strerror", None) or str(error)
        raise BadAudio("unreadable", f"is not audio that can be read ({soundfile_reason} {detail})") from error
    if not blocks:
        raise BadAudio("unreadable", "holds no audio")
    return np.concatenate(blocks, axis=1).T, rate


def _loudest_dbfs(pcm: np.ndarray) -> float:
    frames = pcm[: max(SILENCE_FRAME, len(pcm) // SILENCE_FRAME * SILENCE_FRAME)]
    frames = np.pad(frames, (0, -len(frames) % SILENCE_FRAME)).reshape(-1, SILENCE_FRAME)
    power = np.square(frames, dtype=np.float32).mean(axis=1).max() / 32768.0**2
    return float(10 * np.log10(max(power, 1e-12)))
