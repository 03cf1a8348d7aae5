"""Rows on disk: what is taken back is what was added, in any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.pipeline.spool import Spool
from echo_targets.schemas import ENTRIES
from tests.schemas.samples import arrow, samples

CHUNK = 4
COUNT = 14


@pytest.fixture(scope="module")
def spool() -> Spool:
    spool = Spool(ENTRIES, CHUNK)
    for first in range(0, COUNT, CHUNK):
        spool.add(arrow("entries", samples("entries", min(CHUNK, COUNT - first), first)))
    spool.close()
    return spool


@given(positions=st.lists(st.integers(0, COUNT - 1), max_size=30))
def test_rows_are_taken_by_their_positions(spool: Spool, positions: list[int]) -> None:
    rows = arrow("entries", samples("entries", COUNT)).to_pylist()
    taken = spool.take(positions)
    assert taken.schema.equals(ENTRIES.schema)
    assert taken.to_pylist() == [rows[position] for position in positions]


def test_an_empty_one() -> None:
    spool = Spool(ENTRIES, CHUNK)
    spool.add(ENTRIES.schema.empty_table())
    spool.close()
    assert spool.take([]).num_rows == 0
