"""Side-by-side measurements: each in one run, as ratios. They need ../shared/speech."""

import os

from pipeline.threads import thread_limits

os.environ.update(thread_limits(os.cpu_count() or 1))  # as a worker's, before anything imports numpy or torch
