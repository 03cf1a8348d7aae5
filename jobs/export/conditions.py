"""Conditions given as text, `column operator value`, with the meaning that they have when rows are loaded."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa

from echo_targets.schemas.errors import UserError
from echo_targets.transforms.loading.filters import ONE, SEVERAL, Filter

WRITTEN = re.compile(r"\s*([\w.]+?)\s*(==|!=|<=|>=|=|<|>|\bnot\s+in\b|\bin\b)\s*(.*?)\s*", re.DOTALL)


def parse(text: str, schema: pa.Schema) -> Filter:
    """Return the filter that a text describes.

    Args:
        text: such as `target_cer <= 0.1`, `split == train`, `corpus in ["calls", "books"]` or `turn in 0, 2`.
        schema: columns, with categories as strings. A value is read by its column's type: `01` may be a string.

    Raises:
        UserError: the text is not a filter. Columns and values are checked by `expressions_of`.
    """
    match = WRITTEN.fullmatch(text)
    if not match or not match[3]:
        raise UserError(
            f"filter {text!r}: write `column operator value`, for example 'target_cer <= 0.1'; operators are "
            f"{', '.join((*ONE, *SEVERAL))}"
        )
    name, operator, value = match[1], " ".join(match[2].split()), match[3]
    kind = schema.field(name).type if name in schema.names else pa.null()
    if operator not in SEVERAL:
        return name, operator, _value(value, kind)
    listed = _json(value)
    if isinstance(listed, list):
        return name, operator, listed
    return name, operator, [_value(each.strip(), kind) for each in value.split(",")]


def _value(text: str, kind: pa.DataType) -> Any:
    value = _json(text)
    return text if pa.types.is_string(kind) and not isinstance(value, str) else value


def _json(text: str) -> Any:
    """Return a JSON value, or text that is not JSON as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text
