"""`python -m echo_targets.pipeline.runners.beam.worker LIFELINE [GPU …]`: a worker process of Beam's direct runner.

The lifeline is a named pipe that the driver holds open. It closes when the pass is over or the driver has exited. The
worker takes one of the GPUs, by the number in Beam's variable WORKER_ID.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading

from echo_targets.pipeline.devices import VISIBLE
from echo_targets.pipeline.hang import watch_for_hangs


def main(lifeline: str, *gpus: str) -> None:
    """Run Beam's worker until the lifeline closes."""
    if gpus:
        number = int(os.environ["WORKER_ID"].rpartition("_")[2])
        os.environ[VISIBLE] = gpus[number % len(gpus)]
    logging.getLogger().addHandler(logging.NullHandler())  # logs go to the driver; do not print them here as well
    from apache_beam.runners.worker import sdk_worker_main

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver handles Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: _exit())
    watch_for_hangs()
    threading.Thread(target=_exit_with, args=(lifeline,), daemon=True).start()
    sdk_worker_main.main([])


def _exit_with(lifeline: str) -> None:
    try:
        pipe = os.open(lifeline, os.O_RDONLY | os.O_NONBLOCK)  # opening must not block if the driver has exited
        os.set_blocking(pipe, True)
        while os.read(pipe, 1):
            pass
    except FileNotFoundError:
        pass
    shutil.rmtree(os.path.dirname(lifeline), ignore_errors=True)  # in case the driver was killed
    _exit()


def _exit() -> None:
    """Stop the running shards, which delete their unfinished files, and exit the process."""
    from echo_targets.pipeline.exit_with_parent import GRACE_SECONDS
    from echo_targets.pipeline.runners.beam.in_progress import WORK

    WORK.stop()
    WORK.wait(GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
