"""Pooling of images: the largest element or the mean of each window, and the gradients.

Every thread makes one number (or four) and adds up by itself what belongs to it: gradients are gathered
from the windows that a pixel stood in, so no two threads write one place and the sums have one order.

Shapes are (N, C, H, W) in any memory order, which results keep. Kernels see images as they lie: (N, H,
W, C) if the channels are last, else (N * C, H, W, 1); neighbouring threads then work on neighbours in
memory either way. kernel, stride, padding and dilation are (height, width).
"""

import math

from numba import cuda

from .. import reference
from ..reference._windows import channels_last, window_counts
from ._arrays import contiguous, empty, same_floats
from ._device import LINE, cover, int32, jit, launch, mine
from ._instructions import copy4, split

NOT_DILATED = (1, 1)

# What a window's elements must be larger than, and the winner where none is.
OF_ALL = -math.inf, 0


def max_pool2d(x, kernel, stride, padding, dilation, ceil_mode):
    """The largest element of each window, and which tap it was, row by row; the first of equals.

    x (N, C, H, W) -> y (N, C, OH, OW), argmax (N, C, OH, OW) of unsigned integers
    """
    if not _ours(x):
        return reference.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
    run = max_pool2d_vectors if _in_fours(x) else max_pool2d_lines
    return run(x, kernel, stride, padding, dilation, ceil_mode)


def max_pool2d_windows(x, kernel, stride, padding, dilation, ceil_mode):
    """One thread a window, counted in the order (N, C, OH, OW), wherever the numbers lie."""
    out = window_counts(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    y = empty(x, (*x.shape[:2], *out))
    argmax = empty(x, y.shape, _counter(kernel))
    geometry = (*kernel, *stride, *padding, *dilation)
    launch(_largest_in_window, cover(y.size), LINE, x, y, argmax, geometry)
    return y, argmax


def max_pool2d_lines(x, kernel, stride, padding, dilation, ceil_mode):
    """Threads counted as the numbers lie: a warp reads and writes whole lines of memory."""
    return _one_by_one(x, kernel, stride, padding, dilation, ceil_mode, *OF_ALL)


def max_pool2d_vectors(x, kernel, stride, padding, dilation, ceil_mode):
    """Four channels a thread, in one load of 16 bytes: a quarter of the loads and of the index sums."""
    if not _in_fours(x):
        return _one_by_one(x, kernel, stride, padding, dilation, ceil_mode, *OF_ALL)
    return _four_by_four(x, kernel, stride, padding, dilation, ceil_mode, *OF_ALL)


MAX_POOLS = max_pool2d_windows, max_pool2d_lines, max_pool2d_vectors


def relu_max_pool2d(x, kernel, stride, padding, dilation, ceil_mode):
    """max_pool2d of relu(x) in one pass: only what is larger than 0 can win.

    x (N, C, H, W) -> y (N, C, OH, OW), argmax as of max_pool2d; it names no tap, but their number
    KH * KW, where no element is positive: so no gradient goes there.
    """
    if not _ours(x):
        return reference.relu_max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
    run = _four_by_four if _in_fours(x) else _one_by_one
    return run(x, kernel, stride, padding, dilation, ceil_mode, 0.0, kernel[0] * kernel[1])


def max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation):
    """Gradient of max_pool2d: each g goes to the winner of its window.

    g (N, C, OH, OW), argmax as max_pool2d gave it -> x_shape (N, C, H, W)
    """
    if not _ours(g) or math.prod(x_shape) >= 2**31:
        return reference.max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation)
    argmax, undo = _as_they_lie(argmax)
    g = _in_order(g, argmax.shape)
    gx = empty(g, (len(g), *x_shape[2:], g.shape[3]))
    geometry = (*kernel, *stride, *padding, *dilation)
    launch(_to_winners, cover(gx.size), LINE, g, argmax, gx, geometry)
    return undo(gx)


def relu_max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation):
    """Gradient of relu_max_pool2d for x, and for a bias that was added to each channel of x.

    g (N, C, OH, OW), argmax as relu_max_pool2d gave it -> x_shape (N, C, H, W), (C,)
    """
    gx = max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation)
    return gx, gx.sum(axis=(0, 2)).sum(axis=1)


def max_pool2d_pick(x, argmax, kernel, stride, padding, dilation):
    """The element of each window that argmax names: the adjoint of max_pool2d_grad.

    x (N, C, H, W), argmax as max_pool2d gave it -> (N, C, OH, OW)
    """
    if not _ours(x):
        return reference.max_pool2d_pick(x, argmax, kernel, stride, padding, dilation)
    argmax, undo = _as_they_lie(argmax)
    h, w = x.shape[2:]
    x = _in_order(x, (len(argmax), h, w, argmax.shape[3]))
    y = empty(x, argmax.shape)
    geometry = (*kernel, *stride, *padding, *dilation)
    launch(_pick, cover(y.size), LINE, x, argmax, y, geometry)
    return undo(y)


def avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad):
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW).

    The padding's zeros count as elements only if count_include_pad; what hangs over beyond the
    padding never counts.
    """
    if not _ours(x):
        return reference.avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad)
    out = window_counts(x.shape[2:], kernel, stride, padding, NOT_DILATED, ceil_mode)
    x, undo = _as_they_lie(x)
    y = empty(x, (len(x), *out, x.shape[3]))
    geometry = (*kernel, *stride, *padding, count_include_pad)
    launch(_mean, cover(y.size), LINE, x, y, geometry)
    return undo(y)


def avg_pool2d_grad(g, x_shape, kernel, stride, padding, ceil_mode, count_include_pad):
    """Gradient of avg_pool2d: every element of a window gets the same share of its g.

    g (N, C, OH, OW) -> x_shape (N, C, H, W)
    """
    if not _ours(g) or math.prod(x_shape) >= 2**31:
        options = kernel, stride, padding, ceil_mode, count_include_pad
        return reference.avg_pool2d_grad(g, x_shape, *options)
    g, undo = _as_they_lie(g)
    gx = empty(g, (len(g), *x_shape[2:], g.shape[3]))
    geometry = (*kernel, *stride, *padding, count_include_pad)
    launch(_shares, cover(gx.size), LINE, g, gx, geometry)
    return undo(gx)


def _ours(x):
    """Whether the kernels take an array: of floats, and few enough to be counted in 32 bits."""
    return same_floats(x) and x.size < 2**31


def _as_they_lie(x):
    """Images as (N, H, W, C) or (N * C, H, W, 1) without gaps, whichever is near; and how to undo it."""
    n, c, h, w = x.shape
    if channels_last(x):
        return contiguous(x.transpose(0, 2, 3, 1)), lambda y: y.transpose(0, 3, 1, 2)
    return contiguous(x).reshape((n * c, h, w, 1)), lambda y: y.reshape((n, c, *y.shape[1:3]))


def _in_order(x, shape):
    """Images (N, C, H, W) in the form that _as_they_lie gave to others: shape says which."""
    return contiguous(x.transpose(0, 2, 3, 1) if shape[3] > 1 else x).reshape(shape)


def _in_fours(x):
    """Whether four channels at a time lie side by side."""
    return channels_last(x) and x.shape[1] % 4 == 0


def _counter(kernel, nobody=0):
    return "uint8" if max(kernel[0] * kernel[1] - 1, nobody) < 256 else "uint32"


def _one_by_one(x, kernel, stride, padding, dilation, ceil_mode, least, nobody):
    x, y, argmax, geometry, undo = _prepare(x, kernel, stride, padding, dilation, ceil_mode, nobody)
    launch(_largest, cover(y.size), LINE, x, y, argmax, geometry, x.dtype.type(least), nobody)
    return undo(y), undo(argmax)


def _four_by_four(x, kernel, stride, padding, dilation, ceil_mode, least, nobody):
    x, y, argmax, geometry, undo = _prepare(x, kernel, stride, padding, dilation, ceil_mode, nobody)
    flat, sizes = (a.reshape(-1) for a in (x, y, argmax)), (*x.shape[1:], *y.shape[1:3])
    bounds = x.dtype.type(least), nobody
    launch(_largest_of_four, cover(y.size // 4), LINE, *flat, geometry, sizes, *bounds)
    return undo(y), undo(argmax)


def _prepare(x, kernel, stride, padding, dilation, ceil_mode, nobody):
    out = window_counts(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    x, undo = _as_they_lie(x)
    y = empty(x, (len(x), *out, x.shape[3]))
    argmax = empty(x, y.shape, _counter(kernel, nobody))
    return x, y, argmax, (*kernel, *stride, *padding, *dilation), undo


@jit
def _largest_in_window(x, y, argmax, geometry):
    """Thread i of the grid computes number i of y and argmax, (N, C, OH, OW) in row-major order."""
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    for i in mine(y.size):
        rest, column = split(i, y.shape[3])
        rest, row = split(rest, y.shape[2])
        n, c = split(rest, y.shape[1])
        best = x.dtype.type(-math.inf)
        winner = 0
        for p in range(kh):
            for q in range(kw):
                iy, ix = row * sh - ph + p * dh, column * sw - pw + q * dw
                if 0 <= iy and iy < x.shape[2] and 0 <= ix and ix < x.shape[3]:
                    value = x[n, c, iy, ix]
                    if value > best:
                        best, winner = value, p * kw + q
                    elif value != value:  # a NaN is no winner, but nothing beats it
                        best = value
        y[n, c, row, column] = best
        argmax[n, c, row, column] = winner


@jit
def _largest(x, y, argmax, geometry, least, nobody):
    """Thread i of the grid computes number i of y and argmax, (N, OH, OW, C) in row-major order.

    Where nothing is larger than least, that is the result, and nobody the winner.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    for i in mine(y.size):
        rest, c = split(i, y.shape[3])
        rest, column = split(rest, y.shape[2])
        n, row = split(rest, y.shape[1])
        best, winner = least, nobody
        for p in range(kh):
            iy = row * sh - ph + p * dh
            if 0 <= iy and iy < x.shape[1]:
                for q in range(kw):
                    ix = column * sw - pw + q * dw
                    if 0 <= ix and ix < x.shape[2]:
                        value = x[n, iy, ix, c]
                        if value > best:
                            best, winner = value, p * kw + q
                        elif value != value:  # a NaN is no winner, but nothing beats it
                            best = value
        y[n, row, column, c] = best
        argmax[n, row, column, c] = winner


@jit
def _largest_of_four(x, y, argmax, geometry, sizes, least, nobody):
    """Thread i of the grid computes the four numbers of y and argmax that begin at 4 i; flat arrays.

    sizes: (H, W, C, OH, OW) of images (N, H, W, C) and results (N, OH, OW, C). least, nobody: as above.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    h, w, channels, oh, ow = sizes
    best = cuda.local.array(4, x.dtype)
    winner = cuda.local.array(4, argmax.dtype)
    four = cuda.local.array(4, x.dtype)
    for i in mine(y.size // 4):
        rest, c = split(4 * i, channels)
        rest, column = split(rest, ow)
        n, row = split(rest, oh)
        for e in range(4):
            best[e] = least
            winner[e] = nobody
        for p in range(kh):
            iy = row * sh - ph + p * dh
            if 0 <= iy and iy < h:
                for q in range(kw):
                    ix = column * sw - pw + q * dw
                    if 0 <= ix and ix < w:
                        copy4(four, 0, x, int32(((n * h + iy) * w + ix) * channels + c))
                        for e in range(4):
                            value = four[e]
                            if value > best[e]:
                                best[e], winner[e] = value, p * kw + q
                            elif value != value:
                                best[e] = value
        copy4(y, 4 * i, best, 0)
        copy4(argmax, 4 * i, winner, 0)


@jit
def _to_winners(g, argmax, gx, geometry):
    """Thread i of the grid computes number i of gx, (N, H, W, C) in row-major order.

    It looks at all the windows that its pixel stood in, as tap (p, q), and adds up the g of those
    that it won.
    """
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    for i in mine(gx.size):
        rest, c = split(i, gx.shape[3])
        rest, column = split(rest, gx.shape[2])
        n, row = split(rest, gx.shape[1])
        acc = gx.dtype.type(0)
        for p in range(kh):
            y = row + ph - p * dh
            oy, y_rest = split(y, sh)
            if y >= 0 and y_rest == 0 and oy < g.shape[1]:
                for q in range(kw):
                    x = column + pw - q * dw
                    ox, x_rest = split(x, sw)
                    if x >= 0 and x_rest == 0 and ox < g.shape[2]:
                        if argmax[n, oy, ox, c] == p * kw + q:
                            acc += g[n, oy, ox, c]
        gx[n, row, column, c] = acc


@jit
def _pick(x, argmax, y, geometry):
    """Thread i of the grid reads the winner of window i, (N, OH, OW, C) in row-major order."""
    kh, kw, sh, sw, ph, pw, dh, dw = geometry
    for i in mine(y.size):
        rest, c = split(i, y.shape[3])
        rest, column = split(rest, y.shape[2])
        n, row = split(rest, y.shape[1])
        p, q = split(int32(argmax[n, row, column, c]), kw)
        iy, ix = row * sh - ph + p * dh, column * sw - pw + q * dw
        if p < kh and 0 <= iy and iy < x.shape[1] and 0 <= ix and ix < x.shape[2]:
            y[n, row, column, c] = x[n, iy, ix, c]
        else:
            y[n, row, column, c] = 0


@jit
def _mean(x, y, geometry):
    """Thread i of the grid computes number i of y, (N, OH, OW, C) in row-major order."""
    kh, kw, sh, sw, ph, pw, include = geometry
    for i in mine(y.size):
        rest, c = split(i, y.shape[3])
        rest, column = split(rest, y.shape[2])
        n, row = split(rest, y.shape[1])
        h, w = x.shape[1], x.shape[2]
        top, left = row * sh - ph, column * sw - pw
        # the window on the padded image, and the part of it that lies on the image itself
        bottom, right = min(top + kh, h + ph), min(left + kw, w + pw)
        y0, y1, x0, x1 = max(top, 0), min(bottom, h), max(left, 0), min(right, w)
        acc = y.dtype.type(0)
        for iy in range(y0, y1):
            for ix in range(x0, x1):
                acc += x[n, iy, ix, c]
        count = (bottom - top) * (right - left) if include else (y1 - y0) * (x1 - x0)
        y[n, row, column, c] = acc / y.dtype.type(count)


@jit
def _shares(g, gx, geometry):
    """Thread i of the grid computes number i of gx, (N, H, W, C) in row-major order: the sum of its
    shares in all the windows that its pixel stood in."""
    kh, kw, sh, sw, ph, pw, include = geometry
    for i in mine(gx.size):
        rest, c = split(i, gx.shape[3])
        rest, column = split(rest, gx.shape[2])
        n, row = split(rest, gx.shape[1])
        h, w = gx.shape[1], gx.shape[2]
        acc = gx.dtype.type(0)
        for p in range(kh):
            oy, y_rest = split(row + ph - p, sh)
            if row + ph - p >= 0 and y_rest == 0 and oy < g.shape[1]:
                top = oy * sh - ph
                bottom = min(top + kh, h + ph)
                for q in range(kw):
                    ox, x_rest = split(column + pw - q, sw)
                    if column + pw - q >= 0 and x_rest == 0 and ox < g.shape[2]:
                        left = ox * sw - pw
                        right = min(left + kw, w + pw)
                        if include:
                            count = (bottom - top) * (right - left)
                        else:
                            rows, columns = (
                                min(bottom, h) - max(top, 0),
                                min(right, w) - max(left, 0),
                            )
                            count = rows * columns
                        acc += g[n, oy, ox, c] / gx.dtype.type(count)
        gx[n, row, column, c] = acc
