"""Inputs that strangers reported to other projects, each rebuilt small; the name says where it was reported."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from tests.transforms.audio.audio_cases import ONCE
from tests.transforms.audio.audio_files import claiming, hole, muxed, spoken, untagged, written
from tests.transforms.rows import rejects, run_stages

PCM_GUID = bytes.fromhex("0100000000001000800000aa00389b71")
AMBISONIC_GUID = bytes.fromhex("010000002107d3118644c8c1ca000000")


def chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def riff(*chunks: bytes) -> bytes:
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks))


def samples() -> bytes:
    return np.rint(spoken() * 32_767).astype("<i2").tobytes()


def plain(bytes_per_second: int = 2 * SAMPLE_RATE) -> bytes:
    return chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, bytes_per_second, 2, 16))


def extensible(mask: int, guid: bytes, channels: int = 1) -> bytes:
    header = struct.pack("<HHIIHH", 0xFFFE, channels, SAMPLE_RATE, 2 * channels * SAMPLE_RATE, 2 * channels, 16)
    return chunk(b"fmt ", header + struct.pack("<HHI", 22, 16, mask) + guid)


def four_channels() -> bytes:
    first = np.rint(spoken() * 32_767).astype("<i2")
    return np.stack([first, first // 2, first // 3, first // 4], axis=1).tobytes()


def telephone(codec: str, container: str) -> bytes:
    """The speech at 8 kHz in two channels, by FFmpeg."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=8_000, layout="stereo")
        resampler = av.AudioResampler(stream.codec_context.format.name, "stereo", 8_000, frame_size=576)
        frame = av.AudioFrame.from_ndarray(spoken()[None], format="fltp", layout="mono")
        frame.rate, frame.pts = SAMPLE_RATE, 0
        for resampled in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(stream.encode(resampled))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def alac(folder: Path) -> bytes:
    path = folder / "alac.m4a"
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("alac", rate=SAMPLE_RATE, layout="mono")
        for start in range(0, len(spoken()), 4096):
            part = np.rint(spoken()[None, start : start + 4096] * 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part, format="s16p", layout="mono")
            frame.rate, frame.pts = SAMPLE_RATE, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path.read_bytes()


LIST = chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"Lavf58.29.100\0"))
WHOLE: dict[str, Callable[[Path], bytes]] = {
    "Borewit/music-metadata#707 cropped by FFmpeg into a pipe.wav": lambda _: claiming(
        riff(plain(), LIST, chunk(b"data", samples())), 2**32 - 1, 2**32 - 1
    ),
    "evuraan/yellowShoes#13 placeholder where the channel mask is.wav": lambda _: riff(
        extensible(2**32 - 1, PCM_GUID), chunk(b"data", samples())
    ),
    "mackron/dr_libs#252 sizes of 0.wav": lambda _: claiming(riff(plain(), chunk(b"data", samples())), 0, 0),
    "cjcliffe/CubicSDR#616 sixteen bytes too many counted.wav": lambda _: claiming(
        riff(plain(), chunk(b"data", samples())), len(samples()) + 16
    ),
    "dancasimiro/WAV.jl#109 wrong size of the file.wav": lambda _: claiming(
        riff(plain(), chunk(b"data", samples())), len(samples()), 12_345
    ),
    "meetecho/janus-gateway#262 half the bytes per second.wav": lambda _: riff(
        plain(SAMPLE_RATE), chunk(b"data", samples())
    ),
    "lhotse-speech/lhotse#913 two billion samples.wav": lambda _: claiming(
        riff(plain(), chunk(b"data", samples())), 2**32 - 38
    ),
    "gopxl/beep#183 unknown chunks before the samples.wav": lambda _: riff(
        chunk(b"junk", b"\0" * 27),
        plain(),
        chunk(b"cue ", b"\0" * 28),
        chunk(b"id3 ", b"ID3"),
        chunk(b"data", samples()),
    ),
    "supercollider/supercollider#3137 MPEG at 8 kHz.wav": lambda _: telephone("libmp3lame", "wav"),
    "libsndfile/libsndfile#167 Ambisonic B without a mask.amb": lambda _: riff(
        extensible(0, AMBISONIC_GUID, 4), chunk(b"data", four_channels())
    ),
    "libsndfile/libsndfile#1053 Apple Lossless.m4a": alac,
    "lordmulder/LameXP#88 WebM by another name.opus": lambda _: muxed("libopus", "webm"),
    "facebookresearch/seamless_communication#182 MediaRecorder.webm": lambda _: muxed("libopus", "webm", live="1"),
    "pytorch/audio#329 MP3 without a count.mp3": lambda _: untagged(written("MP3")),
    "huggingface/dataset-viewer#2584 Opus.opus": lambda _: written("OGG", "OPUS"),
}


def path_of(report: str, folder: Path) -> Path:
    return folder / report.replace("/", "_")


def test_a_recording_that_others_could_not_read_is_whole(tmp_path: Path) -> None:
    for report, make in WHOLE.items():
        path_of(report, tmp_path).write_bytes(make(tmp_path))
    lines = [{"id": f"{place:02}", "audio": path_of(report, tmp_path).name} for place, report in enumerate(WHOLE)]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = {"kind": "manifest", "corpus": "c", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}})
    assert rejects(dataset, "utterances") == {}
    rows = {row["utterance_id"]: row["num_samples"] / SAMPLE_RATE for row in dataset.read("utterances").to_pylist()}
    wrong = {
        report: rows[f"{place:02}"] for place, report in enumerate(WHOLE) if abs(rows[f"{place:02}"] - ONCE) > 0.06
    }
    assert wrong == {}
    assert list(check_dataset(dataset.root)) == []


def test_sound_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    """huggingface/datasets#7276: an MP3 with a damaged frame stopped the whole loop."""
    (tmp_path / "damaged.mp3").write_bytes(hole(written("MP3"), 2_000))
    (tmp_path / "whole.mp3").write_bytes(written("MP3"))
    (tmp_path / "m.jsonl").write_text('{"id": "d", "audio": "damaged.mp3"}\n{"id": "w", "audio": "whole.mp3"}')
    source = {"kind": "manifest", "corpus": "c", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}})
    (reject,) = rejects(dataset, "utterances").values()
    assert reject["utterance_id"] == "d" and "damaged.mp3" in reject["message"]
    assert dataset.read("utterances")["utterance_id"].to_pylist() == ["w"]


def test_a_section_has_the_length_that_was_asked_for(tmp_path: Path) -> None:
    """lhotse-speech/lhotse#1437: offset and duration in a file at another rate gave the whole file."""
    soundfile.write(tmp_path / "a.wav", np.tile(spoken(), 3), 22_050)
    line = {"id": "a", "audio": "a.wav", "offset": 1.25, "duration": 3.5}
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    source = {"kind": "manifest", "corpus": "c", "manifest": str(tmp_path / "m.jsonl")}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}})
    (num_samples,) = dataset.read("utterances")["num_samples"].to_pylist()
    assert abs(num_samples - 3.5 * SAMPLE_RATE) <= 1  # its borders lie between two samples of the file


@pytest.mark.parametrize(
    ("report", "sentences", "texts"),
    [
        (
            "coqui-ai/STT#2321, pytorch/audio#2838, common-voice/common-voice#5189: an open quotation mark",
            ['"では、危険ですか？"と彼は言った。', '"Good-bye, said the boy.', "Yes.", 'He said "no".'],
            ['"では、危険ですか？"と彼は言った。', '"Good-bye, said the boy.', "Yes.", 'He said "no".'],
        ),
        (
            "common-voice/CorporaCreator#108: quoted twice, and empty",
            ['"""Good-bye,"" said the boy."', '""', " "],
            ['"Good-bye," said the boy.', None, None],
        ),
        (
            "common-voice/common-voice#4429: a tab inside a sentence",
            ["One.", "Two\ttoo many.", "Three."],
            ["One.", "Three."],
        ),
    ],
)
def test_a_sentence_of_common_voice(tmp_path: Path, report: str, sentences: list[str], texts: list[str | None]) -> None:
    for place in range(len(sentences)):
        soundfile.write(tmp_path / f"{place}.wav", spoken(), SAMPLE_RATE)
    rows = [f"speaker\t{place}.wav\t{sentence}\t2" for place, sentence in enumerate(sentences)]
    (tmp_path / "validated.tsv").write_text("\n".join(["client_id\tpath\tsentence\tup_votes", *rows, ""]))
    columns = {"id": "path", "audio": "path", "text": "sentence"}
    source = {"kind": "manifest", "corpus": "c", "manifest": str(tmp_path / "validated.tsv"), "columns": columns}
    dataset, _ = run_stages(tmp_path / "root", {"ingest": {"sources": [source]}})
    assert [row["reference_text"] for row in dataset.read("utterances").to_pylist()] == texts
    bad = rejects(dataset, "utterances")
    assert len(bad) == len(sentences) - len(texts)
    assert all(row["error_class"] == "bad_line" and "line 3" in row["message"] for row in bad.values()), report
