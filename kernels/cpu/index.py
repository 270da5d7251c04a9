"""Scatter kernels: the gradients of reading by index."""

import numpy as np
from numba import njit

from .. import reference
from ._arrays import dense, zeros
from ._compiled import COMPILED
from .embedding import embedding_grad


def getitem_grad(g, key, shape):
    """Zeros of a shape with g added at key; elements that key names twice receive both parts.

    A key of integers for the first axis names whole rows, as in an embedding; any other array goes to
    the reference.
    """
    if isinstance(key, tuple) and len(key) == 1:
        key = key[0]
    if not any(isinstance(k, np.ndarray) for k in (key if isinstance(key, tuple) else (key,))):
        out = zeros(shape, g.dtype)
        out[key] = g
        return out
    if not isinstance(key, np.ndarray) or key.dtype.kind not in "iu" or g.size == 0:
        return reference.getitem_grad(g, key, shape)
    if key.dtype.kind == "i":
        key = np.where(key < 0, key + shape[0], key)
    row = int(np.prod(shape[1:]))
    return embedding_grad(np.reshape(g, (key.size, row)), key, (shape[0], row)).reshape(shape)


def gather_grad(g, index, shape, axis):
    """Zeros of a shape with g added at index along an axis; equal indices add up."""
    if g.dtype.char not in "fd" or g.size == 0:
        return reference.gather_grad(g, index, shape, axis)
    out = np.zeros(shape, g.dtype)
    before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
    read = before, index.shape[axis], after
    _gather_grad(
        dense(g.reshape(read)), dense(index.reshape(read)), out.reshape(before, shape[axis], after)
    )
    return out


@njit(**COMPILED)
def _gather_grad(g, index, out):
    for i in range(g.shape[0]):
        for j in range(g.shape[1]):
            for k in range(g.shape[2]):
                out[i, index[i, j, k], k] += g[i, j, k]
