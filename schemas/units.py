"""units: speech as runs of codebook entries, and as words of units."""

import pyarrow as pa
import pyarrow.compute as pc

from schemas.base import CATEGORY, KEY, Rule, Table, column, list_of
from schemas.rules import (
    equal_neighbours,
    lengths_rule,
    list_range_rule,
    not_empty_rule,
    outside,
    per_element,
    range_rule,
    rows_with,
    sums,
)


def _outside_codebook(rows: pa.RecordBatch) -> pa.BooleanArray:
    size = per_element(rows["codebook_size"], rows["units"])
    return rows_with(rows["units"], outside(pc.list_flatten(rows["units"]), 0, size))


def _frames_beside_audio(rows: pa.RecordBatch) -> pa.BooleanArray:
    samples, frames = rows["utterances.num_samples"], rows["num_frames"].cast(pa.int64())
    covered = pc.multiply(frames, rows["hop_samples"])
    last = pc.multiply(pc.subtract(frames, 1), rows["hop_samples"])
    return pc.fill_null(pc.or_(pc.less(covered, samples), pc.greater_equal(last, samples)), False)


UNITS = Table(
    name="units",
    version="1.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("codebook_id", CATEGORY),
            column("codebook_size", pa.int32()),
            column("layer", pa.int8()),
            column("hop_samples", pa.int16()),
            column("num_frames", pa.int32()),
            column("units", list_of(pa.int16())),
            column("durations", list_of(pa.uint16())),
            column("unit_words", list_of(pa.int32()), nullable=True),
            column("unit_language_id", CATEGORY, nullable=True),
        ]
    ),
    means={
        KEY: "the utterance that was cut into units",
        "codebook_id": "the codebook, by its encoder, layer, size and digest",
        "codebook_size": "K: units are 0 to K - 1",
        "layer": "blocks of the encoder before the features are taken",
        "hop_samples": "samples at 16 kHz a frame",
        "num_frames": "frames of the utterance, the last one perhaps in part",
        "units": "codebook entries, runs of equal ones collapsed",
        "durations": "frames of each unit",
        "unit_words": "the units as words of the unit language",
        "unit_language_id": "the unit language, by its digest",
    },
    rules=(
        not_empty_rule("codebook_id"),
        range_rule("codebook_size", 1, 32_767),
        range_rule("layer", 0, 127),
        range_rule("hop_samples", 1, 32_767),
        Rule("units_in_codebook", "units are in [0, codebook_size)", _outside_codebook),
        Rule(
            "units_collapsed",
            "no two units that follow each other are equal",
            lambda rows: equal_neighbours(rows["units"]),
        ),
        lengths_rule("units", "durations"),
        list_range_rule("durations", 1, 65_535),
        list_range_rule("unit_words", 0, 2**31 - 1),
        Rule(
            "durations_sum",
            "durations sum to num_frames",
            lambda rows: pc.not_equal(sums(rows["durations"]), rows["num_frames"].cast(pa.int64())),
        ),
        Rule(
            "unit_language_named",
            "unit_words and unit_language_id are both there or both absent",
            lambda rows: pc.xor(pc.is_null(rows["unit_words"]), pc.is_null(rows["unit_language_id"])),
        ),
    ),
    cross_rules=(
        Rule("frames_cover_audio", "num_frames is num_samples / hop_samples, rounded up", _frames_beside_audio),
    ),
)
