"""Filters as text: read by the column's type."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from echo_targets.jobs.export.conditions import parse
from echo_targets.schemas.errors import UserError

SCHEMA = pa.schema(
    [
        ("turn", pa.int16()),
        ("cer", pa.float32()),
        ("split", pa.string()),
        ("id", pa.string()),
        ("synthetic", pa.bool_()),
    ]
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("turn == 0", ("turn", "==", 0)),
        ("cer<=0.25", ("cer", "<=", 0.25)),
        ("split = train", ("split", "=", "train")),
        ('split != "train"', ("split", "!=", "train")),
        ("id == 01", ("id", "==", "01")),
        ("id == true", ("id", "==", "true")),
        ("id == a == b", ("id", "==", "a == b")),
        ("synthetic == false", ("synthetic", "==", False)),
        ("turn in 0, 2", ("turn", "in", [0, 2])),
        ("turn not  in [0, 2]", ("turn", "not in", [0, 2])),
        ("split in train,test clean", ("split", "in", ["train", "test clean"])),
        ('id in ["a, b"]', ("id", "in", ["a, b"])),
        ("id == in", ("id", "==", "in")),
        ("transcripts.wer_vs_reference > 1", ("transcripts.wer_vs_reference", ">", 1)),
    ],
)
def test_a_filter_is_read_by_the_columns_type(text: str, expected: Any) -> None:
    assert parse(text, SCHEMA) == expected


@pytest.mark.parametrize("text", ["", "turn", "turn ==", "turn ~ 0", "== 0", "turn within 3"])
def test_what_is_no_filter_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UserError, match="write `column operator value`, for example"):
        parse(text, SCHEMA)
