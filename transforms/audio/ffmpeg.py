"""Decode with FFmpeg (PyAV), and check the result against the container's duration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from echo_targets.transforms.audio.blocks import BLOCK, Block, check_end, check_header, check_zeros
from echo_targets.transforms.audio.containers.base import TOLERANCE, BadAudio, Link, Span

if TYPE_CHECKING:
    import av

FORMATS = (
    "aac,ac3,eac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dts,flac,flv,loas,matroska,mov,mp3,mpc,mpc8,mpeg,mpegts,"
    "nistsphere,nsp,ogg,oma,rm,tak,tta,voc,w64,wav,wsd,wv"
)
"""Formats that FFmpeg may detect: audio and video. Playlists and the like are excluded; they could open other files."""
MATROSKA, MOV = "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"
TIMED = {"flac", MATROSKA, MOV, "flv", "mpegts"}
"""FFmpeg's containers with a timestamp per packet, so that a lost packet shows as a gap."""
MARKED = {"mp3", "ogg"}
"""Containers whose end `containers/` has found, so zeros may follow it."""
UNCHECKED = {"wv", "tta"}
"""Containers that count samples, but whose decoders also produce samples from zeros."""
NEW_CLOCK = 60.0
"""In MPEG-TS, a gap of this many seconds, or a step back, means that another stream with its own clock was joined."""
COUNTED = {"flac", "ogg", MOV, "asf", "wv", "tta", "ape"}
"""Containers whose streams state their duration; for others FFmpeg guesses it from the bit rate."""
EXACT = COUNTED - {"asf", MOV}
"""Containers that count samples rather than packets."""
PRIMING = 0.14
"""Seconds of the longest delay of a speech codec (AAC at 16 kHz). Some durations include it and some do not."""
WALL_CLOCK = 0.5
"""Maximum difference between a complete browser recording and its duration, which was taken from a wall clock."""
PAUSE = 0.5
"""Longest silence, in seconds, for which a codec may send no packets (Opus with DTX). It is filled with zeros."""
MP3_GRANULE = 576
MP3_DELAY = 1105
"""Samples by which LAME and a decoder delay MP3. FFmpeg keeps them if no header states the delay."""
HUSH = 1e-3
FULL_SCALE = {"s16": 32768.0, "s32": 2147483648.0, "s64": 9223372036854775808.0, "dbl": 1.0}


def ffmpeg_blocks(span: Span, link: Link, known: str, soundfile_reason: str) -> Iterator[Block]:
    """Yield a link's samples.

    Args:
        span: the link's bytes.
        link: the container's structure.
        known: the container's name; empty if the first bytes do not show it.
        soundfile_reason: why libsndfile could not decode it.

    Raises:
        BadAudio: the link is unreadable, damaged, or (raised after the last block) truncated.
    """
    import av

    try:
        container = av.open(span, "r", metadata_errors="ignore", container_options={"format_whitelist": FORMATS})
    except MemoryError:  # PyAV's MemoryError is also an FFmpegError, but not the file's fault
        raise
    except (av.FFmpegError, ValueError) as error:
        span.raise_failure()
        if link.claimed > link.present > 0:
            raise BadAudio(
                "truncated", f"is truncated: it has {link.present} of {link.claimed} bytes, without its index"
            ) from error
        if known:
            check_zeros(span)
        detail = getattr(error, "strerror", None) or str(error)
        reasons = " ".join(filter(None, (soundfile_reason, detail)))
        raise BadAudio("unreadable", f"is not readable audio ({reasons})") from error
    with container:
        stream = _audio_stream(container)
        decoding = _Decoding(container, stream)
        yield from decoding.blocks()
        span.raise_failure()
        promised = _promised(container, stream)
        if _must_not_end_in_zeros(container.format.name, stream.codec_context.name, promised):
            check_zeros(span)
        if decoding.failed > 1 and promised is None:
            raise BadAudio("damaged", f"is damaged after {decoding.seconds:.2f} s")
        if not decoding.seconds and decoding.failed:
            raise BadAudio("unreadable", f"is not readable audio ({decoding.reason})")
        seconds = decoding.end if container.format.name == MATROSKA else decoding.seconds
        delay = stream.codec_context.delay / (stream.rate or 1)
        check_end(link, seconds, promised, delay + _allowed(container.format.name, link, decoding.longest))


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    """Return the audio stream of a video or of a file with several tracks: the default one, or else the first."""
    import av

    found = container.streams.audio
    if not found:
        raise BadAudio("unreadable", "holds no audio")
    if any(stream.codec_context is None for stream in found):  # decoding such a stream crashes the process
        raise BadAudio("unreadable", "holds audio of an unknown codec, or is truncated before its first packet")
    stream = next((stream for stream in found if stream.disposition & av.stream.Disposition.default), found[0])
    check_header(stream.channels, stream.rate)
    return stream


def _must_not_end_in_zeros(container: str, codec: str, promised: float | None) -> bool:
    """Return True for compressed data without another sign of its end. The zeros of PCM are silence, except in AVI,
    which ends with an index."""
    if container in MARKED or (codec.startswith("pcm_") and container != "avi"):
        return False
    return promised is None or container in UNCHECKED


def _promised(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    """Return the duration that a container promises for its stream, in seconds; None if it does not.

    Matroska's is the stream's end on its own clock.
    """
    if container.format.name in COUNTED:
        return float(stream.duration * stream.time_base) if stream.duration and stream.time_base else None
    if container.format.name != MATROSKA:
        return None
    if tag := re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        return int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])
    return container.duration / 1e6 if len(container.streams) == 1 and container.duration else None


def _allowed(container: str, link: Link, frame: float) -> float:
    """Return the seconds that may be missing at the end, in addition to the codec's delay.

    Args:
        container: FFmpeg's name of the container.
        link: the container's structure.
        frame: seconds of the codec's longest frame.
    """
    if container in EXACT:
        return 0.0
    if container == MOV:
        return PRIMING
    if container == MATROSKA and link.present == link.claimed:
        return WALL_CLOCK
    return min(frame, PRIMING)


class _Decoding:
    """Decoding of a stream with PyAV.

    Attributes:
        seconds: decoded so far, including silence that was filled in.
        longest: seconds of the longest frame.
        end: end of the last frame, in seconds; on the container's clock if it has one.
        failed, reason: number of packets that could not be decoded, and FFmpeg's error for the last one.
    """

    def __init__(self, container: av.container.InputContainer, stream: av.AudioStream) -> None:
        self._container = container
        self._stream = stream
        self._clock: float | None = None
        self._delay = 0
        self.seconds = 0.0
        self.longest = 0.0
        self.failed = 0
        self.reason = ""

    @property
    def end(self) -> float:
        return max(self.seconds, self._clock or 0.0)

    def blocks(self) -> Iterator[Block]:
        """Yield the samples, with small frames joined.

        Raises:
            BadAudio: a part that can't be decoded is followed by one that can.
        """
        gathered: list[np.ndarray] = []
        kind, size = (0, 0), 0
        for samples, rate in self._frames():
            held = (samples.shape[1], rate)
            if gathered and (held != kind or size >= BLOCK):
                yield Block(np.concatenate(gathered), kind[1])
                gathered, size = [], 0
            kind = held
            gathered.append(samples)
            size += samples.size
        if gathered:
            yield Block(np.concatenate(gathered), kind[1])

    def _frames(self) -> Iterator[tuple[np.ndarray, int]]:
        for frame in self._decoded():
            check_header(frame.layout.nb_channels, frame.sample_rate)
            samples, rate = _samples_of(frame), frame.sample_rate
            if self.failed and (self.seconds or self.failed > 1):
                raise BadAudio("damaged", f"is damaged after {self.seconds:.2f} s")
            self.failed = 0
            lost = self._lost(frame)
            if lost:
                yield np.zeros((round(lost * rate), samples.shape[1]), np.float32), rate
            if not self.seconds:
                self._delay = self._delay_of(frame)
            self.seconds += lost + len(samples) / rate
            self.longest = max(self.longest, len(samples) / rate)
            if self._delay:
                samples = self._without_delay(samples)
            if len(samples):
                yield samples, rate

    def _decoded(self) -> Iterator[av.AudioFrame]:
        import av

        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
                frames = packet.decode()
            except (StopIteration, av.EOFError):
                return
            except MemoryError:
                raise
            except av.FFmpegError as error:
                self.failed += 1
                self.reason = error.strerror or str(error)
                if self.failed > 100:  # give up on a stream that gives only errors
                    raise BadAudio("damaged", f"is damaged after {self.seconds:.2f} s") from error
                continue
            for frame in frames:
                if isinstance(frame, av.AudioFrame) and frame.samples:
                    yield frame

    def _lost(self, frame: av.AudioFrame) -> float:
        """Return the seconds without packets before a frame, or 0 if within the clock's precision."""
        container, lasts = self._container.format.name, frame.samples / frame.sample_rate
        if container not in TIMED:
            return 0.0
        if frame.pts is None or frame.time_base is None:
            if container == "mpegts" and self._clock is not None:  # a packet may hold several frames, but one time
                self._clock += lasts
            return 0.0
        time = float(frame.pts * frame.time_base)
        gap = 0.0 if self._clock is None else time - self._clock
        if container == "mpegts" and not -PAUSE < gap < NEW_CLOCK:
            self._clock, gap = None, 0.0
        self._clock = max(time, self._clock or 0.0) + lasts
        allowed = 0.0005 if container == "flac" else TOLERANCE
        if gap > (allowed if container == "flac" else PAUSE):
            raise BadAudio("damaged", f"is damaged after {self.seconds:.2f} s: {gap:.2f} s are missing")
        return gap if gap > allowed else 0.0

    def _delay_of(self, first: av.AudioFrame) -> int:
        """Return the number of samples to drop at the start of MP3 whose header does not tell FFmpeg to drop them.

        An incomplete first frame shows that FFmpeg has dropped them already, as it does for Matroska.
        """
        is_mp3 = self._stream.codec_context.codec.name.startswith("mp3")
        return MP3_DELAY if is_mp3 and not first.pts and first.samples % MP3_GRANULE == 0 else 0

    def _without_delay(self, samples: np.ndarray) -> np.ndarray:
        """Return the samples after the delay. The delay ends early if there is sound in it."""
        taken = min(self._delay, len(samples))
        loud = np.flatnonzero(np.abs(samples[:taken]).max(axis=1) > HUSH)
        self._delay = 0 if len(loud) else self._delay - taken
        return samples[loud[0] if len(loud) else taken :]


def _samples_of(frame: av.AudioFrame) -> np.ndarray:
    """Return a frame as (frames, channels) float32."""
    values: Any = frame.to_ndarray()
    name = frame.format.name.removesuffix("p")
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if name == "u8":
        return (values.astype(np.float32) - 128.0) / 128.0
    if values.dtype == np.float32:
        return np.ascontiguousarray(values)
    return (values / FULL_SCALE[name]).astype(np.float32)
