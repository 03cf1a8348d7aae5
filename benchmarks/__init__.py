"""Side-by-side measurements: each in one run, as ratios. They need ../shared/speech."""

import os

from pipeline.environment import worker_environment

os.environ.update(worker_environment(os.cpu_count() or 1))  # as a worker's, before anything imports numpy or torch
