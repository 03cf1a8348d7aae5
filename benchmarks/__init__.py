"""Benchmarks that time contenders side by side in one run and report ratios.

They use recorded speech (../shared/speech) or, without it, speech of the embedded voice.
"""

import os

from echo_targets.pipeline.environment import worker_environment

for _name, _value in worker_environment(os.cpu_count() or 1).items():  # must precede imports of numpy and torch
    os.environ.setdefault(_name, _value)  # setdefault: a worker imports this too, with its own values
