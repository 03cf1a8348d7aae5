"""Environment variables of worker processes, which must be set before the process starts and imports libraries."""

from __future__ import annotations

GIBIBYTE = 1 << 30


def worker_environment(threads: int) -> dict[str, str]:
    """Return environment variables that limit the threads of a process's libraries and make it retain memory.

    NumPy's OpenBLAS gets one thread, because its threads keep spinning after a matrix product, on processors that
    torch needs next.

    By default, glibc returns the pages of a large array to the system when it is freed, and the next array faults them
    in again, which takes a considerable part of the time of Whisper batches. A single arena that retains its memory
    avoids this.

    TF32 is off, because cuDNN convolutions would otherwise round float32 to TF32.
    """
    return {
        "NVIDIA_TF32_OVERRIDE": "0",
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        "MALLOC_MMAP_THRESHOLD_": str(4 * GIBIBYTE),
        "MALLOC_TRIM_THRESHOLD_": str(4 * GIBIBYTE),
    }
