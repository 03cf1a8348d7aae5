"""features: encoder features of a sample of frames, from which a codebook is fitted."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import CATEGORY, KEY, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import lengths, list_range_rule, not_empty_rule, not_increasing, range_rule

FINITE = 3e38


def _wrong_size(rows: pa.RecordBatch) -> pa.BooleanArray:
    expected = pc.multiply(lengths(rows["frames"]), rows["width"].cast(pa.int64()))
    return pc.not_equal(lengths(rows["features"]), expected)


FEATURES = Table(
    name="features",
    version="1.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("encoder", CATEGORY),
            column("layer", pa.int8()),
            column("hop_samples", pa.int16()),
            column("width", pa.int32()),
            column("frames", list_of(pa.int32())),
            column("features", list_of(pa.float32())),
        ]
    ),
    means={
        KEY: "the utterance whose frames were sampled",
        "encoder": "name of the encoder, such as whisper-tiny.en",
        "layer": "encoder blocks before the features are taken",
        "hop_samples": "samples per frame, at 16 kHz",
        "width": "numbers per frame",
        "frames": "indices of the sampled frames of the utterance, from 0",
        "features": "width numbers per frame, frame by frame",
    },
    rules=(
        not_empty_rule("encoder"),
        range_rule("layer", 0, 127),
        range_rule("hop_samples", 1, 32_767),
        range_rule("width", 1, 1 << 20),
        list_range_rule("frames", 0, 2**31 - 1),
        Rule(
            "frames_increase", "frames are in increasing order, each once", lambda rows: not_increasing(rows["frames"])
        ),
        Rule("features_size", "features has width numbers for each entry of frames", _wrong_size),
        list_range_rule("features", -FINITE, FINITE),
    ),
    row_group_rows=100,
)
