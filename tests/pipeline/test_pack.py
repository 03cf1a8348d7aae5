from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from echo_targets.pipeline.pack import pack

costs = st.lists(st.integers(0, 40), max_size=60)
budgets = st.integers(1, 200)


@given(costs, budgets, st.booleans())
def test_every_row_is_in_exactly_one_batch(costs: list[int], budget: int, equal: bool) -> None:
    batches = list(pack(costs, budget, equal))
    assert sorted(position for batch in batches for position in batch) == list(range(len(costs)))
    assert all(batches)


@given(costs, budgets, st.booleans())
def test_the_budget_is_kept_but_for_a_row_above_it(costs: list[int], budget: int, equal: bool) -> None:
    for batch in pack(costs, budget, equal):
        padded = max(costs[position] for position in batch) * len(batch)
        assert padded <= budget or len(batch) == 1


@given(costs, budgets)
def test_equal_costs_share_a_batch_with_no_other(costs: list[int], budget: int) -> None:
    for batch in pack(costs, budget, equal_costs=True):
        assert len({costs[position] for position in batch}) == 1


@given(costs, budgets, st.booleans())
def test_batches_are_as_full_as_their_order_allows(costs: list[int], budget: int, equal: bool) -> None:
    batches = list(pack(costs, budget, equal))
    for batch, after in pairwise(batches):
        longest = costs[batch[0]]
        assert longest * (len(batch) + 1) > budget or (equal and costs[after[0]] != longest)


@given(costs, budgets, st.booleans())
def test_batches_are_a_function_of_the_costs(costs: list[int], budget: int, equal: bool) -> None:
    batches = list(pack(costs, budget, equal))
    assert batches == list(pack(tuple(costs), budget, equal))
    flat = [position for batch in batches for position in batch]
    assert flat == sorted(flat, key=lambda position: (-costs[position], position))


def test_longest_first_so_that_memory_is_short_at_the_start_or_never() -> None:
    assert list(pack([1, 5, 3, 5], budget=10)) == [[1, 3], [2, 0]]
