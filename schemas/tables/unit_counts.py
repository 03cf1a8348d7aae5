"""unit_counts: how often words of units occur in a shard of `units`; a unit language is fitted from these counts."""

import pyarrow as pa

from echo_targets.schemas.tables.base import KEY, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import lengths_rule, list_range_rule, not_increasing, range_rule

UNIT_COUNTS = Table(
    name="unit_counts",
    version="1.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("utterances", pa.int32()),
            column("words", list_of(pa.binary())),
            column("counts", list_of(pa.int64())),
        ]
    ),
    means={
        KEY: "first of the utterances whose units were counted",
        "utterances": "number of utterances whose units were counted",
        "words": "words in increasing order, each once; a word is a run of units as big-endian 16-bit integers",
        "counts": "number of occurrences of each word",
    },
    rules=(
        range_rule("utterances", 1, 2**31 - 1),
        Rule("words_increase", "words are in increasing order, each once", lambda rows: not_increasing(rows["words"])),
        lengths_rule("words", "counts"),
        list_range_rule("counts", 1, 2**62),
    ),
    row_group_rows=1,
)
