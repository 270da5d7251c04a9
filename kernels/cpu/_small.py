"""Dense layers whose numbers all fit into the nearest cache: one compiled function for each direction.

There a product takes less time than the calls around it, so bias and activation are part of it, and the
gradients of weights and bias come together.
"""

import numpy as np
from numba import njit

from . import _scalars
from ._compiled import COMPILED, INLINED, INNER, reading
from ._product import pack
from ._tile import ROWS, SHORT, VECTORS, any_tile_from, turn
from ._vectors import VECTOR_BYTES
from .activation import dot

SINGLE = np.dtype("float32")
SMALL = 1 << 15  # multiply-adds: up to here BLAS takes longer to begin than to compute
NARROW = 8  # rows or columns that are too few for panels
TOGETHER = 32  # rows whose sum begins anew, since long sums round more
LANES = VECTOR_BYTES // SINGLE.itemsize
COLUMNS = VECTORS * LANES

ACTIVATIONS = ("relu", "sigmoid", "tanh")
NO_ACTIVATION = -1


def is_small(x, y, multiply_adds):
    """Whether a product of x (M, K) and y, (K, N) or (N, K), is one for this file: both dense."""
    return (
        0 < multiply_adds <= SMALL
        and x.dtype is SINGLE
        and y.dtype is SINGLE
        and x.ndim == 2
        and y.ndim == 2
        and x.flags.carray
        and y.flags.carray
    )


@reading("x", "y")
@njit(**COMPILED)
def multiply(x, y, out):
    """out (M, N) = x (M, K) @ y (K, N)."""
    _product(x, x.shape[1], 1, y, x[0, :0], out)


@reading("x", "w", "b")
@njit(**COMPILED)
def dense_layer(x, w, b, activation, y):
    """y (N, O) = the activation of x (N, I) @ w (O, I).T + b (O,)."""
    if min(y.shape) < NARROW:  # where turning w would take longer than the product
        for r in range(len(x)):
            for o in range(len(w)):
                y[r, o] = dot(x[r], w[o]) + b[o]
    else:
        _product(x, x.shape[1], 1, w.T, b, y)
    if activation != NO_ACTIVATION:
        activate(y.reshape(-1), activation)


@reading("g", "x")
@njit(**COMPILED)
def dense_layer_grad(g, x, gw, gb):
    """gw (O, I) = g (N, O).T @ x (N, I), and gb (O,) the sum of the rows of g."""
    gb[:] = 0
    for r in range(len(g)):
        for o in range(gb.size):
            gb[o] += g[r, o]
    _weights_grad(g, x, gw)


@njit(**INNER)
def _weights_grad(g, x, gw):
    n_out, n_in = gw.shape
    if n_out < NARROW:
        gw[:] = 0
        for r in range(len(g)):
            for o in range(n_out):
                _add(g[r, o], x[r], gw[o])
    elif n_in >= n_out:
        _product(g, 1, n_out, x, gw[0, :0], gw)
    else:  # the wider of both as columns
        turned = np.empty(((n_in + LANES - 1) // LANES * LANES, n_out), gw.dtype)
        _product(x, 1, n_in, g, gw[0, :0], turned[:n_in])
        turn(turned, gw)


@reading("x", "w1", "b1", "w2", "b2")
@njit(**COMPILED)
def two_layers(x, w1, b1, w2, b2, activation, h, y):
    """h (N, H) = a dense layer of x (N, I) with an activation, and y (N, O) = a dense layer of h."""
    dense_layer(x, w1, b1, activation, h)
    dense_layer(h, w2, b2, NO_ACTIVATION, y)


@reading("g", "x", "w1", "w2", "h")
@njit(**COMPILED)
def two_layers_grad(g, x, w1, w2, activation, h, gx, gw1, gb1, gw2, gb2):
    """The gradients of two_layers, given that of y; gx without rows is left out."""
    gz = np.empty(h.shape, h.dtype)
    if len(w2) < NARROW:
        narrow_layer_grad(g, w2, activation, h, gz, gb1, gw2, gb2)
        _weights_grad(gz, x, gw1)
    else:
        dense_layer_grad(g, h, gw2, gb2)
        _product(g, g.shape[1], 1, w2, g[0, :0], gz)
        _times_slope(h.reshape(-1), activation, gz.reshape(-1))
        dense_layer_grad(gz, x, gw1, gb1)
    if len(gx):
        _product(gz, gz.shape[1], 1, w1, g[0, :0], gx)


@reading("g", "w2", "h")
@njit(**COMPILED)
def narrow_layer_grad(g, w2, activation, h, gz, gb1, gw2, gb2):
    """Backward through a dense layer w2 (O, H) of few outputs, and the activation that gave it h (N, H).

    Given g (N, O): gz (N, H), the gradient before the activation, gb1 (H,), the sum of its rows, gw2 and
    gb2 (O,). One pass over h and gz, where a product, an activation and a sum would each be one.
    """
    total_w, total_b = np.empty(gw2.shape, gw2.dtype), np.empty(gb1.shape, gb1.dtype)
    total = np.empty(gb2.shape, gb2.dtype)
    gw2[:] = 0
    gb1[:] = 0
    gb2[:] = 0
    one = g.dtype.type(1)
    for first in range(0, len(g), TOGETHER):
        total_w[:] = 0
        total_b[:] = 0
        total[:] = 0
        for r in range(first, min(first + TOGETHER, len(g))):
            row = gz[r]
            row[:] = 0
            for o in range(len(w2)):
                _add(g[r, o], h[r], total_w[o])
                _add(g[r, o], w2[o], row)
                total[o] += g[r, o]
            _times_slope(h[r], activation, row)
            _add(one, row, total_b)
        _add(one, total_b, gb1)
        _add(one, total, gb2)
        for o in range(len(w2)):
            _add(one, total_w[o], gw2[o])


@njit(**INLINED)
def _add(factor, row, total):
    """total += factor * row."""
    for i in range(row.size):
        total[i] += factor * row[i]


@njit(**INNER)
def _times_slope(y, activation, g):
    """g *= the derivative of an activation where its result is y, all numbers in a row."""
    zero, one = y.dtype.type(0), y.dtype.type(1)
    if activation == 0:
        for i in range(y.size):
            g[i] = g[i] if y[i] > zero else zero
    elif activation == 1:
        for i in range(y.size):
            g[i] *= y[i] * (one - y[i])
    else:
        for i in range(y.size):
            g[i] *= one - y[i] * y[i]


@njit(**INNER)
def activate(y, activation):
    """y = an activation of y, all numbers in a row."""
    zero = y.dtype.type(0)
    if activation == 0:
        for i in range(y.size):
            y[i] = zero if y[i] <= zero else y[i]
    elif activation == 1:
        for i in range(y.size):
            y[i] = _scalars.sigmoid(y[i])
    else:
        for i in range(y.size):
            y[i] = _scalars.tanh(y[i])


@njit(**INNER)
def _product(x, row, step, y, b, out):
    """out (M, N) = b + a product whose left side has rows, and the numbers in them, so far apart in x.

    b (N,), or of no elements. As product_of_rows, without what that does for its size.
    """
    n_rows, n_columns = out.shape
    depth, n_tiles = len(y), (n_rows + ROWS - 1) // ROWS
    panels = np.empty(((n_columns + COLUMNS - 1) // COLUMNS, depth, COLUMNS), x.dtype)
    pack(y, panels)
    start = np.zeros(panels.shape[0] * COLUMNS, x.dtype)
    start[: b.size] = b
    x_rows, out_rows = np.empty(n_tiles * ROWS, np.int64), np.empty(n_tiles * ROWS, np.int64)
    for r in range(x_rows.size):  # a tile that hangs over repeats the last row
        x_rows[r] = min(r, n_rows - 1) * row
        out_rows[r] = min(r, n_rows - 1) * n_columns
    one_run = np.zeros(1, np.int64)
    whole = n_columns // COLUMNS
    for panel in range(whole):
        left, at = panel * COLUMNS, panel * depth * COLUMNS
        for first in range(0, n_rows, ROWS):
            any_tile_from(n_rows - first > SHORT, start, left, out, out_rows, left, x, x_rows, 0, first,
                          one_run, 1, depth, step, panels, at, COLUMNS)  # fmt: skip
    if whole < len(panels):  # what hangs over the right edge is computed aside
        left, at = whole * COLUMNS, whole * depth * COLUMNS
        edge = np.empty((n_tiles * ROWS, COLUMNS), x.dtype)
        for r in range(x_rows.size):
            out_rows[r] = r * COLUMNS
        for first in range(0, n_rows, ROWS):
            any_tile_from(n_rows - first > SHORT, start, left, edge, out_rows, 0, x, x_rows, 0, first,
                          one_run, 1, depth, step, panels, at, COLUMNS)  # fmt: skip
        for r in range(n_rows):
            for c in range(left, n_columns):
                out[r, c] = edge[r, c - left]
