"""One step of an optimizer, in place: each weight, with its gradient and state, is read once.

Factors such as 1 - beta2 are formed in double precision, as in the reference: taken in float32,
1 - 0.999 is off by 1.3e-5 of itself, which one step does not show and a hundred do.
"""

import math

import numpy as np
from numba import njit, prange

from .. import reference
from ..reference._pieces import on_pieces, takes_pieces
from ._arrays import in_memory_order, like
from ._compiled import COMPILED, INNER, many, threaded
from ._vectors import array_at

BLOCK = 16384


@on_pieces
def adam_loops_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """A compiled loop for each line of the algorithm: what the arrays do, without their overhead."""
    arrays = _flat(w, g, m, v)
    if arrays is None or v_max is not None or weight_decay:
        return reference.adam_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled)
    correction = math.sqrt(1 - beta2**t)
    step = np.empty_like(arrays[0])
    factors = (1 - beta1, 1 - beta2, lr * correction / (1 - beta1**t), eps * correction)
    _adam_loops_(*arrays, step, *map(w.dtype.type, factors))


@njit(**COMPILED)
def _adam_loops_(w, g, m, v, step, towards1, towards2, rate, eps):
    for i in range(w.size):
        m[i] += towards1 * (g[i] - m[i])
    for i in range(w.size):
        step[i] = g[i] * g[i]
    for i in range(w.size):
        v[i] += towards2 * (step[i] - v[i])
    for i in range(w.size):
        step[i] = m[i] / (np.sqrt(v[i]) + eps)
    for i in range(w.size):
        w[i] -= rate * step[i]


@takes_pieces
def adam_arrays_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """Array expressions in place: vector instructions, and a dozen passes over memory."""
    return reference.adam_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled)


@takes_pieces
def adam_one_pass_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """All lines for one weight before the next: seven numbers moved for each, instead of thirty."""
    _adam(False, w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled)


@takes_pieces
def adam_parallel_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    """Blocks of weights on all threads; pieces of weights where they lie, on one."""
    _adam(True, w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled)


def _adam(threads, w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled):
    pieces = isinstance(w, list)
    arrays = _places(w, g, m, v) if pieces else _flat(w, g, m, v)
    if arrays is None or v_max is not None:  # AMSGrad is seldom used
        return reference.adam_(w, g, m, v, v_max, t, lr, beta1, beta2, eps, weight_decay, decoupled)
    correction = math.sqrt(1 - beta2**t)
    shrink = 1 - lr * weight_decay if decoupled else 1.0
    decay = 0.0 if decoupled else float(weight_decay)
    rate, eps = lr * correction / (1 - beta1**t), eps * correction
    factors = 1 - beta1, 1 - beta2, rate, eps, float(shrink), decay
    if pieces:
        _adam_pieces_(*arrays, *factors)
    else:
        _adam_(threads and many(w, w.size), *arrays, *factors)


@threaded
def _adam_(w, g, m, v, towards1, towards2, rate, eps, shrink, decay):
    number = w.dtype.type  # factors come in double precision, and are rounded once
    towards1, towards2, rate = number(towards1), number(towards2), number(rate)
    eps, shrink, decay = number(eps), number(shrink), number(decay)
    for block in prange((w.size + BLOCK - 1) // BLOCK):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        _adam_block_(w[part], g[part], m[part], v[part], towards1, towards2, rate, eps, shrink,
                     decay)  # fmt: skip


@njit(**COMPILED)
def _adam_pieces_(places, m, v, towards1, towards2, rate, eps, shrink, decay):
    """places: of each piece the address of its weights, that of their gradients, and its end in m and v."""
    number = m.dtype.type
    towards1, towards2, rate = number(towards1), number(towards2), number(rate)
    eps, shrink, decay = number(eps), number(shrink), number(decay)
    first = 0
    for i in range(len(places)):
        part = slice(first, places[i, 2])
        w, g = array_at(places[i, 0], m[part]), array_at(places[i, 1], m[part])
        _adam_block_(w, g, m[part], v[part], towards1, towards2, rate, eps, shrink, decay)
        first = places[i, 2]


@njit(**INNER)
def _adam_block_(w, g, m, v, towards1, towards2, rate, eps, shrink, decay):
    for i in range(w.size):
        gi = g[i] + decay * w[i]
        mi = m[i] + towards1 * (gi - m[i])
        vi = v[i] + towards2 * (gi * gi - v[i])
        m[i] = mi
        v[i] = vi
        w[i] = shrink * w[i] - rate * (mi / (np.sqrt(vi) + eps))


ADAMS = (adam_loops_, adam_arrays_, adam_one_pass_, adam_parallel_)

adam_ = adam_parallel_


@on_pieces
def sgd_(w, g, buf, t, lr, momentum, dampening, weight_decay, nesterov):
    """Gradient descent; with a buffer buf for momentum (None without). Sutskever et al. 2013."""
    arrays = _flat(w, g, *(() if buf is None else (buf,)))
    if arrays is None:
        return reference.sgd_(w, g, buf, t, lr, momentum, dampening, weight_decay, nesterov)
    # at the first step the buffer, whatever it holds, becomes the gradient
    keep, add = (0, 1) if t == 1 else (momentum, 1 - dampening)
    ahead = (1, momentum) if nesterov else (0, 1)  # w moves by lr * (g * first + velocity * second)
    w, g, *rest = arrays
    factors = map(w.dtype.type, (keep, add, *ahead, lr, weight_decay))
    _sgd_(w, g, rest[0] if rest else np.empty(0, w.dtype), *factors)


@njit(**COMPILED)
def _sgd_(w, g, buf, keep, add, first, second, lr, decay):
    if buf.size == 0:
        for i in range(w.size):
            w[i] -= lr * (g[i] + decay * w[i])
    else:
        for i in range(w.size):
            gi = g[i] + decay * w[i]
            velocity = add * gi + (keep * buf[i] if keep != 0 else keep)
            buf[i] = velocity
            w[i] -= lr * (first * gi + second * velocity)


def _places(w, g, *state):
    """Where pieces w and g lie, for _adam_pieces_, and the state; None if not all is dense and of one dtype.

    If the list w has an attribute `places`, what was found is kept there, for as long as g is the same.
    """
    known, places = getattr(w, "places", None) or (None, None)
    if known is not g:
        dtype = w[0].dtype
        if isinstance(g, list) and not _all_dense(g, dtype):
            g = np.concatenate(g, axis=None, dtype=dtype)
        gradients = g if isinstance(g, list) else [g]
        if dtype.char not in "fd" or not _all_dense([*w, *gradients, *state], dtype):
            return None
        ends = np.cumsum([piece.size for piece in w])
        if isinstance(g, list):
            gradients = [piece.ctypes.data for piece in g]
        else:
            gradients = g.ctypes.data + dtype.itemsize * np.concatenate([[0], ends[:-1]])
        places = np.stack([[piece.ctypes.data for piece in w], gradients, ends], axis=1)
        if hasattr(w, "places"):
            w.places = g, places
    return places, *state


def _all_dense(arrays, dtype):
    return all(a.flags.carray and a.dtype == dtype for a in arrays)


def _flat(w, g, *state):
    """All arrays as they lie in memory; g in the order of w. None if they cannot be changed so."""
    if w.dtype.char not in "fd" or w.size == 0:
        return None
    arrays = (w, g, *state)
    if w.ndim == 1 and all(a.flags.carray and a.dtype == w.dtype for a in arrays):
        return arrays  # what lies packed, without much ado
    if in_memory_order(w) is None:
        return None
    if any(s.strides != w.strides or s.dtype != w.dtype for s in state):
        return None
    return [in_memory_order(array) for array in (w, like(w, g), *state)]
