"""rejects: every row that a stage refused, and why."""

import pyarrow as pa

from schemas.base import CATEGORY, KEY, Table, column
from schemas.rules import not_empty_rule, range_rule

REJECTS = Table(
    name="rejects",
    version="1.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("stage", CATEGORY),
            column("error_class", CATEGORY),
            column("message", pa.string()),
            column("attempts", pa.int8()),
        ]
    ),
    rules=(not_empty_rule(KEY), not_empty_rule("message"), range_rule("attempts", 1, 127)),
)
