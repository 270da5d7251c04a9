"""Losses that fuse a logarithm with what it is taken of, and their gradients."""

import numpy as np

from ._arrays import namespace
from .activation import log_softmax, sigmoid


def cross_entropy(x, labels, weight, smoothing):
    """The loss of each row against its class: (N, C), (N,) integers -> losses (N,), log_softmax (N, C).

    weight: (C,), how much each class counts, or None. smoothing: the share of each target that is
    spread evenly over all classes.
    """
    logp = log_softmax(x, 1)
    # picked, not multiplied by a one-hot row: 0 * -inf, of a class that is masked out, would be NaN
    own = logp[namespace(labels).arange(len(labels)), labels]
    losses = -own if weight is None else -own * weight[labels]
    if smoothing:
        every = (logp if weight is None else logp * weight).sum(axis=1)
        losses = losses * (1 - smoothing) - every * (smoothing / logp.shape[1])
    return losses, logp


def cross_entropy_grad(g, logp, labels, weight, smoothing):
    """Gradient of cross_entropy for x, given the gradient g (N,) of the losses."""
    t = _target(logp, labels, weight, smoothing)
    return g.reshape((-1, 1)) * (namespace(logp).exp(logp) * t.sum(axis=1, keepdims=True) - t)


def _target(logp, labels, weight, smoothing):
    """What each row should be: one-hot, smoothed, each class times its weight."""
    classes = logp.shape[1]
    hot = (labels.reshape((-1, 1)) == namespace(labels).arange(classes)).astype(logp.dtype)
    t = hot * (1 - smoothing) + smoothing / classes if smoothing else hot
    return t if weight is None else t * weight


def bce_with_logits(x, t):
    """-t log(sigmoid(x)) - (1 - t) log(1 - sigmoid(x)), written so that nothing overflows."""
    xp = namespace(x)
    return xp.maximum(x, 0) - x * t + xp.log1p(xp.exp(-xp.abs(x)))


def bce_with_logits_grad(g, x, t):
    return g * (sigmoid(x) - t)


def bce_with_logits_mean(x, t):
    """The mean of bce_with_logits over all elements: ()."""
    return bce_with_logits(x, t).sum() / x.size


def bce_with_logits_mean_grad(g, x, t):
    """Gradient of bce_with_logits_mean for x, given the gradient g () of the mean."""
    return bce_with_logits_grad(g / x.size, x, t)


def binary_cross_entropy(p, t):
    """-t log(p) - (1 - t) log(1 - p); logarithms are held above -100, so p = 0 and p = 1 are finite."""
    xp = namespace(p)
    with np.errstate(divide="ignore", invalid="ignore"):  # p outside of 0..1 gives NaN
        return -t * xp.maximum(xp.log(p), -100.0) - (1 - t) * xp.maximum(xp.log1p(-p), -100.0)


def binary_cross_entropy_grad(g, p, t):
    return g * (p - t) / namespace(p).maximum(p * (1 - p), 1e-12)
