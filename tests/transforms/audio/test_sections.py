"""Sections of one file in one pass: the same samples as section by section, whatever the container and the order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from echo_targets.schemas import SAMPLE_RATE
from echo_targets.transforms.audio.decode import blocks
from echo_targets.transforms.audio.sections import KEPT_SECONDS, Section, SectionReader
from echo_targets.transforms.audio.waveforms import Audio, BadAudio, Limits, load, load_sections, reader_of

LIMITS = Limits(0.1, 100)
SECTIONS = [
    (0, Section(0.5, 3.21)),
    (1, Section(2.0, 2.5)),
    (1, Section(3.7101, 4.0)),
    (0, Section(7.0, 0.3)),
    (-1, Section(6.9, 1.7)),
]


@pytest.fixture(scope="module")
def stereo(speech: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ten seconds of two clips, a channel each, in several containers and rates."""
    folder = tmp_path_factory.mktemp("stereo")
    clips = [np.resize(soundfile.read(row["audio"], dtype="float32")[0], 10 * SAMPLE_RATE) for row in speech[:2]]
    for name, rate in (("a.wav", 44_100), ("a.flac", 24_000), ("a.mp3", 48_000), ("a.ogg", 16_000)):
        soundfile.write(folder / name, soxr.resample(np.stack(clips, axis=1), SAMPLE_RATE, rate), rate)
    return folder


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_one_pass_gives_what_single_loads_give(stereo: Path, name: str) -> None:
    reader = reader_of(stereo / name)
    found = load_sections(reader, LIMITS, SECTIONS[:2]) + load_sections(reader, LIMITS, SECTIONS[2:])
    for (channel, section), audio in zip(SECTIONS, found, strict=True):
        assert isinstance(audio, Audio)
        alone = load(stereo / name, LIMITS, channel, section)
        assert (audio.pcm == alone.pcm).all() and audio.source_rate == alone.source_rate


def test_each_section_has_its_own_problem(stereo: Path) -> None:
    wanted = [
        (0, Section(1.0, 1.0)),
        (2, Section(1.0, 1.0)),
        (0, Section(1.5, 0.01)),
        (1, Section(2.0, 200.0)),
        (1, Section(3.0, 1.0)),
        (1, Section(9.0, 3.0)),
        (1, Section(50.0, 3.0)),
    ]
    found = load_sections(reader_of(stereo / "a.wav"), Limits(0.1, 100), wanted)
    classes = [each.error_class if isinstance(each, BadAudio) else "" for each in found]
    assert classes == ["", "no_channel", "too_short", "too_long", "", "section_outside", "section_outside"]


class Counting:
    """Decodes a file and counts how often it was opened."""

    def __init__(self, path: Path) -> None:
        self.path, self.opened = path, 0

    def __call__(self, start: float) -> Iterator[Any]:
        self.opened += 1
        return blocks(self.path, start)


def test_sections_in_order_are_one_pass(stereo: Path) -> None:
    """Also where the next section starts before the last one ends."""
    decode = Counting(stereo / "a.flac")
    reader = SectionReader(decode)
    for start in (0.0, 1.0, 0.9, 4.0, 3.0, 8.0):
        got = list[np.ndarray]()
        assert not reader.read([Section(start, 1.5)], lambda _, samples, rate: bool(got.append(samples)) or True)  # noqa: B023
        assert sum(map(len, got)) == 36_000
    assert decode.opened == 1


def test_a_section_far_back_starts_again(tmp_path: Path) -> None:
    rate = 8_000
    waveform = np.sin(np.arange(200 * rate) ** 1.2 / 900).astype(np.float32)
    soundfile.write(tmp_path / "long.flac", waveform, rate)
    decode = Counting(tmp_path / "long.flac")
    reader = SectionReader(decode)
    for start in (150.0, 150.0 - KEPT_SECONDS / 2, 10.0):
        got = list[np.ndarray]()
        assert not reader.read([Section(start, 2.0)], lambda _, samples, rate: bool(got.append(samples)) or True)  # noqa: B023
        expected = waveform[int(start * rate) : int((start + 2) * rate)]
        assert np.abs(np.concatenate(got)[:, 0] - expected).max() < 1e-3
    assert decode.opened == 2
    assert sum(len(block.samples) for block in reader._recent) < (KEPT_SECONDS + 80) * rate


def test_damage_spares_the_sections_before_it(stereo: Path, tmp_path: Path) -> None:
    data = (stereo / "a.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(data[: len(data) // 2])
    reader = reader_of(tmp_path / "cut.flac")
    first, last = load_sections(reader, LIMITS, [(0, Section(0.5, 2.0)), (0, Section(8.0, 1.0))])
    assert isinstance(first, Audio) and isinstance(last, BadAudio) and last.error_class == "truncated"
    (again,) = load_sections(reader, LIMITS, [(0, Section(1.0, 2.0))])
    assert isinstance(again, Audio)
