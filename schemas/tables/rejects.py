"""rejects: every row that a stage refused, and why."""

import pyarrow as pa

from echo_targets.schemas.tables.base import CATEGORY, KEY, Table, column
from echo_targets.schemas.tables.rules import not_empty_rule, range_rule

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
    means={
        KEY: "the row that was refused",
        "stage": "the stage that refused it",
        "error_class": "a short, stable word to count by",
        "message": "for a person: the file, what is wrong, what to do",
        "attempts": "how often the row failed by itself",
    },
    rules=(
        not_empty_rule(KEY),
        not_empty_rule("stage"),
        not_empty_rule("error_class"),
        not_empty_rule("message"),
        range_rule("attempts", 1, 127),
    ),
)
