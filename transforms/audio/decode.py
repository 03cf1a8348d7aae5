"""Decode any audio file to blocks of samples, up to its true end.

The decoder is chosen by content. The file's extension is ignored, and no count in a header is trusted.

- libsndfile decodes formats in which the bytes determine the number of samples: PCM, floats, A-law, mu-law, ADPCM and
  GSM in WAV, RF64, Wave64, AIFF, AU, CAF, SPHERE and its rarer containers. It decodes block by block, without seeking.
- PyAV (FFmpeg) decodes compressed formats: FLAC, MP3 (in WAV too), Ogg, MP4, Matroska and everything else. For these
  libsndfile estimates the length or trusts the header, and stops there.
- Joined streams are decoded one by one (`containers/` finds them), since both decoders stop at the first stream with
  another rate or number of channels.

The decoded duration is then compared with what the container promises.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from echo_targets.transforms.audio.blocks import BLOCK, Block, check_end, check_header, check_zeros
from echo_targets.transforms.audio.containers.base import BadAudio, Link, Seekable, Span, size_of
from echo_targets.transforms.audio.containers.not_audio import reject_other_file
from echo_targets.transforms.audio.containers.registry import links
from echo_targets.transforms.audio.ffmpeg import ffmpeg_blocks

if TYPE_CHECKING:
    from soundfile import SoundFile

FILE_BUFFER = 1 << 20
COMPRESSED = {"flac", "ogg", "mp3", "mp4", "matroska", "amr", "flv", "tta"}
SEEKABLE = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""libsndfile subtypes in which seeking is sample-exact; for others, decoding starts at the file's beginning."""


def blocks(raw: Path | bytes, start_seconds: float = 0.0) -> Iterator[Block]:
    """Yield a file's samples in order.

    Args:
        raw: path of a file, or its bytes.
        start_seconds: samples before this time may be skipped.

    Raises:
        BadAudio: the file is empty, unreadable, damaged, or (raised after the last block) truncated.
        OSError: the file can't be read.
    """
    with raw.open("rb", buffering=FILE_BUFFER) if isinstance(raw, Path) else io.BytesIO(raw) as file:
        if size_of(file) == 0:
            raise BadAudio("empty", "is empty")
        reject_other_file(file)
        container, found = links(file)
        for number, link in enumerate(found, 1):
            try:
                yield from _decode(file, container, link, start_seconds if len(found) == 1 else 0.0)
            except BadAudio as error:
                part = f"part {number} of {len(found)} joined recordings " if len(found) > 1 else ""
                raise BadAudio(error.error_class, f"{part}{error}") from error


def _decode(file: Seekable, container: str, link: Link, start_seconds: float) -> Iterator[Block]:
    """Yield a link's samples, or raise BadAudio."""
    import soundfile

    if link.damage is not None:
        raise BadAudio("damaged", f"is damaged {link.damage}")
    span, reason, seconds = Span(file, link), "", 0.0
    try:
        if container not in COMPRESSED:
            try:
                with soundfile.SoundFile(span) as opened:
                    if not opened.subtype.startswith(("MPEG", "VORBIS", "OPUS")):
                        for block in _soundfile_blocks(opened, start_seconds):
                            seconds += (block.skipped + len(block.samples)) / block.rate
                            yield block
                        span.raise_failure()
                        if opened.subtype.startswith("ALAC"):
                            check_zeros(span)
                        check_end(link, seconds, None)
                        return
            except soundfile.SoundFileError as error:
                span.raise_failure()
                if seconds:
                    raise BadAudio("damaged", f"is damaged after {seconds:.2f} s") from error
                reason = str(error).removeprefix("Error opening ").split(": ", 1)[-1]
            span.seek(0)
        yield from ffmpeg_blocks(span, link, container, reason)
    finally:
        span.raise_failure()


def _soundfile_blocks(file: SoundFile, start_seconds: float) -> Iterator[Block]:
    check_header(file.channels, file.samplerate)
    frames = max(1, BLOCK // file.channels)
    skipped = 0
    if start_seconds and file.seekable() and file.subtype.startswith(SEEKABLE):
        skipped = file.seek(min(int(start_seconds * file.samplerate), file.frames))
    while len(samples := file.read(frames, dtype="float32", always_2d=True)):
        yield Block(samples, file.samplerate, skipped)
        skipped = 0
    if skipped:
        yield Block(np.zeros((0, file.channels), np.float32), file.samplerate, skipped)
