"""Reading and writing by index: slices, integer arrays, boolean masks, gather and scatter.

An element that is read twice receives both gradients.
"""

import numpy as np

from ..autograd import bounds, op
from ..tensor import Tensor


def plain_key(key):
    """An index as arrays understand it: Tensors and sequences inside become arrays."""
    if isinstance(key, tuple):
        return tuple(plain_key(list(k) if isinstance(k, tuple) else k) for k in key)
    if isinstance(key, Tensor):
        return key.data
    if isinstance(key, list | range):
        array = np.asarray(key)
        return array.astype(np.int64) if array.size == 0 else array
    return key


def getitem(x, key):
    """x[key] for ints, slices, None, Ellipsis, integer arrays and boolean masks."""
    return _getitem(x, key=plain_key(key))


@op
def _getitem(be, x, *, key):
    for k in key if isinstance(key, tuple) else (key,):
        if hasattr(k, "dtype") and k.dtype.kind not in "iub":
            raise TypeError(f"getitem: an index array must hold integers or bools; got {k.dtype}")
        if hasattr(k, "dtype") and k.dtype.kind == "b" and k.ndim > x.ndim:
            raise ValueError(f"getitem: a mask of shape {k.shape} does not fit shape {x.shape}")
    try:
        out = x[key]
    except IndexError as e:
        raise IndexError(f"getitem: shape {x.shape}: {e}") from None
    return out, (lambda g: be.kernels.getitem_grad(g, key, x.shape),)


@op
def getitem_grad(be, g, *, key, shape):
    """Zeros of a shape with g added at key: the gradient of x[key]."""
    return be.kernels.getitem_grad(g, key, shape), (lambda gg: gg[key],)


@op
def gather(be, x, index, *, axis):
    """x[..., index, ...] along an axis: out[i, j] = x[i, index[i, j]] for axis=1.

    index: integers in the shape of the result, which equals that of x on every other axis.
    """
    axis = _check_gather("gather", x, index, axis)
    out = be.xp.take_along_axis(x, index, axis=axis)
    return out, (lambda g: be.kernels.gather_grad(g, index, x.shape, axis), None)


@op
def gather_grad(be, g, index, *, shape, axis):
    """Zeros of a shape with g added at index along an axis: the gradient of gather."""
    out = be.kernels.gather_grad(g, index, shape, axis)
    return out, (lambda gg: be.xp.take_along_axis(gg, index, axis=axis), None)


def scatter_add(x, index, source, *, axis):
    """x with source[i, j] added at x[i, index[i, j]] (axis=1); equal indices add up."""
    if tuple(source.shape) != tuple(index.shape):
        raise ValueError(
            f"scatter_add: index and source must have one shape; got {index.shape} and {source.shape}"
        )
    axis = _check_gather("scatter_add", x, index, axis)
    return x + gather_grad(source, index, shape=x.shape, axis=axis)


def _check_gather(name, x, index, axis):
    if index.dtype.kind not in "iu":
        raise TypeError(f"{name}: index must hold integers; got {index.dtype}")
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"{name}: axis {axis} is out of range for shape {x.shape}")
    axis %= x.ndim
    if index.ndim != x.ndim or any(
        m != n for i, (m, n) in enumerate(zip(x.shape, index.shape, strict=True)) if i != axis
    ):
        raise ValueError(
            f"{name}: index and x must agree on every axis but {axis}; got {index.shape} and {x.shape}"
        )
    low, high = bounds(index) if index.size else (0, -1)
    if low < 0 or high >= x.shape[axis]:
        raise ValueError(f"{name}: index must lie in 0..{x.shape[axis] - 1}; got {low}..{high}")
    return axis
