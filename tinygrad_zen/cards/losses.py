"""Formulas of losses; _tools.py says how a formula is written. n: what the reduction divides by."""

import numpy as np

from ._tools import as_shares, count, folded, only, sigmoid


def mse_loss(x, t, *, reduction="mean"):
    d = x - t
    n = count(d, reduction)
    return folded(d**2, reduction), (lambda g: 2 * d * g / n, lambda g: -2 * d * g / n)


def l1_loss(x, t, *, reduction="mean"):
    d = x - t
    n = count(d, reduction)
    return folded(np.abs(d), reduction), (
        lambda g: g * np.sign(d) / n,
        lambda g: -g * np.sign(d) / n,
    )


def huber_loss(x, t, *, reduction="mean", delta=1.0):
    d = x - t
    n = count(d, reduction)
    losses = np.where(np.abs(d) < delta, d**2 / 2, delta * (np.abs(d) - delta / 2))
    return folded(losses, reduction), (
        lambda g: g * np.clip(d, -delta, delta) / n,
        lambda g: -g * np.clip(d, -delta, delta) / n,
    )


def binary_cross_entropy(p, t, *, reduction="mean"):
    n = count(p, reduction)
    losses = -t * np.log(p) - (1 - t) * np.log(1 - p)
    return folded(losses, reduction), (
        lambda g: g * (p - t) / (p * (1 - p)) / n,
        lambda g: g * (np.log(1 - p) - np.log(p)) / n,
    )


def binary_cross_entropy_with_logits(x, t, *, reduction="mean"):
    n = count(x, reduction)
    losses = np.maximum(x, 0) - x * t + np.log(1 + np.exp(-np.abs(x)))
    return folded(losses, reduction), (lambda g: g * (sigmoid(x) - t) / n, lambda g: -g * x / n)


def cross_entropy(x, t, *, reduction="mean"):
    only(x.ndim == 2, "scores (N, C)")
    s = as_shares(t, x)
    d = x - np.max(x, 1, keepdims=True)
    l = d - np.log(np.sum(np.exp(d), 1, keepdims=True))
    losses = -np.sum(s * l, 1)
    n = count(losses, reduction)
    return folded(losses, reduction), (
        lambda g: np.reshape(g, (-1, 1)) * (np.exp(l) * np.sum(s, 1, keepdims=True) - s) / n,
        lambda g: -np.reshape(g, (-1, 1)) * l / n,
    )


def nll_loss(x, t, *, reduction="mean"):
    only(x.ndim == 2, "log-probabilities (N, C)")
    s = as_shares(t, x)
    losses = -np.sum(s * x, 1)
    n = count(losses, reduction)
    return folded(losses, reduction), (lambda g: -np.reshape(g, (-1, 1)) * s / n, None)


def kl_div(x, t, *, reduction="mean"):
    only(np.all(t > 0), "probabilities above 0")
    n = count(x, reduction)
    losses = t * (np.log(t) - x)
    return folded(losses, reduction), (
        lambda g: -g * t / n,
        lambda g: g * (np.log(t) - x + 1) / n,
    )


def hinge_loss(x, t, *, reduction="mean", margin=1.0):
    gap = margin - t * x
    n = count(gap, reduction)
    return folded(np.maximum(gap, 0), reduction), (
        lambda g: -g * t * (gap > 0) / n,
        lambda g: -g * x * (gap > 0) / n,
    )


def multi_margin_loss(x, t, *, reduction="mean", margin=1.0):
    s = as_shares(t, x)
    gap = (margin - np.sum(s * x, 1, keepdims=True) + x) * (1 - s)
    losses = np.mean(np.maximum(gap, 0), 1)
    n = count(losses, reduction) * x.shape[1]
    a = 1.0 * (gap > 0)
    return folded(losses, reduction), (
        lambda g: np.reshape(g, (-1, 1)) * (a - s * np.sum(a, 1, keepdims=True)) / n,
        None,
    )
