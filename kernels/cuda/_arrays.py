"""Arrays as kernels want them: new ones, contiguous ones, flat ones; NumPy and CuPy alike."""

import math

import numpy as np

from ..reference._arrays import namespace

FLOATS = np.dtype("float32"), np.dtype("float64")


def empty(like, shape, dtype=None):
    """An array of the library and dtype of another one."""
    return namespace(like).empty(shape, dtype or like.dtype)


def contiguous(x):
    """x, or a copy of it, without gaps, and beginning at a multiple of 16 bytes."""
    if not x.flags.c_contiguous:
        x = namespace(x).ascontiguousarray(x)
    return x if aligned(x) else x.copy()


def address(x):
    """Where the first element lies."""
    return x.ctypes.data if hasattr(x, "ctypes") else x.data.ptr


def same_floats(*arrays):
    """Whether all arrays are of one dtype that the kernels compute in. (The others: see reference.)"""
    first = arrays[0].dtype
    return first in FLOATS and all(a.dtype == first for a in arrays)


def flat_alike(*arrays):
    """Arrays as flat arrays in one order of memory, that of the largest: (flat arrays, undo).

    A flat array is a view where the array has no gaps and lies in that order; smaller ones are broadcast.
    undo(flat) gives a result the shape and the order.
    """
    xp = namespace(arrays[0])
    model = max(arrays, key=lambda a: a.size)
    order = memory_order(model)
    shape = tuple(model.shape[axis] for axis in order)
    inverse = tuple(order.index(axis) for axis in range(model.ndim))

    def flat(a):
        a = a if a.shape == model.shape else xp.broadcast_to(a, model.shape)
        return xp.ascontiguousarray(a.transpose(order)).reshape(-1)

    return [flat(a) for a in arrays], lambda y: y.reshape(shape).transpose(inverse)


def memory_order(x):
    """The axes of x from the one with the longest strides to the one with the shortest."""
    return tuple(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))


def flat_in_place(*arrays):
    """Flat views of arrays that all lie in one order without gaps, or None if one does not."""
    order = memory_order(arrays[0])
    turned = [a.transpose(order) for a in arrays]
    if all(a.flags.c_contiguous for a in turned):
        return [a.reshape(-1) for a in turned]
    return None


def aligned(*arrays):
    """Whether all begin at a multiple of 16 bytes."""
    return all(address(a) % 16 == 0 for a in arrays)


def broadcast_batches(x, y):
    """Operands of matmul as stacks of matrices: x (B, M, K) or (1, M, K), y likewise; the result's shape.

    One stack against a single matrix becomes a product of two matrices: (B, M, K), (K, N) is
    (B * M, K), (K, N).
    """
    lead = broadcast_shapes(x.shape[:-2], y.shape[:-2])
    shape = (*lead, x.shape[-2], y.shape[-1])
    if math.prod(y.shape[:-2]) == 1:
        return (
            x.reshape((1, -1, x.shape[-1]))
            if x.size
            else x.reshape((1, math.prod(lead) * x.shape[-2], x.shape[-1])),
            y.reshape((1, *y.shape[-2:])),
            shape,
        )
    return _stack(x, lead), _stack(y, lead), shape


def _stack(x, lead):
    if math.prod(x.shape[:-2]) == 1:
        return x.reshape((1, *x.shape[-2:]))
    stack = namespace(x).broadcast_to(x, (*lead, *x.shape[-2:]))
    return stack.reshape((math.prod(lead), *x.shape[-2:]))


def broadcast_shapes(a, b):
    """The shape that axes of a and b broadcast to."""
    n = max(len(a), len(b))
    a, b = (1,) * (n - len(a)) + tuple(a), (1,) * (n - len(b)) + tuple(b)
    return tuple(q if p == 1 else p for p, q in zip(a, b, strict=True))
