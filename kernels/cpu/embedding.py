"""The gradient of a table of rows."""

import numpy as np
from numba import prange

from .. import reference
from ._arrays import dense
from ._compiled import many, threaded

PARTS = 16


def embedding_grad(g, index, shape):
    """A table of zeros with row g[i] added at index[i]: (..., D), integers (...) -> shape (V, D).

    The table is cut into PARTS ranges of rows. Whoever does a range goes through all indices and adds
    those that fall into it: nobody else writes there, and equal indices add up in their order.
    """
    if g.dtype.char not in "fd" or g.size == 0:
        return reference.embedding_grad(g, index, shape)
    index, g = dense(index.reshape(-1)), dense(g.reshape(-1, shape[1]))
    out = np.zeros(shape, g.dtype)
    threads = many(g, g.size)
    _embedding_grad(threads, g, index, out, PARTS if threads else 1)
    return out


@threaded
def _embedding_grad(g, index, out, parts):
    for part in prange(parts):
        first, end = part * len(out) // parts, (part + 1) * len(out) // parts
        for i in range(len(index)):
            row = index[i]
            if first <= row < end:
                total, add = out[row], g[i]
                for c in range(add.size):
                    total[c] += add[c]
