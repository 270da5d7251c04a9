"""Attention, a head at a time: scores, softmax and their use while they lie in the nearest cache.

As array expressions, a head's matrix of scores (L, S) goes through memory some ten times. Here a few
rows of it are computed by the micro-kernel (_tile), become weights, and are used at once:

    rows of scores  = rows of q @ (scale k)^T        as many as a tile has
    rows of weights = softmax(rows of scores)        with an exp that fills vector registers
    rows of y       = rows of weights @ v

Only the weights are kept, for the gradient, which goes through them once: a block of queries makes a
block of the scores' gradient, whose rows make gq, and whose columns are added to gk and gv. Threads
take heads. Keys that no query of a tile may see (causal) are not multiplied.

Heads may lie side by side, as a projection leaves them: their rows are read where they are, and the
results lie as q, k and v do, so nothing is copied before or behind. Errors are those of float32 sums;
float64 is for proofs and goes to the reference.
"""

import numpy as np
from numba import njit, prange

from .. import reference
from . import _scalars
from ._arrays import dense, empty, empty_like
from ._compiled import INNER, many, threaded
from ._product import pack
from ._tile import ROWS, any_tile_add, any_tile_from, columns, tile_cover
from ._vectors import part
from .activation import dot, largest_of, sum_of

WIDTH = columns(np.dtype(np.float32))  # of a tile
NO_OFFSET = np.zeros(1, np.int64)
BLOCK_ROWS = 128  # of queries whose scores' gradients are kept at a time


def attention(q, k, v, mask, keep, causal, scale):
    """softmax(scale q k^T + mask) v: (..., L, E), (..., S, E), (..., S, V) -> (..., L, V), weights.

    mask: None, bools (True: this key counts for this query) or numbers that are added to the scores,
    of a shape that broadcasts to (..., L, S). causal: query i sees the keys 0..i alone. A query that
    sees no key gets 0. keep: None, or factors for the weights (dropout). Vaswani et al. 2017.
    """
    if mask is not None and mask.dtype.kind == "b":
        added = np.where(mask, np.float32(0), np.float32(-np.inf))
    else:
        added = mask
    if not _suit(q, k, v, added, keep):
        return reference.attention(q, k, v, mask, keep, causal, scale)
    shape = (*q.shape[:-1], k.shape[-2])
    q, k, v = _dense_rows(q), _dense_rows(k), _dense_rows(v)
    weights, y = empty(shape, q.dtype), _room((*q.shape[:-1], v.shape[-1]), q)
    _attention(
        many(q, weights.size * (q.shape[-1] + v.shape[-1])), *tile_cover(q.shape[-2]),
        _heads(q), _heads(k), _heads(v), *_broadcast(added, shape), *_broadcast(keep, shape),
        causal, np.float32(scale), _heads(weights), _heads(y),
    )  # fmt: skip
    return y, weights


@threaded
def _attention(tiles, rows, q, k, v, mask, mask_at, keep, keep_at, causal, scale, weights, y):
    heads = q.shape[1]
    for head in prange(len(q) * heads):
        n, h = head // heads, head % heads
        _head(
            tiles, rows, q[n, h], k[n, h], v[n, h],
            mask[n * mask_at[0] + h * mask_at[1] :], mask_at[2],
            keep[n * keep_at[0] + h * keep_at[1] :], keep_at[2],
            causal, scale, weights[n, h], y[n, h],
        )  # fmt: skip


@njit(**INNER)
def _head(tiles, rows, q, k, v, mask, mask_row, keep, keep_row, causal, scale, weights, y):
    """One head: q (L, E), k (S, E), v (S, V) -> weights (L, S), y (L, V)."""
    n_keys, dropped, none = len(k), keep.size > 0, np.zeros(WIDTH, q.dtype)
    keys, values = _packed(k.T, scale), _packed(v, q.dtype.type(1))
    padded, outputs = len(keys) * WIDTH, len(values) * WIDTH
    scores, result = np.empty((ROWS, padded), q.dtype), np.empty((ROWS, outputs), q.dtype)
    used = np.empty((ROWS if dropped else 0, n_keys), q.dtype)
    # where rows lie: the queries', those of a tile, and those of weights
    order = np.arange(len(rows))
    q_rows, score_rows = rows * _row(q), order * padded
    used_rows = (order if dropped else rows) * n_keys
    # whole tiles are written where they belong; what hangs over is copied from beside
    whole = v.shape[1] == outputs
    target = part(y, 0, 0) if whole else part(result, 0, 0)
    target_rows = rows * _row(y) if whole else order * outputs
    for tile in range(len(tiles)):
        first, end, tall = tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]
        seen = min(n_keys, end) if causal else n_keys
        _multiply(tall, first, q, q_rows, 0, keys, q.shape[1], seen,
                  scores, score_rows, -first * padded, none)  # fmt: skip
        for row in range(first, end):
            own = min(n_keys, row + 1) if causal else n_keys
            at = row - first
            score, weight = part(scores, at * padded, own), part(weights, row * n_keys, n_keys)
            if mask.size > 0:
                _add(part(mask, row * mask_row, own), score)
            _softmax(score, part(weight, 0, own))
            _clear(part(weight, own, n_keys - own))
            if dropped:
                factor = part(keep, row * keep_row, n_keys)
                _times(weight, factor, part(used, at * n_keys, n_keys))
        _multiply(tall, first, used if dropped else weights, used_rows, -first * n_keys if dropped else 0,
                  values, seen, v.shape[1], target, target_rows, 0 if whole else -first * outputs,
                  none)  # fmt: skip
        for row in range(first, first if whole else end):
            at = (row - first) * outputs
            _copy(part(result, at, v.shape[1]), part(y, row * _row(y), v.shape[1]))


@njit(**INNER)
def _row(x):
    """How far the rows of x lie apart, in numbers."""
    return x.strides[0] // x.itemsize


@njit(**INNER)
def _softmax(score, weight):
    """weight = softmax(score); 0 everywhere if all scores are -inf.

    What is computed stays in score, near; weight, which comes from far, is written once.
    """
    zero, one = score.dtype.type(0), score.dtype.type(1)
    largest = largest_of(score)
    largest = largest if np.isfinite(largest) else zero
    for j in range(score.size):
        score[j] = _scalars.exp(score[j] - largest)
    total = sum_of(score)
    factor = one / total if total > zero else one
    for j in range(score.size):
        weight[j] = score[j] * factor


def attention_grad(g, q, k, v, mask, keep, causal, scale, weights):
    """Gradients of attention for q, k and v; weights as the forward returned them."""
    if not _suit(g, q, k, v, keep, weights):
        return reference.attention_grad(g, q, k, v, mask, keep, causal, scale, weights)
    g, q, k, v = (_dense_rows(x) for x in (g, q, k, v))
    gq, gk, gv = (_room(x.shape, x) for x in (q, k, v))
    _attention_grad(
        many(q, 2 * weights.size * (q.shape[-1] + v.shape[-1])),
        *tile_cover(q.shape[-2]), *tile_cover(k.shape[-2]),
        _heads(g), _heads(q), _heads(k), _heads(v), *_broadcast(keep, weights.shape),
        causal, np.float32(scale), _heads(dense(weights)), _heads(gq), _heads(gk), _heads(gv),
    )  # fmt: skip
    return gq, gk, gv


@threaded
def _attention_grad(
    tiles, rows, key_tiles, key_rows, g, q, k, v, keep, keep_at, causal, scale, weights, gq, gk, gv
):
    heads = q.shape[1]
    for head in prange(len(q) * heads):
        n, h = head // heads, head % heads
        _head_grad(
            tiles, rows, key_tiles, key_rows, g[n, h], q[n, h], k[n, h], v[n, h],
            keep[n * keep_at[0] + h * keep_at[1] :], keep_at[2], causal, scale,
            weights[n, h], gq[n, h], gk[n, h], gv[n, h],
        )  # fmt: skip


@njit(**INNER)
def _head_grad(
    tiles, rows, key_tiles, key_rows, g, q, k, v, keep, keep_row, causal, scale, weights, gq, gk, gv
):
    """One head, from the gradient g (L, V) to those of q (L, E), k (S, E) and v (S, V)."""
    n_keys, dropped, none = len(k), keep.size > 0, np.zeros(WIDTH, q.dtype)
    keys, queries = _packed(k, scale), _packed(q, scale)
    values, outputs = _packed(v.T, q.dtype.type(1)), _packed(g, q.dtype.type(1))
    padded, wide_k, wide_v = len(values) * WIDTH, len(keys) * WIDTH, len(outputs) * WIDTH
    # the last tile may hang over
    scores, result = (
        np.empty((BLOCK_ROWS + ROWS, padded), q.dtype),
        np.empty((ROWS, wide_k), q.dtype),
    )
    used = np.empty((BLOCK_ROWS if dropped else 0, n_keys), q.dtype)
    sums_k, sums_v = np.zeros((n_keys, wide_k), q.dtype), np.zeros((n_keys, wide_v), q.dtype)
    order = np.arange(len(rows))
    g_rows, score_rows = rows * _row(g), order * padded
    whole = k.shape[1] == wide_k
    target = part(gq, 0, 0) if whole else part(result, 0, 0)
    target_rows = rows * _row(gq) if whole else order * wide_k
    sums_k_rows, sums_v_rows = key_rows * wide_k, key_rows * wide_v
    tile = 0
    while tile < len(tiles):  # a block of queries
        top = bottom = tiles[tile, 0]
        while tile < len(tiles) and tiles[tile, 1] - top <= BLOCK_ROWS:
            first, end, tall = tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]
            seen = min(n_keys, end) if causal else n_keys
            _multiply(tall, first, g, g_rows, 0, values, v.shape[1], seen,
                      scores, score_rows, -top * padded, none)  # fmt: skip
            for row in range(first, end):
                own = min(n_keys, row + 1) if causal else n_keys
                at = row - top
                gradient, weight = part(scores, at * padded, own), part(weights, row * n_keys, own)
                if dropped:
                    factor = part(keep, row * keep_row, n_keys)
                    _times(
                        part(weights, row * n_keys, n_keys), factor, part(used, at * n_keys, n_keys)
                    )
                    _scale(gradient, factor)
                _softmax_grad(weight, gradient)
                _clear(part(scores, at * padded + own, padded - own))
            _multiply(tall, first, scores, score_rows, -top * padded, keys, seen, k.shape[1],
                      target, target_rows, 0 if whole else -first * wide_k, none)  # fmt: skip
            for row in range(first, first if whole else end):
                at = (row - first) * wide_k
                _copy(part(result, at, k.shape[1]), part(gq, row * _row(gq), k.shape[1]))
            tile, bottom = tile + 1, end
        seen = min(n_keys, bottom) if causal else n_keys
        _add_columns(key_tiles, scores, key_rows, 0, bottom - top, seen, queries, top,
                     sums_k, sums_k_rows)  # fmt: skip
        _add_columns(key_tiles, used if dropped else weights, key_rows, 0 if dropped else top * n_keys,
                     bottom - top, seen, outputs, top, sums_v, sums_v_rows)  # fmt: skip
    for row in range(n_keys):
        _copy(part(sums_k, row * wide_k, k.shape[1]), part(gk, row * _row(gk), k.shape[1]))
        _copy(part(sums_v, row * wide_v, v.shape[1]), part(gv, row * _row(gv), v.shape[1]))


@njit(**INNER)
def _softmax_grad(weight, gradient):
    """From the gradient of the weights to that of the scores, in place."""
    total = dot(gradient, weight)
    for j in range(weight.size):
        gradient[j] = weight[j] * (gradient[j] - total)


@njit(**INNER)
def _multiply(tall, first, x, x_rows, x_at, panels, depth, n_columns, out, out_rows, out_at, none):
    """A tile's rows of x times panels into rows of out; both tables count rows from 0.

    none: zeros; x_at and out_at shift the tables to where rows of an array that holds some only lie.
    """
    one_run = NO_OFFSET
    for panel in range((n_columns + WIDTH - 1) // WIDTH):
        any_tile_from(
            tall, none, 0, out, out_rows, out_at + panel * WIDTH, x, x_rows, x_at, first,
            one_run, 1, depth, 1, panels, panel * panels.shape[1] * WIDTH, WIDTH,
        )  # fmt: skip


@njit(**INNER)
def _add_columns(tiles, x, places, x_at, n_rows, n_columns, panels, panels_top, out, out_rows):
    """out += x.T @ panels, for n_rows rows of both and the first columns of x."""
    one_run = NO_OFFSET
    for tile in range(len(tiles)):
        first, tall = tiles[tile, 0], tiles[tile, 2]
        if first >= n_columns:
            break
        for panel in range(len(panels)):
            any_tile_add(
                tall, out, out_rows, panel * WIDTH, x, places, x_at, first, one_run, 1,
                n_rows, x.shape[1], panels, (panel * panels.shape[1] + panels_top) * WIDTH, WIDTH,
            )  # fmt: skip


@njit(**INNER)
def _packed(y, factor):
    """factor * y (K, N) as panels (P, K, COLUMNS)."""
    panels = np.empty(((y.shape[1] + WIDTH - 1) // WIDTH, len(y), WIDTH), y.dtype)
    pack(y, panels)
    if factor != 1:
        flat = panels.reshape(-1)
        for i in range(flat.size):
            flat[i] *= factor
    return panels


@njit(**INNER)
def _clear(x):
    for j in range(x.size):
        x[j] = 0


@njit(**INNER)
def _copy(x, y):
    for j in range(x.size):
        y[j] = x[j]


@njit(**INNER)
def _add(x, y):
    for j in range(x.size):
        y[j] += x[j]


@njit(**INNER)
def _times(x, y, z):
    for j in range(x.size):
        z[j] = x[j] * y[j]


@njit(**INNER)
def _scale(x, factor):
    for j in range(x.size):
        x[j] *= factor[j]


def _suit(*arrays):
    """All single, and not empty; None where there is nothing."""
    return all(a is None or (a.dtype == np.float32 and a.size > 0) for a in arrays)


def _dense_rows(x):
    """x, or a copy, whose last axis is dense in memory, and which Numba may take as writable."""
    return x if x.strides[-1] == x.itemsize and x.flags.behaved else np.array(x, order="C")


def _room(shape, like):
    """A new array in the memory order of another of that shape; else C-contiguous."""
    return empty_like(like) if shape == like.shape and len(shape) <= 4 else empty(shape, like.dtype)


def _heads(x):
    """x (..., L, E) as (N, H, L, E)."""
    return x.reshape(-1, *x.shape[-3:]) if x.ndim > 4 else x[(None,) * (4 - x.ndim)]


def _broadcast(x, shape):
    """A mask that broadcasts to (..., L, S): its rows one after another, and how far apart they are.

    Of the latter three: from one n to the next, one head, and one query, in numbers; 0 where one row
    serves all. An empty array if there is none.
    """
    if x is None:
        return np.empty(0, np.float32), np.zeros(3, np.int64)
    x = np.broadcast_to(x, shape) if len(shape) > 4 else x
    x = dense(np.broadcast_to(x, (*x.shape[:-1], shape[-1])))
    steps = _heads(np.broadcast_to(x, shape)).strides[:3]
    return x.reshape(-1), np.array(steps) // x.itemsize
