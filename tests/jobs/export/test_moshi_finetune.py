"""moshi-finetune, read as its loader reads it (finetune/data/dataset.py, interleaver.py; sphn's dataset_jsonl)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from echo_targets.jobs.export.moshi_finetune import MoshiFinetune
from echo_targets.jobs.export.resume import export
from echo_targets.schemas.errors import UserError
from tests.jobs.export.roots import RATE, Turns, alignment, pcm_of, root_of_turns
from tests.schemas.samples import Root, Row, sample

WINDOW = 10.0


def load(jsonl: Path) -> dict[str, tuple[np.ndarray, list[Any]]]:
    """Stereo samples and alignments of each dialogue, put together again from the loader's windows."""
    found: dict[str, tuple[np.ndarray, list[Any]]] = {}
    for line in jsonl.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        path = os.path.join(jsonl.resolve().parent, item["path"])
        samples, rate = soundfile.read(path, dtype="int16")
        assert rate == RATE and samples.shape[1] == 2 and len(samples) / rate == item["duration"]
        with open(os.path.splitext(path)[0] + ".json", encoding="ascii") as file:  # the locale's encoding
            alignments = json.load(file)["alignments"]
        words, start = list[Any](), 0.0
        while start < item["duration"]:
            first, last = bisected(alignments, start), bisected(alignments, start + WINDOW)
            words += alignments[first:last]
            start += WINDOW
        assert words == alignments, "each word is in one window"
        found[item["path"]] = samples, words
    return found


def bisected(alignments: list[Any], value: float) -> int:
    """As the interleaver searches; it finds nothing sensible if the words are not sorted."""
    low, high = 0, len(alignments)
    while low != high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if alignments[middle][1][0] < value else (low, middle)
    return low


def exported(root: Root, out: Path, *filters: str) -> dict[str, int]:
    return export(MoshiFinetune(root.dataset, None, filters), filters, str(out)).left_out


def pieces(turns: list[Row], samples: np.ndarray) -> list[int]:
    """Where each turn begins: each is found as it is in its channel, after the one before, and the other is silent."""
    starts, at = [], 0
    for turn in turns:
        own = pcm_of(turn["audio"]["bytes"])
        channel = 0 if turn["role"] == "assistant" else 1
        head = next(
            gap for gap in range(0, RATE) if np.array_equal(samples[at + gap : at + gap + len(own), channel], own)
        )
        assert not samples[at : at + head].any() and not samples[at + head : at + head + len(own), 1 - channel].any()
        starts.append(at + head)
        at += head + len(own)
    assert at == len(samples)
    return starts


def test_dialogues_are_on_one_time_axis_and_words_agree_with_the_sound(
    root: Root, turns: Turns, tmp_path: Path
) -> None:
    assert exported(root, tmp_path) == {}
    loaded = {path: one for jsonl in tmp_path.glob("*.jsonl") for path, one in load(jsonl).items()}
    assert len(loaded) == len(turns.dialogues)
    by_size = {sum(row["num_samples"] for row in rows): rows for rows in turns.dialogues.values()}
    for samples, words in loaded.values():
        rows = by_size[len(samples) - 3 * (RATE // 4)]
        expected = []
        for row, start in zip(rows, pieces(rows, samples), strict=True):
            if row["role"] == "assistant":
                text = row["reference_text"].split()
                times = [(item["start_sample"] + start, item["end_sample"] + start) for item in alignment(row)["items"]]
                expected += [(word, *time) for word, time in zip(text, times, strict=True)]
        assert [word for word, _, _ in words] == [word for word, *_ in expected]
        for (_, (first, last), speaker), (_, start, end) in zip(words, expected, strict=True):
            assert speaker == "SPEAKER_MAIN"
            assert abs(first * RATE - start) < 1 and abs(last * RATE - end) < 1


def test_bursts_are_heard_where_the_words_say(tmp_path: Path, turns: Turns) -> None:
    """Words that are tones: their onsets in the left channel are within 50 ms of the alignment's."""
    from echo_targets.transforms.audio.waveforms import encode_flac

    onsets = [0.1, 0.6, 1.0, 1.7]
    sound = np.zeros(2 * RATE, np.int16)
    for onset in onsets:
        sound[int(onset * RATE) : int((onset + 0.2) * RATE)] = 8000 * np.sin(np.arange(int(0.2 * RATE)) / 5)
    text = '"Wait," she said — no.'
    spans = [(1, 5), (8, 11), (12, 16), (19, 21)]
    items = [
        {"symbol": text[first:last], "char_start": first, "char_end": last, "start_sample": int(onset * RATE)}
        | {"end_sample": int((onset + 0.2) * RATE), "score": 1.0, "interpolated": False}
        for (first, last), onset in zip(spans, onsets, strict=True)
    ]
    user, reply = (dict(row) for row in turns.dialogues["plain-1"][:2])
    reply |= {
        "audio": {"bytes": encode_flac(sound), "path": "b.flac"},
        "num_samples": len(sound),
        "reference_text": text,
    }
    root = Root(tmp_path / "root")
    root.put("utterances", [user, reply])
    root.put("alignments", [alignment(user), alignment(reply) | {"items": items}])
    exported(root, tmp_path / "out")
    ((samples, words),) = load(tmp_path / "out" / "train.jsonl").values()
    assert [word for word, _, _ in words] == ['"Wait,"', "she", "said —", "no."]
    loud = np.abs(samples[:, 0]) > 1000
    for _, (first, last), _ in words:
        middle = int((first + last) / 2 * RATE)
        start = middle - np.argmin(np.convolve(loud[middle - RATE // 2 : middle][::-1], np.ones(80), "valid") > 0)
        assert abs(start / RATE - first) < 0.05


REASONS: list[tuple[str, Any]] = [
    ("a reply of its dialogue has no word alignment", lambda row: None),
    (
        "a reply of its dialogue has no word alignment",
        lambda row: row | {"items": [], "status": "failed", "reason": "noise", "coverage": 0.0},
    ),
    (
        "a reply of its dialogue has a word without times",
        lambda row: row | {"items": [row["items"][0] | {"start_sample": None, "end_sample": None}, *row["items"][1:]]},
    ),
]


@pytest.mark.parametrize(("reason", "change"), REASONS, ids=["none", "failed", "partial"])
def test_a_dialogue_without_words_is_left_out_with_the_reason(
    reason: str, change: Any, turns: Turns, tmp_path: Path
) -> None:
    root = root_of_turns(
        tmp_path / "root", turns, align=lambda row: change(row) if row["utterance_id"] == "plain-1-3" else row
    )
    assert exported(root, tmp_path / "out") == {reason: 4}
    assert len(load(tmp_path / "out" / "train.jsonl")) == 3


def test_a_users_alignment_is_not_needed(turns: Turns, tmp_path: Path) -> None:
    root = root_of_turns(
        tmp_path / "root", turns, align=lambda row: None if row["utterance_id"].endswith(("-0", "-2")) else row
    )
    assert exported(root, tmp_path / "out") == {}


def test_a_filter_leaves_whole_dialogues_out(root: Root, turns: Turns, tmp_path: Path) -> None:
    left_out = exported(root, tmp_path, "utterance_id != plain-1-2")
    assert left_out == {
        "left out by a filter": 1,
        "another turn of its dialogue has another split or is left out by a filter": 3,
    }
    assert len(load(tmp_path / "train.jsonl")) == 3


def test_utterances_of_no_dialogue_are_left_out(turns: Turns, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    lone = turns.rows[0] | {"utterance_id": "lone", "dialogue_id": None, "turn": None, "role": "narrator"}
    rows = [lone, *turns.dialogues["plain-1"]]
    root.put("utterances", rows)
    root.put("alignments", [alignment(row) for row in rows])
    assert exported(root, tmp_path / "out") == {"it belongs to no dialogue": 1}


def test_without_alignments_the_remedy_is_said(turns: Turns, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.put("utterances", turns.rows)
    with pytest.raises(UserError, match=r"no alignments of these utterances.*stage align"):
        exported(root, tmp_path / "out")


def entries_at(starts: list[float], channels: list[int], **more: Any) -> Any:
    """Entries that say that the turns of a dialogue are parts of one recording."""

    def entry(row: Row) -> Row:
        turn = {"start_seconds": starts[row["turn"]], "channel": channels[row["turn"]]}
        return sample("entries") | {"utterance_id": row["utterance_id"], "locator": row["dialogue_id"]} | turn | more

    return entry


def placed(turns: Turns, tmp_path: Path, entry: Any) -> tuple[np.ndarray, list[Any]]:
    root = root_of_turns(tmp_path / "root", turns, entry=entry)
    assert exported(root, tmp_path / "out", "dialogue_id == plain-1") == {"left out by a filter": 20}
    ((samples, words),) = load(tmp_path / "out" / "train.jsonl").values()
    return samples, words


@pytest.mark.parametrize("starts", [[3.0, 3.5, 9.25, 14.0], [3.0, 14.0, 9.25, 3.5]], ids=["in order", "crossed"])
def test_turns_of_one_recording_are_where_they_were(starts: list[float], turns: Turns, tmp_path: Path) -> None:
    """A reply interrupts the user, as recorded in two channels; the first turn starts at 3 s."""
    rows = turns.dialogues["plain-1"]
    samples, words = placed(turns, tmp_path, entries_at(starts, [1, 0, 1, 0]))
    for row, start in zip(rows, starts, strict=True):
        own, at = pcm_of(row["audio"]["bytes"]), round((start - 3.0) * RATE)
        np.testing.assert_array_equal(samples[at : at + len(own), 0 if row["turn"] % 2 else 1], own)
    assert words[0][1][0] == 0.5 and [word[1] for word in words] == sorted(word[1] for word in words)


NOT_RECORDED: list[tuple[list[float], list[int]]] = [
    ([0.0, 0.5, 9.0, 14.0], [-1, -1, -1, -1]),
    ([0.0, 9.0, 0.5, 14.0], [0, 1, 2, 3]),
]


@pytest.mark.parametrize(("starts", "channels"), NOT_RECORDED, ids=["one channel", "one speaker"])
def test_turns_that_have_each_others_voice_follow_each_other(
    starts: list[float], channels: list[int], turns: Turns, tmp_path: Path
) -> None:
    samples, _ = placed(turns, tmp_path, entries_at(starts, channels))
    assert len(samples) == sum(row["num_samples"] for row in turns.dialogues["plain-1"]) + 3 * (RATE // 4)


def test_turns_of_several_files_follow_each_other(turns: Turns, tmp_path: Path) -> None:
    entry = entries_at([0.0, 20.0, 40.0, 60.0], [-1] * 4)
    samples, _ = placed(turns, tmp_path, lambda row: entry(row) | {"locator": row["utterance_id"]})
    assert len(samples) < 20 * RATE


def test_dialogues_with_a_system_text_are_left_out(turns: Turns, tmp_path: Path) -> None:
    """The trainer has no place for one: its conditions crash a model without conditioners, such as Moshi."""
    told = Turns.__new__(Turns)
    told.dialogues = {
        name: [row | {"system_text": "Be kind." if name == "plain-1" else None} for row in rows]
        for name, rows in turns.dialogues.items()
    }
    assert exported(root_of_turns(tmp_path / "some", told), tmp_path / "out") == {"its dialogue has a system text": 4}
    told.dialogues = {
        name: [row | {"system_text": "Be kind."} for row in rows] for name, rows in turns.dialogues.items()
    }
    with pytest.raises(UserError, match="all utterances have a system text, for which moshi-finetune has no place"):
        exported(root_of_turns(tmp_path / "all", told), tmp_path / "none")
    assert not (tmp_path / "none").exists()
