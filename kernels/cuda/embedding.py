"""The gradient of a table of rows: many rows of g may add to one row of the table."""

from numba import cuda

from .. import reference
from ..reference._arrays import namespace
from ._arrays import contiguous, same_floats
from ._device import LINE, cover, jit, launch, mine
from ._instructions import split


def embedding_grad(g, index, shape):
    """A table of zeros with row g[i] added at index[i]: (..., D), integers (...) -> shape (V, D).

    By sorting: the same gradients give the same bits, run after run, which atomics do not promise. An
    index that fills most of the batch makes its one row slow; measure both if yours does.
    """
    if not same_floats(g):
        return reference.embedding_grad(g, index, shape)
    return embedding_grad_sorted(g, index, shape)


def embedding_grad_atomic(g, index, shape):
    """One thread a number of g, added to the table atomically: in whatever order the threads come."""
    out = namespace(g).zeros(shape, g.dtype)
    g, index = contiguous(g).reshape((-1, shape[1])), contiguous(index).reshape(-1)
    launch(_add, cover(g.size), LINE, g, index, out)
    return out


def embedding_grad_sorted(g, index, shape):
    """Equal indices brought side by side by a sort; one thread adds up each column of such a run."""
    out = namespace(g).zeros(shape, g.dtype)
    g, index = contiguous(g).reshape((-1, shape[1])), contiguous(index).reshape(-1)
    order = index.argsort(kind="stable")
    launch(_add_runs, cover(g.size), LINE, g, order, index[order], out)
    return out


EMBEDDING_GRADS = embedding_grad_atomic, embedding_grad_sorted


@jit
def _add(g, index, out):
    """Thread i of the grid adds number i of g, (N, D) in row-major order."""
    for i in mine(g.size):
        n, d = split(i, g.shape[1])
        cuda.atomic.add(out, (index[n], d), g[n, d])


@jit
def _add_runs(g, order, sorted_index, out):
    """Thread i of the grid stands at place n of the sorted indices and column d. If a run of equal
    indices begins there, it adds up the run; else it has nothing to do."""
    for i in mine(g.size):
        n, d = split(i, g.shape[1])
        row = sorted_index[n]
        if n == 0 or sorted_index[n - 1] != row:
            acc = g.dtype.type(0)
            while n < sorted_index.size and sorted_index[n] == row:
                acc += g[order[n], d]
                n += 1
            out[row, d] = acc
