"""Utterances heard side by side on a CPU: each by one thread, as many at once as torch has threads.

A model that is small beside its processors gains more by this than by sharing each product among them. And the last
bits of an utterance do not depend on the number of threads, as they do where a product is shared, on some processors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], at_once: int | None = None) -> list[Result]:
    """What a function gives for each item, in their order.

    Args:
        at_once: 1 for a function that may not be called from several threads; as many as torch has where not given.

    Raises:
        Exception: what the function raises for the first item for which it raises.
    """
    import torch

    return list(_pool(at_once or torch.get_num_threads()).map(function, items))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "hearing", initializer=_alone)


def _alone() -> None:
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, "openmp")  # of this thread: OpenMP keeps a number for each
