"""Matrix products: a ladder from three loops to BLAS, which stays the default.

All rungs compute (M, K) @ (K, N) with the same number of multiplications. What differs is how often
each number travels: from memory, from a cache, or not at all because it waits in a register.
"""

import numpy as np
from numba import njit, prange

from .. import reference
from . import _blas, _scalars
from ._arrays import dense
from ._compiled import COMPILED, INNER, many, threaded
from ._tile import ROWS, columns, tile_add


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
    """Keeps a tile of the result in registers, and packs x and y in the order in which it reads them."""
    return _each(_registers, x, y)


def matmul_parallel(x, y):
    """The same, with blocks of rows on all threads."""
    return _each(_registers_parallel, x, y)


DEPTH = 256  # of a block of panels: one panel of it is 32 KB, and stays in the nearest cache
HEIGHT = 12 * ROWS  # of a block of rows of x: packed, it stays in the next cache


def _registers(x, y, out, threads=False):
    panels = np.zeros((-(-y.shape[1] // columns(y.dtype)), len(y), columns(y.dtype)), y.dtype)
    _pack_columns(y, panels)
    out[...] = 0
    _blocks(threads, x, panels, out.reshape(-1), out.shape[1])


def _registers_parallel(x, y, out):
    _registers(x, y, out, many(x, x.size * y.shape[1]))


@njit(**COMPILED)
def _pack_columns(y, panels):
    """y (K, N) into panels (P, K, COLUMNS), which hold zeros beyond the last column."""
    width = panels.shape[2]
    for panel in range(len(panels)):
        for k in range(len(y)):
            row, packed = y[k, panel * width : (panel + 1) * width], panels[panel, k]
            for j in range(row.size):
                packed[j] = row[j]


@njit(**INNER)
def _pack_rows(x, packed):
    """x (M, K) into packed (T, K, ROWS): tiles of ROWS rows, one after another; zeros beyond the last."""
    for tile in range(len(packed)):
        for m in range(ROWS):
            row, exists = tile * ROWS + m, tile * ROWS + m < len(x)
            for k in range(x.shape[1]):
                packed[tile, k, m] = x[row, k] if exists else 0


@threaded
def _blocks(x, panels, out, n_columns):
    for block in prange((len(x) + HEIGHT - 1) // HEIGHT):
        _block(block * HEIGHT, x[block * HEIGHT : (block + 1) * HEIGHT], panels, out, n_columns)


@njit(**INNER)
def _block(first, x, panels, out, n_columns):
    """x (M, K) @ panels (P, K, COLUMNS), added to out, flat, from row `first` on."""
    n_rows, depth = x.shape
    width = panels.shape[2]
    rows = np.arange(ROWS)
    out_rows, edge_rows = rows * n_columns, rows * width
    packed = np.empty(((n_rows + ROWS - 1) // ROWS, min(DEPTH, depth), ROWS), x.dtype)
    edge, one_run = np.empty(ROWS * width, x.dtype), np.zeros(1, np.int64)
    for k in range(0, depth, DEPTH):
        length = min(DEPTH, depth - k)
        _pack_rows(x[:, k : k + length], packed)
        for panel in range(len(panels)):
            right = min(width, n_columns - panel * width)
            for tile in range(len(packed)):
                below = min(ROWS, n_rows - tile * ROWS)
                at = (first + tile * ROWS) * n_columns + panel * width
                inside = below == ROWS and right == width
                if not inside:  # the tile hangs over the edge: it is computed aside
                    for i in range(edge.size):
                        edge[i] = 0
                tile_add(
                    out if inside else edge, out_rows if inside else edge_rows, at if inside else 0,
                    packed, rows, tile * packed.shape[1] * ROWS, 0, one_run, 1, length, ROWS,
                    panels, (panel * depth + k) * width, width,
                )  # fmt: skip
                if not inside:  # and what exists of it is added
                    for m in range(below):
                        for j in range(right):
                            out[at + m * n_columns + j] += edge[m * width + j]


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
    """(..., M, K) @ (..., K, N) -> (..., M, N); leading axes broadcast. BLAS wins at every size."""
    return matmul_blas(x, y)


def linear(x, w, b):
    """x @ w.T + b: (..., I), (O, I), (O,) or None -> (..., O); b is added in place."""
    y = _blas.matmul(x, w.T)
    if b is not None:
        y += b
    return y


def linear_activation(x, w, b, activation):
    """relu, sigmoid or tanh of linear(x, w, b); bias and activation in one pass, in place.

    (..., I), (O, I), (O,) or None -> (..., O)
    """
    y = _blas.matmul(x, w.T)
    if b is None or y.dtype != np.float32 or y.size == 0:
        return getattr(reference, activation)(y if b is None else y + b)
    rows = y.reshape(-1, y.shape[-1])
    _add_and_activate(many(y, 8 * y.size), rows, dense(b), ACTIVATIONS.index(activation))
    return y


ACTIVATIONS = ("relu", "sigmoid", "tanh")


@threaded
def _add_and_activate(y, b, activation):
    """Adds the row b to each row of y, and applies an activation."""
    for r in prange(len(y)):
        _row_add_and_activate(y[r], b, activation)


@njit(**INNER)
def _row_add_and_activate(y, b, activation):
    zero = y.dtype.type(0)
    if activation == 0:
        for i in range(b.size):
            z = y[i] + b[i]
            y[i] = zero if z <= zero else z
    elif activation == 1:
        for i in range(b.size):
            y[i] = _scalars.sigmoid(y[i] + b[i])
    else:
        for i in range(b.size):
            y[i] = _scalars.tanh(y[i] + b[i])


def _each(kernel, x, y):
    """kernel(x, y, out) for each matrix of x (..., M, K) and y (..., K, N) -> (..., M, N)."""
    leading = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    out = np.empty((*leading, x.shape[-2], y.shape[-1]), x.dtype)
    x = np.broadcast_to(x, leading + x.shape[-2:])
    y = np.broadcast_to(y, leading + y.shape[-2:])
    for place in np.ndindex(leading):
        kernel(dense(x[place]), dense(y[place]), out[place])
    return out
