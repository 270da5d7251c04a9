"""Images with a border of zeros, for convolutions whose windows hang over the edge."""

import numpy as np
from numba import njit, prange

from ._arrays import empty, pixels
from ._compiled import INNER, many, threaded
from ._vectors import part


def padded(x, padding):
    """Images (N, C, H, W) with a border of zeros, as dense (N, H', W', C)."""
    x, (top, left) = pixels(x), padding
    if top == left == 0:
        return x
    n, height, width, channels = x.shape
    out = empty((n, height + 2 * top, width + 2 * left, channels), x.dtype)
    _pad(many(x, out.size), x, top, left, out)
    return out


@threaded
def _pad(x, top, left, out):
    for n in prange(len(x)):
        _pad_image(np.int64(n), x, top, left, out)


@njit(**INNER)
def _pad_image(n, x, top, left, out):
    """One image, row by row: each number is written once, in memory that is still in the cache."""
    _, height, width, channels = x.shape
    _, n_rows, n_columns, _ = out.shape
    begin, inside, row = left * channels, width * channels, n_columns * channels
    for r in range(n_rows):
        to, source = part(out, (n * n_rows + r) * row, row), n * height + r - top
        if not top <= r < top + height:
            to[:] = 0
            continue
        numbers = part(x, source * inside, inside)
        for i in range(begin):
            to[i] = 0
            to[begin + inside + i] = 0
        for i in range(inside):
            to[begin + i] = numbers[i]
