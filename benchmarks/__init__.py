"""Side-by-side measurements: each in one run, as ratios. The speech is recorded (../shared/speech) or made."""

import os

from echo_targets.pipeline.environment import worker_environment

for _name, _value in worker_environment(os.cpu_count() or 1).items():  # before anything imports numpy or torch
    os.environ.setdefault(_name, _value)  # a worker imports this again, and has its own
