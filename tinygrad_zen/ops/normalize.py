"""Batch, layer, group and instance normalisation."""

import math

from ..autograd import op
from .shape import reshape


@op
def batch_norm(be, x, w, b, *, eps=1e-5, running=None):
    """Normalise each channel by the batch's own mean and variance: (N, C, ...), (C,), (C,) -> y.

    running: (mean, variance, momentum), arrays that are moved towards the batch's statistics, or
    None. Ioffe & Szegedy 2015.
    """
    check_batch_norm("batch_norm", x, w, b)
    y, mean, rstd = be.kernels.batch_norm(x, w, b, eps, running)
    return y, lambda g: be.kernels.batch_norm_grad(g, x, w, mean, rstd)


def check_batch_norm(name, x, w, b):
    """Raise ValueError unless a batch x can be normalised by its own statistics."""
    _check_channels(name, x, w, b)
    if x.size // max(x.shape[1], 1) < 2:
        raise ValueError(
            f"{name}: training needs more than one value a channel; got shape {x.shape}"
        )


def batch_norm_eval(x, w, b, mean, var, eps=1e-5):
    """Normalise each channel by given statistics: (N, C, ...) and four times (C,) -> y."""
    _check_channels("batch_norm", x, w, b)
    each = (1, -1) + (1,) * (x.ndim - 2)
    scale = w / (var + eps) ** 0.5
    return x * scale.reshape(each) + (b - mean * scale).reshape(each)


def _check_channels(name, x, w, b):
    if x.ndim < 2:
        raise ValueError(f"{name}: x must be (N, C, ...); got {x.shape}")
    if w.shape != x.shape[1:2] or b.shape != x.shape[1:2]:
        raise ValueError(
            f"{name}: x (N, C, ...), weight (C,) and bias (C,) must share C; got {x.shape}, {w.shape} "
            f"and {b.shape}"
        )


@op
def layer_norm(be, x, w, b, *, eps=1e-5):
    """Normalise over the last axes, those of w and b: (..., *D), (*D), (*D) -> (..., *D).

    Ba, Kiros & Hinton 2016.
    """
    if w.ndim == 0 or x.shape[-w.ndim :] != w.shape or b.shape != w.shape:
        raise ValueError(
            f"layer_norm: the last axes of x must be those of weight and bias; got {x.shape}, {w.shape} "
            f"and {b.shape}"
        )
    k = be.kernels
    rows = x.reshape((-1, math.prod(w.shape)))
    scale = w.reshape(-1)
    y, mean, rstd = k.layer_norm(rows, scale, b.reshape(-1), eps)

    def grads(g):
        gx, gw, gb = k.layer_norm_grad(g.reshape(rows.shape), rows, scale, mean, rstd)
        return gx.reshape(x.shape), gw.reshape(w.shape), gb.reshape(w.shape)

    return y.reshape(x.shape), grads


@op
def _normalize_rows(be, x, *, eps):
    """Each row to mean 0 and variance 1: (R, D)."""
    one, zero = be.xp.ones_like(x[0]), be.xp.zeros_like(x[0])
    y, mean, rstd = be.kernels.layer_norm(x, one, zero, eps)
    return y, (lambda g: be.kernels.layer_norm_grad(g, x, one, mean, rstd)[0],)


def group_norm(x, w, b, *, groups, eps=1e-5):
    """Normalise groups of channels of each image: (N, C, ...), (C,), (C,) -> y. Wu & He 2018."""
    _check_channels("group_norm", x, w, b)
    if groups < 1 or x.shape[1] % groups:
        raise ValueError(f"group_norm: {groups} groups must divide {x.shape[1]} channels")
    each = (1, -1) + (1,) * (x.ndim - 2)
    rows = reshape(x, shape=(x.shape[0] * groups, -1))
    normal = reshape(_normalize_rows(rows, eps=eps), shape=x.shape)
    return normal * w.reshape(each) + b.reshape(each)
