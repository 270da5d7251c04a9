"""Sums, means, extremes, products and cumulative sums. `axis` is None, an int or a tuple of ints."""

import math

import numpy as np

from ..autograd import op


def fold(name, x, axis):
    """The axes that a reduction folds, counted from 0, and the shape of x with those kept as 1."""
    shape, ndim = x.shape, x.ndim
    if axis is None:
        return tuple(range(ndim)), (1,) * ndim
    axes = axis if isinstance(axis, tuple) else (axis,)
    kept = list(shape)
    for a in axes:
        if not isinstance(a, int):
            raise TypeError(f"{name}: axis must be an int, a tuple of ints or None; got {axis!r}")
        if not -ndim <= a < ndim:
            raise ValueError(f"{name}: axis {a} is out of range for shape {shape}")
        kept[a] = 1
    folded = tuple([a % ndim for a in axes])
    if len(set(folded)) != len(folded):
        raise ValueError(f"{name}: axis {axis} names one axis twice for shape {shape}")
    return folded, tuple(kept)


def fold_some(name, x, axis):
    """As fold, and how many elements each result is made of: at least one."""
    axes, kept = fold(name, x, axis)
    count = math.prod(x.shape[a] for a in axes)
    if count == 0:
        raise ValueError(f"{name}: nothing to fold along axis {axis} of shape {x.shape}")
    return axes, kept, count


def _without(shape, axes):
    """The shape that is left when axes are folded."""
    return tuple(n for i, n in enumerate(shape) if i not in axes)


@op
def sum(be, x, *, axis=None, keepdims=False):
    """The sum over axes."""
    _, kept = fold("sum", x, axis)
    out = x.sum(axis=axis, keepdims=keepdims)
    return out, (lambda g: be.xp.broadcast_to(g.reshape(kept), x.shape),)


@op
def mean(be, x, *, axis=None, keepdims=False):
    """The mean over axes."""
    _, kept, count = fold_some("mean", x, axis)
    out = x.mean(axis=axis, keepdims=keepdims)
    return out, (lambda g: be.xp.broadcast_to(g.reshape(kept) / count, x.shape),)


@op
def var(be, x, *, axis=None, keepdims=False, ddof=0):
    """The variance over axes: squared distance from the mean, summed and divided by count - ddof."""
    _, kept, count = fold_some("var", x, axis)
    if count <= ddof:
        raise ValueError(f"var: {count} elements to fold, more than ddof={ddof} are needed")
    centred = x - x.mean(axis=axis, keepdims=True)
    out = (centred * centred).sum(axis=axis, keepdims=keepdims) / (count - ddof)
    return out, (lambda g: g.reshape(kept) * centred * (2 / (count - ddof)),)


@op
def std(be, x, *, axis=None, keepdims=False, ddof=0):
    """The standard deviation over axes; the gradient where it is 0 is taken as 0."""
    axes, kept, count = fold_some("std", x, axis)
    if count <= ddof:
        raise ValueError(f"std: {count} elements to fold, more than ddof={ddof} are needed")
    centred = x - x.mean(axis=axis, keepdims=True)
    spread = be.xp.sqrt((centred * centred).sum(axis=axis, keepdims=True) / (count - ddof))
    out = spread if keepdims else spread.reshape(_without(x.shape, axes))

    def grad_x(g):
        flat = spread == 0
        safe = be.xp.where(flat, 1.0, spread)
        return be.xp.where(flat, 0.0, g.reshape(kept) / safe) * centred / (count - ddof)

    return out, (grad_x,)


@op
def max(be, x, *, axis=None, keepdims=False):
    """The largest element over axes; equal winners share the gradient equally."""
    return _extreme(be, x, "max", axis, keepdims)


@op
def min(be, x, *, axis=None, keepdims=False):
    """The smallest element over axes; equal winners share the gradient equally."""
    return _extreme(be, x, "min", axis, keepdims)


def _extreme(be, x, name, axis, keepdims):
    _, kept, _ = fold_some(name, x, axis)
    out = getattr(x, name)(axis=axis, keepdims=keepdims)

    def grad_x(g):
        winners = (x == out.reshape(kept)).astype(g.dtype)
        return g.reshape(kept) * winners / winners.sum(axis=axis, keepdims=True)

    return out, (grad_x,)


@op
def argmax(be, x, *, axis=None):
    """The index of the largest element, the first of equals; no gradient."""
    fold_some("argmax", x, axis)
    return x.argmax(axis=axis), None


@op
def argmin(be, x, *, axis=None):
    """The index of the smallest element, the first of equals; no gradient."""
    fold_some("argmin", x, axis)
    return x.argmin(axis=axis), None


@op
def any(be, x, *, axis=None, keepdims=False):
    """Whether any element over axes is true; no gradient."""
    return x.any(axis=axis, keepdims=keepdims), None


@op
def all(be, x, *, axis=None, keepdims=False):
    """Whether all elements over axes are true; no gradient."""
    return x.all(axis=axis, keepdims=keepdims), None


@op
def prod(be, x, *, axis=None, keepdims=False):
    """The product over axes; right at zeros as well."""
    axes, kept = fold("prod", x, axis)
    out = x.prod(axis=axis, keepdims=keepdims)

    def grad_x(g):
        if not (x == 0).any():
            return g.reshape(kept) * out.reshape(kept) / x
        # one product for each element left out: n times the memory, but no division
        order = tuple(i for i in range(x.ndim) if i not in axes) + axes
        inverse = tuple(order.index(i) for i in range(x.ndim))
        moved = x.transpose(order)
        n = math.prod(x.shape[a] for a in axes)
        rows = moved.reshape((-1, 1, n))
        left_out = be.xp.where(be.xp.eye(n, dtype=bool), 1.0, rows)
        others = left_out.prod(axis=-1).reshape(moved.shape).transpose(inverse)
        return g.reshape(kept) * others

    return out, (grad_x,)


@op
def logsumexp(be, x, *, axis=None, keepdims=False):
    """log(sum(exp(x))) over axes, shifted by the largest element so that nothing overflows."""
    axes, kept, _ = fold_some("logsumexp", x, axis)
    top = x.max(axis=axis, keepdims=True)
    top = be.xp.where(be.xp.isfinite(top), top, 0.0)  # a row of -inf stays -inf, not NaN
    with np.errstate(divide="ignore"):
        total = be.xp.log(be.xp.exp(x - top).sum(axis=axis, keepdims=True)) + top
    out = total if keepdims else total.reshape(_without(x.shape, axes))

    def grad_x(g):
        safe = be.xp.where(be.xp.isfinite(total), total, 0.0)
        return g.reshape(kept) * be.xp.exp(x - safe)

    return out, (grad_x,)


@op
def cumsum(be, x, *, axis=None):
    """Running sums along an axis; None flattens first."""
    if axis is None:
        return x.reshape(-1).cumsum(axis=0), (lambda g: _sum_from_end(be, g, 0).reshape(x.shape),)
    fold("cumsum", x, axis)
    return x.cumsum(axis=axis), (lambda g: _sum_from_end(be, g, axis),)


def _sum_from_end(be, g, axis):
    return be.xp.flip(be.xp.flip(g, axis=axis).cumsum(axis=axis), axis=axis)
