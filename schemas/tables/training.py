"""training/*: the training sets of the stages of echo training, joined from the other tables and filtered."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import (
    AUDIO,
    CATEGORY,
    KEY,
    ORIGIN,
    SOUND,
    SYSTEM,
    TURN,
    Rule,
    Table,
    column,
    list_of,
)
from echo_targets.schemas.tables.echo_targets import ECHO_TARGETS, SAME_SYSTEM
from echo_targets.schemas.tables.echo_targets import RULES as RULES_OF_REPLY
from echo_targets.schemas.tables.rules import (
    field_of,
    lengths,
    not_empty_rule,
    not_increasing,
    one_of_rule,
    outside,
    per_element,
    range_rule,
    rows_with,
    spans_beyond,
    spans_disordered,
    trimmed_rule,
)
from echo_targets.schemas.tables.targets import MEANS, ORIGINS, TARGET, rules_of_columns
from echo_targets.schemas.tables.units import UNITS

SAME_AUDIO = Rule(
    "num_samples_agree",
    "num_samples equals that of the utterance",
    lambda rows: pc.not_equal(rows["num_samples"], rows["utterances.num_samples"]),
)

S2T = Table(
    name="training/s2t",
    version="2.1.0",
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
            column("system_text", pa.string(), nullable=True),
            column("wer_vs_reference", pa.float32(), nullable=True),
            column("alignment_coverage", pa.float32(), nullable=True),
        ]
    ),
    means={
        **TURN,
        **ORIGIN,
        **SOUND,
        **SYSTEM,
        "text": "text of the speech: the reference if there is one, otherwise the transcript",
        "response_text": "text of the reply; null if the turn has none",
        "wer_vs_reference": "as in transcripts",
        "alignment_coverage": "coverage, as in alignments",
    },
    rules=(
        not_empty_rule("text"),
        trimmed_rule("system_text"),
        range_rule("num_samples", 1, 2**40),
        range_rule("wer_vs_reference", 0, 1e4),
        range_rule("alignment_coverage", 0, 1),
    ),
    cross_rules=(SAME_AUDIO, SAME_SYSTEM),
    unchecked=("audio.bytes",),
    row_group_rows=100,
)

OF_THE_TOKENIZER = ("layer", "sampling_rate", "hop_samples")
"""Tokenizer metadata; not copied into training sets."""


BORDER = pa.struct([column(name, pa.int32()) for name in ("char_start", "char_end", "frame")])


def _frames_outside(rows: pa.RecordBatch) -> pa.BooleanArray:
    frames = field_of(rows["borders"], "frame")
    return rows_with(rows["borders"], outside(frames, 1, per_element(rows["num_frames"], rows["borders"])))


T2C = Table(
    name="training/t2c",
    version="4.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("corpus", CATEGORY),
            column("split", CATEGORY),
            column("language", CATEGORY),
            column("speaker_id", pa.string(), nullable=True),
            column("text", pa.string()),
            *(UNITS.schema.field(name) for name in UNITS.columns if name not in (KEY, *OF_THE_TOKENIZER)),
            column("borders", list_of(BORDER)),
        ]
    ),
    means={
        **UNITS.means,
        **ORIGIN,
        "text": "text of the speech: the reference if there is one, otherwise the transcript",
        "borders": "positions between two words where text and units can be cut together: the text anywhere from "
        "char_start to char_end, in characters, and the units before the frame; empty without an alignment",
    },
    rules=(
        not_empty_rule("text"),
        *(rule for rule in UNITS.rules if rule.name.removesuffix("_range") not in OF_THE_TOKENIZER),
        Rule("units_present", "there is at least one unit", lambda rows: pc.equal(lengths(rows["durations"]), 0)),
        Rule(
            "borders_in_order",
            "borders do not overlap in the text, and none is before its first character",
            lambda rows: pc.or_(
                spans_disordered(rows["borders"], "char_start", "char_end"),
                rows_with(rows["borders"], pc.less(field_of(rows["borders"], "char_start"), 1)),
            ),
        ),
        Rule(
            "borders_inside_text",
            "borders leave at least one character of the text after them",
            lambda rows: spans_beyond(rows["borders"], "char_end", pc.subtract(pc.utf8_length(rows["text"]), 1)),
        ),
        Rule("borders_advance", "frames of borders increase", lambda rows: not_increasing(rows["borders"], "frame")),
        Rule("borders_inside_units", "frames of borders are in [1, num_frames - 1]", _frames_outside),
    ),
)

OF_TARGET = {field.name: field.name for field in TARGET} | {
    "units": "unit_targets",
    "durations": "unit_durations",
    "unit_words": "unit_target_words",
}
"""Columns of `training/echo` that hold the fields of the published target."""
OF_REPLY = [name for name in ECHO_TARGETS.columns if name not in ORIGINS]
"""Columns of `training/echo` that are as in `echo_targets`."""

ECHO = Table(
    name="training/echo",
    version="3.1.0",
    schema=pa.schema(
        [
            *(ECHO_TARGETS.schema.field(name) for name in OF_REPLY),
            column("target", CATEGORY),
            *(field.with_name(OF_TARGET[field.name]) for field in TARGET),
            column("corpus", CATEGORY),
            column("split", CATEGORY),
            column("language", CATEGORY),
            column("audio", AUDIO),
            column("num_samples", pa.int64()),
            column("text", pa.string()),
        ]
    ),
    means={
        **{name: ECHO_TARGETS.means[name] for name in OF_REPLY},
        "target": f"who says the units: {', '.join(ORIGINS)}",
        **{OF_TARGET[field]: means for field, means in MEANS.items()},
        **ORIGIN,
        **SOUND,
        "text": "text of the user's speech: the reference if there is one, otherwise the transcript",
    },
    rules=(
        *RULES_OF_REPLY,
        one_of_rule("target", tuple(ORIGINS)),
        *rules_of_columns(OF_TARGET),
        not_empty_rule("text"),
        range_rule("num_samples", 1, 2**40),
    ),
    cross_rules=(SAME_AUDIO, SAME_SYSTEM),
    unchecked=("audio.bytes",),
    row_group_rows=100,
)
