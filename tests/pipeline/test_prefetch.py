"""Running ahead: the same items, not too many of them, and an end to the thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from echo_targets.pipeline.prefetch import prefetch


def test_the_items_in_their_order() -> None:
    assert list(prefetch(iter(range(100)), 2)) == list(range(100))
    assert list(prefetch(iter([]), 2)) == []


def test_it_runs_ahead_and_not_further() -> None:
    drawn: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            drawn.append(number)
            yield number

    running = prefetch(items(), 2)
    assert next(running) == 0
    end = time.monotonic() + 10
    while len(drawn) < 4 and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(0.05)
    assert drawn == [0, 1, 2, 3], "one given, two ready, one in hand"
    running.close()


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    running = prefetch(items(), 5)
    assert next(running) == 1
    with pytest.raises(KeyError, match="two"):
        next(running)


def test_who_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    closed: list[bool] = []

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    drawing = items()
    running = prefetch(drawing, 1)
    next(running)
    running.close()
    assert threading.active_count() == before
