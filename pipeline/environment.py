"""The environment of a worker's process. Stands alone: libraries read it as they are imported, malloc as it starts."""

from __future__ import annotations

GIBIBYTE = 1 << 30


def worker_environment(threads: int) -> dict[str, str]:
    """Environment variables that hold a process's libraries to a number of threads, and let it keep its memory.

    numpy's OpenBLAS gets one: its threads go on spinning after a product, on the processors that torch needs next.

    glibc gives each large array's pages back to the system as the array is freed, and the next one faults them in
    again, a good part of the time of Whisper's batches. One arena that keeps what it has avoids that.

    Where float32 is promised, a GPU must not round to TF32, as cuDNN's convolutions do by default.
    """
    return {
        "NVIDIA_TF32_OVERRIDE": "0",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(4 * GIBIBYTE),
        "MALLOC_TRIM_THRESHOLD_": str(4 * GIBIBYTE),
    }
