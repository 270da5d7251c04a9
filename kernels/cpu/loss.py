"""Cross-entropy and binary cross-entropy, in one pass over the scores each."""

import numpy as np
from numba import njit

from .. import reference
from . import _scalars
from ._arrays import dense, elementwise
from ._compiled import COMPILED, reading
from ._small import SINGLE
from .activation import _single, log_softmax, sum_of


def cross_entropy(x, labels, weight, smoothing):
    """The loss of each row against its class: (N, C), (N,) integers -> losses (N,), log_softmax (N, C).

    weight: (C,), how much each class counts, or None. smoothing: the share of each target that is
    spread evenly over all classes.
    """
    if not _single(x) or x.size == 0:
        return reference.cross_entropy(x, labels, weight, smoothing)
    logp = log_softmax(x, 1)
    losses = np.empty(len(x), x.dtype)
    _cross_entropy(logp, dense(labels), _weights(weight, logp), np.float32(smoothing), losses)
    return losses, logp


@reading("logp", "labels", "weight")
@njit(**COMPILED)
def _cross_entropy(logp, labels, weight, smoothing, losses):
    n_classes = logp.shape[1]
    even = smoothing / logp.dtype.type(n_classes)
    rest = logp.dtype.type(1) - smoothing
    for r in range(len(logp)):
        loss = logp.dtype.type(0)
        if even > 0:
            for c in range(n_classes):
                loss -= even * (weight[c] * logp[r, c])
        if 0 <= labels[r] < n_classes:
            loss -= rest * (weight[labels[r]] * logp[r, labels[r]])
        losses[r] = loss


def cross_entropy_grad(g, logp, labels, weight, smoothing):
    """Gradient of cross_entropy for x, given the gradient g (N,) of the losses."""
    if not _single(logp) or logp.size == 0:
        return reference.cross_entropy_grad(g, logp, labels, weight, smoothing)
    g = dense(np.broadcast_to(np.asarray(g, logp.dtype).reshape(-1), labels.shape))
    gx, logp = np.empty(logp.shape, logp.dtype), dense(logp)
    smoothing = np.float32(smoothing)
    _cross_entropy_grad(g, logp, dense(labels), _weights(weight, logp), smoothing, gx)
    return gx


@reading("g", "logp", "labels", "weight")
@njit(**COMPILED)
def _cross_entropy_grad(g, logp, labels, weight, smoothing, gx):
    """gx = g * (exp(logp) * sum(t) - t), for the target t: weight * (even, and `rest` at the label)."""
    n_classes = logp.shape[1]
    even = smoothing / logp.dtype.type(n_classes)
    rest = logp.dtype.type(1) - smoothing
    evenly = logp.dtype.type(0)
    for c in range(n_classes):
        evenly += even * weight[c]
    for r in range(len(logp)):
        labelled = 0 <= labels[r] < n_classes
        at_label = rest * weight[labels[r]] if labelled else logp.dtype.type(0)
        row, scores, total = gx[r], logp[r], evenly + at_label
        for c in range(n_classes):
            row[c] = g[r] * (_scalars.exp(scores[c]) * total - even * weight[c])
        if labelled:
            row[labels[r]] -= g[r] * at_label


def _weights(weight, x):
    """The weights of the classes, 1 if there are none."""
    return np.ones(x.shape[1], x.dtype) if weight is None else dense(weight.astype(x.dtype))


def bce_with_logits(x, t):
    """-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)), written so that nothing overflows."""
    return elementwise(_bce_with_logits, x, t) if _single(x) else reference.bce_with_logits(x, t)


@reading("x", "t")
@njit(**COMPILED)
def _bce_with_logits(x, t, y):
    for i in range(x.size):
        y[i] = _scalars.softplus(x[i]) - x[i] * t[i]


def bce_with_logits_grad(g, x, t):
    if not _single(x):
        return reference.bce_with_logits_grad(g, x, t)
    return elementwise(_bce_with_logits_grad, x, t, g)


@reading("g", "x", "t")
@njit(**COMPILED)
def _bce_with_logits_grad(x, t, g, gx):
    for i in range(x.size):
        gx[i] = g[i] * (_scalars.sigmoid(x[i]) - t[i])


def bce_with_logits_mean(x, t):
    """The mean of bce_with_logits over all elements: ()."""
    if not _alike(x, t):
        return reference.bce_with_logits_mean(x, t)
    mean = np.empty((), x.dtype)
    _bce_with_logits_mean(x.reshape(-1), t.reshape(-1), mean)
    return mean


@reading("x", "t")
@njit(**COMPILED)
def _bce_with_logits_mean(x, t, mean):
    losses = np.empty(min(x.size, CHUNK), x.dtype)
    total = 0.0  # of the chunks, in double precision
    for first in range(0, x.size, CHUNK):
        some = losses[: x.size - first]
        for i in range(some.size):
            some[i] = _scalars.softplus(x[first + i]) - x[first + i] * t[first + i]
        total += sum_of(some)
    mean[()] = total / x.size


CHUNK = 1024  # losses whose sum is taken in float32


def bce_with_logits_mean_grad(g, x, t):
    """Gradient of bce_with_logits_mean for x, given the gradient g () of the mean."""
    if not _alike(x, t):
        return reference.bce_with_logits_mean_grad(g, x, t)
    gx = np.empty(x.shape, x.dtype)
    _bce_with_logits_mean_grad(g.reshape(-1), x.reshape(-1), t.reshape(-1), gx.reshape(-1))
    return gx


@reading("g", "x", "t")
@njit(**COMPILED)
def _bce_with_logits_mean_grad(g, x, t, gx):
    each = g[0] / x.dtype.type(x.size)
    for i in range(x.size):
        gx[i] = each * (_scalars.sigmoid(x[i]) - t[i])


def _alike(x, t):
    """Whether x and t are dense, and in float32."""
    return (
        x.dtype is SINGLE and t.dtype is SINGLE and x.flags.carray and t.flags.carray and x.size > 0
    )
