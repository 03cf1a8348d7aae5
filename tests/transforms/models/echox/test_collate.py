"""The batch of EchoX's trainer: exactly the one that the released collator makes, and rows of many shapes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from echo_targets.transforms.models.echox.collate import KDRow, collate_kd
from echo_targets.transforms.models.echox.config import EchoXConfig
from tests.transforms.tiny_echox import FIGURES, SPEC

CONFIG = EchoXConfig.model_validate(SPEC["config"])
PARTS = [128000, 128006], [128009, 128006], [128009, 128006, 78191]
ROW = KDRow([PARTS[0], PARTS[2]], [[5, 6, 7]], [8, 9, 13], [2, 1], [[3, 4], []])
TWO_TURNS = KDRow(PARTS, [[5], [6, 7]], [8], [1], [[3]])


def test_the_figures_of_the_release() -> None:
    rows = [
        KDRow(
            [row["prompt_before_audio"], row["prompt_after_audio"]],
            [row["asr_target_ids"]],
            row["response_token_ids"],
            row["sub_lengths"],
            row["unit_targets"],
        )
        for row in json.loads((FIGURES / "kd_rows.json").read_text())["rows"]
    ]
    batch = collate_kd(rows, CONFIG)
    expected = {
        name.removeprefix("kd/"): array for name, array in np.load(FIGURES / "expected.npz").items() if "kd/" in name
    }
    assert len(expected) == 6 and batch.keys() == expected.keys()
    for name, array in expected.items():
        assert batch[name].dtype == torch.int64
        np.testing.assert_array_equal(batch[name].numpy(), array, err_msg=name)


def test_several_turns_beside_one() -> None:
    audios = [torch.full((4, 6), float(turn)) for turn in (1, 2)]
    batch = collate_kd([replace(TWO_TURNS, audios=audios), replace(ROW, audios=audios[:1])], CONFIG)
    patch, end = CONFIG.audio_patch_id, CONFIG.pad_token_id
    first, between, last = PARTS
    assert batch["input_ids"].tolist() == [
        [*first, patch, *between, patch, *last, 8, 128009],
        [*first, patch, *last, 8, 9, 13, 128009, end],
    ]
    assert batch["labels"].tolist() == [[-100] * 9 + [8, -100], [-100] * 6 + [8, 9, 13, -100, -100]]
    assert batch["asr_targets"].tolist() == [[[5, -100, -100], [6, 7, -100]], [[5, 6, 7], [-100] * 3]]
    assert batch["sub_lengths"].tolist() == [[1, -1], [2, 1]]
    assert batch["assistant_after_audio_shifts"].tolist() == [3, 3]
    units = batch["unit_targets"][1, :, 6:].tolist()
    assert units == [[CONFIG.vocab_size + 3, CONFIG.vocab_size + 4, 128009], [128009, -100, -100]]
    assert batch["audios"][:, :, 0, 0].tolist() == [[1, 2], [1, 0]]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (replace(ROW, asr_targets=[[5], [6]]), "2 turns need 3 parts of a prompt"),
        (replace(ROW, audios=[]), "audios if any"),
        (replace(ROW, sub_lengths=[2, 2]), r"\[2, 2\] tokens with 2 lists of units do not match a reply of 3"),
        (replace(ROW, sub_lengths=[3]), "with 2 lists of units"),
        (replace(ROW, unit_targets=[[1200], []]), r"units must be in \[0, 1200\)"),
    ],
)
def test_rows_that_do_not_fit_are_refused(row: KDRow, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        collate_kd([row], CONFIG)


def test_audio_is_in_all_rows_or_in_none() -> None:
    with pytest.raises(ValueError, match="some rows have audio"):
        collate_kd([ROW, replace(ROW, audios=[torch.zeros(4, 6)])], CONFIG)


def test_a_decoder_of_words_of_units_is_refused_with_the_remedy() -> None:
    words = CONFIG.model_copy(update={"unit_spellings": {CONFIG.vocab_size: "_837_81_194"}})
    with pytest.raises(ValueError, match=r"words of units, .* hold single units\. .*train s2t"):
        collate_kd([ROW], words)
