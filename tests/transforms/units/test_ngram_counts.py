"""Counts of words: against counting by hand, in parts, and what is kept."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo_targets.transforms.units.ngram_counts import Word, count_ngrams, flat, likeliest, table_of_words, words_of
from echo_targets.transforms.units.summed_counts import added

sequences = st.lists(st.lists(st.one_of(st.integers(0, 3), st.integers(0, 65_535)), max_size=12), max_size=8)
longest = st.integers(1, 6)


def by_hand(corpus: list[list[int]], max_word_units: int) -> Counter[Word]:
    return Counter(
        tuple(sequence[start : start + length])
        for sequence in corpus
        for length in range(1, max_word_units + 1)
        for start in range(len(sequence) - length + 1)
    )


@given(corpus=sequences, length=longest)
def test_ngrams_are_counted_with_overlaps(corpus: list[list[int]], length: int) -> None:
    assert words_of(count_ngrams(corpus, length)) == by_hand(corpus, length)
    column = pa.chunked_array([pa.array(corpus[:3], pa.list_(pa.int32())), pa.array(corpus[3:], pa.list_(pa.int32()))])
    assert words_of(count_ngrams(column, length)) == by_hand(corpus, length)


@given(corpus=sequences, length=longest, parts=st.integers(1, 4))
def test_counts_of_parts_add_up(corpus: list[list[int]], length: int, parts: int) -> None:
    sums = added(count_ngrams(corpus[part::parts], length) for part in range(parts))
    assert words_of(sums) == by_hand(corpus, length)


@given(counts=st.dictionaries(st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple), st.integers(1, 4)))
def test_the_likeliest_of_disjoint_parts_are_the_likeliest_of_all(counts: dict[Word, int]) -> None:
    words = list(counts)
    whole = likeliest(table_of_words(counts), 3)
    single = [word for word in words if len(word) == 1]
    best = sorted((word for word in words if len(word) > 1), key=lambda word: (-counts[word], word))[:3]
    assert words_of(whole) == {word: counts[word] for word in [*single, *best]}
    parts = [table_of_words({word: counts[word] for word in words[start::2]}) for start in range(2)]
    again = likeliest(pa.concat_tables([likeliest(part, 3) for part in parts]), 3)
    assert words_of(again) == words_of(whole)


def test_sequences_of_any_kind_lie_flat() -> None:
    for given_ in ([[1, 2], [], [3]], pa.array([[1, 2], [], [3]]), pa.array([[9], [1, 2], [], [3]])[1:]):
        units, lengths = flat(given_)
        assert (units.tolist(), lengths.tolist()) == ([1, 2, 3], [2, 0, 1])


@pytest.mark.parametrize("unit", [-1, 65_536])
def test_a_unit_that_cannot_be_written_is_refused(unit: int) -> None:
    with pytest.raises(ValueError, match="not all in"):
        count_ngrams([[1, unit]], 2)
