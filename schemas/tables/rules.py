"""Building blocks of rules that examine list columns without a Python loop over rows.

Each takes columns of a record batch and returns one value or one mask element per row.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import BLANK, Mask, Rule


def rows_with(lists: pa.ListArray, element_mask: pa.BooleanArray) -> pa.BooleanArray:
    """Mark rows with at least one marked list element."""
    return _marks(lists, pc.filter(pc.list_parent_indices(lists), element_mask))


def sums(lists: pa.ListArray) -> pa.Int64Array:
    """Return the sum of each row's list; 0 for an empty or null list."""
    ends = pc.cumulative_sum(lengths(lists))
    total = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(pc.list_flatten(lists).cast(pa.int64()))])
    starts = pc.subtract(ends, lengths(lists))
    return pc.subtract(pc.take(total, ends), pc.take(total, starts))


def lengths(lists: pa.ListArray) -> pa.Int64Array:
    """Return the length of each row's list; 0 for a null list."""
    return pc.fill_null(pc.list_value_length(lists), 0).cast(pa.int64())


def equal_neighbors(lists: pa.ListArray) -> pa.BooleanArray:
    """Mark rows in which two consecutive list elements are equal."""
    return _pairs(lists, pc.equal)


def equal_neighbors_in_all(tracks: pa.ListArray, count: pa.Array) -> pa.BooleanArray:
    """Mark rows in which, at some index, `count` of the row's lists have an element equal to the previous one.

    Args:
        tracks: a list of lists per row.
        count: a number per row.
    """
    lists = pc.list_flatten(tracks)
    values, parents = pc.list_flatten(lists), pc.list_parent_indices(lists)
    equal = pc.and_(pc.equal(parents[:-1], parents[1:]), pc.equal(values[:-1], values[1:]))
    at = pc.indices_nonzero(equal).cast(pa.int64())
    of = parents.take(at)
    starts = pc.subtract(pc.cumulative_sum(lengths(lists)), lengths(lists))
    row = pc.list_parent_indices(tracks).take(of)
    places = pc.value_counts(pc.add(pc.shift_left(row, 32), pc.subtract(at, starts.take(of))))
    row = pc.shift_right(pc.struct_field(places, "values"), 32)
    everywhere = pc.equal(pc.struct_field(places, "counts"), count.take(row).cast(pa.int64()))
    return _marks(tracks, row.filter(everywhere))


def not_increasing(lists: pa.ListArray, field: str | None = None) -> pa.BooleanArray:
    """Mark rows in which a list element, or a field of its structs, is not greater than that of the previous one."""
    return _pairs(lists, pc.greater_equal, field)


def _pairs(
    lists: pa.ListArray, broken: Callable[[pa.Array, pa.Array], pa.BooleanArray], field: str | None = None
) -> pa.BooleanArray:
    values = pc.list_flatten(lists) if field is None else field_of(lists, field)
    parents = pc.list_parent_indices(lists)
    same_row = pc.equal(parents[:-1], parents[1:])
    mask = pc.fill_null(pc.and_(same_row, broken(values[:-1], values[1:])), False)
    return _marks(lists, pc.filter(parents[1:], mask))


def _marks(lists: pa.ListArray, positions: pa.Int64Array) -> pa.BooleanArray:
    return pc.is_in(pa.array(range(len(lists)), pa.int64()), value_set=pc.unique(positions))


def field_of(lists: pa.ListArray, name: str) -> pa.Array:
    """Return one field of the structs in a list column, flattened."""
    return pc.struct_field(pc.list_flatten(lists), name)


def spans_disordered(lists: pa.ListArray, start: str, end: str) -> pa.BooleanArray:
    """Mark rows with a span that starts below 0, ends before it starts, or starts before the previous span ends.

    Spans without a start or an end are ignored.
    """
    starts, ends = field_of(lists, start), field_of(lists, end)
    timed = pc.and_(pc.is_valid(starts), pc.is_valid(ends))
    starts, ends, parents = (pc.filter(a, timed) for a in (starts, ends, pc.list_parent_indices(lists)))
    backwards = pc.filter(parents, pc.or_(pc.less(ends, starts), pc.less(starts, 0)))
    late = pc.filter(parents[1:], pc.and_(pc.equal(parents[1:], parents[:-1]), pc.less(starts[1:], ends[:-1])))
    return _marks(lists, pa.concat_arrays([backwards, late]))


def spans_empty(lists: pa.ListArray, start: str, end: str) -> pa.BooleanArray:
    """Mark rows with a span that does not end after its start. Spans without a start or an end are ignored."""
    return rows_with(lists, pc.fill_null(pc.greater_equal(field_of(lists, start), field_of(lists, end)), False))


def spans_beyond(lists: pa.ListArray, end: str, limit: pa.Array) -> pa.BooleanArray:
    """Mark rows with a span that ends after the row's limit."""
    return rows_with(lists, pc.fill_null(pc.greater(field_of(lists, end), per_element(limit, lists)), False))


def cuts_differ(lists: pa.ListArray, texts: pa.StringArray) -> pa.BooleanArray:
    """Mark rows with an item whose `symbol` differs from the row's text[char_start:char_end], in characters."""
    known = pc.fill_null(texts, "").to_pylist()
    fields = (field_of(lists, name).to_pylist() for name in ("symbol", "char_start", "char_end"))
    differs = [
        not 0 <= start <= end <= len(known[row]) or known[row][start:end] != symbol
        for row, symbol, start, end in zip(pc.list_parent_indices(lists).to_pylist(), *fields, strict=True)
    ]
    return rows_with(lists, pa.array(differs, pa.bool_()))


def outside(values: pa.Array, low: float, high: float | pa.Array) -> pa.BooleanArray:
    """Mark values below `low`, at or above `high`, or NaN."""
    mask = pc.or_(pc.less(values, low), pc.greater_equal(values, high))
    return pc.fill_null(pc.or_(mask, pc.is_nan(values)) if pa.types.is_floating(values.type) else mask, False)


def per_element(values: pa.Array, lists: pa.ListArray) -> pa.Array:
    """Repeat each row's value for every element of its list."""
    return pc.take(values, pc.list_parent_indices(lists))


def range_rule(name: str, low: float, high: float) -> Rule:
    """Return the rule that a numeric column is in [low, high]; null is allowed if the schema allows it."""

    def broken(rows: pa.RecordBatch) -> Mask:
        return pc.fill_null(_beyond(rows[name], low, high), False)

    return Rule(f"{name}_range", f"{name} is in [{low:g}, {high:g}]", broken)


def list_range_rule(name: str, low: float, high: float) -> Rule:
    """Return the rule that each element of a list column is in [low, high]."""

    def broken(rows: pa.RecordBatch) -> Mask:
        return rows_with(rows[name], pc.fill_null(_beyond(pc.list_flatten(rows[name]), low, high), False))

    return Rule(f"{name}_range", f"each of {name} is in [{low:g}, {high:g}]", broken)


def _beyond(values: pa.Array, low: float, high: float) -> pa.BooleanArray:
    mask = pc.or_(pc.less(values, low), pc.greater(values, high))
    return pc.or_(mask, pc.is_nan(values)) if pa.types.is_floating(values.type) else mask


def one_of_rule(name: str, allowed: tuple[str, ...]) -> Rule:
    """Return the rule that a category, or each of a list of categories, is one of the allowed words."""

    def broken(rows: pa.RecordBatch) -> Mask:
        values = rows[name]
        lists = values if pa.types.is_list(values.type) else None
        flat = pc.list_flatten(lists) if lists is not None else values
        unknown = pc.invert(pc.is_in(flat.cast(pa.string()), value_set=pa.array([*allowed, None], pa.string())))
        return unknown if lists is None else rows_with(lists, unknown)

    return Rule(f"{name}_known", f"{name} is one of {', '.join(allowed)}", broken)


def not_empty_rule(name: str) -> Rule:
    """Return the rule that a string column is never the empty string."""

    def broken(rows: pa.RecordBatch) -> Mask:
        return pc.equal(pc.utf8_length(rows[name].cast(pa.string())), 0)

    return Rule(f"{name}_present", f"{name} is not empty", broken)


def trimmed_rule(name: str) -> Rule:
    """Return the rule that a string column, if not null, is not empty and neither begins nor ends with `BLANK`."""

    def broken(rows: pa.RecordBatch) -> Mask:
        return untrimmed(rows[name])

    return Rule(f"{name}_trimmed", f"{name} is not empty, and neither begins nor ends with white space", broken)


def untrimmed(texts: pa.StringArray) -> pa.BooleanArray:
    """Mark texts that are empty, or begin or end with `BLANK`; null stays null."""
    trimmed = pc.utf8_trim(texts, characters=BLANK)
    return pc.or_(pc.equal(pc.binary_length(trimmed), 0), pc.not_equal(trimmed, texts))


def lengths_rule(name: str, *others: str) -> Rule:
    """Return the rule that a row's list columns, if not null, have equal lengths."""

    def broken(rows: pa.RecordBatch) -> Mask:
        wanted = lengths(rows[name])
        masks = [pc.and_(pc.is_valid(rows[other]), pc.not_equal(lengths(rows[other]), wanted)) for other in others]
        result = masks[0]
        for mask in masks[1:]:
            result = pc.or_(result, mask)
        return result

    have = "has" if len(others) == 1 else "have"
    return Rule(f"{name}_lengths", f"{', '.join(others)} {have} one entry for each entry of {name}", broken)


def unit_length_rule(name: str) -> Rule:
    """Return the rule that a row's list of floats, if not null, is a vector of length 1, within 0.5 %."""

    def broken(rows: pa.RecordBatch) -> Mask:
        vectors = rows[name]
        values = pc.list_flatten(vectors).cast(pa.float64())
        squares = pa.table({"row": pc.list_parent_indices(vectors), "square": pc.multiply(values, values)})
        sums = squares.group_by("row").aggregate([("square", "sum")])
        off = pc.invert(pc.less_equal(pc.abs(pc.subtract(sums["square_sum"], 1.0)), 0.01))  # NaN is off too
        marked = pc.is_in(pa.array(range(len(vectors)), pa.int64()), value_set=sums.filter(off)["row"].cast(pa.int64()))
        return pc.or_(marked, pc.fill_null(pc.equal(pc.list_value_length(vectors), 0), False))

    return Rule(f"{name}_unit", f"{name} is a vector of length 1", broken)
