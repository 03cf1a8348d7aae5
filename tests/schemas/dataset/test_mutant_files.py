"""Schemas, metadata and files broken in every way that we could think of, with drawn tables: all found."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from echo_targets.schemas import TABLES
from echo_targets.schemas.tables.base import CATEGORY
from tests.schemas.dataset.drawn import FEW, FINGERPRINT, Draw, findings, shard
from tests.schemas.samples import arrow, parquet, samples

WIDER = {
    pa.string(): pa.large_string(),
    pa.binary(): pa.large_binary(),
    CATEGORY: pa.string(),
    pa.float32(): pa.float64(),
    pa.bool_(): pa.int8(),
    **{kind: pa.int64() for kind in (pa.int8(), pa.int16(), pa.int32())},
    pa.int64(): pa.int32(),
}


def chosen(draw: Draw, rows: pa.Table, fits: Callable[[pa.Field], bool] = lambda field: True) -> tuple[int, pa.Field]:
    """A column of a table that fits, and where it is."""
    positions = [position for position, field in enumerate(rows.schema) if fits(field)]
    assume(positions)
    position = draw(st.sampled_from(positions))
    return position, rows.schema.field(position)


def retyped(rows: pa.Table, at: int, field: pa.Field) -> pa.Table:
    return rows.set_column(at, field, rows.column(at).cast(field.type))


def without_a_column(draw: Draw, rows: pa.Table) -> pa.Table:
    return rows.remove_column(chosen(draw, rows)[0])


def with_a_column(draw: Draw, rows: pa.Table) -> pa.Table:
    return rows.add_column(draw(st.integers(0, rows.num_columns)), "mood", pa.array(["good"] * len(rows)))


def with_a_column_twice(draw: Draw, rows: pa.Table) -> pa.Table:
    at, field = chosen(draw, rows)
    return rows.add_column(at, field, rows.column(at))


def renamed(draw: Draw, rows: pa.Table) -> pa.Table:
    at, _ = chosen(draw, rows)
    return rows.rename_columns([f"{name}_" if place == at else name for place, name in enumerate(rows.column_names)])


def moved(draw: Draw, rows: pa.Table) -> pa.Table:
    order = draw(st.permutations(rows.column_names).filter(lambda names: names != rows.column_names))
    return rows.select(order)


def of_another_type(draw: Draw, rows: pa.Table) -> pa.Table:
    at, field = chosen(draw, rows, lambda field: field.type in WIDER)
    return retyped(rows, at, field.with_type(WIDER[field.type]))


def of_other_elements(draw: Draw, rows: pa.Table) -> pa.Table:
    at, field = chosen(draw, rows, lambda field: pa.types.is_list(field.type) and field.type.value_type in WIDER)
    wider = pa.field("element", WIDER[field.type.value_type], nullable=False)
    return retyped(rows, at, field.with_type(pa.list_(wider)))


def of_null_elements(draw: Draw, rows: pa.Table) -> pa.Table:
    at, field = chosen(draw, rows, lambda field: pa.types.is_list(field.type))
    return retyped(rows, at, field.with_type(pa.list_(field.type.value_field.with_nullable(True))))


def large_lists(draw: Draw, rows: pa.Table) -> pa.Table:
    at, field = chosen(draw, rows, lambda field: pa.types.is_list(field.type))
    return retyped(rows, at, field.with_type(pa.large_list(field.type.value_field)))


def small_categories(draw: Draw, rows: pa.Table) -> pa.Table:
    at, field = chosen(draw, rows, lambda field: pa.types.is_dictionary(field.type))
    return retyped(rows, at, field.with_type(pa.dictionary(pa.int8(), pa.string())))


def with_a_null(draw: Draw, rows: pa.Table) -> pa.Table:
    at, field = chosen(draw, rows, lambda field: not field.nullable)
    values = rows.column(at).to_pylist()
    values[draw(st.integers(0, len(values) - 1))] = None
    return rows.set_column(at, field.with_nullable(True), pa.array(values, field.type))


def that_may_be_null(draw: Draw, rows: pa.Table) -> pa.Table:
    at, field = chosen(draw, rows, lambda field: not field.nullable)
    return retyped(rows, at, field.with_nullable(True))


def never_null(draw: Draw, rows: pa.Table) -> pa.Table:
    at, field = chosen(draw, rows, lambda field: field.nullable)
    assume(not rows.column(at).null_count)
    return retyped(rows, at, field.with_nullable(False))


def a_row_twice(draw: Draw, rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows, rows.slice(draw(st.integers(0, len(rows) - 1)), 1)])


COLUMNS = {
    function.__name__.replace("_", " "): function
    for function in (
        without_a_column,
        with_a_column,
        with_a_column_twice,
        renamed,
        moved,
        of_another_type,
        of_other_elements,
        of_null_elements,
        large_lists,
        small_categories,
        with_a_null,
        that_may_be_null,
        never_null,
        a_row_twice,
    )
}


def valid(draw: Draw) -> tuple[str, pa.Table]:
    name = draw(st.sampled_from(sorted(TABLES)))
    return name, arrow(name, samples(name, draw(st.integers(2, 3)), draw(st.integers(0, 99))))


@pytest.mark.parametrize("mutant", COLUMNS)
@FEW
@given(data=st.data())
def test_a_broken_schema_is_found(mutant: str, data: st.DataObject) -> None:
    name, rows = valid(data.draw)
    assert findings(shard(name, COLUMNS[mutant](data.draw, rows)), name)


@pytest.mark.parametrize("about", ["schema_name", "schema_version", "fingerprint"])
@FEW
@given(data=st.data())
def test_broken_metadata_is_found(about: str, data: st.DataObject) -> None:
    name, rows = valid(data.draw)
    value = data.draw(st.sampled_from(["", *sorted(TABLES), "0.0.1", "9.0.0", "ffffffffffffffff"]))
    assume(value not in (name, TABLES[name].version))
    assert {finding.rule for finding in findings(shard(name, rows, **{about: value}), name)} == {"metadata"}


@FEW
@given(data=st.data())
def test_a_truncated_file_is_found(data: st.DataObject) -> None:
    name, rows = valid(data.draw)
    whole = shard(name, rows)
    assert findings(whole[: data.draw(st.integers(0, len(whole) - 1))], name)


@FEW
@given(data=st.data())
def test_a_file_of_another_table_is_found(data: st.DataObject) -> None:
    name, rows = valid(data.draw)
    other = data.draw(st.sampled_from(sorted(TABLES.keys() - {name})))
    assert findings(parquet(rows, TABLES[other], FINGERPRINT), other)
