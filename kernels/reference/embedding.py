"""The gradient of a table of rows."""

from ._arrays import namespace


def embedding_grad(g, index, shape):
    """A table of zeros with row g[i] added at index[i]: (..., D), integers (...) -> shape (V, D)."""
    xp = namespace(g)
    out = xp.zeros(shape, g.dtype)
    xp.add.at(out, index.reshape(-1), g.reshape((-1, shape[1])))
    return out
