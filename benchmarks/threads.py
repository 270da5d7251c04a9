"""How many threads and cores a program gets, told to every library before it is imported."""

import os
import sys


def environment(threads):
    """The variables that libraries read when they start."""
    names = "OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM"
    told = {f"{name}_NUM_THREADS": str(threads) for name in names}
    if threads == 1:
        told["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    return told


def sit(threads):
    """Keep this process on the last `threads` of the cores that it may use, where Linux can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def confine(threads):
    """Start this program anew with so many threads, on as many cores, unless it is so already."""
    told = environment(threads)
    if any(os.environ.get(name) != value for name, value in told.items()):
        sit(threads)
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | told)
