"""Prefetch items of an iterator in a thread, so that decoding overlaps with the model."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yield the items, prefetching up to `depth` of them. An exception of the iterator is raised at its position."""
    ready: Queue[tuple[str, T | BaseException | None]] = Queue(maxsize=depth)
    stopped = Event()

    def draw() -> None:
        try:
            for item in items:
                ready.put(("item", item))
                if stopped.is_set():
                    return
            ready.put(("end", None))
        except BaseException as error:
            ready.put(("error", error))

    thread = Thread(target=draw, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        stopped.set()
        while thread.is_alive():  # it may be blocked on a full queue
            try:
                ready.get(timeout=0.01)
            except Empty:
                continue
