"""Find near-duplicates with MinHash and locality-sensitive hashing (Broder 1997).

The similarity of two rows is the number of their shared runs of symbols divided by the number of all their runs
(Jaccard). It is estimated from hashes; pairs to compare are found by bands of equal hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from echo_targets.transforms.errors import ModelError

RUN = 5


class Search(NamedTuple):
    """How to search.

    Attributes:
        bands, hashes: bands, and hashes in each.
        least: least similarity of a duplicate.
    """

    bands: int
    hashes: int
    least: float


WORD_RUNS = Search(14, 8, 0.75)
"""FineWeb's settings (arXiv 2406.17557)."""
UNIT_RUNS = Search(37, 3, 0.3)
"""Copies of a recording as MP3 had a similarity from 0.31 to 0.7, other utterances up to 0.07 (docs/FILTERS.md)."""


def runs_of(symbols: Sequence[str]) -> set[bytes]:
    """Return the runs of 5 symbols; the whole, if there are fewer. Two short texts without a run would seem equal."""
    if not symbols:
        return set()
    starts = range(max(1, len(symbols) - RUN + 1))
    return {" ".join(symbols[start : start + RUN]).encode() for start in starts}


def near_duplicates(rows: Iterable[tuple[str, set[bytes]]], search: Search) -> Iterator[tuple[str, str]]:
    """Yield each row that is nearly equal to an earlier row that was kept, with the first such row.

    A row is kept if it is nearly equal to none. Similarities have a standard error of up to 0.05. Memory holds 1 kB or
    more per kept row.

    Args:
        rows: unique keys and runs, in the order of precedence; a row without runs is neither kept nor yielded.

    Raises:
        ModelError: datasketch is not installed.
    """
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise ModelError(f"{error}: pip install 'echo-targets[fit]'") from error
    count = search.bands * search.hashes
    index = MinHashLSH(num_perm=count, params=(search.bands, search.hashes))
    keys, kept = list[str](), list[MinHash]()
    for key, runs in rows:
        if not runs:
            continue
        hashed = MinHash(num_perm=count)
        hashed.update_batch(sorted(runs))
        near = [place for place in index.query(hashed) if kept[place].jaccard(hashed) >= search.least]
        if near:
            yield key, keys[min(near)]
        else:
            index.insert(len(keys), hashed)
            keys.append(key)
            kept.append(hashed)
