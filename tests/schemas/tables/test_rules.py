"""The building blocks against plain Python, on slices, empty and null lists, and no rows at all."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.schemas.tables.base import BLANK, CATEGORY, Rule, column, list_of
from echo_targets.schemas.tables.rules import (
    cuts_differ,
    equal_neighbors,
    equal_neighbors_in_all,
    field_of,
    lengths,
    lengths_rule,
    list_range_rule,
    not_empty_rule,
    not_increasing,
    one_of_rule,
    outside,
    per_element,
    range_rule,
    rows_with,
    spans_beyond,
    spans_disordered,
    sums,
    trimmed_rule,
    unit_length_rule,
)

SPAN = pa.struct([column("start", pa.int64(), nullable=True), column("end", pa.int64(), nullable=True)])
Lists = list[list[Any] | None]

small = st.integers(-2, 4)
lists_of_small = st.lists(st.none() | st.lists(small, max_size=5), max_size=8)
times = st.none() | st.integers(-1, 6)
span = st.integers(0, 6).map(lambda at: {"start": at, "end": at + 1}) | st.fixed_dictionaries(
    {"start": times, "end": times}
)
spans = st.lists(st.none() | st.lists(span, max_size=4), max_size=6)


def cut(data: st.DataObject, kind: pa.DataType, rows: Lists) -> tuple[pa.Array, Lists]:
    """An array that is a slice of a record batch's column, as the check sees it, and its rows."""
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    batch = pa.RecordBatch.from_arrays([pa.array(rows, list_of(kind))], ["lists"])
    return batch.slice(start, stop - start)["lists"], rows[start:stop]


def agree(block: Callable[[pa.ListArray], pa.Array], oracle: Callable[[list[Any]], Any]) -> Callable[..., None]:
    def compare(data: st.DataObject, rows: Lists, kind: pa.DataType) -> None:
        array, expected = cut(data, kind, rows)
        assert block(array).to_pylist() == [oracle(row or []) for row in expected]

    return compare


@given(st.data(), lists_of_small)
def test_rows_with(data: st.DataObject, rows: Lists) -> None:
    block = lambda lists: rows_with(lists, pc.greater(pc.list_flatten(lists), 3))  # noqa: E731
    agree(block, lambda row: any(value > 3 for value in row))(data, rows, pa.int16())


@given(st.data(), st.lists(st.lists(st.lists(st.integers(0, 1), max_size=6), max_size=3), max_size=8))
def test_equal_neighbors_in_all(data: st.DataObject, rows: Lists) -> None:
    """Also of lists of unequal lengths, and of more or fewer than are asked for."""
    array, expected = cut(data, list_of(pa.int16()), rows)
    counts = [data.draw(st.sampled_from([max(1, len(row or [])), 1, 2])) for row in expected]
    found = equal_neighbors_in_all(array, pa.array(counts, pa.int8())).to_pylist()
    for row, count, marked in zip(expected, counts, found, strict=True):
        equal = [place for track in row or [] for place, pair in enumerate(pairwise(track)) if pair[0] == pair[1]]
        assert marked == any(equal.count(place) == count for place in equal)


@given(st.data(), lists_of_small)
def test_sums_and_lengths(data: st.DataObject, rows: Lists) -> None:
    agree(sums, sum)(data, rows, pa.int16())
    agree(lengths, len)(data, rows, pa.int16())


def test_sums_do_not_overflow_the_element_type() -> None:
    durations = pa.array([[65_535] * 40_000, [1]], list_of(pa.uint16()))
    assert sums(durations).to_pylist() == [65_535 * 40_000, 1]


@given(st.data(), lists_of_small)
def test_equal_neighbors(data: st.DataObject, rows: Lists) -> None:
    agree(equal_neighbors, lambda row: any(a == b for a, b in pairwise(row)))(data, rows, pa.int16())


@given(st.data(), lists_of_small)
def test_not_increasing(data: st.DataObject, rows: Lists) -> None:
    agree(not_increasing, lambda row: any(a >= b for a, b in pairwise(row)))(data, rows, pa.int32())


def disordered(row: list[dict[str, Any]]) -> bool:
    """Untimed spans say nothing, and do not hide that those around them overlap."""
    timed = [span for span in row if None not in span.values()]
    backwards = any(span["end"] < span["start"] or span["start"] < 0 for span in timed)
    return backwards or any(after["start"] < before["end"] for before, after in pairwise(timed))


@given(st.data(), spans)
def test_spans_disordered(data: st.DataObject, rows: Lists) -> None:
    agree(lambda lists: spans_disordered(lists, "start", "end"), disordered)(data, rows, SPAN)


def test_an_untimed_span_does_not_hide_an_overlap() -> None:
    row = [{"start": 0, "end": 10}, {"start": None, "end": None}, {"start": 5, "end": 12}]
    assert spans_disordered(pa.array([row], list_of(SPAN)), "start", "end").to_pylist() == [True]


def test_a_span_of_the_next_row_is_not_an_overlap() -> None:
    rows = [[{"start": 5, "end": 9}], [{"start": 0, "end": 3}]]
    assert spans_disordered(pa.array(rows, list_of(SPAN)), "start", "end").to_pylist() == [False, False]


@given(st.data(), spans, st.lists(st.none() | st.integers(0, 5), min_size=6, max_size=6))
def test_spans_beyond(data: st.DataObject, rows: Lists, limits: list[int | None]) -> None:
    start = data.draw(st.integers(0, len(rows)))
    batch = pa.RecordBatch.from_arrays(
        [pa.array(rows, list_of(SPAN)), pa.array(limits[: len(rows)], pa.int64())], ["lists", "limit"]
    ).slice(start)
    expected = [
        limit is not None and any(span["end"] is not None and span["end"] > limit for span in row or [])
        for row, limit in zip(rows[start:], limits[start:], strict=False)
    ]
    assert spans_beyond(batch["lists"], "end", batch["limit"]).to_pylist() == expected


WORD = pa.struct([column("symbol", pa.string()), column("char_start", pa.int32()), column("char_end", pa.int32())])
text_of_three = st.text("aé👍 \u200d", max_size=6)
word = st.builds(
    lambda symbol, start, longer: {"symbol": symbol, "char_start": start, "char_end": start + len(symbol) + longer},
    st.text("aé👍", max_size=3),
    st.integers(-1, 6),
    st.sampled_from([0, 0, 0, -1, 1]),
)


@given(st.data(), st.lists(st.tuples(st.none() | text_of_three, st.none() | st.lists(word, max_size=4)), max_size=6))
def test_cuts_differ(data: st.DataObject, rows: list[tuple[str | None, Any]]) -> None:
    for text, words in rows:  # some that are as they should be
        for item in words or []:
            if text and data.draw(st.booleans()):
                start = data.draw(st.integers(0, len(text)))
                end = data.draw(st.integers(start, len(text)))
                item.update(symbol=text[start:end], char_start=start, char_end=end)
    start = data.draw(st.integers(0, len(rows)))
    columns = [pa.array([text for text, _ in rows], pa.string()), pa.array([row for _, row in rows], list_of(WORD))]
    batch = pa.RecordBatch.from_arrays(columns, ["texts", "lists"]).slice(start)

    def differs(text: str, item: dict[str, Any]) -> bool:
        inside = 0 <= item["char_start"] <= item["char_end"] <= len(text)
        return not inside or text[item["char_start"] : item["char_end"]] != item["symbol"]

    expected = [any(differs(text or "", item) for item in row or []) for text, row in rows[start:]]
    assert cuts_differ(batch["lists"], batch["texts"]).to_pylist() == expected


@pytest.mark.parametrize("blank", BLANK)
def test_a_trimmed_text_has_no_blank_around_it(blank: str) -> None:
    texts = ["a", None, "", blank, f"{blank}a", f"a{blank}", f"a{blank}b"]
    rows = pa.RecordBatch.from_arrays([pa.array(texts, pa.string())], ["text"])
    assert trimmed_rule("text").broken(rows).to_pylist() == [False, None, True, True, True, True, False]


def test_white_space_is_blank() -> None:
    assert all(chr(code) in BLANK for code in range(0x110000) if chr(code).isspace())


def test_nested_slices() -> None:
    """Lists of lists, cut at the outer list, as in the echo targets' segments."""
    nested = pa.array([[[9]], None, [[1, 1], []], [[2], [3, 4, 4]], []], list_of(list_of(pa.int16())))[1:4]
    inner = pc.list_flatten(nested)
    assert inner.to_pylist() == [[1, 1], [], [2], [3, 4, 4]]
    assert equal_neighbors(inner).to_pylist() == [True, False, False, True]
    assert rows_with(nested, equal_neighbors(inner)).to_pylist() == [False, True, True]
    assert sums(inner).to_pylist() == [2, 0, 2, 11]


def test_field_of_and_per_element_on_a_slice() -> None:
    rows = [[{"start": 1, "end": 2}], [{"start": 3, "end": 4}, {"start": 5, "end": None}], []]
    batch = pa.RecordBatch.from_arrays([pa.array(rows, list_of(SPAN)), pa.array([7, 8, 9])], ["lists", "value"])[1:]
    assert field_of(batch["lists"], "end").to_pylist() == [4, None]
    assert per_element(batch["value"], batch["lists"]).to_pylist() == [8, 8]


@pytest.mark.parametrize(
    ("value", "expected"), [(-0.1, True), (0.0, False), (0.9, False), (1.0, True), (math.nan, True), (None, False)]
)
def test_outside(value: float | None, expected: bool) -> None:
    assert outside(pa.array([value], pa.float32()), 0, 1).to_pylist() == [expected]


def test_outside_with_a_limit_for_each_value() -> None:
    assert outside(pa.array([4, 5, -1, 5]), 0, pa.array([5, 5, 5, None])).to_pylist() == [False, True, True, False]


def marked(rule: Rule, kind: pa.DataType, values: list[Any]) -> list[bool]:
    """What a rule on column `x` says of values, asked in one batch, in slices of one row, and of no rows."""
    batch = pa.RecordBatch.from_arrays([pa.array(values, kind)], ["x"])
    whole = pc.fill_null(rule.broken(batch), False).to_pylist()
    assert [pc.fill_null(rule.broken(batch.slice(i, 1)), False).to_pylist()[0] for i in range(len(values))] == whole
    assert rule.broken(batch.slice(0, 0)).to_pylist() == []
    return whole


@pytest.mark.parametrize(
    ("rule", "kind", "values", "expected"),
    [
        (range_rule("x", 0, 1), pa.float32(), [0, 1, 1.01, -0.01, math.nan, None], [0, 0, 1, 1, 1, 0]),
        (range_rule("x", 1, 32_767), pa.int16(), [1, 0, -5, 32_767, None], [0, 1, 1, 0, 0]),
        (range_rule("x", -1, 127), pa.int8(), [-2, -1, 127], [1, 0, 0]),
        (range_rule("x", 1, 2**40), pa.int64(), [2**40, 2**40 + 1], [0, 1]),
        (list_range_rule("x", 1, 9), list_of(pa.uint16()), [[1, 9], [0], [], None, [5, 10]], [0, 1, 0, 0, 1]),
        (list_range_rule("x", -1, 0), list_of(pa.float32()), [[-0.5], [0.1], [math.nan], [-2.0]], [0, 1, 1, 1]),
        (one_of_rule("x", ("a", "b")), CATEGORY, ["a", "c", "", None, "b"], [0, 1, 1, 0, 0]),
        (one_of_rule("x", ("a", "b")), list_of(CATEGORY), [["a"], ["a", "c"], [], None], [0, 1, 0, 0]),
        (not_empty_rule("x"), pa.string(), ["a", "", None, " "], [0, 1, 0, 0]),
        (not_empty_rule("x"), CATEGORY, ["a", "", None, "b"], [0, 1, 0, 0]),
    ],
)
def test_rules_of_one_column(rule: Rule, kind: pa.DataType, values: list[Any], expected: list[int]) -> None:
    assert marked(rule, kind, values) == [bool(value) for value in expected]


def test_lengths_rule_looks_at_every_other_list_and_lets_nulls_pass() -> None:
    rule = lengths_rule("x", "y", "z")
    rows = pa.RecordBatch.from_arrays(
        [
            pa.array([[1, 2], [1], [1], [], [1, 2]], list_of(pa.int32())),
            pa.array([["a", "b"], ["a"], [], [], ["a", "b"]], list_of(pa.string())),
            pa.array([None, [[1]], [[1]], [[]], [[], [1], []]], pa.list_(pa.list_(pa.int16()))),
        ],
        ["x", "y", "z"],
    )
    assert rule.broken(rows).to_pylist() == [False, False, True, True, True]
    assert rule.broken(rows.slice(3, 1)).to_pylist() == [True]
    assert rule.broken(rows.slice(0, 0)).to_pylist() == []


VECTORS: list[tuple[list[float] | None, bool]] = [
    ([1.0], False),
    ([0.6, -0.8], False),
    (None, False),
    ([0.5001, 0.5, 0.5, 0.5], False),
    ([], True),
    ([0.6, 0.79], True),
    ([0.0, 0.0], True),
    ([math.nan, 1.0], True),
    ([1.5], True),
    ([math.inf], True),
    ([0.0, 1.0], False),  # what comes after a NaN is looked at by itself
]


@given(st.data(), st.lists(st.sampled_from(VECTORS), max_size=9))
def test_unit_length(data: st.DataObject, rows: list[tuple[list[float] | None, bool]]) -> None:
    lists, left = cut(data, pa.float32(), [vector for vector, _ in rows])
    expected = {str(vector): broken for vector, broken in VECTORS}
    found = unit_length_rule("v").broken(pa.RecordBatch.from_arrays([lists], ["v"]))
    assert pc.fill_null(found, False).to_pylist() == [expected[str(vector)] for vector in left]
