"""Every container to its true end: whole files and joined ones are rows, cut and damaged ones are named."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.decode import blocks
from echo_targets.transforms.audio.waveforms import BadAudio, Limits, Section, header_seconds, load
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.registry import entries
from tests.transforms.audio import audio_files
from tests.transforms.audio.audio_cases import CUT, ONCE, WHOLE
from tests.transforms.audio.audio_files import (
    claiming,
    flac_claiming,
    half,
    id3,
    m4a,
    muxed,
    spoken,
    written,
)
from tests.transforms.rows import rejects, run_stages

ROOT = Path(__file__).parents[3]
LIMITS = Limits(0.1, 3600)
CASES = ROOT.parent / "shared" / "cases"


def likeness(pcm: np.ndarray, start: float) -> float:
    """Correlation with the speech of what begins about here, at the best of the delays up to 80 ms."""
    speech = spoken()[::4]
    at = max(0, int((start - 0.08) * SAMPLE_RATE))
    heard = pcm[at : at + len(spoken()) + int(0.16 * SAMPLE_RATE)][::4].astype(np.float64)
    size = 1 << (len(heard) + len(speech)).bit_length()
    products = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(speech, size)), size)
    return float(products.max() / np.sqrt((heard**2).sum() * (speech.astype(np.float64) ** 2).sum()))


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_recording_is_a_row_of_all_of_it(name: str) -> None:
    make, seconds = WHOLE[name]
    pcm = load(make(), LIMITS).pcm
    assert abs(len(pcm) / SAMPLE_RATE - seconds) < 0.05
    like = 0.7 if name.startswith("AMR") else 0.8  # it keeps the sound of speech, and not its waveform
    assert likeness(pcm, 0.0) > like
    if 0 <= seconds - 2 * ONCE < 0.1:
        assert likeness(pcm, ONCE) > like
    tail = pcm[-SAMPLE_RATE // 2 :].astype(np.float64)
    assert np.sqrt((tail**2).mean()) > 100, "the end is speech, not silence"


def test_silence_before_the_speech_is_no_delay_of_the_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = np.concatenate([np.zeros(8_000, np.float32), spoken()])
    monkeypatch.setattr(audio_files, "spoken", lambda: quiet)
    pcm = load(muxed.__wrapped__("libmp3lame", "matroska"), LIMITS).pcm
    assert abs(len(pcm) - len(quiet)) <= 1


@pytest.mark.parametrize("name", CUT)
def test_what_is_not_whole_is_named(name: str) -> None:
    make, error_class, says = CUT[name]
    with pytest.raises(BadAudio, match=says) as caught:
        load(make(), LIMITS)
    assert caught.value.error_class == error_class


def test_an_index_in_front_promises_what_a_cut_file_lacks(tmp_path: Path) -> None:
    whole = m4a(tmp_path)
    assert abs(len(load(whole, LIMITS).pcm) / SAMPLE_RATE - ONCE) < 0.05
    with pytest.raises(BadAudio, match=r"is truncated: it has \d\.\d\d s of 4\.00 s") as caught:
        load(half(whole), LIMITS)
    assert caught.value.error_class == "truncated"
    for size in (30, 200, whole.index(b"mdat") - 4, whole.index(b"mdat") + 20):  # no decoder may be asked
        with pytest.raises(BadAudio):
            load(whole[:size], LIMITS)


@pytest.mark.parametrize("ending", [".raw", ".vox", ".pcm", ".gsm", ".mp3", ".m3u8"])
def test_a_file_is_read_by_its_content_whatever_its_ending(tmp_path: Path, ending: str) -> None:
    for number, data in enumerate((written("WAV"), written("OGG", "OPUS"), b"nothing to hear here" * 99)):
        path = tmp_path / f"{number}{ending}"
        path.write_bytes(data)
        if number < 2:
            assert len(load(path, LIMITS).pcm) == ONCE * SAMPLE_RATE
        else:
            with pytest.raises(BadAudio, match="is not readable audio"):
                load(path, LIMITS)
            assert header_seconds(path) is None


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "other.wav").write_bytes(written("WAV"))
    for text in ("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{0}\n", "ffconcat version 1.0\nfile '{0}'\n"):
        path = tmp_path / "list"
        path.write_text(text.format(tmp_path / "other.wav"))
        with pytest.raises(BadAudio) as caught:
            load(path, LIMITS)
        assert caught.value.error_class == "unreadable"


ODD: dict[str, Callable[[], bytes]] = {
    "unknown": lambda: flac_claiming(written("FLAC"), 0),
    "two centuries": lambda: flac_claiming(written("FLAC"), 2**36 - 1),
    "0 Hz": lambda: written("FLAC")[:18] + bytes(3) + written("FLAC")[21:],
    "0 Hz in WAV": lambda: written("WAV")[:24] + bytes(8) + written("WAV")[32:],
    "claims nothing": lambda: claiming(written("WAV"), 0),
    "claims 4 GB": lambda: claiming(written("WAV"), 2**32 - 1),
    "no header": lambda: b"RIFF",
    "no frames": lambda: id3(500),
    "zeros": lambda: bytes(100_000),
}


@pytest.mark.parametrize("ending", [".flac", ".raw"])
def test_no_header_stops_a_plan_or_fills_it(tmp_path: Path, ending: str) -> None:
    for number, make in enumerate(ODD.values()):
        (tmp_path / f"{number}{ending}").write_bytes(make())
    lines = [json.dumps({"id": name, "audio": f"{number}{ending}"}) for number, name in enumerate(ODD)]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    source = ManifestSource(kind="manifest", corpus="odd", manifest=str(tmp_path / "m.jsonl"))
    seconds = {row["utterance_id"]: row["seconds"] for row in entries([source])}
    assert list(seconds) == list(ODD) and all(0 < value < 10 for value in seconds.values()), seconds


# -- sections --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["WAV", "FLAC", "MP3", "OGG", "AIFF"])
def test_a_section_is_these_samples(format_: str) -> None:
    whole = load(written(format_), LIMITS).pcm
    for section in (Section(1.25, 1.5), Section(2.75), Section(0.0, 0.5), Section(1 / 3, 1 / 7)):
        end = None if section.seconds is None else round(section.end * SAMPLE_RATE)
        expected = whole[round(section.start * SAMPLE_RATE) : end]
        assert np.array_equal(load(written(format_), LIMITS, section=section).pcm, expected)


def test_a_section_is_exact_at_the_rate_of_its_file() -> None:
    import soxr

    data = written("FLAC", None, 44_100)
    source, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    expected = np.rint(soxr.resample(source[4410:17640], 44_100, SAMPLE_RATE) * 32768).astype(np.int16)
    assert np.array_equal(load(data, LIMITS, section=Section(0.1, 0.3)).pcm, expected)


def test_a_section_goes_through_files_that_were_joined() -> None:
    data = written("OGG", "VORBIS") + written("OGG", "VORBIS", 24_000, 2)
    assert abs(len(load(data, LIMITS, section=Section(3.5, 1.0)).pcm) - SAMPLE_RATE) <= 1


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (Section(1.0, 3.6), r"lasts 4.00 s, but the section from 1.00 s to 4.60 s"),
        (Section(4.0, 0.4), r"lasts 4.00 s, but the section from 4.00 s"),
        (Section(9.0), r"lasts 4.00 s, but the section from 9.00 s was requested"),
    ],
)
def test_a_section_that_is_not_there_is_named_with_the_length(section: Section, says: str) -> None:
    for format_ in ("WAV", "MP3"):
        with pytest.raises(BadAudio, match=says) as caught:
            load(written(format_), LIMITS, section=section)
        assert caught.value.error_class == "section_outside"


def test_limits_hold_for_the_section() -> None:
    limits = Limits(0.5, 2.0)
    assert len(load(written("WAV"), limits, section=Section(1.0, 1.5)).pcm) == 1.5 * SAMPLE_RATE
    for section, error_class in ((Section(0.0, 0.2), "too_short"), (Section(0.0, 2.5), "too_long")):
        with pytest.raises(BadAudio) as caught:
            load(written("WAV"), limits, section=section)
        assert caught.value.error_class == error_class


def test_a_section_before_the_cut_is_whole() -> None:
    data = half(written("FLAC"))
    assert len(load(data, LIMITS, section=Section(0.5, 0.5)).pcm) == SAMPLE_RATE // 2
    with pytest.raises(BadAudio, match="truncated"):
        load(data, LIMITS, section=Section(1.5, 1.0))


def test_a_length_that_was_declared_is_compared() -> None:
    for declared in (3.6, 4.4):
        load(written("WAV"), LIMITS, declared_seconds=declared)
    for declared in (3.4, 4.6):
        with pytest.raises(BadAudio, match=rf"lasts 4.00 s, but {declared:.2f} s were declared") as caught:
            load(written("WAV"), LIMITS, declared_seconds=declared)
        assert caught.value.error_class == "duration_mismatch"
    load(written("WAV"), LIMITS, section=Section(1.0), declared_seconds=3.0)
    with pytest.raises(BadAudio, match="were declared"):
        load(written("WAV"), LIMITS, section=Section(1.0), declared_seconds=4.0)


# -- memory and storage ----------------------------------------------------------------------------------------------


def test_a_small_file_that_decodes_to_much_is_never_held(tmp_path: Path) -> None:
    path, channels, rate = tmp_path / "bomb.flac", 4, 96_000
    silence = np.zeros((rate, channels), np.int16)
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16", format="FLAC") as file:
        file.write((np.sin(np.arange(rate)[:, None] * [[0.03, 0.02, 0.01, 0.04]]) * 3000).astype(np.int16))
        for _ in range(79):
            file.write(silence)
    script = """
import resource, sys
from pathlib import Path
import av, soundfile, soxr
from echo_targets.transforms.audio.waveforms import BadAudio, Limits, load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for limits in (Limits(0.1, 3600), Limits(0.1, 10)):
    try:
        print(len(load(Path(sys.argv[1]), limits).pcm))
    except BadAudio as error:
        print(error.error_class)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-c", script, str(path)]
    said = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert said[:2] == [str(80 * SAMPLE_RATE), "too_long"]
    assert int(said[2]) < 60, f"{said[2]} MB were taken, and all samples are {4 * 80 * rate * channels >> 20} MB"


def test_many_channels_at_a_high_rate_are_bounded_by_their_samples() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.full((12_000, 64), 0.1, np.float32), 768_000, format="WAV", subtype="PCM_U8")
    data = buffer.getvalue()
    with pytest.raises(BadAudio, match="64 channels") as caught:
        load(data, Limits(0.001, 1.0))
    assert caught.value.error_class == "too_large"


def test_a_rate_that_would_make_hours_of_a_few_bytes_is_refused() -> None:
    wav = written("WAV")
    for rate in (0, 1, 999, 768_001, 2**31):
        with pytest.raises(BadAudio) as caught:
            load(wav[:24] + rate.to_bytes(4, "little") + wav[28:], Limits(0.1, 1e9))
        assert caught.value.error_class in ("bad_header", "unreadable")


def test_storage_that_fails_in_the_middle_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 60_000:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(size)

    for data in (written("WAV"), written("FLAC"), muxed("alac", "mp4")):
        monkeypatch.setattr(Path, "open", lambda *_, data=data, **__: Failing(data))
        with pytest.raises(OSError, match="Input/output error"):
            list(blocks(tmp_path / "a"))


FUZZED: dict[str, Callable[[], bytes]] = {
    **{
        name: lambda name=name: written(name)  # type: ignore[misc]
        for name in ("MP3", "FLAC", "WAV", "AIFF", "W64", "CAF", "NIST", "AU", "RF64")
    },
    "Vorbis": lambda: written("OGG", "VORBIS"),
    "WebM": lambda: muxed("libopus", "webm"),
    "M4A": lambda: muxed("aac", "mp4"),
}


@pytest.mark.parametrize("name", FUZZED)
def test_bytes_that_are_wrong_are_rejects_and_never_faults(name: str) -> None:
    rng = np.random.default_rng(len(name))
    for _ in range(25):
        data = bytearray(FUZZED[name]())
        for at in rng.integers(0, rng.choice([48, 300, len(data)]), rng.choice([1, 2, 6])):
            data[at : at + 2] = bytes(rng.choice([0, 1, 127, 128, 255], 2).astype(np.uint8))
        header_seconds(io.BytesIO(data))
        try:
            load(bytes(data), Limits(0.1, 30))
        except BadAudio as error:
            assert len(str(error)) > 5


# -- inputs that people have -------------------------------------------------------------------------------------------


def test_the_given_cases(tmp_path: Path) -> None:
    if not (CASES / "audio.jsonl").is_file():
        pytest.skip(f"the collected files are not there: {CASES}")
    cases = {row["id"]: row for row in map(json.loads, (CASES / "audio.jsonl").read_text().splitlines())}
    lines = [json.dumps({"id": key, "audio": str(CASES / row["audio"])}) for key, row in cases.items()]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    source = {"kind": "manifest", "corpus": "cases", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}})
    rows = {row["utterance_id"]: row["num_samples"] / SAMPLE_RATE for row in dataset.read("utterances").to_pylist()}
    refused = {key: row["error_class"] for key, row in rejects(dataset, "utterances").items()}
    classes = {
        "truncated": {"truncated"},
        "damaged": {"damaged"},
        "cancelled channels, by name": {"cancelled_channels"},
        "refused: far beyond full scale": {"beyond_full_scale"},
    }
    wrong = []
    for key, case in cases.items():
        if "row" in case["want"].split():
            right = key in rows and abs(rows[key] - case.get("seconds", rows[key])) <= 0.05
        else:
            right = refused.get(key) in classes[case["want"]]
        if not right:
            wrong.append((key, case["want"], case.get("seconds"), rows.get(key), refused.get(key)))
    assert wrong == [] and len(rows) + len(refused) == len(cases)


def test_memory_that_ffmpeg_lacks_is_not_the_files_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    def fail(*_: object, **__: object) -> None:
        raise av.error.MemoryError(12, "Cannot allocate memory")  # PyAV's own: an FFmpegError as well

    monkeypatch.setattr(av, "open", fail)
    with pytest.raises(MemoryError):
        load(written("FLAC"), Limits(0.1, 60))
