"""Batches of rows that cost alike: the padded size of a batch, longest x count, stays within a budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def pack(costs: Sequence[int], budget: int, equal_costs: bool = False) -> Iterator[list[int]]:
    """Positions of the rows of each batch, the longest first.

    A function of the costs alone: the same rows give the same batches on any worker. A row above the budget is a
    batch of its own.

    Args:
        costs: samples, one a row.
        budget: samples, for longest x count.
        equal_costs: whether only rows of equal cost share a batch.
    """
    batch: list[int] = []
    for position in sorted(range(len(costs)), key=lambda position: (-costs[position], position)):
        longest = costs[batch[0]] if batch else 0
        full = longest * (len(batch) + 1) > budget
        if batch and (full or (equal_costs and costs[position] != longest)):
            yield batch
            batch = []
        batch.append(position)
    if batch:
        yield batch
