"""Normalisation: the statistics in blocks of rows, then one pass that writes the result.

Both kinds see a matrix. Batch normalisation has a row for each place of each image and works down the
columns, which are channels; so it wants the channels of a pixel side by side. Layer normalisation
works along the rows. Sums down the columns are made for each block of BLOCK_ROWS rows, then of those
sums: that bounds the rounding error, and gives the same bits for any number of threads.
"""

import math

import numpy as np
from numba import njit, prange

from .. import reference
from ._arrays import dense, empty_like, rows
from ._compiled import INLINED, INNER, REORDERED, many, threaded
from ._vectors import part

BLOCK_ROWS = 64


def batch_norm(x, w, b, eps, running):
    """Normalise each channel over the batch and what lies behind: (N, C, ...), (C,), (C,) -> y.

    Returns y, and the batch's mean and 1 / sqrt(variance + eps) for the gradient. running: None, or
    (mean, variance, momentum), whose arrays move towards the batch's (unbiased) statistics.
    """
    if not _suit(x, w, b):
        return reference.batch_norm(x, w, b, eps, running)
    return _batch_norm(x, w, b, eps, running, -math.inf)


def batch_norm_relu(x, w, b, eps, running):
    """relu(batch_norm(x)) in the pass that scales; arguments and results as of batch_norm."""
    if not _suit(x, w, b):
        return reference.batch_norm_relu(x, w, b, eps, running)
    return _batch_norm(x, w, b, eps, running, 0.0)


def _batch_norm(x, w, b, eps, running, least):
    """least: what smaller results become."""
    x, back = rows(x, 1)
    threads, count = many(x, 4 * x.size), x.dtype.type(len(x))
    means, squares = np.empty((2, -(-len(x) // BLOCK_ROWS), x.shape[1]), x.dtype)
    _block_statistics(threads, x, means, squares)
    # each block counts by its rows; what the means differ adds to the squares (Chan et al. 1979)
    sizes = np.full((len(means), 1), BLOCK_ROWS, x.dtype)
    sizes[-1] -= len(means) * BLOCK_ROWS - len(x)
    mean = (sizes * means).sum(axis=0) / count
    var = (squares + sizes * (means - mean) ** 2).sum(axis=0) / count
    rstd = 1 / np.sqrt(var + x.dtype.type(eps))
    if running is not None:
        running_mean, running_var, momentum = running
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (count / max(count - 1, 1)) - running_var)
    y = empty_like(x)
    _scale_columns(threads, x, mean, dense(rstd * w), dense(b), x.dtype.type(least), y)
    return back(y), mean, rstd


@threaded
def _block_statistics(x, means, squares):
    """The mean of each column of a block of rows, and the sum of squares around it."""
    for block in prange(len(means)):
        first, end = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(x))
        _statistics(x, first, end, means[block], squares[block])


@njit(**INNER)
def _statistics(x, first, end, mean, square):
    """Four rows at a time: a sum in memory waits for the one before it, so there should be few of them."""
    n = mean.size
    fours = first + (end - first) // 4 * 4
    for c in range(n):
        mean[c] = 0
        square[c] = 0
    for r in range(first, fours, 4):
        row1, row2, row3, row4 = _four_rows(x, r)
        for c in range(n):
            mean[c] += (row1[c] + row2[c]) + (row3[c] + row4[c])
    for r in range(fours, end):
        row = part(x, r * n, n)
        for c in range(n):
            mean[c] += row[c]
    for c in range(n):
        mean[c] /= x.dtype.type(end - first)
    for r in range(first, fours, 4):
        row1, row2, row3, row4 = _four_rows(x, r)
        for c in range(n):
            d1, d2 = row1[c] - mean[c], row2[c] - mean[c]
            d3, d4 = row3[c] - mean[c], row4[c] - mean[c]
            square[c] += (d1 * d1 + d2 * d2) + (d3 * d3 + d4 * d4)
    for r in range(fours, end):
        row = part(x, r * n, n)
        for c in range(n):
            square[c] += (row[c] - mean[c]) * (row[c] - mean[c])


@njit(**INLINED)
def _four_rows(x, r):
    n = x.shape[1]
    return (
        part(x, r * n, n),
        part(x, (r + 1) * n, n),
        part(x, (r + 2) * n, n),
        part(x, (r + 3) * n, n),
    )


@threaded
def _scale_columns(x, mean, scale, shift, least, y):
    for block in prange((len(x) + BLOCK_ROWS - 1) // BLOCK_ROWS):
        for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(x))):
            _scale_row(part(x, r * mean.size, mean.size), mean, scale, shift, least,
                       part(y, r * mean.size, mean.size))  # fmt: skip


@njit(**INLINED)
def _scale_row(x, mean, scale, shift, least, y):
    for c in range(x.size):
        value = (x[c] - mean[c]) * scale[c] + shift[c]
        y[c] = least if value <= least else value  # so that NaN stays


def batch_norm_grad(g, x, w, mean, rstd):
    """Gradients of batch_norm for x, w and b; mean and rstd as the forward returned them."""
    if not _suit(g, x, w, mean, rstd):
        return reference.batch_norm_grad(g, x, w, mean, rstd)
    return _batch_norm_grad(g, x, w, w, mean, rstd, False)


def batch_norm_relu_grad(g, x, w, b, mean, rstd):
    """Gradients of batch_norm_relu for x, w and b.

    Where the result was positive is computed anew from x, which costs less than to read it.
    """
    if not _suit(g, x, w, b, mean, rstd):
        return reference.batch_norm_relu_grad(g, x, w, b, mean, rstd)
    return _batch_norm_grad(g, x, w, b, mean, rstd, True)


def _batch_norm_grad(g, x, w, b, mean, rstd, relu):
    (x, back), (g, _) = rows(x, 1), rows(g, 1)
    threads, count = many(x, 4 * x.size), x.dtype.type(len(x))
    sums = np.empty((-(-len(x) // BLOCK_ROWS), 2, x.shape[1]), x.dtype)
    forward = dense(mean), dense(rstd * w), dense(b), relu
    _column_products(threads, g, x, *forward, sums)
    gb, gw = sums.sum(axis=0)
    gw = gw * rstd
    gx = empty_like(x)
    # the mean and the variance depend on every element: hence the two terms that are taken away
    _spread_columns(threads, g, x, *forward, gb / count, dense(gw * rstd / count), gx)
    return back(gx), gw, gb


@threaded
def _column_products(g, x, mean, scale, shift, relu, sums):
    """The sums of g, and of g * (x - mean), over each block of rows; g passes relu first."""
    for block in prange(len(sums)):
        first, end = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(x))
        _products(g, x, first, end, mean, scale, shift, relu, sums[block, 0], sums[block, 1])


@njit(**INNER)
def _products(g, x, first, end, mean, scale, shift, relu, plain, product):
    """Four rows at a time, as in _statistics."""
    n, zero = mean.size, x.dtype.type(0)
    fours = first + (end - first) // 4 * 4
    for c in range(n):
        plain[c] = 0
        product[c] = 0
    for r in range(first, fours, 4):
        row1, row2, row3, row4 = _four_rows(x, r)
        g1, g2, g3, g4 = _four_rows(g, r)
        for c in range(n):
            d1, d2 = row1[c] - mean[c], row2[c] - mean[c]
            d3, d4 = row3[c] - mean[c], row4[c] - mean[c]
            p1 = _passed(g1[c], d1 * scale[c] + shift[c], relu, zero)
            p2 = _passed(g2[c], d2 * scale[c] + shift[c], relu, zero)
            p3 = _passed(g3[c], d3 * scale[c] + shift[c], relu, zero)
            p4 = _passed(g4[c], d4 * scale[c] + shift[c], relu, zero)
            plain[c] += (p1 + p2) + (p3 + p4)
            product[c] += (p1 * d1 + p2 * d2) + (p3 * d3 + p4 * d4)
    for r in range(fours, end):
        row, gradient = part(x, r * n, n), part(g, r * n, n)
        for c in range(n):
            d = row[c] - mean[c]
            p = _passed(gradient[c], d * scale[c] + shift[c], relu, zero)
            plain[c] += p
            product[c] += p * d


@njit(**INLINED)
def _passed(g, y, relu, zero):
    """The gradient that passes relu, if there is one behind y."""
    return g if (y > zero) | (not relu) else zero


@threaded
def _spread_columns(g, x, mean, scale, shift, relu, plain, product, gx):
    n = mean.size
    for block in prange((len(x) + BLOCK_ROWS - 1) // BLOCK_ROWS):
        for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(x))):
            _spread_row(part(g, r * n, n), part(x, r * n, n), mean, scale, shift, relu,
                        plain, product, part(gx, r * n, n))  # fmt: skip


@njit(**INLINED)
def _spread_row(g, x, mean, scale, shift, relu, plain, product, gx):
    zero = x.dtype.type(0)
    for c in range(x.size):
        centred = x[c] - mean[c]
        gradient = _passed(g[c], centred * scale[c] + shift[c], relu, zero)
        gx[c] = (gradient - plain[c] - centred * product[c]) * scale[c]


def layer_norm(x, w, b, eps):
    """Normalise each row: (R, D), (D,), (D,) -> y (R, D), mean (R, 1), 1 / sqrt(variance + eps)."""
    if not _suit(x, w, b):
        return reference.layer_norm(x, w, b, eps)
    x = dense(x)
    y, mean, rstd = empty_like(x), np.empty((len(x), 1), x.dtype), np.empty((len(x), 1), x.dtype)
    _layer_norm(many(x, 4 * x.size), x, dense(w), dense(b), x.dtype.type(eps), y, mean, rstd)
    return y, mean, rstd


@threaded
def _layer_norm(x, w, b, eps, y, mean, rstd):
    for block in prange((len(x) + BLOCK_ROWS - 1) // BLOCK_ROWS):
        for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(x))):
            row, out = part(x, r * w.size, w.size), part(y, r * w.size, w.size)
            mean[r, 0], rstd[r, 0] = _layer_norm_row(row, w, b, eps, out)


@njit(**INNER)
def _layer_norm_row(x, w, b, eps, y):
    mean = _sum(x) / x.dtype.type(x.size)
    var = _sum_of_squares(x, mean) / x.dtype.type(x.size)
    rstd = x.dtype.type(1) / np.sqrt(var + eps)
    for c in range(x.size):
        y[c] = (x[c] - mean) * rstd * w[c] + b[c]
    return mean, rstd


@njit(**REORDERED)
def _sum(x):
    total = x.dtype.type(0)
    for c in range(x.size):
        total += x[c]
    return total


@njit(**REORDERED)
def _sum_of_squares(x, mean):
    total = x.dtype.type(0)
    for c in range(x.size):
        total += (x[c] - mean) * (x[c] - mean)
    return total


def layer_norm_grad(g, x, w, mean, rstd):
    """Gradients of layer_norm for x, w and b; mean and rstd as the forward returned them."""
    if not _suit(g, x, w, mean, rstd):
        return reference.layer_norm_grad(g, x, w, mean, rstd)
    g, x = dense(g), dense(x)
    gx = empty_like(x)
    sums = np.empty((-(-len(x) // BLOCK_ROWS), 2, x.shape[1]), x.dtype)
    _layer_norm_grad(many(x, 4 * x.size), g, x, dense(w), dense(mean), dense(rstd), gx, sums)
    gw, gb = sums.sum(axis=0)
    return gx, gw, gb


@threaded
def _layer_norm_grad(g, x, w, mean, rstd, gx, sums):
    for block in prange(len(sums)):
        gw, gb = sums[block, 0], sums[block, 1]
        for c in range(gw.size):
            gw[c] = 0
            gb[c] = 0
        for r in range(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(x))):
            row, gradient = part(x, r * w.size, w.size), part(g, r * w.size, w.size)
            out = part(gx, r * w.size, w.size)
            _layer_norm_grad_row(gradient, row, w, mean[r, 0], rstd[r, 0], out, gw, gb)


@njit(**INNER)
def _layer_norm_grad_row(g, x, w, mean, rstd, gx, gw, gb):
    """One row of the gradient for x; adds to those for w and b."""
    plain, product = _sums_of_products(g, x, w, mean)
    plain /= x.dtype.type(x.size)
    product *= rstd * rstd / x.dtype.type(x.size)
    for c in range(x.size):
        centred = x[c] - mean
        gw[c] += g[c] * (centred * rstd)
        gb[c] += g[c]
        gx[c] = rstd * (g[c] * w[c] - plain - centred * product)


@njit(**REORDERED)
def _sums_of_products(g, x, w, mean):
    plain = product = x.dtype.type(0)
    for c in range(x.size):
        plain += g[c] * w[c]
        product += g[c] * w[c] * (x[c] - mean)
    return plain, product


def _suit(x, *others):
    """One dtype, single or double, and not empty."""
    return x.dtype.char in "fd" and x.size > 0 and all(o.dtype == x.dtype for o in others)
