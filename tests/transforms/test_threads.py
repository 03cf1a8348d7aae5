"""Utterances side by side: each computed by one thread, whatever the number of them."""

from __future__ import annotations

import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from transforms.models.threads import in_threads


def openmp_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "openmp"}


def test_results_come_in_order_and_each_from_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    here, barrier = openmp_threads(), threading.Barrier(3, timeout=20)

    def work(item: int) -> tuple[int, set[int]]:
        barrier.wait()  # three at once, or it breaks
        return item * item, openmp_threads()

    assert in_threads(work, range(6)) == [(item * item, {1}) for item in range(6)]
    assert openmp_threads() == here


def test_the_first_failure_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda item: 1 // item, [1, 0, 2])
    assert in_threads(abs, []) == []
