"""How many threads the libraries of a process take. Stands alone, since they read it when they are first imported."""


def thread_limits(threads: int) -> dict[str, str]:
    """Environment variables that hold a process's libraries to a number of threads.

    numpy's OpenBLAS gets one: its threads go on spinning after a product, on the processors that torch needs next.
    """
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
