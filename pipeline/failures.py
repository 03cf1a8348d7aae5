"""Tell errors of the data from errors of the machine and of code, which reject no row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from echo_targets.schemas.errors import UserError
from echo_targets.transforms.base import NO_FAILURES, Reject

OUT_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|cannot allocate memory|ALLOC_FAILED", re.IGNORECASE)
DEVICE = re.compile(
    r"\bCUDA\b|\bcuda[A-Z]\w+|\bCUBLAS|cuBLAS|cuDNN|CUDNN|cuFFT|CUFFT|cusolver|CUSOLVER|\bNCCL\b|\bHIP\b|miopen|MIOpen"
    r"|MPS backend|Triton Error|lib(cu|nv)\w+\.so|unable to find an engine|start new thread"
)
"""Messages of accelerators and their libraries, which raise plain RuntimeErrors (torch, CTranslate2, ONNX Runtime)."""
BUGS = (ImportError, AttributeError, NameError, TypeError, SyntaxError)
"""Errors of code or of an environment, which every row would meet."""
EXAMPLES = 3
"""Reasons of rejects that an error shows with an example."""


class TooManyFailures(Exception):
    """More rows of a shard failed with unexpected errors than bad data explains: the worker may be sick."""


class TooManyRejects(Exception):
    """More rows of a shard were rejected than the job allows."""


def blames_the_data(reason: str) -> bool:
    """Return True if an attempt's reason says that too many rows were rejected."""
    return reason.startswith(TooManyRejects.__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if a smaller batch may help."""
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or (isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error)) is not None)


def is_machine_error(error: BaseException) -> bool:
    """Return True if another attempt, perhaps on another worker, may help: storage, network, accelerator, memory."""
    if isinstance(error, OSError | TooManyFailures) or type(error).__name__ == "AcceleratorError":
        return True
    return isinstance(error, RuntimeError) and not is_out_of_memory(error) and DEVICE.search(str(error)) is not None


def fails_the_shard(error: BaseException) -> bool:
    """Return True if no single row can be at fault, so that looking for it is of no use."""
    return is_machine_error(error) or isinstance(error, (UserError, *BUGS))


def most_failed(rows: int, fraction: float) -> int:
    """Return how many of a shard's rows may fail: a fraction, or if that is more, 3 rows or half of a small shard.

    A single bad row must not fail a small shard, and a shard must not be lost as a whole. A fraction of 0 means none.
    """
    return int(max(fraction * rows, min(3, max(1, rows // 2)))) if fraction else 0


def examples_of(rejects: Sequence[Reject]) -> str:
    """Return the first reject of each of the most frequent reasons, without rows that a filter dropped."""
    failures = [reject for reject in rejects if not reject.error_class.startswith(NO_FAILURES)]
    first = {reject.error_class: reject for reject in reversed(failures)}
    reasons = Counter(reject.error_class for reject in failures).most_common(EXAMPLES)
    return "; ".join(f"{first[reason].utterance_id}: {first[reason].message}" for reason, _ in reasons)
