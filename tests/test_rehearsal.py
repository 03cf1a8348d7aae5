"""The rehearsal of the whole corpus, on a sliver of it: what it draws is what it says, and every step runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.rehearsal import Figures, rehearse
from benchmarks.rehearsal_stages import CORPORA, SHADES, Integers, Units, entries, units_of
from echo_targets.schemas import ENTRIES
from echo_targets.schemas.dataset.layout import Dataset
from echo_targets.transforms.base import table_of

FRACTION = 1 / 5000


def drawn(seeds: list[int], frames: list[int]) -> Units:
    return units_of(np.array(seeds, np.uint64), np.array(frames, np.int64), 6)


def rows(values: NDArray[np.integer], counts: Integers) -> list[list[int]]:
    return [part.tolist() for part in np.split(values, np.cumsum(counts)[:-1])]


def test_units_are_collapsed_and_last_as_long_as_the_audio() -> None:
    frames = [50, 51, 777, 1500]
    found = drawn([1, 2, 3, 4], frames)
    units, durations = rows(found.units, found.runs), rows(found.durations, found.runs)
    assert [sum(row) for row in durations] == frames
    assert all(row and min(row) >= 1 for row in durations)
    assert all(a != b for row in units for a, b in pairwise(row))
    assert min(map(min, units)) >= 0 and max(map(max, units)) < 100 * SHADES
    assert 1.9 < sum(frames) / len(found.units) < 2.4, "frames a run, 2.1 in real speech"


def test_a_row_is_the_same_in_any_batch() -> None:
    together, alone = drawn([1, 2, 3], [80, 400, 90]), drawn([2], [400])
    assert rows(together.units, together.runs)[1] == alone.units.tolist()
    assert rows(together.durations, together.runs)[1] == alone.durations.tolist()
    assert rows(together.words, together.word_counts)[1] == alone.words.tolist()


def test_entries_are_the_corpora_s_in_number_and_hours() -> None:
    listed = table_of(entries(FRACTION * 10), ENTRIES)
    for corpus in CORPORA:
        seconds = [row["seconds"] for row in listed.to_pylist() if row["corpus"] == corpus.name]
        assert len(seconds) == round(corpus.items * FRACTION * 10)
        assert sum(seconds) / len(seconds) == pytest.approx(corpus.hours * 3600 / corpus.items, rel=0.2)
    assert sum(corpus.items for corpus in CORPORA) == 1_500_184
    assert sum(corpus.hours for corpus in CORPORA) == 6_194


@pytest.mark.slow
def test_every_step_runs(tmp_path: Path) -> None:
    figures = {step.step: step for step in rehearse(str(tmp_path), FRACTION, 1)}
    items = sum(round(corpus.items * FRACTION) for corpus in CORPORA)
    assert figures["plan"].rows == figures["ingest"].rows == figures["tokenize"].rows == items
    assert figures["check"].note == "0 findings"
    assert figures["publish_t2c"].rows < items and figures["publish_echo"].rows == figures["echo"].rows > 0
    assert all(isinstance(step, Figures) and step.driver_gb < 2 and step.workers_gb < 2 for step in figures.values())
    assert figures["tokenize"].drawing > 0
    dataset = Dataset(str(tmp_path))
    published = dataset.read("training/t2c").to_pylist()
    values = sum(1 + len(row["units"][0]) + len(row["durations"]) for row in published)
    assert figures["read training/t2c"].note == f"{values:,} values"
