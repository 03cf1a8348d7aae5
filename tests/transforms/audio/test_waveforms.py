"""Any file to 16 kHz mono, and what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.waveforms import BadAudio, Limits, decode_flac, encode_flac, load

LIMITS = Limits(0.1, 3600)


def tone(seconds: float = 1.0, rate: int = SAMPLE_RATE, hertz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write_av(path: Path, samples: np.ndarray, rate: int, codec: str, container: str) -> None:
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        for start in range(0, len(samples), 1024):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
            frame.rate = rate
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def loudest_hertz(pcm: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(pcm.astype(np.float32) * np.hanning(len(pcm))))
    return float(spectrum.argmax() * SAMPLE_RATE / len(pcm))


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000, 96000])
@pytest.mark.parametrize(("extension", "subtype"), [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_24")])
def test_rates_and_sample_types(tmp_path: Path, rate: int, extension: str, subtype: str) -> None:
    path = tmp_path / f"tone.{extension}"
    soundfile.write(path, tone(rate=rate), rate, subtype=subtype)
    audio = load(path, LIMITS)
    assert audio.source_rate == rate
    assert abs(len(audio.pcm) - SAMPLE_RATE) <= 1
    assert abs(loudest_hertz(audio.pcm) - 440) < 2


@pytest.mark.parametrize(("name", "format_", "subtype"), [("a.mp3", "MP3", None), ("a.ogg", "OGG", "VORBIS")])
@pytest.mark.parametrize("lying_extension", [False, True])
def test_compressed_by_libsndfile(
    tmp_path: Path, name: str, format_: str, subtype: str | None, lying_extension: bool
) -> None:
    path = tmp_path / ("a.wav" if lying_extension else name)
    soundfile.write(path, tone(rate=44100), 44100, format=format_, subtype=subtype)
    assert abs(loudest_hertz(load(path, LIMITS).pcm) - 440) < 2


@pytest.mark.parametrize("name", ["a.m4a", "a.wav", "noextension"])
def test_aac_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write_av(path, tone(2.0, 44100), 44100, "aac", "mp4")
    audio = load(path, LIMITS)
    assert abs(len(audio.pcm) - 2 * SAMPLE_RATE) < 0.2 * SAMPLE_RATE
    assert abs(loudest_hertz(audio.pcm) - 440) < 2
    assert np.array_equal(load(path.read_bytes(), LIMITS).pcm, audio.pcm)


def test_stereo_is_mixed_or_one_channel_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(hertz=300), tone(hertz=1000)], axis=1), SAMPLE_RATE)
    assert abs(loudest_hertz(load(path, LIMITS, 0).pcm) - 300) < 2
    assert abs(loudest_hertz(load(path, LIMITS, 1).pcm) - 1000) < 2
    mixed = load(path, LIMITS).pcm.astype(int)
    both = load(path, LIMITS, 0).pcm.astype(int) + load(path, LIMITS, 1).pcm
    assert np.abs(2 * mixed - both).max() <= 2
    with pytest.raises(BadAudio, match="has 2 channels, but channel 2"):
        load(path, LIMITS, 2)


def test_16_khz_16_bit_speech_comes_through_bit_by_bit(speech: list[dict]) -> None:
    path = speech[0]["audio"]
    pcm, _ = soundfile.read(path, dtype="int16")
    audio = load(path, LIMITS)
    assert np.array_equal(audio.pcm, pcm)
    assert np.array_equal(decode_flac(encode_flac(audio.pcm)) * 32768, pcm)


def refused(raw: Path | bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(BadAudio) as caught:
        load(raw, limits)
    return caught.value.error_class


def test_what_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, SAMPLE_RATE, format="FLAC")
    flac = buffer.getvalue()
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, SAMPLE_RATE, format="WAV")
    wav = buffer.getvalue()
    nan = tmp_path / "nan.wav"
    soundfile.write(nan, np.where(noise > 0.3, np.nan, noise), SAMPLE_RATE, subtype="FLOAT")
    text = tmp_path / "text.wav"
    text.write_text("not audio at all, but a text of some length\n" * 50)
    assert refused(b"") == "empty"
    assert refused(flac[: len(flac) // 2]) == "truncated"
    assert refused(flac[:-40]) == "truncated"
    assert refused(wav[: len(wav) // 2]) == "truncated"
    assert refused(wav[:30]) == "unreadable"
    assert refused(text) == "unreadable"
    assert refused(nan) == "not_finite"
    assert refused(encode_flac(np.zeros(SAMPLE_RATE, np.int16))) == "silent"
    assert refused(encode_flac((noise[:800] * 32768).astype(np.int16))) == "too_short"
    assert refused(flac, Limits(0.1, 0.5)) == "too_long"


def test_a_header_that_claims_hours_is_not_believed() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, tone(), SAMPLE_RATE, format="FLAC")
    flac = bytearray(buffer.getvalue())
    start = 8 + 13  # STREAMINFO: 36 bits of total samples end at its 18th byte
    flac[start] |= 0x0F
    flac[start + 1 : start + 5] = b"\xff\xff\xff\xff"
    with pytest.raises(BadAudio, match=r"it has 1.00 s of 4294967.30 s"):
        load(bytes(flac), LIMITS)


def test_silence_in_most_of_a_recording_is_no_silence() -> None:
    pcm = np.zeros(60 * SAMPLE_RATE, np.int16)
    pcm[30 * SAMPLE_RATE : 31 * SAMPLE_RATE] = (tone() * 32767).astype(np.int16)
    assert len(load(encode_flac(pcm), LIMITS).pcm) == len(pcm)
