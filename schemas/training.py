"""training/*: what each stage of echo training reads. Joined from the other tables, filtered, nothing new in them."""

import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import AUDIO, CATEGORY, KEY, ORIGIN, SOUND, TURN, Rule, Table, column
from schemas.echo_targets import ECHO_TARGETS
from schemas.rules import lengths, not_empty_rule, range_rule
from schemas.units import UNITS

SAME_AUDIO = Rule(
    "num_samples_agree",
    "num_samples is the utterance's",
    lambda rows: pc.not_equal(rows["num_samples"], rows["utterances.num_samples"]),
)

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
            column("text", pa.string()),
            column("response_text", pa.string(), nullable=True),
            column("wer_vs_reference", pa.float32(), nullable=True),
            column("alignment_coverage", pa.float32(), nullable=True),
        ]
    ),
    means={
        **TURN,
        **ORIGIN,
        **SOUND,
        "text": "what was said: the reference where there is one, else the transcript",
        "response_text": "the reply, where the turn was answered",
        "wer_vs_reference": "as in transcripts",
        "alignment_coverage": "coverage, as in alignments",
    },
    rules=(
        not_empty_rule("text"),
        range_rule("num_samples", 1, 2**40),
        range_rule("wer_vs_reference", 0, 1e4),
        range_rule("alignment_coverage", 0, 1),
    ),
    cross_rules=(SAME_AUDIO,),
    unchecked=("audio.bytes",),
    row_group_rows=100,
)

OF_THE_TOKENIZER = ("layer", "sampling_rate", "hop_samples")
"""Columns of units that tell how, and not what."""


def _t2c_from_1(rows: pa.Table) -> pa.Table:
    return UNITS.migrations["1.0.0"](rows).drop_columns(["sampling_rate"])


T2C = Table(
    name="training/t2c",
    version="2.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("corpus", CATEGORY),
            column("split", CATEGORY),
            column("language", CATEGORY),
            column("speaker_id", pa.string(), nullable=True),
            column("text", pa.string()),
            *(UNITS.schema.field(name) for name in UNITS.columns if name not in (KEY, *OF_THE_TOKENIZER)),
        ]
    ),
    means={
        **UNITS.means,
        **ORIGIN,
        "text": "what was said: the reference where there is one, else the transcript",
    },
    rules=(
        not_empty_rule("text"),
        *(rule for rule in UNITS.rules if rule.name.removesuffix("_range") not in OF_THE_TOKENIZER),
        Rule("units_present", "there is at least one unit", lambda rows: pc.equal(lengths(rows["durations"]), 0)),
    ),
    migrations={"1.0.0": _t2c_from_1},
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
            column("audio", AUDIO),
            column("num_samples", pa.int64()),
            column("text", pa.string()),
        ]
    ),
    means={
        **ECHO_TARGETS.means,
        **ORIGIN,
        **SOUND,
        "text": "what the user said",
    },
    rules=(*ECHO_TARGETS.rules, not_empty_rule("text"), range_rule("num_samples", 1, 2**40)),
    cross_rules=(SAME_AUDIO,),
    unchecked=("audio.bytes",),
    row_group_rows=100,
)
