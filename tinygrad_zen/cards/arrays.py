"""Formulas of reductions, shapes and indices; _tools.py says how a formula is written."""

import numpy as np

from ._tools import along, only, spread, zeros_with


def sum(x, *, axis=None, keepdims=False):
    return np.sum(x, axis, keepdims=keepdims), (lambda g: spread(g, x, axis),)


def mean(x, *, axis=None, keepdims=False):
    y = np.mean(x, axis, keepdims=keepdims)
    n = x.size / y.size
    return y, (lambda g: spread(g, x, axis) / n,)


def var(x, *, axis=None, keepdims=False, ddof=0):
    c = x - np.mean(x, axis, keepdims=True)
    s = np.sum(c**2, axis, keepdims=keepdims)
    n = x.size / s.size - ddof
    return s / n, (lambda g: 2 * c * spread(g, x, axis) / n,)


def std(x, *, axis=None, keepdims=False, ddof=0):
    c = x - np.mean(x, axis, keepdims=True)
    s = np.sum(c**2, axis, keepdims=keepdims)
    n = x.size / s.size - ddof
    y = np.sqrt(s / n)
    return y, (lambda g: c * spread(g, x, axis) / (n * spread(y, x, axis)),)


def max(x, *, axis=None, keepdims=False):
    y = np.max(x, axis, keepdims=keepdims)
    return y, (lambda g: spread(g, x, axis) * (x == spread(y, x, axis)),)


def min(x, *, axis=None, keepdims=False):
    y = np.min(x, axis, keepdims=keepdims)
    return y, (lambda g: spread(g, x, axis) * (x == spread(y, x, axis)),)


def prod(x, *, axis=None, keepdims=False):
    only(np.all(x != 0), "numbers other than 0")
    y = np.prod(x, axis, keepdims=keepdims)
    return y, (lambda g: spread(g * y, x, axis) / x,)


def logsumexp(x, *, axis=None, keepdims=False):
    y = np.log(np.sum(np.exp(x), axis, keepdims=keepdims))
    return y, (lambda g: spread(g, x, axis) * np.exp(x - spread(y, x, axis)),)


def cumsum(x, *, axis=None):
    return np.cumsum(x, axis), (
        lambda g: np.flip(np.cumsum(np.flip(g, axis), axis), axis or 0).reshape(x.shape),
    )


def reshape(x, *, shape):
    return x.reshape(shape), (lambda g: g.reshape(x.shape),)


def flatten(x, start_axis=0):
    return x.reshape(*x.shape[:start_axis], -1), (lambda g: g.reshape(x.shape),)


def transpose(x, *, axes=None):
    order = range(x.ndim)[::-1] if axes is None else np.mod(axes, x.ndim)
    return np.transpose(x, order), (lambda g: np.transpose(g, np.argsort(order)),)


def swapaxes(x, axis1, axis2):
    return np.swapaxes(x, axis1, axis2), (lambda g: np.swapaxes(g, axis1, axis2),)


def moveaxis(x, source, destination):
    return np.moveaxis(x, source, destination), (lambda g: np.moveaxis(g, destination, source),)


def expand(x, *, shape):
    sizes = [n if n >= 0 else x.shape[i - len(shape)] for i, n in enumerate(shape)]
    return np.broadcast_to(x, sizes), (lambda g: g,)


def squeeze(x, *, axis=None):
    return np.squeeze(x, axis), (lambda g: g.reshape(x.shape),)


def expand_dims(x, *, axis):
    return np.expand_dims(x, axis), (lambda g: g.reshape(x.shape),)


def concat(xs, axis=0):
    ends = np.cumsum([x.shape[axis] for x in xs])
    return np.concatenate(xs, axis), (lambda g: np.split(g, ends[:-1], axis),)


def stack(xs, axis=0):
    return np.stack(xs, axis), (lambda g: list(np.moveaxis(g, axis, 0)),)


def split(x, sections, axis=0):
    if isinstance(sections, int):
        ends = range(sections, x.shape[axis], sections)
    else:
        ends = np.cumsum(sections)[:-1]
    return np.split(x, ends, axis), (lambda g: np.concatenate(g, axis),)


def pad(x, *, widths, value=0.0):
    inner = tuple(slice(a, a + n) for (a, _), n in zip(widths, x.shape, strict=True))
    return np.pad(x, widths, constant_values=value), (lambda g: g[inner],)


def flip(x, *, axis=None):
    return np.flip(x, axis), (lambda g: np.flip(g, axis),)


def roll(x, *, shift, axis):
    return np.roll(x, shift, axis), (lambda g: np.roll(g, np.negative(shift), axis),)


def repeat(x, *, repeats, axis=None):
    y = np.repeat(x, repeats, axis)
    firsts = np.arange(0, y.shape[axis or 0], repeats)
    return y, (lambda g: np.add.reduceat(g, firsts, axis or 0).reshape(x.shape),)


def tile(x, reps):
    copies = [n for pair in zip(np.atleast_1d(reps), x.shape, strict=True) for n in pair]
    which = tuple(range(0, 2 * x.ndim, 2))
    return np.tile(x, reps), (lambda g: np.sum(g.reshape(copies), which),)


def tril(x, *, k=0):
    return np.tril(x, k), (lambda g: np.tril(g, k),)


def triu(x, *, k=0):
    return np.triu(x, k), (lambda g: np.triu(g, k),)


def getitem(x, key):
    return x[key], (lambda g: zeros_with(g, key, x),)


def gather(x, index, *, axis):
    key = along(index, axis)
    return x[key], (lambda g: zeros_with(g, key, x), None)


def scatter_add(x, index, source, *, axis):
    key = along(index, axis)
    return x + zeros_with(source, key, x), (lambda g: g, None, lambda g: g[key])


def embedding(index, w, *, padding_idx=-1):
    counts = index != padding_idx
    return w[index], (None, lambda g: zeros_with(g * counts[..., None], index, w))


def dropout(x, *, p=0.5, rng):
    keep = rng.random(x.shape, dtype="float32") >= p
    return x * keep / (1 - p), (lambda g: g * keep / (1 - p),)


def dropout_channels(x, *, p=0.5, rng):
    one_each = x.shape[:2] + (1,) * (x.ndim - 2)
    keep = rng.random(one_each, dtype="float32") >= p
    return x * keep / (1 - p), (lambda g: g * keep / (1 - p),)
