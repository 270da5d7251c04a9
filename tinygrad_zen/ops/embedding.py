"""Rows looked up in a table."""

from ..autograd import bounds, op


@op
def embedding(be, index, w, *, padding_idx=None):
    """Rows of a table by number: integers (...), (V, D) -> (..., D).

    A number that stands twice receives both gradients; row padding_idx receives none.
    """
    if index.dtype.kind not in "iu":
        raise TypeError(f"embedding: indices must be integers; got {index.dtype}")
    if w.ndim != 2:
        raise ValueError(f"embedding: the table must be (V, D); got {w.shape}")
    low, high = bounds(index) if index.size else (0, -1)
    if low < 0 or high >= w.shape[0]:
        raise ValueError(f"embedding: indices must lie in 0..{w.shape[0] - 1}; got {low}..{high}")

    def grad_w(g):
        if padding_idx is not None:
            g = g * (index != padding_idx).reshape((*index.shape, 1))
        return be.kernels.embedding_grad(g, index, w.shape)

    return be.xp.take(w, index, axis=0), (None, grad_w)  # half the time of w[index]


@op
def embedding_grad(be, g, index, *, shape):
    """A table of zeros with row g[i] added at index[i]: the gradient of embedding."""
    return be.kernels.embedding_grad(g, index, shape), (lambda gg: gg[index], None)
