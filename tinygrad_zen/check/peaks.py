"""What a machine can do at best, measured: the roof that kernels stand under."""

import functools
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np


class Peaks(NamedTuple):
    """Operations and bytes a second, the best of several trials."""

    flops: float
    bytes: float

    def roof(self, flops, moved):
        """The seconds that a call needs at least, given its operations (or None) and bytes."""
        return max((flops or 0) / self.flops, moved / self.bytes)


@functools.cache
def peaks(xp=np):
    """The machine's peaks for an array library, NumPy's or CuPy's; measured once, in about a second.

    Arithmetic: a product of large float32 matrices. Memory: a copy of 64 MB (on a GPU of 1 GB), which
    reads and writes each byte; on a CPU by one thread and by all, whichever is faster.
    """
    device = xp is not np
    n = 4096 if device else 1024
    x = xp.ones((n, n), xp.float32)
    source = xp.ones((1 << 28) if device else (1 << 24), xp.float32)
    target = xp.ones_like(source)
    wait = xp.cuda.Device().synchronize if device else None
    product = _best(lambda: xp.matmul(x, x), wait)
    copies = [_best(lambda: xp.copyto(target, source), wait)]
    count = os.cpu_count() or 1
    if not device and count > 1:  # one core alone may not fill the memory's bandwidth
        parts = np.array_split(target, count), np.array_split(source, count)
        with ThreadPoolExecutor(count) as pool:
            copies.append(_best(lambda: list(pool.map(np.copyto, *parts)), None))
    return Peaks(2 * n**3 / product, 2 * source.nbytes / min(copies))


def _best(call, wait, trials=8):
    """The fewest seconds that a call took; wait: until the device is done."""
    least = float("inf")
    for _ in range(trials):
        start = time.perf_counter()
        call()
        if wait is not None:
            wait()
        least = min(least, time.perf_counter() - start)
    return least
