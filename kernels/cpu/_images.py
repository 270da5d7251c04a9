"""Images as the kernels of this folder want them: channels last, with a border if windows hang over."""

import numpy as np
from numba import njit, prange

from ._arrays import dense, empty
from ._compiled import INNER, many, reading, threaded
from ._tile import turn
from ._vectors import VECTOR_BYTES, part


def pixels(x):
    """Images (N, C, H, W) as dense (N, H, W, C): without a copy if they are channels-last."""
    last = x.transpose(0, 2, 3, 1)
    if last.flags.carray or not x.flags.carray or x.dtype.char not in "fd" or x.size == 0:
        return dense(last)
    out = empty(last.shape, x.dtype)
    n, _, _, channels = last.shape
    _turn(many(x, x.size), x.reshape(n, channels, -1), out.reshape(n, -1, channels))
    return out


@reading("x")
@threaded
def _turn(x, out):
    """x (N, C, P) -> out (N, P, C)"""
    for n in prange(len(x)):
        _turn_image(x[n], out[n])


@njit(**INNER)
def _turn_image(x, out):
    """NumPy takes three times as long for the three channels of a photograph."""
    channels, n_pixels = x.shape
    if channels % (VECTOR_BYTES // x.itemsize) == 0:
        turn(x, out)
        return
    for c in range(channels):
        for i in range(n_pixels):
            out[i, c] = x[c, i]


def corner(x):
    """Images (N, C, H, W) as the upper left part of dense ones, (N, H' >= H, W' >= W, C); and (H, W).

    Without a copy where they were cut out of such. What lies outside of the part is not ours to read:
    behind the last image there may be nothing.
    """
    n, channels, height, width = x.shape
    last = x.transpose(0, 2, 3, 1)
    if not last.flags.carray and 0 not in x.shape:
        image, row, pixel, one = (stride // x.itemsize for stride in last.strides)
        cut = one == 1 and pixel == channels and row >= width * pixel and row % pixel == 0
        cut = cut and image >= height * row and image % row == 0
        if cut and x.flags.writeable and x.flags.aligned:
            whole = n, image // row, row // channels, channels
            return np.lib.stride_tricks.as_strided(last, whole), (height, width)
    return pixels(x), (height, width)


def images(pixels):
    """The inverse of `pixels`, a view: (N, H, W, C) -> (N, C, H, W)."""
    return pixels.transpose(0, 3, 1, 2)


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
