"""Activation functions and softmax, in one pass over memory each.

As array expressions, a GELU is eight steps that each read and write memory. Here every number is read
once and written once, and the functions of `_scalars` work on whole vector registers between.
"""

from functools import partial

import numpy as np
from numba import njit, prange

from .. import reference
from . import _scalars
from ._arrays import elementwise, empty_like, rows
from ._compiled import COMPILED, INNER, REORDERED, many, threaded
from ._vectors import VECTOR_BYTES, largest_of_vectors

BLOCK = 16384  # numbers that a thread takes at a time: they fit into its nearest caches


def relu(x):
    """max(x, 0)."""
    if x.size <= BLOCK or not _single(x):
        return reference.relu(x)
    return elementwise(partial(_relu, many(x, x.size)), x)


@threaded
def _relu(x, y):
    for block in prange((x.size + BLOCK - 1) // BLOCK):
        _relu_block(x[block * BLOCK : (block + 1) * BLOCK], y[block * BLOCK : (block + 1) * BLOCK])


@njit(**INNER)
def _relu_block(x, y):
    zero = x.dtype.type(0)
    for i in range(x.size):
        y[i] = zero if x[i] <= zero else x[i]  # so that NaN stays


def relu_grad(g, y):
    """g where the output is positive, else 0 (so 0 at x = 0)."""
    return elementwise(partial(_relu_grad, many(y, y.size)), y, g)


@threaded
def _relu_grad(y, g, gx):
    for block in prange((y.size + BLOCK - 1) // BLOCK):
        part = slice(block * BLOCK, (block + 1) * BLOCK)
        _relu_grad_block(y[part], g[part], gx[part])


@njit(**INNER)
def _relu_grad_block(y, g, gx):
    zero = y.dtype.type(0)
    for i in range(y.size):
        gx[i] = g[i] if y[i] > zero else zero


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return elementwise(_sigmoid, x) if _single(x) else reference.sigmoid(x)


@njit(**COMPILED)
def _sigmoid(x, y):
    for i in range(x.size):
        y[i] = _scalars.sigmoid(x[i])


def sigmoid_grad(g, y):
    return elementwise(_sigmoid_grad, y, g)


@njit(**COMPILED)
def _sigmoid_grad(y, g, gx):
    one = y.dtype.type(1)
    for i in range(y.size):
        gx[i] = g[i] * (y[i] * (one - y[i]))


def tanh(x):
    """Hyperbolic tangent; with AVX-512 NumPy's, which then is twice as fast as ours, else half."""
    return elementwise(_tanh, x) if _single(x) and VECTOR_BYTES < 64 else reference.tanh(x)


@njit(**COMPILED)
def _tanh(x, y):
    for i in range(x.size):
        y[i] = _scalars.tanh(x[i])


def tanh_grad(g, y):
    return elementwise(_tanh_grad, y, g)


@njit(**COMPILED)
def _tanh_grad(y, g, gx):
    one = y.dtype.type(1)
    for i in range(y.size):
        gx[i] = g[i] * (one - y[i] * y[i])


def softplus(x, beta):
    """log(1 + exp(beta x)) / beta, written so that neither end overflows."""
    if not _single(x):
        return reference.softplus(x, beta)
    return elementwise(partial(_softplus, np.float32(beta)), x)


@njit(**COMPILED)
def _softplus(beta, x, y):
    for i in range(x.size):
        y[i] = _scalars.softplus(beta * x[i]) / beta


def silu(x):
    """x * sigmoid(x)."""
    return elementwise(_silu, x) if _single(x) else reference.silu(x)


@njit(**COMPILED)
def _silu(x, y):
    for i in range(x.size):
        y[i] = x[i] * _scalars.sigmoid(x[i])


def silu_grad(g, x):
    return elementwise(_silu_grad, x, g) if _single(x) else reference.silu_grad(g, x)


@njit(**COMPILED)
def _silu_grad(x, g, gx):
    one = x.dtype.type(1)
    for i in range(x.size):
        s = _scalars.sigmoid(x[i])
        gx[i] = g[i] * (s * (one + x[i] * (one - s)))


def gelu(x):
    """x times the normal distribution function."""
    return elementwise(_gelu, x) if _single(x) else reference.gelu(x)


@njit(**COMPILED)
def _gelu(x, y):
    for i in range(x.size):
        below, _ = _scalars.normal(x[i])
        y[i] = x[i] * below


def gelu_grad(g, x):
    return elementwise(_gelu_grad, x, g) if _single(x) else reference.gelu_grad(g, x)


@njit(**COMPILED)
def _gelu_grad(x, g, gx):
    for i in range(x.size):
        below, density = _scalars.normal(x[i])
        gx[i] = g[i] * (below + x[i] * density)


def gelu_tanh(x):
    """GELU's older approximation: x / 2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return elementwise(_gelu_tanh, x) if _single(x) else reference.gelu_tanh(x)


@njit(**COMPILED)
def _gelu_tanh(x, y):
    # (1 + tanh(u)) / 2 = sigmoid(2 u)
    for i in range(x.size):
        y[i] = x[i] * _scalars.sigmoid(_TWICE * (x[i] + _CUBE * (x[i] * x[i] * x[i])))


def gelu_tanh_grad(g, x):
    return elementwise(_gelu_tanh_grad, x, g) if _single(x) else reference.gelu_tanh_grad(g, x)


@njit(**COMPILED)
def _gelu_tanh_grad(x, g, gx):
    one = x.dtype.type(1)
    for i in range(x.size):
        square = x[i] * x[i]
        s = _scalars.sigmoid(_TWICE * (x[i] + _CUBE * (x[i] * square)))
        slope = _TWICE * (one + _THREE_CUBES * square)
        gx[i] = g[i] * (s + x[i] * (s * (one - s)) * slope)


_TWICE = np.float32(2 * np.sqrt(2 / np.pi))
_CUBE, _THREE_CUBES = np.float32(0.044715), np.float32(3 * 0.044715)


def softmax_loops(x, axis):
    """The definition: a row at a time, a number at a time, the C library's exp."""
    x, back = rows(x, axis)
    y = np.empty_like(x)
    _softmax_loops(x, y)
    return back(y)


@njit(**COMPILED)
def _softmax_loops(x, y):
    for r in range(len(x)):
        largest = x[r, 0]
        for c in range(x.shape[1]):
            largest = max(largest, x[r, c])
        total = x.dtype.type(0)
        for c in range(x.shape[1]):
            y[r, c] = np.exp(x[r, c] - largest)
            total += y[r, c]
        for c in range(x.shape[1]):
            y[r, c] /= total


def softmax_arrays(x, axis):
    """Array expressions, whose exp takes many numbers at once; but five passes over memory."""
    return reference.softmax(x, axis)


def softmax_rows(x, axis):
    """A row at a time again, while it is in the cache, with an exp that fills vector registers."""
    return _softmax(x, axis, threads=False)


def softmax_parallel(x, axis):
    """Blocks of rows on all threads."""
    return _softmax(x, axis, threads=True)


def _softmax(x, axis, threads):
    if not _single(x) or x.size == 0:
        return reference.softmax(x, axis)
    x, back = rows(x, axis)
    y = empty_like(x)
    _softmax_blocks(threads and many(x, 8 * x.size), x, y)
    return back(y)


@threaded
def _softmax_blocks(x, y):
    block = BLOCK // x.shape[1] + 1
    for first in prange((len(x) + block - 1) // block):
        for r in range(first * block, min((first + 1) * block, len(x))):
            _softmax_row(x[r], y[r])


@njit(**INNER)
def _softmax_row(x, y):
    total, _ = exp_row(x, y)
    scale = x.dtype.type(1) / total
    for c in range(x.size):
        y[c] *= scale


@njit(**INNER)
def exp_row(x, y):
    """y = exp(x - largest of x); returns the sum of y, and the largest."""
    largest = largest_of(x)
    for c in range(x.size):
        y[c] = _scalars.exp(x[c] - largest)
    return sum_of(y), largest


@njit(**INNER)
def largest_of(x):
    """The largest element. A NaN may be passed over, but then it makes the sum of the row NaN."""
    whole = x.size // LANES
    largest = largest_of_vectors(x, whole) if whole > 0 else x[0]
    for c in range(whole * LANES, x.size):
        largest = max(largest, x[c])
    return largest


LANES = VECTOR_BYTES // 4  # of float32 in a register


SOFTMAXES = (softmax_loops, softmax_arrays, softmax_rows, softmax_parallel)

softmax = softmax_parallel


def softmax_grad(g, y, axis):
    return _rows_grad(_softmax_grad, reference.softmax_grad, g, y, axis)


@threaded
def _softmax_grad(y, g, gx):
    block = BLOCK // y.shape[1] + 1
    for first in prange((len(y) + block - 1) // block):
        for r in range(first * block, min((first + 1) * block, len(y))):
            _softmax_grad_row(y[r], g[r], gx[r])


@njit(**INNER)
def _softmax_grad_row(y, g, gx):
    total = dot(g, y)
    for c in range(y.size):
        gx[c] = y[c] * (g[c] - total)


@njit(**REORDERED)
def sum_of(x):
    total = x.dtype.type(0)
    for c in range(x.size):
        total += x[c]
    return total


@njit(**REORDERED)
def dot(x, y):
    total = x.dtype.type(0)
    for c in range(x.size):
        total += x[c] * y[c]
    return total


def log_softmax(x, axis):
    """x minus log(sum(exp(x))) along an axis, never through a softmax that underflows to 0."""
    if not _single(x) or x.size == 0:
        return reference.log_softmax(x, axis)
    x, back = rows(x, axis)
    y = empty_like(x)
    _log_softmax(many(x, 8 * x.size), x, y)
    return back(y)


@threaded
def _log_softmax(x, y):
    block = BLOCK // x.shape[1] + 1
    for first in prange((len(x) + block - 1) // block):
        for r in range(first * block, min((first + 1) * block, len(x))):
            _log_softmax_row(x[r], y[r])


@njit(**INNER)
def _log_softmax_row(x, y):
    total, largest = exp_row(x, y)
    log = np.log(total)
    for c in range(x.size):
        y[c] = (x[c] - largest) - log


def log_softmax_grad(g, y, axis):
    return _rows_grad(_log_softmax_grad, reference.log_softmax_grad, g, y, axis)


@threaded
def _log_softmax_grad(y, g, gx):
    block = BLOCK // y.shape[1] + 1
    for first in prange((len(y) + block - 1) // block):
        for r in range(first * block, min((first + 1) * block, len(y))):
            _log_softmax_grad_row(y[r], g[r], gx[r])


@njit(**INNER)
def _log_softmax_grad_row(y, g, gx):
    total = sum_of(g)
    for c in range(y.size):
        gx[c] = g[c] - _scalars.exp(y[c]) * total


def _rows_grad(kernel, otherwise, g, y, axis):
    if not _single(y) or y.size == 0:
        return otherwise(g, y, axis)
    if g.shape != y.shape or g.dtype != y.dtype:
        g = np.broadcast_to(g, y.shape).astype(y.dtype)
    (y, back), (g, _) = rows(y, axis), rows(g, axis)
    gx = empty_like(y)
    kernel(many(y, 8 * y.size), y, g, gx)
    return back(gx)


def _single(x):
    """float64 is for proofs: the reference takes it, with the C library's exp and its digits."""
    return x.dtype == np.float32
