"""Processes that exit with the process that started them."""

from __future__ import annotations

import os
import signal
import threading
import time

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
"""How long a process that was told to stop may take to remove its unfinished files."""


def exit_with_parent(parent: int) -> None:
    """Exit this process when its parent is gone, so that a killed job does not go on in the background.

    The process sends itself SIGTERM first, and exits after `GRACE_SECONDS` whatever it does.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
