"""Products by NumPy's BLAS, on one thread unless they are very large.

OpenBLAS keeps threads of its own. After each product they stay awake for some 30 ms, waiting for the
next, and the threads of our kernels find the processor taken: with both at two threads, a training
step of the MNIST network took 31 ms on two cores instead of 12, and one of a Transformer layer 55 to 98
instead of 26. So BLAS gets one thread, and our kernels the others; but for products so large that their
threads save more than they disturb.
"""

import ctypes
import functools
from pathlib import Path

import numpy as np

LARGE = 1 << 30  # multiply-adds: some 20 ms on one thread
TINY = 1 << 18  # up to here OpenBLAS itself takes one thread


def matmul(x, y):
    """(..., M, K) @ (..., K, N) -> (..., M, N)."""
    if x.shape[-1] == 1 and x.ndim == y.ndim > 1:
        return x * y  # one product for each number, which BLAS takes three times as long for
    size = x.size * y.shape[-1]
    if size <= TINY or size >= LARGE:
        return np.matmul(x, y)
    controls = _thread_controls()
    if controls is None:
        return np.matmul(x, y)
    get, put = controls
    threads = get()
    if threads == 1:
        return np.matmul(x, y)
    put(1)
    try:
        return np.matmul(x, y)
    finally:
        put(threads)


@functools.cache
def _thread_controls():
    """The functions of NumPy's OpenBLAS that say and set its threads; None if NumPy brought none."""
    package = Path(np.__file__).parent
    for folder in (package.with_name("numpy.libs"), package / ".dylibs"):
        for path in folder.glob("*openblas*"):
            library = ctypes.CDLL(str(path))  # it is loaded already; this finds it again
            for name in ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_"):
                try:
                    return library[name.format("get")], library[name.format("set")]
                except AttributeError:
                    pass
    return None
