"""An iterator that runs ahead of who draws from it, in a thread: decoding goes on while the model works."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from queue import Empty, Queue
from threading import Event, Thread
from typing import TypeVar

T = TypeVar("T")


def prefetch(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The items, up to `depth` of them drawn before they are asked for. What drawing raises is raised in its place."""
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
        while thread.is_alive():  # it may wait to put one down
            try:
                ready.get(timeout=0.01)
            except Empty:
                continue
