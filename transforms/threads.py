"""Parallel encoding of utterances on a CPU: one thread per utterance, as many at once as torch has threads.

For a model that is small relative to the CPU this is faster than sharing each matrix multiplication among threads. On
some CPUs the last bits of a shared multiplication also depend on the number of threads; here they do not.
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
POOL = "encoding"


def in_threads(function: Callable[[Item], Result], items: Iterable[Item], at_once: int | None = None) -> list[Result]:
    """Return the function's result for each item, in order.

    Args:
        at_once: maximum number of threads: 1 if the function is not thread-safe; None for as many as torch has.

    Raises:
        Exception: the exception of the first item that fails.
    """
    import torch

    assert not in_pool(), "a thread of the pool would wait for itself"

    def limited(item: Item) -> Result:
        _limit_threads()  # for each item, since other code in this thread, such as numba, may reset the limit
        return function(item)

    return list(_pool(at_once or torch.get_num_threads()).map(limited, items))


def in_pool() -> bool:
    """Return True in a thread of `in_threads`, which is limited to one OpenMP/MKL thread already."""
    return current_thread().name.startswith(POOL)


def in_parallel(function: Callable[[list[Item]], list[Result]], items: list[Item], device: str) -> list[Result]:
    """Return the function's results for a batch: item by item in threads on a CPU, all at once elsewhere.

    Args:
        function: thread-safe; its result for an item must not depend on the item's neighbors.
        device: the torch device of the computation.
    """
    if device != "cpu":
        return function(items)
    return [result for (result,) in in_threads(lambda item: function([item]), items)]


def single_threaded(function: Callable[[], Result], device: str) -> Result:
    """Return the function's result; on a CPU, it is computed in one thread."""
    if device != "cpu":
        return function()
    (result,) = in_threads(lambda _: function(), [None], at_once=1)
    return result


def encode_each(
    model: Callable[[list[np.ndarray]], list[np.ndarray]], waveforms: list[np.ndarray], device: str, dtype: str
) -> list[np.ndarray]:
    """Return the model's output for each waveform, with `in_parallel`.

    Args:
        dtype: dtype of the matrix products; the model itself is in float32.
    """
    import torch

    def encode(some: list[np.ndarray]) -> list[np.ndarray]:
        with torch.autocast(device.split(":")[0], getattr(torch, dtype), enabled=dtype != "float32"):
            return model(some)

    return in_parallel(encode, waveforms, device)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, POOL)


def _limit_threads() -> None:
    """Limit this thread to one OpenMP and one MKL thread. Both libraries keep the limit per thread."""
    import torch

    torch.get_num_threads()  # a thread's first use of torch sets its limit, so do that before setting ours
    for setter in _setters():
        setter(1)


@cache
def _setters() -> list[Callable[[int], object]]:
    """Return the functions that set the limits of torch's OpenMP and MKL, as far as it has them."""
    import torch

    library = ctypes.CDLL(torch._C.__file__)
    names = ("omp_set_num_threads", "MKL_Set_Num_Threads_Local")
    return [getattr(library, name) for name in names if hasattr(library, name)]
