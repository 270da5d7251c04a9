"""Normalisation: subtract the mean, divide by the standard deviation, scale and shift.

Batch norm works on columns of (R, C), a row for each pixel: images whose channels are last lie so
already. Layer norm works on the rows of (R, D). Sums over columns are made in two steps, so that there
are blocks enough: each block adds up a stretch of rows, then one thread a column adds up the
stretches, always in the same order.
"""

import math

from numba import cuda

from .. import reference
from ._arrays import contiguous, empty, same_floats
from ._device import BUSY, LINE, SQUARE, blocks, cover, jit, launch, mine
from ._instructions import split
from ._reduce import block_sum
from .activation import relu_grad


def batch_norm(x, w, b, eps, running):
    """Normalise each channel over the batch and what lies behind: (N, C, ...), (C,), (C,) -> y.

    Returns y, and the batch's mean and 1 / sqrt(variance + eps) for the gradient. running: None, or
    (mean, variance, momentum), whose arrays move towards the batch's (unbiased) statistics.
    """
    if not same_floats(x, w, b) or (running is not None and not same_floats(x, *running[:2])):
        return reference.batch_norm(x, w, b, eps, running)
    rows, undo = _rows(x)
    stretches, length = _stretches(*rows.shape)
    means, squares = (empty(x, (stretches, rows.shape[1])) for _ in range(2))
    grid = blocks(rows.shape[1], ACROSS), stretches
    launch(_spread, grid, (ACROSS, DOWN), rows, length, means, squares)
    mean, rstd = empty(x, w.shape), empty(x, w.shape)
    number = x.dtype.type
    if running is None:
        running_mean, running_var, momentum = mean, rstd, 0.0
    else:
        running_mean, running_var, momentum = running
    statistics = means, squares, mean, rstd, running_mean, running_var
    options = len(rows), length, number(eps), number(momentum), running is not None
    launch(_combine, cover(w.size), LINE, *statistics, *options)
    y = empty(x, rows.shape)
    launch(_normalize, cover(y.size), LINE, rows, mean, rstd, w, b, y)
    return undo(y), mean, rstd


def batch_norm_grad(g, x, w, mean, rstd):
    """Gradients of batch_norm for x, w and b; mean and rstd as the forward returned them."""
    if not same_floats(g, x, w):
        return reference.batch_norm_grad(g, x, w, mean, rstd)
    (g_rows, _), (rows, undo) = _rows(g), _rows(x)
    stretches, length = _stretches(*rows.shape)
    gws, gbs = (empty(x, (stretches, rows.shape[1])) for _ in range(2))
    grid = blocks(rows.shape[1], ACROSS), stretches
    launch(_column_grads, grid, (ACROSS, DOWN), g_rows, rows, mean, rstd, length, gws, gbs)
    gw, gb = gws.sum(axis=0), gbs.sum(axis=0)
    gx = empty(x, rows.shape)
    launch(_batch_grad, cover(gx.size), LINE, g_rows, rows, w, mean, rstd, gw, gb, gx)
    return undo(gx), gw, gb


def batch_norm_relu(x, w, b, eps, running):
    """relu(batch_norm(x)); arguments and results as of batch_norm. In two passes."""
    y, mean, rstd = batch_norm(x, w, b, eps, running)
    return reference.relu(y), mean, rstd


def batch_norm_relu_grad(g, x, w, b, mean, rstd):
    """Gradients of batch_norm_relu for x, w and b; where y was positive is computed anew."""
    rows, undo = _rows(x)
    y = undo((rows - mean) * (rstd * w) + b)
    return batch_norm_grad(relu_grad(g, y), x, w, mean, rstd)


def layer_norm(x, w, b, eps):
    """Normalise each row: (R, D), (D,), (D,) -> y (R, D), mean (R, 1), 1 / sqrt(variance + eps)."""
    if not same_floats(x, w, b):
        return reference.layer_norm(x, w, b, eps)
    x = contiguous(x)
    y, mean, rstd = empty(x, x.shape), empty(x, (len(x), 1)), empty(x, (len(x), 1))
    launch(_layer, len(x), LINE, x, w, b, x.dtype.type(eps), y, mean, rstd)
    return y, mean, rstd


def layer_norm_grad(g, x, w, mean, rstd):
    """Gradients of layer_norm for x, w and b; mean and rstd as the forward returned them."""
    if not same_floats(g, x, w):
        return reference.layer_norm_grad(g, x, w, mean, rstd)
    g, x = contiguous(g), contiguous(x)
    gx = empty(x, x.shape)
    launch(_layer_grad, len(x), LINE, g, x, w, mean, rstd, gx)
    stretches, length = _stretches(*x.shape)
    gws, gbs = (empty(x, (stretches, x.shape[1])) for _ in range(2))
    grid = blocks(x.shape[1], ACROSS), stretches
    launch(_row_column_grads, grid, (ACROSS, DOWN), g, x, mean, rstd, length, gws, gbs)
    return gx, gws.sum(axis=0), gbs.sum(axis=0)


def _rows(x):
    """(N, C, ...) as (R, C) without gaps, a row for each pixel; and how to undo it."""
    last = (0, *range(2, x.ndim), 1)
    moved = x.transpose(last)
    back = tuple(last.index(axis) for axis in range(x.ndim))
    rows = contiguous(moved).reshape((math.prod(moved.shape[:-1]), x.shape[1]))
    return rows, lambda y: y.reshape(moved.shape).transpose(back)


ACROSS, DOWN = SQUARE  # threads of a block of column sums: neighbours on neighbouring columns


def _stretches(rows, columns):
    """Into how many stretches to cut the rows so that the card is busy, and their length."""
    stretches = max(1, min(BUSY // blocks(columns, ACROSS), rows // (4 * DOWN), 65535))
    return stretches, blocks(rows, stretches)


@jit
def _spread(x, length, means, squares):
    """Block (i, s) finds, for ACROSS columns of stretch s, the mean and the sum of squares about it.

    Each thread goes down every DOWNth row by Welford's method, which never subtracts large numbers;
    then the thread in front joins the DOWN results (Chan, Golub & LeVeque 1979).
    """
    all_means = cuda.shared.array((DOWN, ACROSS), x.dtype)
    all_squares = cuda.shared.array((DOWN, ACROSS), x.dtype)
    tx, ty, s = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y
    c = cuda.blockIdx.x * ACROSS + tx
    begin, end = s * length, min(s * length + length, x.shape[0])
    mean = x.dtype.type(0)
    square = x.dtype.type(0)
    if c < x.shape[1]:
        count = 0
        for r in range(begin + ty, end, DOWN):
            count += 1
            value = x[r, c]
            off = value - mean
            mean += off / x.dtype.type(count)
            square += off * (value - mean)
    all_means[ty, tx] = mean
    all_squares[ty, tx] = square
    cuda.syncthreads()
    if ty == 0 and c < x.shape[1]:
        total = min(max(end - begin + DOWN - 1, 0) // DOWN, end - begin)  # rows of thread 0
        for k in range(1, DOWN):
            count = max(end - begin - k + DOWN - 1, 0) // DOWN
            if count > 0:
                total += count
                off = all_means[k, tx] - mean
                share = x.dtype.type(count) / x.dtype.type(total)
                mean += off * share
                square += all_squares[k, tx] + off * off * x.dtype.type(total - count) * share
        means[s, c] = mean
        squares[s, c] = square


@jit
def _combine(
    means, squares, mean, rstd, running_mean, running_var, rows, length, eps, momentum, track
):
    """Thread c of the grid joins the stretches of column c, and moves the running statistics."""
    for c in mine(mean.size):
        centre = means[0, c]
        square = squares[0, c]
        total = min(length, rows)
        for s in range(1, means.shape[0]):
            count = min(rows - s * length, length)
            if count > 0:
                total += count
                off = means[s, c] - centre
                share = mean.dtype.type(count) / mean.dtype.type(total)
                centre += off * share
                square += squares[s, c] + off * off * mean.dtype.type(total - count) * share
        mean[c] = centre
        one = mean.dtype.type(1)
        rstd[c] = one / math.sqrt(square / mean.dtype.type(rows) + eps)
        if track:
            unbiased = square / mean.dtype.type(max(rows - 1, 1))
            running_mean[c] += momentum * (centre - running_mean[c])
            running_var[c] += momentum * (unbiased - running_var[c])


@jit
def _normalize(x, mean, rstd, w, b, y):
    """Thread i of the grid computes number i of y, (R, C) in row-major order."""
    for i in mine(y.size):
        r, c = split(i, y.shape[1])
        y[r, c] = (x[r, c] - mean[c]) * (rstd[c] * w[c]) + b[c]


@jit
def _column_grads(g, x, mean, rstd, length, gws, gbs):
    """Block (i, s) adds up, for ACROSS columns of stretch s, g and g times the normalised x."""
    all_gw = cuda.shared.array((DOWN, ACROSS), x.dtype)
    all_gb = cuda.shared.array((DOWN, ACROSS), x.dtype)
    tx, ty, s = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y
    c = cuda.blockIdx.x * ACROSS + tx
    gw = x.dtype.type(0)
    gb = x.dtype.type(0)
    if c < x.shape[1]:
        for r in range(s * length + ty, min(s * length + length, x.shape[0]), DOWN):
            gw += g[r, c] * ((x[r, c] - mean[c]) * rstd[c])
            gb += g[r, c]
    all_gw[ty, tx] = gw
    all_gb[ty, tx] = gb
    cuda.syncthreads()
    if ty == 0 and c < x.shape[1]:
        for k in range(1, DOWN):
            gw += all_gw[k, tx]
            gb += all_gb[k, tx]
        gws[s, c] = gw
        gbs[s, c] = gb


@jit
def _batch_grad(g, x, w, mean, rstd, gw, gb, gx):
    """Thread i of the grid computes number i of gx, (R, C) in row-major order.

    The mean and the variance depend on every element: hence the two terms that are taken away.
    """
    for i in mine(gx.size):
        r, c = split(i, gx.shape[1])
        rows = gx.dtype.type(gx.shape[0])
        normal = (x[r, c] - mean[c]) * rstd[c]
        gx[r, c] = (g[r, c] - gb[c] / rows - normal * (gw[c] / rows)) * (rstd[c] * w[c])


@jit
def _layer(x, w, b, eps, y, mean, rstd):
    """Block r normalises row r; its thread t the columns t, t + LINE, and so on."""
    shared = cuda.shared.array(LINE, x.dtype)
    r, t = cuda.blockIdx.x, cuda.threadIdx.x
    n = x.dtype.type(x.shape[1])
    total = x.dtype.type(0)
    for c in range(t, x.shape[1], LINE):
        total += x[r, c]
    centre = block_sum(total, shared) / n
    square = x.dtype.type(0)
    for c in range(t, x.shape[1], LINE):
        off = x[r, c] - centre
        square += off * off
    scale = x.dtype.type(1) / math.sqrt(block_sum(square, shared) / n + eps)
    for c in range(t, x.shape[1], LINE):
        y[r, c] = (x[r, c] - centre) * scale * w[c] + b[c]
    if t == 0:
        mean[r, 0] = centre
        rstd[r, 0] = scale


@jit
def _layer_grad(g, x, w, mean, rstd, gx):
    """Block r computes row r of gx; its thread t the columns t, t + LINE, and so on."""
    shared = cuda.shared.array(LINE, x.dtype)
    r, t = cuda.blockIdx.x, cuda.threadIdx.x
    n = x.dtype.type(x.shape[1])
    centre, scale = mean[r, 0], rstd[r, 0]
    plain = x.dtype.type(0)  # the sum of g w, and of g w times the normalised x
    along = x.dtype.type(0)
    for c in range(t, x.shape[1], LINE):
        gn = g[r, c] * w[c]
        plain += gn
        along += gn * ((x[r, c] - centre) * scale)
    plain = block_sum(plain, shared) / n
    along = block_sum(along, shared) / n
    for c in range(t, x.shape[1], LINE):
        normal = (x[r, c] - centre) * scale
        gx[r, c] = scale * (g[r, c] * w[c] - plain - normal * along)


@jit
def _row_column_grads(g, x, mean, rstd, length, gws, gbs):
    """As _column_grads, with the statistics of rows: mean, rstd (R, 1)."""
    all_gw = cuda.shared.array((DOWN, ACROSS), x.dtype)
    all_gb = cuda.shared.array((DOWN, ACROSS), x.dtype)
    tx, ty, s = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.y
    c = cuda.blockIdx.x * ACROSS + tx
    gw = x.dtype.type(0)
    gb = x.dtype.type(0)
    if c < x.shape[1]:
        for r in range(s * length + ty, min(s * length + length, x.shape[0]), DOWN):
            gw += g[r, c] * ((x[r, c] - mean[r, 0]) * rstd[r, 0])
            gb += g[r, c]
    all_gw[ty, tx] = gw
    all_gb[ty, tx] = gb
    cuda.syncthreads()
    if ty == 0 and c < x.shape[1]:
        for k in range(1, DOWN):
            gw += all_gw[k, tx]
            gb += all_gb[k, tx]
        gws[s, c] = gw
        gbs[s, c] = gb
