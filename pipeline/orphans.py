"""Processes that end with the one that started them."""

from __future__ import annotations

import os
import signal
import threading
import time

LOOK_SECONDS = 0.2


def end_with(parent: int, grace_seconds: float) -> None:
    """Has this process end when its parent is gone, so that a killed job does not go on in the background.

    It gets SIGTERM first, and ends whatever it does after the grace.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_seconds)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
