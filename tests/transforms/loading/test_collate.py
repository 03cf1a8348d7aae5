"""Rows to batches: the released trainer's, from rows as the table has them; and a plain one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.schemas import KEY
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.assets import asset
from echo_targets.transforms.audio.waveforms import encode_flac
from echo_targets.transforms.errors import ModelError
from echo_targets.transforms.loading.collate import (
    collate_echox,
    collate_padded,
    collate_units,
    llama3_prompt,
    t2c_segments,
)
from echo_targets.transforms.loading.dataset import EchoTargetDataset
from echo_targets.transforms.models.echox.config import EchoXConfig
from echo_targets.transforms.models.echox.prompts import PromptTemplate
from echo_targets.transforms.models.t2c.model import character_tokenizer
from echo_targets.transforms.segments.rule import SegmentRule
from echo_targets.transforms.units.codebook import collapse
from tests.schemas.samples import Root, put_target, sample
from tests.transforms.tiny_echox import FIGURES, SPEC

CONFIG = EchoXConfig.model_validate(SPEC["config"])
PROMPT = llama3_prompt([2675, 527])


def streamed(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that were written to training/echo and read back in order."""
    Root(folder).put("training/echo", rows)
    read = [row for batch in EchoTargetDataset(str(folder), seed=None) for row in batch]
    return sorted(read, key=lambda row: row["utterance_id"])


def plain() -> dict[str, Any]:
    """A row of one codebook, whose dialogue has no system text."""
    return put_target(sample("training/echo")) | {"system_text": None}


def of_figures() -> list[dict[str, Any]]:
    names = ("asr_target_ids", "response_token_ids", "sub_lengths")
    figures = json.loads((FIGURES / "kd_rows.json").read_text())["rows"]
    return [
        put_target(sample("training/echo", number), units=[[units] for units in row["unit_targets"]], durations=None)
        | {name: row[name] for name in names}
        | {"system_text": None}
        for number, row in enumerate(figures)
    ]


def test_the_figures_of_the_release_from_rows_of_the_table(tmp_path: Path) -> None:
    batch = collate_echox(streamed(tmp_path, of_figures()), CONFIG, PROMPT)
    expected = {
        name.removeprefix("kd/"): array for name, array in np.load(FIGURES / "expected.npz").items() if "kd/" in name
    }
    assert len(expected) == 6 and batch.keys() == expected.keys()
    for name, array in expected.items():
        assert batch[name].dtype == torch.int64
        np.testing.assert_array_equal(batch[name].numpy(), array, err_msg=name)


def test_the_placeholder_may_stand_in_a_rendered_template() -> None:
    rows = of_figures()
    rendered = [CONFIG.audio_patch_id if each is None else each for each in PROMPT]
    batches = collate_echox(rows, CONFIG, rendered), collate_echox(rows, CONFIG, PROMPT)
    assert all(torch.equal(batches[0][name], batches[1][name]) for name in batches[1])


def test_another_tokenizer_keeps_the_segments(tmp_path: Path) -> None:
    tokenizer = character_tokenizer()

    def encode(text: str) -> Sequence[int]:
        ids: Sequence[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    given = plain() | {"response_text": "so it is", "segment_char_ends": [5, 8]}
    (row,) = streamed(tmp_path, [given])
    template = PromptTemplate.load(asset("embedded:prompts/nano.json"), tokenizer)
    config = CONFIG.model_copy(update={"audio_patch_id": tokenizer.get_vocab_size()})
    batch = collate_echox([row], config, template.ids(tokenizer, []), encode)
    assert batch["labels"][batch["labels"] >= 0].tolist() == [*encode("so it"), *encode(" is")]
    assert batch["sub_lengths"].tolist() == [[5, 3]]
    assert batch["asr_targets"].tolist() == [[encode("hello there you")]]
    assert batch["assistant_after_audio_shifts"].tolist() == [template.assistant_after_audio_shift]


def test_each_row_has_the_prompt_of_its_own_system_text() -> None:
    tokenizer = character_tokenizer()
    config = CONFIG.model_copy(update={"audio_patch_id": tokenizer.get_vocab_size()})
    placed = {"before_system": ["<assistant>"], "before_audio": ["<end>", "<user>"], "after_audio": ["<end>"]}
    template = PromptTemplate.model_validate({"id": "p", "after_reply": ["<end>"], **placed})
    texts = ["Be brief.", None, "Be kind, please."]
    rows = [plain() | {"system_text": text} for text in texts]
    batch = collate_echox(rows, config, lambda text: template.ids(tokenizer, [], text))
    for ids, text in zip(batch["input_ids"].tolist(), texts, strict=True):
        prompt = [config.audio_patch_id if each is None else each for each in template.ids(tokenizer, [], text)]
        assert ids[: len(prompt)] == prompt
    with pytest.raises(ValueError, match=r"utt-00000 has the system text 'Be brief\.', but the prompt is the same for"):
        collate_echox(rows, config, template.ids(tokenizer, []))
    without = PromptTemplate.load(asset("embedded:prompts/nano.json"), tokenizer)
    with pytest.raises(ModelError, match="has no place for the system text"):
        collate_echox(rows, config, lambda text: without.ids(tokenizer, [], text))


def test_audio_is_whispers_log_mel() -> None:
    import whisper

    pcm = (3000 * np.sin(np.arange(16_000) / 9)).astype(np.int16)
    row = plain() | {"audio": {"bytes": encode_flac(pcm), "path": "a.flac"}}
    audios = collate_echox([row, row], CONFIG, PROMPT, mels=80)["audios"]
    assert audios.shape == (2, 1, 80, 3000)
    padded = whisper.pad_or_trim((pcm / 32768).astype(np.float32))
    torch.testing.assert_close(audios[1, 0], whisper.log_mel_spectrogram(padded))
    long = row | {"audio": {"bytes": encode_flac(np.tile(pcm, 31)), "path": "a.flac"}}
    with pytest.raises(ValueError, match=r"utt-00000 has 31\.0 s of audio"):
        collate_echox([long], CONFIG, PROMPT, mels=80)


def test_what_does_not_fit_is_refused() -> None:
    row = plain()
    with pytest.raises(ValueError, match="utt-00000 has units of 3 codebooks, but EchoX learns one"):
        collate_echox([sample("training/echo") | {"system_text": None}], CONFIG, PROMPT)
    with pytest.raises(ValueError, match=r"utt-00000 replies to 2 turns.*filters="):
        collate_echox([row | {"user_audio_ids": ["a", "b"]}], CONFIG, PROMPT)
    with pytest.raises(ValueError, match="the prompt has 0 placeholders for audio"):
        collate_echox([row], CONFIG, [1, 2])
    with pytest.raises(ValueError, match="do not match a reply of 4"):
        collate_echox([row | {"sub_lengths": [1, 2]}], CONFIG, PROMPT)


FRAMES = st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=12)


@given(st.lists(st.lists(FRAMES, min_size=1, max_size=3), min_size=1, max_size=4), st.booleans())
def test_units_of_all_codebooks_as_frames_or_collapsed(
    replies: list[list[list[tuple[int, ...]]]], frames: bool
) -> None:
    """Against a statement of what each row's frames are, with and without the delays of MusicGen."""
    rows = []
    for reply in replies:
        cut = [collapse(np.array(segment, np.int32).reshape(-1, 3)) for segment in reply]
        units, durations = [list(runs.T) for runs, _ in cut], [times for _, times in cut]
        rows.append({KEY: "a", "unit_targets": units, "unit_durations": durations})
    read = [
        [
            [frame for frame, before in zip(segment, [None, *segment], strict=False) if frames or frame != before]
            for segment in reply
        ]
        for reply in replies
    ]
    for delays in ((), (0, 1, 2)):
        batch = collate_units(rows, frames, delays, padding=-7)
        for number, segments in enumerate(read):
            whole = [frame for segment in segments for frame in segment]
            assert batch["units_lengths"][number] == len(whole)
            assert batch["segment_lengths"][number].tolist()[: len(segments)] == [len(segment) for segment in segments]
            for codebook in range(3):
                found, mask = batch["units"][number, codebook], batch["units_mask"][number, codebook]
                delay = delays[codebook] if delays else 0
                assert found[mask].tolist() == [frame[codebook] for frame in whole]
                assert mask.tolist()[delay : delay + len(whole)] == [True] * len(whole)
                assert set(found[~mask].tolist()) <= {-7}


def test_units_of_other_tables_and_what_has_no_frames() -> None:
    row = sample("units", 0)
    batch = collate_units([row])
    assert batch["units"].shape == (1, row["num_codebooks"], row["num_frames"]) and "segment_lengths" not in batch
    with pytest.raises(ValueError, match=r"utt-00001 has units without durations.*target=recorded"):
        collate_units([sample("training/echo", 1)])
    assert collate_units([sample("training/echo", 1)], frames=False)["units"].tolist() == [[[1, 2, 1, 7]]]
    with pytest.raises(ValueError, match="the rows have 1, 3 codebooks"):
        collate_units([sample("training/echo", 0), put_target(sample("training/echo", 1))])
    with pytest.raises(ValueError, match="delays are"):
        collate_units([sample("training/echo", 0)], delays=(0, 1))


UNITS = st.lists(st.integers(0, 99), max_size=5)


@given(st.lists(st.none() | UNITS, min_size=1, max_size=5), st.booleans())
def test_padded_tensors_hold_the_lists(rows: list[list[int] | None], arrays: bool) -> None:
    batch = collate_padded(
        [{"flat": np.array(row, "i2") if arrays and row is not None else row} for row in rows], ["flat"]
    )
    lists = [row or [] for row in rows]
    padded, lengths, mask = batch["flat"], batch["flat_lengths"], batch["flat_mask"]
    assert padded.dtype == lengths.dtype == torch.int64
    assert padded.shape == mask.shape == (len(rows), max(map(len, lists)))
    assert lengths.tolist() == mask.sum(1).tolist() == [*map(len, lists)]
    assert [row[kept].tolist() for row, kept in zip(padded, mask, strict=True)] == lists
    assert (padded[~mask] == -100).all()


def test_padded_tensors_of_a_stream(tmp_path: Path) -> None:
    Root(tmp_path).put("training/t2c", [sample("training/t2c", number) for number in range(3)])
    (rows,) = EchoTargetDataset(str(tmp_path), "training/t2c", columns=["durations", "units"])
    batch = collate_padded(rows, ["durations"])
    found = [row[kept].tolist() for row, kept in zip(batch["durations"], batch["durations_mask"], strict=True)]
    assert sorted(found) == sorted(Dataset(str(tmp_path)).read("training/t2c")["durations"].to_pylist())
    with pytest.raises(ValueError, match="units has lists of lists: use collate_units"):
        collate_padded(rows, ["units"])


def test_a_reply_of_two_codebooks_in_segments() -> None:
    """Cut in characters or in another tokenizer's tokens; a run that a border falls into goes on in both segments."""
    row = {
        "text": "One, two. Three",
        "units": [[1, 1, 2], [7, 8, 8]],
        "durations": [2, 4, 3],
        "borders": [{"char_start": 4, "char_end": 5, "frame": 4}, {"char_start": 9, "char_end": 10, "frame": 6}],
    }
    rule = SegmentRule(lookahead=1, min_tokens=1, threshold=0.2)
    segments = t2c_segments(row, rule)
    assert [segment["text"] for segment in segments] == ["One,", " two.", " Three"]
    assert [[units.tolist() for units in segment["units"]] for segment in segments] == [
        [[1, 1], [7, 8]],
        [[1], [8]],
        [[2], [8]],
    ]
    assert [segment["durations"].tolist() for segment in segments] == [[2, 2], [2], [3]]
    words = [(0, 4), (4, 8), (8, 9), (9, 15)]
    assert [segment["text"] for segment in t2c_segments(row, rule, words)] == ["One, two.", " Three"]
    (whole,) = t2c_segments(row | {"borders": []}, rule)
    assert whole["text"] == row["text"] and whole["durations"].tolist() == row["durations"]
