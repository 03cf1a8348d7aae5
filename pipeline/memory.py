"""Return memory that dropped models and failed batches still occupy."""

from __future__ import annotations

import gc
import sys


def free_memory() -> None:
    """Collect unreachable objects, then return the memory that torch caches on a GPU.

    Models and tracebacks contain reference cycles, which only the garbage collector frees. CTranslate2's cache is
    emptied when its model is unloaded.
    """
    gc.collect()
    torch = sys.modules.get("torch")  # a process that never imported it has nothing to return
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
