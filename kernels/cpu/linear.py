"""Matrix products: a ladder from three loops to BLAS, and a choice between our tiles and BLAS.

All rungs compute (M, K) @ (K, N) with the same number of multiplications. What differs is how often
each number travels: from memory, from a cache, or not at all because it waits in a register.
"""

from functools import partial

import numpy as np
from numba import njit, prange

from .. import reference
from . import _blas, _small
from ._arrays import PAGE, dense, empty
from ._compiled import COMPILED, INNER, many, reading, threaded
from ._product import product
from ._small import ACTIVATIONS, NO_ACTIVATION, SINGLE, activate, is_small


def matmul_loops(x, y):
    """Three loops, as the definition reads: y is read down its columns, a cache line for each number."""
    return _each(_loops, x, y)


@njit(**COMPILED)
def _loops(x, y, out):
    for i in range(x.shape[0]):
        for j in range(y.shape[1]):
            total = x.dtype.type(0)
            for k in range(x.shape[1]):
                total += x[i, k] * y[k, j]
            out[i, j] = total


def matmul_rows(x, y):
    """The two inner loops change places: whole rows of y are read and added, in vector registers."""
    return _each(_rows, x, y)


@njit(**COMPILED)
def _rows(x, y, out):
    for i in range(x.shape[0]):
        total = out[i]
        for j in range(total.size):
            total[j] = 0
        for k in range(x.shape[1]):
            factor, row = x[i, k], y[k]
            for j in range(row.size):
                total[j] += factor * row[j]


def matmul_tiled(x, y):
    """Goes over y in tiles that stay in the nearest cache while all rows of x pass by."""
    return _each(_tiled, x, y)


TILE_K, TILE_N = 32, 256  # a tile of y: 32 KB in float32


@njit(**COMPILED)
def _tiled(x, y, out):
    depth, width = y.shape
    for i in range(len(out)):
        row = out[i]
        for j in range(row.size):
            row[j] = 0
    for first in range(0, depth, TILE_K):
        for left in range(0, width, TILE_N):
            right = min(left + TILE_N, width)
            for i in range(len(out)):
                total = out[i, left:right]
                for k in range(first, min(first + TILE_K, depth)):
                    factor, row = x[i, k], y[k, left:right]
                    for j in range(row.size):
                        total[j] += factor * row[j]


def matmul_registers(x, y):
    """Keeps a tile of the result in registers, and packs y in the order in which it is read."""
    return _each(partial(_registers, threads=False), x, y)


def matmul_parallel(x, y):
    """The same, with blocks of rows on all threads; a stack of x by one y is a single tall product."""
    if y.ndim == 2 and x.ndim > 1 and x.size and (x.ndim == 2 or x.flags.c_contiguous):
        return _rows_times(x, y)
    return _each(_registers, x, y)


def _registers(x, y, out, threads=True):
    out[...] = product(x, y, threads=threads)


def matmul_blas(x, y):
    """The same again by specialists, in assembly for each processor: NumPy calls BLAS."""
    return _blas.matmul(x, y)


MATMULS = (
    matmul_loops,
    matmul_rows,
    matmul_tiled,
    matmul_registers,
    matmul_parallel,
    matmul_blas,
)


def matmul(x, y):
    """(..., M, K) @ (..., K, N) -> (..., M, N); leading axes broadcast.

    By our tiles where they beat BLAS: in small products, and see _tiles_pay.
    """
    # of a column and a row, one product for each number: BLAS takes three times as long
    if is_small(x, y, 1 if x.shape[-1] == 1 else x.size * y.shape[-1]):
        out = empty((len(x), y.shape[1]), SINGLE)
        _small.multiply(x, y, out)
        return out
    rung = matmul_parallel if _tiles_pay(x, y) else matmul_blas
    return rung(x, y)


def _tiles_pay(x, y):
    """Whether x (..., M, K) @ y (K, N) is faster by tiles than by BLAS.

    For one product of many rows in float32: 105 to 115 GFLOP/s on one core of a Zen 4 where OpenBLAS has
    99 to 105. Not where the rows of x lie a multiple of a page apart: they displace each other in the
    nearest cache, and BLAS, which copies them, wins by a fifth. In small products the call counts.
    """
    if y.ndim != 2 or x.dtype != np.float32 or y.dtype != np.float32:
        return False
    n_rows = x.size // max(x.shape[-1], 1)
    return (
        n_rows >= 128
        and x.size * y.shape[1] >= 1 << 23
        and (x.flags.c_contiguous or x.ndim == 2)
        and (x.strides[-2] % PAGE > 0)
    )


def _rows_times(x, y, start=None):
    if x.ndim == 2:
        return product(x, y, start)
    out = product(x.reshape(-1, x.shape[-1]), y, start)
    return out.reshape(*x.shape[:-1], y.shape[1])


def linear(x, w, b):
    """x @ w.T + b: (..., I), (O, I), (O,) or None -> (..., O); b is added in place."""
    if is_small(x, w, x.size * len(w)):
        return _small_layer(x, w, b, NO_ACTIVATION)
    if _tiles_pay(x, w.T):
        return _rows_times(x, w.T, b)
    y = _blas.matmul(x, w.T)
    if b is not None:
        y += b
    return y


def linear_activation(x, w, b, activation):
    """relu, sigmoid or tanh of linear(x, w, b); bias and activation in one pass, in place.

    (..., I), (O, I), (O,) or None -> (..., O)
    """
    if is_small(x, w, x.size * len(w)):
        return _small_layer(x, w, b, ACTIVATIONS.index(activation))
    if b is not None and _tiles_pay(x, w.T):
        y, b = _rows_times(x, w.T, b), b[:0]
    else:
        y = matmul(x, w.T)
    if b is None or y.dtype != np.float32 or y.size == 0:
        return getattr(reference, activation)(y if b is None else y + b)
    rows = y.reshape(-1, y.shape[-1])
    _add_and_activate(many(y, 8 * y.size), rows, dense(b), ACTIVATIONS.index(activation))
    return y


@reading("b")
@threaded
def _add_and_activate(y, b, activation):
    """Adds the row b, if it has numbers, to each row of y, and applies an activation."""
    for r in prange(len(y)):
        _row_add_and_activate(y[r], b, activation)


@njit(**INNER)
def _row_add_and_activate(y, b, activation):
    for i in range(b.size):
        y[i] += b[i]
    activate(y, activation)


def _small_layer(x, w, b, activation):
    b = np.zeros(len(w), SINGLE) if b is None else dense(b)
    y = np.empty((len(x), len(w)), SINGLE)
    _small.dense_layer(x, w, b, activation, y)
    return y


def linear_grad(g, x):
    """The gradients of linear for w and b: g (..., O), x (..., I) -> (O, I), (O,)."""
    if is_small(g, x, g.size * x.shape[-1]):
        gw, gb = np.empty((g.shape[1], x.shape[1]), SINGLE), np.empty(g.shape[1], SINGLE)
        _small.dense_layer_grad(g, x, gw, gb)
        return gw, gb
    g, x = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])
    return matmul(g.T, x), g.sum(axis=0)


def _each(kernel, x, y):
    """kernel(x, y, out) for each matrix of x (..., M, K) and y (..., K, N) -> (..., M, N)."""
    leading = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    out = np.empty((*leading, x.shape[-2], y.shape[-1]), x.dtype)
    x = np.broadcast_to(x, leading + x.shape[-2:])
    y = np.broadcast_to(y, leading + y.shape[-2:])
    for place in np.ndindex(leading):
        kernel(dense(x[place]), dense(y[place]), out[place])
    return out
