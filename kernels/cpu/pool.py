"""Max pooling of images, in one pass, with the channels of a pixel side by side in vector registers.

The reference takes a step over whole arrays for each tap of the window, and each step reads and writes
memory. Here each output pixel is finished before the next, from numbers that are still in the cache.
Images lie in memory as (N, H, W, C); so the innermost loop runs over channels, all of which do the
same. Two habits let LLVM turn it into vector instructions: pixels are taken as slices first (a plain
x[n, r, s, c] might be counted from the end, and must be checked each time), and choices are written as
`a if condition else b`, on both sides without further effect.
"""

import math

import numpy as np
from numba import njit, prange

from .. import reference
from ..reference._windows import window_counts
from ._arrays import dense, empty
from ._compiled import COMPILED, INNER, many, threaded
from ._images import images, pixels


def max_pool2d_loops(x, kernel, stride, padding, dilation, ceil_mode):
    """The definition: for each element of the result, a loop over its window."""
    out = window_counts(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    y = np.empty((*x.shape[:2], *out), x.dtype)
    argmax = np.empty(y.shape, _number(kernel))
    _loops(dense(x), y, argmax, *kernel, *stride, *padding, *dilation)
    return y, argmax


@njit(**COMPILED)
def _loops(x, y, argmax, kh, kw, sh, sw, ph, pw, dh, dw):
    for n in range(y.shape[0]):
        for c in range(y.shape[1]):
            for r in range(y.shape[2]):
                for s in range(y.shape[3]):
                    best, winner = x.dtype.type(-math.inf), 0
                    for i in range(kh):
                        for j in range(kw):
                            row, column = r * sh + i * dh - ph, s * sw + j * dw - pw
                            if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
                                value = x[n, c, row, column]
                                if value > best or value != value:  # NaN wins, and stays
                                    best, winner = value, i * kw + j
                    y[n, c, r, s] = best
                    argmax[n, c, r, s] = winner


def max_pool2d_taps(x, kernel, stride, padding, dilation, ceil_mode):
    """A step on whole arrays for each tap: no loop over elements in Python."""
    return reference.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)


def max_pool2d_channels(x, kernel, stride, padding, dilation, ceil_mode):
    """Goes over pixels, with the channels in vectors; images in parallel."""
    out = window_counts(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    x, y, argmax = _arrays(x, out, kernel)
    _channels(
        many(x, y.size * kernel[0] * kernel[1]), x, y, argmax, *kernel, *stride, *padding, *dilation
    )
    return images(y), images(argmax)


@threaded
def _channels(x, y, argmax, kh, kw, sh, sw, ph, pw, dh, dw):
    for n in prange(len(x)):
        _channels_image(np.int64(n), x, y, argmax, kh, kw, sh, sw, ph, pw, dh, dw)


@njit(**INNER)
def _channels_image(n, x, y, argmax, kh, kw, sh, sw, ph, pw, dh, dw):
    """One image of x (N, H, W, C) into one of y and argmax (N, OH, OW, C)."""
    _, height, width, channels = x.shape
    lowest = x.dtype.type(-math.inf)
    for r in range(y.shape[1]):
        for s in range(y.shape[2]):
            best, winner = y[n, r, s], argmax[n, r, s]
            for c in range(channels):
                best[c] = lowest
                winner[c] = 0
            for i in range(kh):
                row = r * sh + i * dh - ph
                for j in range(kw):
                    column = s * sw + j * dw - pw
                    if 0 <= row < height and 0 <= column < width:
                        pixel = x[n, row, column]
                        for c in range(channels):
                            wins = (pixel[c] > best[c]) | (pixel[c] != pixel[c])
                            winner[c] = i * kw + j if wins else winner[c]
                            best[c] = pixel[c] if wins else best[c]


def max_pool2d_2x2(x, kernel, stride, padding, dilation, ceil_mode):
    """Keeps the winner of a 2 x 2 window in registers: reads and writes each number once."""
    out = window_counts(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    if not is_2x2(x.shape, out, kernel, stride, padding, dilation):
        return max_pool2d_channels(x, kernel, stride, padding, dilation, ceil_mode)
    x, y, argmax = _arrays(x, out, kernel)
    _2x2(many(x, x.size), x, -math.inf, 0, y, argmax)
    return images(y), images(argmax)


def relu_max_pool2d(x, kernel, stride, padding, dilation, ceil_mode):
    """max_pool2d of relu(x) in one pass; argmax is KH * KW where no element is positive.

    x (N, C, H, W) -> y, argmax (N, C, OH, OW)
    """
    out = window_counts(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    if not is_2x2(x.shape, out, kernel, stride, padding, dilation):
        return reference.relu_max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
    x, y, argmax = _arrays(x, out, kernel)
    _2x2(many(x, x.size), x, 0.0, 4, y, argmax)
    return images(y), images(argmax)


def is_2x2(x_shape, out, kernel, stride, padding, dilation):
    """Whether the windows are 2 x 2, side by side, and all of them inside the image."""
    inside = 2 * out[0] <= x_shape[2] and 2 * out[1] <= x_shape[3]
    return kernel == stride == (2, 2) and padding == (0, 0) and dilation == (1, 1) and inside


@threaded
def _2x2(x, least, none, y, argmax):
    for n in prange(len(x)):
        winners_2x2(x[n], x.dtype.type(least), none, y[n], argmax[n])


@njit(**INNER)
def winners_2x2(x, least, none, y, argmax):
    """An image (H, W, C) into y and argmax (OH, OW, C), which is `none` where no number is above `least`."""
    height, width, channels = y.shape
    for r in range(height):
        for s in range(width):
            first, second = x[2 * r, 2 * s], x[2 * r, 2 * s + 1]
            third, fourth = x[2 * r + 1, 2 * s], x[2 * r + 1, 2 * s + 1]
            best, winner = y[r, s], argmax[r, s]
            for c in range(channels):
                top, tap = _winner(first[c], 0, least, none)
                top, tap = _winner(second[c], 1, top, tap)
                top, tap = _winner(third[c], 2, top, tap)
                top, tap = _winner(fourth[c], 3, top, tap)
                best[c] = top
                winner[c] = tap


@njit(**INNER)
def _winner(value, tap, best, best_tap):
    """The larger number and its tap: the best so far unless the value beats it, or is NaN."""
    wins = (value > best) | (value != value)
    return value if wins else best, np.int32(tap) if wins else np.int32(best_tap)


def max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation):
    """Gradient of max_pool2d: each g goes to the winner of its window; images in parallel.

    g (N, C, OH, OW), argmax as max_pool2d gave it -> x_shape (N, C, H, W)
    """
    g, argmax = pixels(g), pixels(argmax)
    n, channels, height, width = x_shape
    gx = empty((n, height, width, channels), g.dtype)
    if _are_tiles(g, x_shape, kernel, stride, padding, dilation):
        no_sums = np.empty((n, 0), g.dtype)
        _grad_tiled(many(g, gx.size), g, argmax, *kernel, gx, no_sums)
    else:
        geometry = *kernel, *stride, *padding, *dilation
        _grad(many(g, g.size * kernel[0] * kernel[1]), g, argmax, *geometry, gx)
    return images(gx)


def relu_max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation):
    """Gradient of relu_max_pool2d for x, and for a bias that was added to each channel of x.

    g (N, C, OH, OW), argmax as relu_max_pool2d gave it -> x_shape (N, C, H, W), (C,). For the bias it
    adds up a number of each window as it passes, not the gradient of x with all its zeros.
    """
    g, argmax = pixels(g), pixels(argmax)
    if not _are_tiles(g, x_shape, kernel, stride, padding, dilation):
        g, argmax = images(g), images(argmax)
        gx = max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation)
        return gx, gx.sum(axis=(0, 2)).sum(axis=1)
    n, channels, height, width = x_shape
    gx, sums = empty((n, height, width, channels), g.dtype), np.zeros((n, channels), g.dtype)
    _grad_tiled(many(g, gx.size), g, argmax, *kernel, gx, sums)
    return images(gx), sums.sum(axis=0)


def _are_tiles(g, x_shape, kernel, stride, padding, dilation):
    """Whether windows lie side by side, all inside: nothing is sent to a pixel twice, so nothing is added."""
    inside = g.shape[1] * kernel[0] <= x_shape[2] and g.shape[2] * kernel[1] <= x_shape[3]
    return kernel == stride and padding == (0, 0) and dilation == (1, 1) and inside


@threaded
def _grad_tiled(g, argmax, kh, kw, gx, sums):
    for n in prange(len(gx)):
        _grad_tiled_image(np.int64(n), g, argmax, kh, kw, gx, sums[n])


@njit(**INNER)
def _grad_tiled_image(n, g, argmax, kh, kw, gx, total):
    """One image of g (N, OH, OW, C) into one of gx (N, H, W, C), each pixel written once.

    total: (C,), to which the numbers are added that have a winner; or (0,).
    """
    _, rows, columns, channels = g.shape
    zero = g.dtype.type(0)
    for r in range(gx.shape[1]):
        row, i = r // kh, r % kh
        covered = columns if row < rows else 0
        for column in range(covered):
            sent, winner = g[n, row, column], argmax[n, row, column]
            if i == 0:
                for c in range(total.size):
                    total[c] += sent[c] if winner[c] < kh * kw else zero
            for j in range(kw):
                pixel, tap = gx[n, r, column * kw + j], i * kw + j
                for c in range(channels):
                    pixel[c] = sent[c] if winner[c] == tap else zero
        for s in range(covered * kw, gx.shape[2]):  # what no window reads
            pixel = gx[n, r, s]
            for c in range(channels):
                pixel[c] = zero


@threaded
def _grad(g, argmax, kh, kw, sh, sw, ph, pw, dh, dw, gx):
    for n in prange(len(gx)):
        _grad_image(np.int64(n), g, argmax, kh, kw, sh, sw, ph, pw, dh, dw, gx)


@njit(**INNER)
def _grad_image(n, g, argmax, kh, kw, sh, sw, ph, pw, dh, dw, gx):
    """One image of g (N, OH, OW, C) into one of gx (N, H, W, C); windows may overlap."""
    _, height, width, channels = gx.shape
    zero = g.dtype.type(0)
    for r in range(height):
        for s in range(width):
            pixel = gx[n, r, s]
            for c in range(channels):
                pixel[c] = zero
    for r in range(g.shape[1]):
        for s in range(g.shape[2]):
            sent, winner = g[n, r, s], argmax[n, r, s]
            for i in range(kh):
                row = r * sh + i * dh - ph
                for j in range(kw):
                    column = s * sw + j * dw - pw
                    if 0 <= row < height and 0 <= column < width:
                        pixel, tap = gx[n, row, column], i * kw + j
                        for c in range(channels):
                            pixel[c] += sent[c] if winner[c] == tap else zero


def _arrays(x, out, kernel):
    """x as (N, H, W, C), and new arrays for the largest and the winners, (N, OH, OW, C)."""
    y = empty((len(x), *out, x.shape[1]), x.dtype)
    return pixels(x), y, empty(y.shape, _number(kernel))


def _number(kernel):
    """The dtype that numbers the taps of a window."""
    return np.uint8 if kernel[0] * kernel[1] <= 256 else np.uint32


MAX_POOL2DS = (max_pool2d_loops, max_pool2d_taps, max_pool2d_channels, max_pool2d_2x2)

max_pool2d = max_pool2d_2x2
