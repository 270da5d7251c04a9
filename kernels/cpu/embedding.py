"""The gradient of a table of rows."""

from numba import njit, prange

from .. import reference
from ._arrays import dense, zeros
from ._compiled import INNER, many, threaded
from ._vectors import part

PARTS = 16


def embedding_grad(g, index, shape):
    """A table of zeros with row g[i] added at index[i]: (..., D), integers (...) -> shape (V, D).

    The table is cut into PARTS ranges of rows. Whoever does a range goes through all indices and adds
    those that fall into it: nobody else writes there, and equal indices add up in their order.
    """
    if g.dtype.char not in "fd" or g.size == 0:
        return reference.embedding_grad(g, index, shape)
    index, g = dense(index.reshape(-1)), dense(g.reshape(-1, shape[1]))
    out = zeros(shape, g.dtype)
    threads = many(g, g.size)
    _embedding_grad(threads, g, index, out, PARTS if threads else 1)
    return out


@threaded
def _embedding_grad(g, index, out, parts):
    size = out.shape[1]
    for share in prange(parts):
        first, end = share * len(out) // parts, (share + 1) * len(out) // parts
        for i in range(len(index)):
            row = index[i]
            if first <= row < end:
                _add(part(g, i * size, size), part(out, row * size, size))


@njit(**INNER)
def _add(x, y):
    for c in range(x.size):
        y[c] += x[c]
