"""`python -m tests.jobs.export.killed N …`: `echo-targets export …`, killed just before its N-th file is in place."""

from __future__ import annotations

import os
import signal
import sys

from echo_targets.jobs.cli import main

if __name__ == "__main__":
    left = int(sys.argv.pop(1))
    fsync = os.fsync

    def count(file: int) -> None:
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    os.fsync = count
    main()
