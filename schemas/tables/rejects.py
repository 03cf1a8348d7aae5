"""rejects: every row that a stage rejected, and why."""

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
        KEY: "key of the rejected row",
        "stage": "the stage that rejected it",
        "error_class": "short, stable reason for counting",
        "message": "explanation: the file, what is wrong, what to do",
        "attempts": "how often the row was processed on its own and failed",
    },
    rules=(
        not_empty_rule(KEY),
        not_empty_rule("stage"),
        not_empty_rule("error_class"),
        not_empty_rule("message"),
        range_rule("attempts", 1, 127),
    ),
)
