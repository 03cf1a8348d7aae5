"""Files of speech in many containers, whole, joined, cut and with other headers, as bytes."""

from __future__ import annotations

import io
import json
import re
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.containers.mpeg import frame_of
from echo_targets.transforms.models.voices.registry import open_voice

SPEECH = Path(__file__).parents[4] / "shared" / "speech"
SECONDS = 4.0


@cache
def spoken() -> np.ndarray:
    """Four seconds of speech, (64000,) float32 at 16 kHz: recorded where it is there, else the embedded voice."""
    manifest = SPEECH / "manifest.jsonl"
    if manifest.is_file():
        first = json.loads(manifest.read_text(encoding="utf-8").splitlines()[0])
        samples, _ = soundfile.read(SPEECH / first["audio"], dtype="float32")
    else:
        voice = open_voice()
        voice.setup()
        samples = voice.speak("If called to a case supposed to be one of poisoning, the medical man has two duties.")
    return np.resize(samples, int(SECONDS * SAMPLE_RATE)).astype(np.float32)


@cache
def written(format_: str, subtype: str | None = None, rate: int = SAMPLE_RATE, channels: int = 1) -> bytes:
    """The speech by libsndfile; another rate than 16 kHz plays it faster or slower."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.tile(spoken()[:, None], channels), rate, format=format_, subtype=subtype)
    return buffer.getvalue()


@cache
def muxed(codec: str, container: str, **options: str) -> bytes:
    """The speech by FFmpeg."""
    buffer = io.BytesIO()
    rate = 48_000 if codec == "libopus" else SAMPLE_RATE
    with av.open(buffer, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        resampler = av.AudioResampler(stream.codec_context.format.name, "mono", rate)
        for start in range(0, len(spoken()), 1024):
            frame = av.AudioFrame.from_ndarray(spoken()[None, start : start + 1024], format="fltp", layout="mono")
            frame.rate, frame.pts = SAMPLE_RATE, start
            for resampled in resampler.resample(frame):
                output.mux(stream.encode(resampled))
        for resampled in resampler.resample(None):
            output.mux(stream.encode(resampled))
        output.mux(stream.encode(None))
    return buffer.getvalue()


@cache
def m4a(folder: Path) -> bytes:
    """AAC with its index in front, which FFmpeg only writes to a file it can read again."""
    path = folder / "faststart.m4a"
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as output:
        stream = output.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for start in range(0, len(spoken()), 1024):
            frame = av.AudioFrame.from_ndarray(spoken()[None, start : start + 1024], format="fltp", layout="mono")
            frame.rate, frame.pts = SAMPLE_RATE, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path.read_bytes()


def untagged(mp3: bytes) -> bytes:
    """An MP3 without the header that counts its frames."""
    frame = frame_of(mp3[:4])
    assert frame is not None and (b"Xing" in mp3[:200] or b"Info" in mp3[:200])
    return mp3[frame.size :]


def id3(size: int) -> bytes:
    """A tag whose picture looks like MPEG frames."""
    digits = bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\x00\x00" + digits + (b"\xff\xfb\x90\x44" * size)[:size]


def claiming(wav: bytes, size: int, riff: int | None = None) -> bytes:
    """A WAV whose header counts so many bytes of audio."""
    at = wav.index(b"data") + 4
    mended = bytearray(wav)
    mended[at : at + 4] = size.to_bytes(4, "little")
    mended[4:8] = (min(size + 36, 2**32 - 1) if riff is None else riff).to_bytes(4, "little")
    return bytes(mended)


def flac_claiming(flac: bytes, samples: int) -> bytes:
    """A FLAC whose header counts so many samples; 0 is unknown."""
    mended = bytearray(flac)
    mended[21] = mended[21] & 0xF0 | samples >> 32
    mended[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(mended)


def pages(ogg: bytes) -> list[bytes]:
    """The pages of an Ogg file."""
    starts = [match.start() for match in re.finditer(b"OggS", ogg)]
    return [ogg[start:end] for start, end in zip(starts, [*starts[1:], len(ogg)], strict=True)]


def without_page(ogg: bytes) -> bytes:
    found = pages(ogg)
    return b"".join(found[: len(found) // 2] + found[len(found) // 2 + 1 :])


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def hole(data: bytes, size: int = 64) -> bytes:
    """Data with zeros in its middle."""
    at = len(data) // 2
    return data[:at] + bytes(size) + data[at + size :]


def flipped(data: bytes) -> bytes:
    """Data with one bit changed in its middle."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def fragmented() -> bytes:
    return muxed("aac", "mp4", movflags="frag_keyframe+empty_moov", frag_duration="500000")


def caf_of_unknown_length() -> bytes:
    """A CAF as it is recorded: its chunk of samples is the last one, of size -1."""
    caf = written("CAF")
    at = caf.index(b"data") + 4
    return caf[:at] + b"\xff" * 8 + caf[at + 8 :]


def flac_with_foreign_metadata() -> bytes:
    """A FLAC as `flac --keep-foreign-metadata` writes it: the chunks of its WAV lie in blocks of their own."""
    flac, wav = written("FLAC"), written("WAV")
    blocks = (b"riff" + wav[:12], b"riff" + wav[12:36], b"riff" + wav[36:44], b"riff" + wav[:44])
    metadata = b"".join(b"\x02" + len(block).to_bytes(3, "big") + block for block in blocks)
    return flac[:4] + bytes([flac[4] & 127]) + flac[5:42] + metadata + flac[42:]


def zeroed(data: bytes) -> bytes:
    """Data whose second half never came, in a file for which all its bytes were reserved."""
    return half(data) + bytes(len(data) - len(data) // 2)


@cache
def amr() -> bytes:
    """The speech at 8 kHz, as a telephone records it."""
    buffer = io.BytesIO()
    samples = (soxr.resample(spoken(), SAMPLE_RATE, 8000) * 32767).astype(np.int16)
    with av.open(buffer, "w", format="amr") as output:
        stream = output.add_stream("libopencore_amrnb", rate=8000, layout="mono")
        stream.bit_rate = 12200
        for start in range(0, len(samples), 160):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 160], format="s16", layout="mono")
            frame.rate, frame.pts = 8000, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


@cache
def timed(container: str, jump: float, after: float = 2.0, start: float = 0.0) -> bytes:
    """The speech as AAC whose times begin at `start` and jump by so many seconds after a while."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frames = [
            av.AudioFrame.from_ndarray(spoken()[None, at : at + 1024], format="fltp", layout="mono")
            for at in range(0, len(spoken()), 1024)
        ]
        packets = []
        for number, frame in enumerate(frames):
            frame.rate, frame.pts = SAMPLE_RATE, number * 1024
            packets += stream.encode(frame)
        for packet in [*packets, *stream.encode(None)]:
            time = packet.pts / SAMPLE_RATE
            moved = round((start + (jump if time > after else 0.0)) * SAMPLE_RATE)
            packet.pts = packet.dts = packet.pts + moved
            output.mux(packet)
    return buffer.getvalue()


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.wav", data)
    return buffer.getvalue()


def tarred(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("a.wav")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


HTML = b"<!DOCTYPE html>\n<html><body><h1>504 Gateway Time-out</h1></body></html>\n" * 200
NOISE = np.random.default_rng(0).integers(0, 256, 20_000, np.uint8).tobytes()
