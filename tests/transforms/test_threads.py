"""Utterances side by side: each computed by one thread, whatever the number of them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import torch
from threadpoolctl import threadpool_info

from echo_targets.transforms.threads import in_threads


def product(_: object) -> tuple[set[int], float]:
    """OpenMP's threads, and how many processors a product of matrices (MKL's work) keeps busy."""
    matrix = torch.ones(1200, 1200)
    started, before = time.perf_counter(), time.process_time()
    for _ in range(20):
        matrix @ matrix
    busy = (time.process_time() - before) / (time.perf_counter() - started)
    numbers = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "openmp"}
    return numbers, busy


@pytest.mark.parametrize("told", ["", "MKL_NUM_THREADS=2 OMP_NUM_THREADS=2"])
@pytest.mark.parametrize("also", ["", "torch.set_num_threads(2);"])
def test_a_thread_computes_by_itself_whatever_was_told(told: str, also: str) -> None:
    code = (
        f"import torch; {also} from tests.transforms.test_threads import product;"
        "from echo_targets.transforms.threads import in_threads;"
        "[(numbers, busy)] = in_threads(product, [0], at_once=1); print(numbers == {1}, busy < 1.5)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    environment |= dict(pair.split("=") for pair in told.split())
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["True", "True"]


def test_results_come_in_order_from_several_threads_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    barrier = threading.Barrier(3, timeout=20)

    def work(item: int) -> int:
        barrier.wait()  # three at once, or it breaks
        return item * item

    assert in_threads(work, range(6)) == [item * item for item in range(6)]


def test_a_thread_does_not_wait_for_its_own_pool() -> None:
    with pytest.raises(AssertionError, match="wait for itself"):
        in_threads(lambda item: in_threads(abs, [item]), [1])


def test_the_first_failure_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 // item, [1, 0, 2])
    assert in_threads(abs, []) == []
