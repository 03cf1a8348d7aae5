"""Filters of a stream: conditions on columns, checked against the table's schema before any row is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from echo_targets.schemas.errors import UserError

Filter: TypeAlias = tuple[str, str, Any]
"""Column, operator and value; the value of `in` and `not in` is a list."""

ONE = ("==", "=", "!=", "<", "<=", ">", ">=")
SEVERAL = ("in", "not in")
LARGEST = 2**63 - 1


def expressions_of(filters: Sequence[Filter], schema: pa.Schema, table: str) -> dict[str, pads.Expression]:
    """Return each filter's condition, by the filter as text. A null fulfills none, not even `!=` and `not in`.

    Values are compared in a column's precision: the float32 nearest to 0.3 exceeds 0.3.

    Args:
        filters: conditions.
        schema: columns of the table.
        table: the table's name and place, for messages.

    Raises:
        UserError: a filter is malformed, its column or operator does not exist, or its value has the wrong type.
    """
    if not isinstance(filters, list | tuple) or not all(isinstance(e, list | tuple) and len(e) == 3 for e in filters):
        raise UserError(f'filters is {filters!r}; pass a list of filters like ("unit_error_rate", "<=", 0.3)')
    return {_text(each): _expression(each, schema, table) for each in filters}


def _expression(given: Filter, schema: pa.Schema, table: str) -> pads.Expression:
    name, operator, value = given
    if name not in schema.names:
        raise UserError(f"{table} has no column {name}; it has {', '.join(schema.names)}")
    if operator not in (*ONE, *SEVERAL):
        raise UserError(
            f"filter {_text(given)}: there is no operator {operator!r}; use one of {', '.join((*ONE, *SEVERAL))}"
        )
    kind = schema.field(name).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    wanted = _wanted(kind)
    if wanted is None:
        raise UserError(
            f"filter {_text(given)}: {name} is {kind}; a filter compares columns of strings, numbers or booleans"
        )
    is_list = isinstance(value, list | tuple | set | frozenset | np.ndarray) and len(value) > 0
    if operator in SEVERAL and not is_list:
        raise UserError(f"filter {_text(given)}: the value of {operator!r} is a list of at least one {wanted}")
    values = list(value) if operator in SEVERAL else [value]
    for each in values:
        if not _fits(each, wanted):
            raise UserError(
                f"filter {_text(given)}: {name} is compared with a {wanted}, not with {each!r}"
                + ("; a null passes no filter" if each is None else "")
            )
    stored = sorted(_as_stored(each, kind) for each in values)
    condition = pq.filters_to_expression([(name, operator, stored if operator in SEVERAL else stored[0])])
    return condition & pads.field(name).is_valid()


def _text(given: Filter) -> str:
    return repr(tuple(given))


def _wanted(kind: pa.DataType) -> str | None:
    """Return what values of a type are called, or None if they can't be compared."""
    if pa.types.is_boolean(kind):
        return "bool"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    return "string" if pa.types.is_string(kind) else None


def _fits(value: Any, wanted: str) -> bool:
    if wanted == "bool":
        return isinstance(value, bool | np.bool_)
    if wanted == "string":
        return isinstance(value, str)
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return is_number and bool(-LARGEST <= value <= LARGEST)  # False for NaN


def _as_stored(value: Any, kind: pa.DataType) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return np.float32(value).item() if pa.types.is_float32(kind) else value
