"""training/*: what each stage of echo training reads. Joined from the other tables, filtered, nothing new in them."""

import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import AUDIO, CATEGORY, KEY, Rule, Table, column
from schemas.echo_targets import ECHO_TARGETS
from schemas.rules import not_empty_rule, range_rule
from schemas.units import UNITS

S2T = Table(
    name="training/s2t",
    version="2.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("corpus", CATEGORY),
            column("split", CATEGORY),
            column("language", CATEGORY),
            column("speaker_id", pa.string(), nullable=True),
            column("audio", AUDIO),
            column("num_samples", pa.int64()),
            column("text", pa.string()),  # the reference where there is one, else the transcript
            column("response_text", pa.string(), nullable=True),  # the reply, where the turn was answered
            column("wer_vs_reference", pa.float32(), nullable=True),
            column("alignment_coverage", pa.float32(), nullable=True),
        ]
    ),
    rules=(not_empty_rule("text"), range_rule("num_samples", 1, 2**40)),
    unchecked=("audio.bytes",),
    row_group_rows=100,
)

T2C = Table(
    name="training/t2c",
    version="1.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("corpus", CATEGORY),
            column("split", CATEGORY),
            column("language", CATEGORY),
            column("speaker_id", pa.string(), nullable=True),
            column("text", pa.string()),
            *(UNITS.schema.field(name) for name in UNITS.columns if name not in (KEY, "layer", "hop_samples")),
        ]
    ),
    rules=(
        not_empty_rule("text"),
        *(rule for rule in UNITS.rules if rule.name != "hop_samples_range"),
        Rule(
            "units_present", "there is at least one unit", lambda rows: pc.equal(pc.list_value_length(rows["units"]), 0)
        ),
    ),
)

ECHO = Table(
    name="training/echo",
    version="1.0.0",
    schema=pa.schema(
        [
            *ECHO_TARGETS.schema,
            column("corpus", CATEGORY),
            column("split", CATEGORY),
            column("language", CATEGORY),
            column("audio", AUDIO),  # of the user's turn
            column("num_samples", pa.int64()),
            column("text", pa.string()),  # what the user said
        ]
    ),
    rules=(*ECHO_TARGETS.rules, not_empty_rule("text"), range_rule("num_samples", 1, 2**40)),
    unchecked=("audio.bytes",),
    row_group_rows=100,
)
