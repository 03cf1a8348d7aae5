"""Utterances heard side by side on a CPU: each by one thread, as many at once as torch has threads.

A model that is small beside its processors gains more by this than by sharing each product among them. And the last
bits of an utterance do not depend on the number of threads, as they do where a product is shared, on some processors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import current_thread
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")
POOL = "hearing"


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], at_once: int | None = None) -> list[Result]:
    """What a function gives for each item, in their order.

    Args:
        at_once: 1 for a function that may not be called from several threads; as many as torch has where not given.

    Raises:
        Exception: what the function raises for the first item for which it raises.
    """
    import torch

    assert not current_thread().name.startswith(POOL), "a thread of the pool would wait for itself"

    def alone(item: Item) -> Result:
        _alone()  # each time: what else runs here, such as numba, sets the thread's number too
        return function(item)

    return list(_pool(at_once or torch.get_num_threads()).map(alone, items))


def in_parallel(function: Callable[[list[Item]], list[Result]], items: list[Item], device: str) -> list[Result]:
    """What a function gives for a batch: item by item in threads on a CPU, for all at once elsewhere.

    Args:
        function: safe to call from several threads; what it gives for an item does not depend on its neighbours.
        device: a torch device, where it computes.
    """
    if device != "cpu":
        return function(items)
    return [result for (result,) in in_threads(lambda item: function([item]), items)]


def single_threaded(function: Callable[[], Result], device: str) -> Result:
    """What a function gives; on a CPU, one thread computes it."""
    if device != "cpu":
        return function()
    (result,) = in_threads(lambda _: function(), [None], at_once=1)
    return result


def encode_each(
    model: Callable[[list[np.ndarray]], list[np.ndarray]], waveforms: list[np.ndarray], device: str, dtype: str
) -> list[np.ndarray]:
    """What a model gives for each waveform, `in_parallel`.

    Args:
        dtype: float32, or what the products of a model in float32 are computed in.
    """
    import torch

    def hear(some: list[np.ndarray]) -> list[np.ndarray]:
        with torch.autocast(device.split(":")[0], getattr(torch, dtype), enabled=dtype != "float32"):
            return model(some)

    return in_parallel(hear, waveforms, device)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, POOL)


def _alone() -> None:
    """Holds this thread's products to itself: OpenMP and MKL keep a number for each thread."""
    import torch

    torch.get_num_threads()  # a thread's first use of torch sets its number, so it comes before ours
    for setter in _setters():
        setter(1)


@cache
def _setters() -> list[Callable[[int], object]]:
    """Of torch's OpenMP and of its MKL, where it has them."""
    import torch

    library = ctypes.CDLL(torch._C.__file__)
    names = ("omp_set_num_threads", "MKL_Set_Num_Threads_Local")
    return [getattr(library, name) for name in names if hasattr(library, name)]
