"""Check that the configured device exists, and share this machine's GPUs among worker processes."""

from __future__ import annotations

import os
import re
from platform import node

from echo_targets.schemas.errors import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""Environment variable that restricts and numbers the GPUs of a process."""
NAMES = "'cpu', 'cuda' or 'cuda:N'"


class DeviceMissing(OSError):
    """A worker's device does not exist. Another worker may have it, so the shard is retried."""


def is_device(name: str) -> bool:
    """Return True if a name has the form of a device that all stages support."""
    return re.fullmatch(r"cpu|cuda(:\d+)?", name) is not None


def local_gpus(device: str) -> tuple[str, ...]:
    """Return the GPUs to spread this machine's workers over, each as a value of CUDA_VISIBLE_DEVICES.

    There are none if the device is a CPU, or names one GPU, which all workers then share.

    Raises:
        UserError: the device does not exist.
    """
    if problem := _problem(device):
        raise UserError(problem)
    return visible_gpus() if device == "cuda" else ()


def check_device(device: str) -> None:
    """Check the device of a worker.

    Raises:
        DeviceMissing: the device does not exist.
    """
    if problem := _problem(device):
        raise DeviceMissing(problem)


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, each as a value of CUDA_VISIBLE_DEVICES."""
    count = count_gpus()
    given = os.environ.get(VISIBLE)
    names = [name.strip() for name in given.split(",")] if given else [str(number) for number in range(count)]
    return tuple(names[:count])


def count_gpus() -> int:
    """Return how many GPUs torch can use in this process; none if it is not installed."""
    try:
        import torch
    except ImportError:
        return 0
    return torch.cuda.device_count()


def _problem(device: str) -> str | None:
    """Return why a device can't be used, and what to do; None if it can."""
    if device == "cpu":
        return None
    if not is_device(device):
        return f"device={device}: it should be {NAMES}"
    count = count_gpus()
    if not count:
        return f"device={device}: torch sees no GPU on {node()}; `echo-targets backends device`, run there, says why"
    if int(device.partition(":")[2] or 0) >= count:
        there = "only cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        return f"device={device}: torch sees {there} on {node()}; set device=cuda, which spreads workers over all GPUs"
    return None
