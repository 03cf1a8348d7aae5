"""Make processes exit when their parent process exits."""

from __future__ import annotations

import os
import signal
import threading
import time

POLL_SECONDS = 0.2
GRACE_SECONDS = 10.0
"""Time that a process has after SIGTERM to delete its unfinished files."""


def exit_with_parent(parent: int) -> None:
    """Exit this process when its parent has exited, so that a killed job does not continue in the background.

    The process sends itself SIGTERM first, and exits after `GRACE_SECONDS` in any case.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
