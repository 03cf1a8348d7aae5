"""Compare rows of two versions of a table column by column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from echo_targets.schemas.tables.base import CATEGORY


def plain_strings(rows: pa.Table) -> pa.Table:
    """Convert categories to strings, because dictionaries differ from file to file."""
    fields = [each.with_type(pa.string()) if each.type == CATEGORY else each for each in rows.schema]
    return rows.cast(pa.schema(fields)).combine_chunks()


def with_fields(rows: pa.Table) -> pa.Table:
    """Replace each struct column that has a value by its fields, as columns named `struct.field`."""
    empty = [name for name in rows.column_names if pa.types.is_struct(rows[name].type) and not _any(rows[name])]
    return rows.drop_columns(empty).flatten()


def _any(values: pa.ChunkedArray) -> bool:
    return values.null_count < len(values)


def differing(before: pa.Table, after: pa.Table, name: str) -> np.ndarray:
    """Return an (N,) bool mask of rows that differ in a column.

    Args:
        before, after: tables with N rows of the same keys in the same order.
        name: name of the column; if only one table has it, all rows differ.
    """
    there = [name in rows.column_names for rows in (before, after)]
    if not all(there) or before[name].equals(after[name]):
        return np.full(len(after), any(there) and not all(there))
    pairs = zip(before[name].to_pylist(), after[name].to_pylist(), strict=True)
    return np.fromiter((one != other for one, other in pairs), bool, len(after))
