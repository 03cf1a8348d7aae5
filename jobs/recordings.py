"""What came of recordings that segment cut: those without speech, and those without a turn of a user or an assistant.

Such recordings are no rejects, so nothing else speaks of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from echo_targets.schemas import CUTS, KEY
from echo_targets.schemas.tables.rules import field_of

SHOWN = 3
"""Recordings that are named in a line."""


def remarks(cuts: pa.Table, wanted: Sequence[str]) -> Iterator[str]:
    """Yield a line for each kind of recording that gives less than one expects.

    Args:
        cuts: the columns `utterance_id` and `cuts` of the table `cuts`.
        wanted: `user` and `assistant`, if a recording should have turns of them.
    """
    keys, lists = cuts[KEY].combine_chunks(), _one_chunk(cuts["cuts"])
    numbers = pa.array(range(len(keys)), pa.int64())
    parents = pc.list_parent_indices(lists).cast(pa.int64())
    has_cuts = pc.is_in(numbers, value_set=pc.unique(parents))
    if line := _line("without speech", keys, pc.invert(has_cuts)):
        yield line
    roles, turned = field_of(lists, "role"), pc.is_valid(field_of(lists, "turn"))
    for role in wanted:
        of_role = parents.filter(pc.and_(turned, pc.equal(roles, role)))
        missing = pc.and_not(has_cuts, pc.is_in(numbers, value_set=pc.unique(of_role)))
        if line := _line(f"without a turn of {_article(role)}, so without echo targets", keys, missing):
            yield line


def _line(what: str, keys: pa.Array, mask: pa.Array) -> str:
    found = keys.filter(mask).to_pylist()
    more = ", …" * (len(found) > SHOWN)
    return f"recordings {what}: {len(found):,} of {len(keys):,} ({', '.join(found[:SHOWN])}{more})" if found else ""


def _article(role: str) -> str:
    return f"an {role}" if role == "assistant" else f"a {role}"


def _one_chunk(lists: pa.ChunkedArray) -> pa.ListArray:
    return lists.combine_chunks() if lists.num_chunks else pa.array([], CUTS.schema.field("cuts").type)
