"""Pack rows of similar cost into batches whose padded size, longest x count, stays within a budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def pack(costs: Sequence[int], budget: int, equal_costs: bool = False) -> Iterator[list[int]]:
    """Yield the positions of the rows of each batch, longest rows first.

    The result depends only on the costs, so the same rows give the same batches on any worker. A row that exceeds the
    budget gets its own batch.

    Args:
        costs: samples of each row.
        budget: maximum of longest x count, in samples.
        equal_costs: True to batch only rows of equal cost.
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
