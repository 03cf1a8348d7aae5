"""Audio input and output: decode any file to 16 kHz mono, and encode the 16-bit FLAC that shards hold.

`decode.py` chooses the decoder; `mixing.py` mixes the channels to one and resamples it to 16 kHz.
Memory holds the utterance at 16 kHz and one block of the source, however long the file is or claims to be.

Every problem with audio has an error class:

| class | meaning |
| --- | --- |
| `empty` | no bytes, or no samples |
| `unreadable` | the container or codec is unknown, or holds no audio |
| `bad_header` | an impossible rate or number of channels |
| `truncated` | the end is missing; the message gives the duration found, and the one that the container promised |
| `joined` | a recording in another container follows, which no decoder would reach |
| `damaged` | a part in the middle is missing or can't be decoded; the message says after how many seconds |
| `not_finite` | NaN or infinite samples |
| `beyond_full_scale` | float samples on the scale of integers |
| `no_channel`, `dead_channel` | the requested channel does not exist, or is silent while another is not |
| `cancelled_channels` | the channels cancel each other in their mean for a second or more |
| `offset_only` | a constant offset and no sound |
| `silent` | nothing above -60 dBFS |
| `too_short`, `too_long` | the duration is outside the limits |
| `too_large` | more samples, over all channels, than the longest utterance has at 192 kHz in stereo |
| `duration_mismatch` | the manifest declares another duration |
| `section_outside` | the requested section ends after the file |
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.blocks import BLOCK, Block, check_header
from echo_targets.transforms.audio.containers.base import BadAudio as BadAudio
from echo_targets.transforms.audio.containers.base import Link, Seekable, Span, size_of
from echo_targets.transforms.audio.decode import blocks
from echo_targets.transforms.audio.mixing import MIX as MIX
from echo_targets.transforms.audio.mixing import Mixer
from echo_targets.transforms.audio.sections import MISMATCH_SECONDS, SectionReader
from echo_targets.transforms.audio.sections import Section as Section

DECODERS = 2
HEADER_BUFFER = 1 << 16
"""Bytes per request when a header is loaded."""

SAMPLES_PER_SECOND = 384_000
"""Samples, over all channels, that may be decoded per second of `max_seconds`."""
BYTES_PER_SECOND = 100
"""A duration is not credible if it gives fewer bytes per second than this, which any speech codec exceeds."""

Raw = Path | bytes | tuple[np.ndarray, int]
"""What a source returns: a file, its bytes, or a waveform, (samples,) or (channels, samples), with its rate in Hz."""


@dataclass(frozen=True)
class Limits:
    """Bounds on an utterance, in seconds."""

    min_seconds: float
    max_seconds: float


@dataclass(frozen=True)
class Audio:
    """A decoded utterance.

    Attributes:
        pcm: (num_samples,) int16 at 16 kHz, mono.
        source_rate: rate of the source, in Hz.
    """

    pcm: np.ndarray
    source_rate: int

    @property
    def sha256(self) -> bytes:
        """Digest of the samples as little-endian 16-bit integers."""
        return hashlib.sha256(self.pcm.astype("<i2").tobytes()).digest()


def load(
    raw: Raw, limits: Limits, channel: int = MIX, section: Section | None = None, declared_seconds: float | None = None
) -> Audio:
    """Decode, check, pick or mix channels, and resample to 16 kHz.

    Args:
        raw: a file, its bytes, or a waveform.
        limits: limits of the utterance, which is the section if there is one.
        channel: the channel to take; `MIX` for the mean of those that are not dead.
        section: the part to take; what follows it is not decoded. None is the whole file.
        declared_seconds: the manifest's duration of the whole file, or of a section without an end.

    Raises:
        BadAudio: the audio can't be used.
        OSError: the file can't be read.
    """
    (found,) = load_sections(reader_of(raw), limits, [(channel, section or Section())], declared_seconds)
    if isinstance(found, BadAudio):
        raise found
    return found


def reader_of(raw: Raw) -> SectionReader:
    """Return a reader of the sections of a file, its bytes, or a waveform."""
    return SectionReader(lambda start: waveform_blocks(*raw) if isinstance(raw, tuple) else blocks(raw, start))


def load_sections(
    reader: SectionReader,
    limits: Limits,
    wanted: Sequence[tuple[int, Section]],
    declared_seconds: float | None = None,
) -> list[Audio | BadAudio]:
    """Load several sections of a file in one pass, each as `load` does.

    Args:
        wanted: channel and section of each utterance.

    Returns:
        The utterances, or their problems.

    Raises:
        OSError: the file can't be read.
    """
    mixers = [Mixer(channel) for channel, _ in wanted]
    failed = {
        number: _too_long(limits)
        for number, (_, section) in enumerate(wanted)
        if section.seconds is not None and section.seconds > limits.max_seconds
    }

    def take(number: int, samples: np.ndarray, rate: int) -> bool:
        mixer = mixers[number]
        try:
            mixer.add(samples, rate)
            if mixer.seconds > limits.max_seconds:
                raise _too_long(limits)
            if mixer.size > limits.max_seconds * SAMPLES_PER_SECOND:
                raise BadAudio("too_large", f"has more than {mixer.size:,} samples in {samples.shape[1]} channels")
        except BadAudio as error:
            failed[number] = error
            return False
        return True

    asked = [number for number in range(len(wanted)) if number not in failed]
    if asked:
        lost = reader.read([wanted[number][1] for number in asked], lambda place, *block: take(asked[place], *block))
        failed |= {asked[place]: error for place, error in lost.items()}
    return [
        failed.get(number) or _finished(mixers[number], limits, wanted[number][1], declared_seconds)
        for number in range(len(wanted))
    ]


def _finished(mixer: Mixer, limits: Limits, section: Section, declared_seconds: float | None) -> Audio | BadAudio:
    seconds = mixer.seconds
    if section.seconds is None and declared_seconds and abs(seconds - declared_seconds) > MISMATCH_SECONDS:
        return BadAudio("duration_mismatch", f"lasts {seconds:.2f} s, but {declared_seconds:.2f} s were declared")
    if seconds < limits.min_seconds:
        return BadAudio("too_short", f"lasts {seconds:.3f} s, less than min_seconds={limits.min_seconds:g}")
    try:
        return Audio(mixer.finish(), mixer.source_rate)
    except BadAudio as error:
        return error


def _too_long(limits: Limits) -> BadAudio:
    return BadAudio("too_long", f"lasts longer than max_seconds={limits.max_seconds:g}")


def waveform_blocks(waveform: np.ndarray, rate: int) -> Iterator[Block]:
    """Yield a waveform of floats or integers. If it has two dimensions, the shorter one is the channels."""
    samples = waveform[:, None] if waveform.ndim == 1 else waveform
    if samples.ndim != 2 or samples.dtype.kind not in "fiu":
        raise BadAudio("unreadable", f"is an array of shape {waveform.shape} and type {waveform.dtype}, not a waveform")
    if waveform.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T
    check_header(samples.shape[1], rate)
    if not len(samples):
        raise BadAudio("empty", "holds no samples")
    for start in range(0, len(samples), max(1, BLOCK // samples.shape[1])):
        block = samples[start : start + max(1, BLOCK // samples.shape[1])]
        if block.dtype.kind in "iu":
            info = np.iinfo(block.dtype)
            middle = 0 if info.min else (info.max + 1) // 2
            block = (block.astype(np.float64) - middle) / (info.max + 1 - middle)
        yield Block(block.astype(np.float32), int(rate))


def encode_flac(pcm: np.ndarray) -> bytes:
    """Encode 16 kHz mono int16 samples as a FLAC file."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode_flac(data: bytes) -> np.ndarray:
    """Decode a shard's FLAC bytes to (num_samples,) float32 in [-1, 1)."""
    import soundfile

    waveform, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    return np.asarray(waveform)


def with_waveforms(batch: pa.Table) -> pa.Table:
    """Return a batch with `audio.bytes` decoded in threads to a column `waveform`: lists of float32 at 16 kHz."""
    encoded = pc.struct_field(batch["audio"], "bytes").combine_chunks()
    one_each = pa.LargeListArray.from_arrays(np.arange(len(encoded) + 1), encoded)
    paths = pa.table({"path": pc.struct_field(batch["audio"], "path")}).to_struct_array()
    batch = batch.set_column(batch.column_names.index("audio"), "audio", paths)
    return batch.append_column("waveform", waveforms_of(one_each).flatten())


def waveforms_of(turns: pa.LargeListArray) -> pa.LargeListArray:
    """Decode lists of encoded audio in threads to lists of lists of float32 at 16 kHz."""
    with ThreadPoolExecutor(DECODERS) as pool:
        waveforms = list(pool.map(decode_flac, turns.flatten().to_pylist()))
    samples = np.concatenate(waveforms) if waveforms else np.zeros(0, np.float32)
    decoded = pa.LargeListArray.from_arrays(np.cumsum([0, *map(len, waveforms)]), samples)
    return pa.LargeListArray.from_arrays(np.cumsum([0, *turns.value_lengths().to_pylist()]), decoded)


def without_waveforms(batch: pa.Table) -> tuple[pa.Table, list[np.ndarray]]:
    """Undo `with_waveforms`: return the batch without audio bytes, and the waveforms, (num_samples,) float32 each."""
    waveforms = [
        values.flatten().to_numpy().copy()  # copied, since torch wants writable arrays
        for chunk in batch["waveform"].chunks
        for values in (chunk[row : row + 1] for row in range(len(chunk)))
    ]
    return batch.drop_columns(["waveform"]), waveforms


def header_seconds(file: Path | Seekable) -> float | None:
    """Return the duration in a file's header; None if libsndfile can't tell or the duration is not credible.

    Raises:
        OSError: the file can't be read.
    """
    import soundfile

    if isinstance(file, Path):
        with file.open("rb") as opened:
            return header_seconds(opened)
    size = size_of(file)
    span = Span(file, Link(0, size))
    try:
        with soundfile.SoundFile(io.BufferedReader(span, HEADER_BUFFER)) as header:
            seconds = header.frames / header.samplerate
    except (soundfile.SoundFileError, ValueError, TypeError, ArithmeticError):
        seconds = 0.0
    span.raise_failure()
    return seconds if 0 < seconds <= size / BYTES_PER_SECOND else None
