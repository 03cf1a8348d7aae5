"""units: speech as collapsed codebook entries, and as words of units."""

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas.tables.base import CATEGORY, KEY, LARGEST_CODEBOOK, SAMPLE_RATE, Rule, Table, column, list_of
from echo_targets.schemas.tables.rules import (
    equal_neighbors_in_all,
    lengths,
    list_range_rule,
    not_empty_rule,
    outside,
    per_element,
    range_rule,
    rows_with,
    sums,
)


def _outside_codebook(rows: pa.RecordBatch) -> pa.BooleanArray:
    codebooks = pc.list_flatten(rows["units"])
    size = per_element(per_element(rows["codebook_size"], rows["units"]), codebooks)
    return rows_with(rows["units"], rows_with(codebooks, outside(pc.list_flatten(codebooks), 0, size)))


def _of_another_length(rows: pa.RecordBatch) -> pa.BooleanArray:
    runs = per_element(lengths(rows["durations"]), rows["units"])
    return rows_with(rows["units"], pc.not_equal(lengths(pc.list_flatten(rows["units"])), runs))


def _wrong_num_frames(rows: pa.RecordBatch) -> pa.BooleanArray:
    # Integer arithmetic in ticks of 1 / (16000 x sampling_rate) s; a frame and the audio are whole numbers of ticks.
    audio = pc.multiply(rows["utterances.num_samples"], rows["sampling_rate"].cast(pa.int64()))
    frame = pc.multiply(rows["hop_samples"].cast(pa.int64()), SAMPLE_RATE)
    frames = rows["num_frames"].cast(pa.int64())
    covered = pc.multiply(frames, frame)
    last = pc.multiply(pc.subtract(frames, 1), frame)
    return pc.fill_null(pc.or_(pc.less(covered, audio), pc.greater_equal(last, audio)), False)


UNITS = Table(
    name="units",
    version="3.0.0",
    schema=pa.schema(
        [
            column(KEY, pa.string()),
            column("codebook_id", CATEGORY),
            column("codebook_size", pa.int32()),
            column("num_codebooks", pa.int8()),
            column("layer", pa.int8(), nullable=True),
            column("sampling_rate", pa.int32()),
            column("hop_samples", pa.int16()),
            column("num_frames", pa.int32()),
            column("units", list_of(list_of(pa.int32()))),
            column("durations", list_of(pa.int32())),
            column("unit_words", list_of(pa.int32()), nullable=True),
            column("unit_language_id", CATEGORY, nullable=True),
        ]
    ),
    means={
        KEY: "the utterance that was tokenized",
        "codebook_id": "the codebook: its origin, size and digest",
        "codebook_size": "K: units of each codebook are 0 to K - 1",
        "num_codebooks": "units per frame, one from each codebook",
        "layer": "encoder blocks before the features are taken; null if there is no encoder",
        "sampling_rate": "sampling rate of the tokenizer in Hz, to which hop_samples refers",
        "hop_samples": "samples per frame, at sampling_rate",
        "num_frames": "frames of the utterance; the last one may be partial",
        "units": "collapsed units, one list per codebook: consecutive frames equal in all codebooks are merged",
        "durations": "number of frames of each collapsed unit",
        "unit_words": "the units of a single codebook as words of the unit language",
        "unit_language_id": "the unit language: its digest",
    },
    rules=(
        not_empty_rule("codebook_id"),
        range_rule("codebook_size", 1, LARGEST_CODEBOOK),
        range_rule("num_codebooks", 1, 127),
        range_rule("layer", 0, 127),
        range_rule("sampling_rate", 1, 768_000),
        range_rule("hop_samples", 1, 32_767),
        Rule(
            "units_codebooks",
            "units has one list for each codebook",
            lambda rows: pc.not_equal(lengths(rows["units"]), rows["num_codebooks"].cast(pa.int64())),
        ),
        Rule("units_lengths", "each codebook has one unit for each entry of durations", _of_another_length),
        Rule("units_in_codebook", "units are in [0, codebook_size)", _outside_codebook),
        Rule(
            "units_collapsed",
            "no two consecutive collapsed units are equal in all codebooks",
            lambda rows: equal_neighbors_in_all(rows["units"], rows["num_codebooks"]),
        ),
        list_range_rule("durations", 1, 2**31 - 1),
        list_range_rule("unit_words", 0, 2**31 - 1),
        Rule(
            "durations_sum",
            "durations sum to num_frames",
            lambda rows: pc.not_equal(sums(rows["durations"]), rows["num_frames"].cast(pa.int64())),
        ),
        Rule(
            "unit_language_named",
            "unit_words and unit_language_id are both present or both null",
            lambda rows: pc.xor(pc.is_null(rows["unit_words"]), pc.is_null(rows["unit_language_id"])),
        ),
        Rule(
            "unit_words_codebook",
            "unit_words are present only if num_codebooks is 1",
            lambda rows: pc.and_(pc.is_valid(rows["unit_words"]), pc.not_equal(rows["num_codebooks"], 1)),
        ),
    ),
    cross_rules=(
        Rule(
            "frames_cover_audio",
            "num_frames is the duration of the audio divided by hop_samples / sampling_rate, rounded up",
            _wrong_num_frames,
        ),
    ),
)
