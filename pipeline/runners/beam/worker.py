"""`python -m echo_targets.pipeline.runners.beam.worker LIFELINE`: a worker process of Beam's direct runner.

The lifeline is a named pipe that the driver holds open; when it is closed, the pass is over or the driver is gone.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading


def main(lifeline: str) -> None:
    """Works until the driver hangs up."""
    logging.getLogger().addHandler(logging.NullHandler())  # its log goes to the driver, not to the terminal too
    from apache_beam.runners.worker import sdk_worker_main

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    signal.signal(signal.SIGTERM, lambda *_: _end())
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    sdk_worker_main.main([])


def _end_with(lifeline: str) -> None:
    try:
        pipe = os.open(lifeline, os.O_RDONLY | os.O_NONBLOCK)  # not held up where nobody writes any more
        os.set_blocking(pipe, True)
        while os.read(pipe, 1):
            pass
    except FileNotFoundError:
        pass
    shutil.rmtree(os.path.dirname(lifeline), ignore_errors=True)  # a killed driver could not
    _end()


def _end() -> None:
    """Ends the process; the shards under way take away what they have written."""
    from echo_targets.pipeline.orphans import GRACE_SECONDS
    from echo_targets.pipeline.runners.beam.in_progress import WORK

    WORK.stop()
    WORK.wait(GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
