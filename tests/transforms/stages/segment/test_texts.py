"""Which phrases of a timed text go to which channel, and what does not fit the recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from echo_targets.schemas import KEY, SAMPLE_RATE
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.sources.huggingface import HuggingFaceSource
from echo_targets.transforms.sources.manifest import ManifestSource
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.stages.segment.texts import check_channels, phrases_of_tracks

SECONDS = 20


def found(folder: Path, name: str, text: str, *channels: int) -> list[list[tuple[float, str | None, str | None]]]:
    """End, text and speaker of the phrases of each track."""
    (folder / name).write_text(text)
    source = ManifestSource(kind="manifest", corpus="c", manifest=str(folder / "m.jsonl"))
    entry: dict[str, Any] = {KEY: "call", "locator": "sub/file.wav", "timed_text": name}
    tracks = phrases_of_tracks(entry, source, SECONDS * SAMPLE_RATE, channels, ())
    return [[(each.end / SAMPLE_RATE, each.text, each.speaker) for each in track] for track in tracks]


TWO = "file A 1 1 yes\nfile B 3 1.5 no\n"


def test_channels_get_their_own_phrases(tmp_path: Path) -> None:
    assert found(tmp_path, "a.ctm", TWO, 0, 1) == [[(2, "yes", None)], [(4.5, "no", None)]]
    assert found(tmp_path, "a.ctm", TWO, 1) == [[(4.5, "no", None)]]


def test_in_a_mix_channels_tell_speakers_apart(tmp_path: Path) -> None:
    assert found(tmp_path, "a.ctm", TWO, -1) == [[(2, "yes", "0"), (4.5, "no", "1")]]
    assert found(tmp_path, "a.ctm", TWO.replace("B", "A"), -1) == [[(2, "yes", None), (4.5, "no", None)]]


def test_a_text_of_one_channel_is_that_of_the_channel_which_is_cut(tmp_path: Path) -> None:
    assert found(tmp_path, "a.ctm", "file 1 1 1 yes\n", 1) == [[(2, "yes", None)]]
    assert found(tmp_path, "a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nyes\n", 1) == [[(2, "yes", None)]]


def test_a_text_without_phrases_gives_none(tmp_path: Path) -> None:
    assert found(tmp_path, "a.vtt", "WEBVTT\n", 0, 1) == [[], []] and found(tmp_path, "a.vtt", "WEBVTT\n", -1) == [[]]


def test_a_phrase_that_ends_late_is_shortened(tmp_path: Path) -> None:
    assert found(tmp_path, "a.ctm", "file 1 19 7 yes\n", -1) == [[(SECONDS, "yes", None)]]


def test_the_recording_may_be_named_like_its_file(tmp_path: Path) -> None:
    assert found(tmp_path, "a.ctm", "file.wav 1 1 1 yes\n", -1) == [[(2, "yes", None)]]


DIARIZED = "SPEAKER file 1 1 1 <NA> <NA> ann <NA> <NA>\nSPEAKER file 1 3 1 <NA> <NA> bob <NA> <NA>\n"


def test_speakers_of_one_channel_are_told_apart_in_a_mix(tmp_path: Path) -> None:
    assert found(tmp_path, "a.rttm", DIARIZED, -1) == [[(2, None, "ann"), (4, None, "bob")]]


@pytest.mark.parametrize(
    ("name", "text", "channels", "says"),
    [
        ("a.ctm", "file 1 20 1 yes\n", (-1,), r"a\.ctm:1: starts at 20\.00 s, but the recording ends at 20\.00 s"),
        ("a.ctm", "file 1 1 1 yes\nfile 3 2 1 no\n", (0, 1), r"a\.ctm:2: names channel 3, but the recording has 2"),
        ("a.rttm", DIARIZED, (0, 1), r"a\.rttm:2: names a second speaker in channel 1, and none in another"),
        ("a.ctm", TWO, (2,), r"a\.ctm:1: names other channels than 3, which is cut: correct `channel`"),
        ("a.vtt", "WEBVTT\n\n00:01.000 --> 00:02.000\nyes\n", (0, 1), r"a\.vtt:3: names no channel"),
    ],
)
def test_what_does_not_fit_the_recording(
    tmp_path: Path, name: str, text: str, channels: tuple[int, ...], says: str
) -> None:
    with pytest.raises(BadData, match=says):
        found(tmp_path, name, text, *channels)


def test_phrases_that_are_spoken_in_another_channel() -> None:
    said = [[Phrase(0, 80, "a"), Phrase(200, 300, "b")], [Phrase(100, 180, "c")]]
    entry = {"timed_text": "texts/talk.stm"}
    check_channels(entry, said, [[(0, 90), (190, 290)], [(90, 180)]])
    check_channels(entry, said, [[], []])  # nothing is spoken: the text may be of music
    check_channels(entry, [[], []], [[(0, 90)], [(90, 180)]])
    check_channels(entry, said, [[(0, 300)], [(0, 300)]])  # both speak all the time
    with pytest.raises(
        BadData, match=r"talk.stm:0: of what it says in channel 1, 0% is spoken there and 100% in channel 2: correct"
    ):
        check_channels(entry, said, [[(90, 180)], [(0, 90), (190, 300)]])


def test_a_source_without_files_has_no_timed_texts() -> None:
    source = HuggingFaceSource(kind="huggingface", corpus="c", path="nowhere")
    entry: dict[str, Any] = {KEY: "call", "locator": "7", "timed_text": "a.srt"}
    with pytest.raises(BadData, match="which its source does not take: list it in a manifest"):
        phrases_of_tracks(entry, source, SAMPLE_RATE, (-1,), ())
