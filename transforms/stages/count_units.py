"""unit_counts: count unit words, shard by shard; `fit-unit-language` adds the counts up."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PositiveInt

from echo_targets.schemas import KEY, SAMPLE_RATE, UNIT_COUNTS, UNITS
from echo_targets.transforms.base import Output, Parameters, Transform
from echo_targets.transforms.units.language import UnitLanguage, count_words


class CountUnitsParameters(Parameters):
    """Parameters of the counting.

    Attributes:
        max_word_units: length of the longest word, in units.
        language: a unit language as JSON. The words of its segmentation are counted; null counts every n-gram.
    """

    max_word_units: PositiveInt
    language: str | None = None


class CountUnits(Transform):
    """Count the words of a window of utterances: one row for each window."""

    name: ClassVar[str] = "unit_counts"
    version: ClassVar[int] = 1
    reads = (UNITS,)
    writes = UNIT_COUNTS
    window_rows = 50_000
    Parameters = CountUnitsParameters
    parameters: CountUnitsParameters

    def fingerprint_parameters(self) -> dict[str, Any]:
        language = self.parameters.language
        digest = None if language is None else hashlib.sha256(language.encode()).hexdigest()
        return {"max_word_units": self.parameters.max_word_units, "language": digest}

    def setup(self) -> None:
        language = self.parameters.language
        self._language = None if language is None else UnitLanguage.from_json(language)

    def rows(self, window: pa.Table, shard: Mapping[str, pa.Table]) -> pa.Table:
        """Return the window's units as one row, under the key of its first utterance."""
        units = pc.list_flatten(window["units"]).combine_chunks()  # a unit language covers a single codebook
        row = pa.ListArray.from_arrays(pa.array([0, len(units)], pa.int32()), units)
        rates = pc.divide(pc.multiply(window["hop_samples"].cast(pa.int64()), SAMPLE_RATE), window["sampling_rate"])
        samples = pc.sum(pc.multiply(window["num_frames"].cast(pa.int64()), rates))  # for the progress
        return pa.table(
            {KEY: window[KEY].slice(0, 1).combine_chunks(), "units": row, "num_samples": pa.array([samples.as_py()])}
        )

    def costs(self, rows: pa.Table) -> list[int]:
        return pc.list_value_length(rows["units"]).to_pylist()

    def __call__(self, batch: pa.Table) -> Output:
        pairs = zip(batch[KEY].to_pylist(), batch["units"].combine_chunks(), strict=True)
        return Output(pa.concat_tables([self._counted(key, units.values) for key, units in pairs]))

    def _counted(self, key: str, units: pa.ListArray) -> pa.Table:
        counts = count_words(units, self.parameters.max_word_units, self._language).sort_by("word").combine_chunks()
        ends = pa.array([0, len(counts)], pa.int32())
        columns = [
            pa.array([key]),
            pa.array([len(units)], pa.int32()),
            *(pa.ListArray.from_arrays(ends, counts[name].combine_chunks()) for name in ("word", "count")),
        ]
        return pa.table(columns, names=UNIT_COUNTS.columns).cast(UNIT_COUNTS.schema)
