"""Words of a text without times: each is found where it is spoken, whatever else the recording or the text has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.made_recordings import Clip, monologue, waveform_of
from echo_targets.jobs.commands.run import run_command
from echo_targets.schemas import SAMPLE_RATE
from echo_targets.schemas.dataset.check import check_dataset
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.errors import BadData
from echo_targets.transforms.models.aligners.hama import CtcAligner
from echo_targets.transforms.models.asr.voice_activity import Span, SpeechProbabilities, spans_of, speech_windows
from echo_targets.transforms.sources.timed_texts.base import Phrase
from echo_targets.transforms.stages.segment.untimed_text import WINDOW, _chain, _windows, words_in
from echo_targets.transforms.text import words_of

CONFIG = """folder: ???
root: ???
max_reject_fraction: 0.9
stages:
  segment:
    sources: [{kind: folder, corpus: talks, folder: "${folder}"}]
  ingest:
    sources: [{kind: cuts, root: "${root}-recordings", recordings: "${stages.segment.sources.0}"}]
"""
Made = tuple[np.ndarray, list[Clip]]


@pytest.fixture(scope="module")
def made(speech: list[dict[str, Any]]) -> Made:
    """More than a minute of clips with pauses: several windows."""
    return monologue([row for row in speech if row["duration"] > 3], 1.3, seed=3)


@pytest.fixture(scope="module")
def aligner() -> CtcAligner:
    found = CtcAligner()
    found.setup()
    return found


def speech_of(sound: np.ndarray) -> list[Span]:
    probabilities = SpeechProbabilities()
    probabilities.add(sound)
    return spans_of(speech_windows(probabilities.finish()), len(sound))


def found_in(sound: np.ndarray, text: str, aligner: CtcAligner) -> list[Phrase]:
    def load(spans: Sequence[Span]) -> list[np.ndarray]:
        return [sound[start:end] for start, end in spans]

    return words_in(text, speech_of(sound), load, load, aligner)


def misplaced(found: Sequence[Phrase], clips: Sequence[Clip], first: int = 0) -> int:
    """The number of words that are not within a fifth of a second of their clip; `first` samples come before all."""
    owners = [clip for clip in clips for _ in words_of(clip.text)]
    assert len(found) == len(owners)
    middles = [((phrase.start + phrase.end) / 2 - first) / SAMPLE_RATE for phrase in found]
    return sum(not clip.start - 0.2 <= middle <= clip.end + 0.2 for clip, middle in zip(owners, middles, strict=True))


def test_each_word_is_in_its_clip(made: Made, aligner: CtcAligner) -> None:
    sound, clips = made
    text = "  " + "\n".join(f"“{clip.text.capitalize()},”" for clip in clips) + "\n"
    found = found_in(sound, text, aligner)
    assert misplaced(found, clips) == 0  # by the middle of each word
    assert " ".join(phrase.text or "" for phrase in found).split() == text.split()
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_speech_that_is_not_in_the_text_gets_no_words(
    made: Made, speech: list[dict[str, Any]], aligner: CtcAligner
) -> None:
    """An introduction of 40 s, which the text leaves out, and one clip in the middle."""
    sound, clips = made
    used = {clip.id for clip in clips}
    others = [waveform_of(row) for row in speech if row["id"] not in used and row["duration"] > 3]
    introduction = np.concatenate(others)[: 40 * SAMPLE_RATE]
    whole = np.concatenate([introduction, np.zeros(SAMPLE_RATE, np.float32), sound])
    kept = [*clips[:3], *clips[4:]]
    found = found_in(whole, " ".join(clip.text for clip in kept), aligner)
    assert misplaced(found, kept, len(introduction) + SAMPLE_RATE) <= 3


def test_text_that_is_not_spoken_does_not_move_the_rest(made: Made, aligner: CtcAligner) -> None:
    sound, clips = made
    unspoken = "chapter seven in which nothing whatsoever happens to anybody but the reader " * 3
    texts = [clip.text for clip in clips]
    whole = " ".join([unspoken, *texts[:4], unspoken, *texts[4:]])
    found = found_in(sound, whole, aligner)
    assert " ".join(phrase.text or "" for phrase in found).split() == whole.split()  # nothing is lost
    after = " ".join(phrase.text or "" for phrase in found if phrase.start >= clips[5].start * SAMPLE_RATE)
    assert after.endswith(" ".join(texts[6:]))


def test_the_text_of_another_recording_is_rejected(
    made: Made, speech: list[dict[str, Any]], aligner: CtcAligner
) -> None:
    sound, clips = made
    used = {clip.id for clip in clips}
    other = " ".join(row["text"] for row in speech if row["id"] not in used)
    with pytest.raises(BadData, match="is it the text of another recording"):
        found_in(sound, other[:2000], aligner)


def test_a_short_recording_has_no_room_for_anchors(made: Made, aligner: CtcAligner) -> None:
    sound, clips = made
    end = round(clips[0].start * SAMPLE_RATE) + 12_000
    found = found_in(sound[:end], clips[0].text.split()[0], aligner)
    assert [phrase.text for phrase in found] == [clips[0].text.split()[0]]


def test_nothing_to_place(made: Made, aligner: CtcAligner) -> None:
    assert found_in(np.zeros(SAMPLE_RATE, np.float32), "no speech", aligner) == []
    assert found_in(made[0], "…", aligner) == []


@given(st.lists(st.tuples(st.integers(1, 60 * SAMPLE_RATE), st.integers(1, SAMPLE_RATE)), max_size=30))
def test_windows_hold_all_speech(lengths: list[tuple[int, int]]) -> None:
    speech, at = list[Span](), 0
    for length, pause in lengths:
        speech.append((at, at + length))
        at += length + pause
    windows = list(_windows(speech))
    assert all(sum(first <= start and end <= last for first, last in windows) == 1 for start, end in speech)
    for first, last in windows:
        assert last - first <= WINDOW or (first, last) in speech


@given(st.lists(st.integers(0, 12), max_size=40))
def test_the_chain_is_the_longest(places: list[int]) -> None:
    anchors = [(place, number) for number, place in enumerate(places)]
    chain = _chain(anchors)
    assert all(one[0] < other[0] and one[1] < other[1] for one, other in pairwise(chain))
    longest = [1] * len(places)
    for number, place in enumerate(places):
        longest[number] += max((longest[each] for each in range(number) if places[each] < place), default=0)
    assert len(chain) == max(longest, default=0)


def test_a_folder_with_texts_beside_its_recordings(made: Made, tmp_path: Path) -> None:
    """Through the command line: the cuts have the words that are spoken in them, and all of them."""
    sound, clips = made
    (tmp_path / "talks").mkdir()
    soundfile.write(tmp_path / "talks" / "talk.flac", sound, SAMPLE_RATE)
    text = "\n".join(clip.text for clip in clips)
    (tmp_path / "talks" / "talk.txt").write_text(text)
    soundfile.write(tmp_path / "talks" / "wrong.flac", sound[: 70 * SAMPLE_RATE], SAMPLE_RATE)
    (tmp_path / "talks" / "wrong.txt").write_text("quizzical zebras juxtapose foxy jazz vexing quartz " * 9)
    (tmp_path / "config.yaml").write_text(CONFIG)
    given = [f"folder={tmp_path}/talks", f"root={tmp_path}/root"]
    assert run_command(str(tmp_path / "config.yaml"), given, dry_run=False) == 0
    rows = sorted(Dataset(str(tmp_path / "root")).read("utterances").to_pylist(), key=lambda row: row["start_sample"])
    assert " ".join(row["reference_text"] for row in rows) == " ".join(text.split())
    owners = (clip for clip in clips for _ in clip.text.split())
    for row in rows:
        for _, clip in zip(row["reference_text"].split(), owners, strict=False):
            assert clip.start * SAMPLE_RATE < row["end_sample"] and row["start_sample"] < clip.end * SAMPLE_RATE
    for root in ("root", "root-recordings"):
        assert list(check_dataset(str(tmp_path / root))) == []
    (reject,) = Dataset(str(tmp_path / "root-recordings")).read("rejects").to_pylist()
    assert reject["error_class"] == "text_not_spoken" and "wrong.flac" in reject["message"]
