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

    Arithmetic: a product of large float32 matrices. Memory: 64 MB (on a GPU 1 GB), each byte read and
    written, copied or scaled in place (a CPU fetches what a copy overwrites as well); on a CPU by one
    thread and by all; whichever is fastest.
    """
    device = xp is not np
    n = 4096 if device else 1024
    x = xp.ones((n, n), xp.float32)
    source = xp.ones((1 << 28) if device else (1 << 24), xp.float32)
    target = xp.ones_like(source)
    wait = xp.cuda.Device().synchronize if device else None
    product = _best(lambda: xp.matmul(x, x), wait)
    half = xp.float32(0.5)

    def copy(target, source):
        xp.copyto(target, source)

    def scale(target, source):
        xp.multiply(target, half, out=target)

    count = os.cpu_count() or 1
    passes = [_best(lambda: f(target, source), wait) for f in (copy, scale)]
    if not device and count > 1:  # one core alone may not fill the memory's bandwidth
        parts = np.array_split(target, count), np.array_split(source, count)
        with ThreadPoolExecutor(count) as pool:
            passes += [_best(lambda: list(pool.map(f, *parts)), None) for f in (copy, scale)]
    return Peaks(2 * n**3 / product, 2 * source.nbytes / min(passes))


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
