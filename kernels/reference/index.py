"""Scatter kernels: the gradients of reading by index."""

from ._arrays import namespace


def getitem_grad(g, key, shape):
    """Zeros of a shape with g added at key; elements that key names twice receive both parts."""
    xp = namespace(g)
    out = xp.zeros(shape, g.dtype)
    if _may_repeat(key):
        xp.add.at(out, key, g)
    else:
        out[key] = g
    return out


def gather_grad(g, index, shape, axis):
    """Zeros of a shape with g added at index along an axis; equal indices add up."""
    xp = namespace(g)
    out = xp.zeros(shape, g.dtype)
    places = [
        xp.arange(n).reshape([-1 if i == k else 1 for i in range(index.ndim)])
        for k, n in enumerate(index.shape)
    ]
    places[axis] = index
    xp.add.at(out, tuple(places), g)
    return out


def _may_repeat(key):
    """Whether an index can name an element twice: only integer arrays can."""
    return any(
        hasattr(k, "dtype") and k.dtype.kind != "b"
        for k in (key if isinstance(key, tuple) else (key,))
    )
