"""Two dense layers with an activation between them, a block of rows at a time.

Layer by layer, the wide rows in the middle go through memory eight times in a training step. Here a
block of rows passes both layers while what it has become lies in the second cache:

    h = x @ w1.T + b1;  h, slope = activation(h), its derivative;  y = h @ w2.T + b2
    gz = g @ w2 * slope;  gx = gz @ w1                                               backward

Only h, slope and gz are written to memory; the gradients of weights are one product each behind the
loop. An activation and its derivative share their exponential. Threads take blocks. Rows in the middle
lie a cache line more than their length apart: columns of rows a multiple of a page apart displace each
other in the nearest cache. Networks whose numbers all fit into the nearest cache take one call for
each direction (_small.py). float64 is for proofs, and few rows or columns do not repay the copies of the
weights: those go layer by layer.
"""

import numpy as np
from numba import njit, prange

from . import _scalars, _small
from ._arrays import LINE, dense, empty
from ._compiled import INNER, many, threaded
from ._product import pack, product_of_rows
from ._small import ACTIVATIONS, NARROW, NO_ACTIVATION, SINGLE, activate, is_small
from ._tile import ROWS, SHORT, TALL, any_tile_from, columns, tile_cover
from ._vectors import part
from .activation import gelu, gelu_grad, relu_grad, sigmoid_grad, tanh_grad
from .linear import linear, linear_activation, linear_grad, matmul

WIDTH = columns(np.dtype(np.float32))  # of a tile
TOGETHER = 56 // ROWS if TALL else 112 // SHORT  # tiles that make a block of rows
FEWEST = 128  # rows
WIDEST = 2048  # rows or columns of weights
GRADIENTS = {"relu": relu_grad, "sigmoid": sigmoid_grad, "tanh": tanh_grad, "gelu": gelu_grad}
NUMBERED = (*ACTIVATIONS, "gelu")
GELU = NUMBERED.index("gelu")


def feed_forward(x, w1, b1, w2, b2, activation):
    """linear(activation(linear(x, w1, b1)), w2, b2): (R, I), (H, I), (H,), (O, H), (O,) -> (R, O).

    activation: "relu", "sigmoid", "tanh" or "gelu". Returns the result, and what the gradient needs: arrays
    (R, H).
    """
    if _is_tiny(x, w1, w2, activation):
        h, y = np.empty((len(x), len(w1)), SINGLE), np.empty((len(x), len(w2)), SINGLE)
        _small.two_layers(x, w1, dense(b1), w2, dense(b2), ACTIVATIONS.index(activation), h, y)
        return y, (h,)
    if not _suit(x, w1, w2):
        if activation == "gelu":
            z = linear(x, w1, b1)
            h = gelu(z)
        else:
            z = h = linear_activation(x, w1, b1, activation)
        if _is_narrow(h, w2, activation):
            y = np.empty((len(x), len(w2)), SINGLE)
            _small.dense_layer(h, dense(w2), dense(b2), NO_ACTIVATION, y)
            return y, (h, z)
        return linear(h, w2, b2), (h, z)
    x, size, outputs = dense(x), len(w1), len(w2)
    panels1, panels2 = _panels(w1.T, x.shape[1]), _panels(w2.T, _whole(size))
    h, slope = _room(x, size), _room(x, size)
    tiles, rows = tile_cover(len(x), TALL)
    y = empty((len(x), _whole(outputs)), x.dtype)
    _forward(
        many(x, len(x) * (w1.size + w2.size)), tiles, rows, x, panels1, _padded(b1), panels2,
        _padded(b2), NUMBERED.index(activation), h, slope, y,
    )  # fmt: skip
    return y[:, :outputs], (h, slope)


@threaded
def _forward(tiles, rows, x, panels1, start1, panels2, start2, activation, h, slope, y):
    x_rows, h_rows, y_rows = rows * x.shape[1], rows * h.shape[1], rows * y.shape[1]
    size = start1.size
    for block in prange((len(tiles) + TOGETHER - 1) // TOGETHER):
        some = tiles[block * TOGETHER : (block + 1) * TOGETHER]
        _multiply(some, x, x_rows, panels1, start1, h, h_rows)
        for row in range(some[0, 0], some[-1, 1]):
            at = row * h.shape[1]
            _activate(activation, part(h, at, size), part(slope, at, size))
        _multiply(some, h, h_rows, panels2, start2, y, y_rows)


@njit(**INNER)
def _activate(activation, z, slope):
    """z to its activation, in place, and the slope there."""
    if activation == GELU:
        for j in range(z.size):
            below, density = _scalars.normal(z[j])
            slope[j] = below + z[j] * density
            z[j] *= below
    else:
        activate(z, activation)
        _slope(z, activation, slope)


@njit(**INNER)
def _slope(y, activation, out):
    """out = the derivative of an activation where its result is y, all numbers in a row."""
    zero, one = y.dtype.type(0), y.dtype.type(1)
    if activation == 0:
        for i in range(y.size):
            out[i] = one if y[i] > zero else zero
    elif activation == 1:
        for i in range(y.size):
            out[i] = y[i] * (one - y[i])
    else:
        for i in range(y.size):
            out[i] = one - y[i] * y[i]


def feed_forward_grad(g, x, w1, w2, activation, saved, of_x):
    """Gradients of feed_forward for x, w1, b1, w2 and b2; saved as the forward returned it.

    of_x: whether the first is asked for; else it is None.
    """
    if len(saved) == 1:  # of a tiny network
        (h,), gx = saved, np.empty(x.shape if of_x else (0, 0), SINGLE)
        gw1, gb1 = np.empty(w1.shape, SINGLE), np.empty(len(w1), SINGLE)
        gw2, gb2 = np.empty(w2.shape, SINGLE), np.empty(len(w2), SINGLE)
        activation = ACTIVATIONS.index(activation)
        _small.two_layers_grad(dense(g), x, w1, w2, activation, h, gx, gw1, gb1, gw2, gb2)
        return gx if of_x else None, gw1, gb1, gw2, gb2
    if not _suit(x, w1, w2):
        h, z = saved
        if _is_narrow(h, w2, activation):
            gz, gb1 = empty(h.shape, SINGLE), np.empty(len(w1), SINGLE)
            gw2, gb2 = np.empty(w2.shape, SINGLE), np.empty(len(w2), SINGLE)
            number = ACTIVATIONS.index(activation)
            _small.narrow_layer_grad(dense(g), dense(w2), number, h, gz, gb1, gw2, gb2)
            return matmul(gz, w1) if of_x else None, matmul(gz.T, x), gb1, gw2, gb2
        gz = GRADIENTS[activation](matmul(g, w2), z)
        gx = matmul(gz, w1) if of_x else None
        return gx, *linear_grad(gz, x), *linear_grad(g, h)
    (h, slope), g, x, size, features = saved, dense(g), dense(x), len(w1), w1.shape[1]
    panels1, panels2 = _panels(w1, _whole(size)), _panels(w2, len(w2))
    tiles, rows = tile_cover(len(x), TALL)
    gz = _room(x, size)
    gx = empty((len(x) if of_x else 0, _whole(features)), x.dtype)
    sums = np.zeros((-(-len(tiles) // TOGETHER), _whole(size)), x.dtype)
    _backward(
        many(x, len(x) * (w1.size + w2.size)), tiles, rows, g, panels2, panels1, slope, gz, gx, sums
    )
    gw1 = product_of_rows(gz, np.arange(size), gz.shape[1], x)
    gw2 = product_of_rows(g, np.arange(len(w2)), len(w2), h[:, :size])
    return gx[:, :features] if of_x else None, gw1, sums.sum(axis=0)[:size], gw2, g.sum(axis=0)


@threaded
def _backward(tiles, rows, g, panels2, panels1, slope, gz, gx, sums):
    g_rows, gz_rows, gx_rows = rows * g.shape[1], rows * gz.shape[1], rows * gx.shape[1]
    size = sums.shape[1]
    zeros = np.zeros(max(size, gx.shape[1]), g.dtype)
    for block in prange(len(sums)):
        some = tiles[block * TOGETHER : (block + 1) * TOGETHER]
        _multiply(some, g, g_rows, panels2, zeros, gz, gz_rows)
        for row in range(some[0, 0], some[-1, 1]):
            at = row * gz.shape[1]
            _times(part(slope, at, size), part(gz, at, size), part(sums, block * size, size))
        if len(gx):
            _multiply(some, gz, gz_rows, panels1, zeros, gx, gx_rows)


@njit(**INNER)
def _times(slope, g, total):
    """g *= slope, and adds it to the total."""
    for j in range(g.size):
        g[j] *= slope[j]
        total[j] += g[j]


@njit(**INNER)
def _multiply(tiles, x, x_rows, panels, start, out, out_rows):
    """The rows of some tiles: out = start + x @ panels; the tables say where each row lies."""
    one_run = np.zeros(1, np.int64)
    depth = panels.shape[1]
    for panel in range(len(panels)):
        left = panel * WIDTH
        for tile in range(len(tiles)):
            first, tall = tiles[tile, 0], tiles[tile, 2]
            any_tile_from(
                tall, start, left, out, out_rows, left, x, x_rows, 0, first, one_run, 1, depth, 1,
                panels, panel * depth * WIDTH, WIDTH,
            )  # fmt: skip


def _suit(x, w1, w2):
    """Single, many rows, and weights that fill tiles and of which a block's share stays in the caches."""
    arrays = x, w1, w2
    return (
        all(a.dtype == np.float32 and a.size > 0 for a in arrays)
        and len(x) >= FEWEST
        and max(*w1.shape, *w2.shape) <= WIDEST
        and 2 * min(*w1.shape, *w2.shape) >= WIDTH
    )


def _is_narrow(h, w2, activation):
    """Whether the second layer has so few outputs that a pass over its input takes less than a product."""
    few = 0 < len(w2) < NARROW and h.size > 0
    return few and activation != "gelu" and h.dtype is SINGLE and w2.dtype is SINGLE


def _is_tiny(x, w1, w2, activation):
    """Whether it is a network for _small.py."""
    return (
        activation != "gelu"
        and is_small(x, w1, x.size * len(w1))
        and is_small(x, w2, len(x) * w2.size)
    )


def _whole(n):
    """n, rounded up to whole tiles."""
    return n + -n % WIDTH


def _room(x, size):
    """Memory for a row of `size` numbers, and zeros up to whole tiles, for each row of x."""
    return empty((len(x), _whole(size) + LINE // x.itemsize), x.dtype)


def _padded(b):
    """b (N,) with zeros up to whole tiles."""
    start = np.zeros(_whole(b.size), b.dtype)
    start[: b.size] = b
    return start


def _panels(y, depth):
    """y (K, N) as panels (P, depth, COLUMNS), with zeros for what is not there."""
    shape = -(-y.shape[1] // WIDTH), depth, WIDTH
    panels = empty(shape, y.dtype) if depth == len(y) else np.zeros(shape, y.dtype)
    pack(y, panels)
    return panels
