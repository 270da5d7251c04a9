"""Losses: prediction first, target second.

reduction: "mean" (the default), "sum" or "none". A NaN in the target is an error, never a NaN loss.
"""

import math

import numpy as np

from ..autograd import bounds, op
from .shape import moveaxis, reshape


def _reduce(be, name, losses, target, reduction, total=None):
    """The reduced loss, and how its gradient spreads: g -> the gradient of each element.

    total: what "mean" divides by; the number of elements if None.
    """
    if reduction == "none":
        out, spread = losses, lambda g: g
    elif reduction == "sum":
        out, spread = losses.sum(), lambda g: g
    elif reduction == "mean":
        if losses.size == 0:
            raise ValueError(
                f"{name}: the mean over an empty batch is undefined; got shape {losses.shape}"
            )
        n = losses.size if total is None else total
        if be.xp is np and n == 0:
            raise ValueError(
                f"{name}: no label counts (ignored, or of weight 0); the mean is undefined"
            )
        out, spread = losses.sum() / n, lambda g: g / n
    else:
        raise ValueError(f"{name}: reduction must be 'mean', 'sum' or 'none'; got {reduction!r}")
    if reduction != "none":
        _find_nan(be, name, out, target)
    return out, spread


def _find_nan(be, name, out, target):
    """Raise if the loss is NaN because the target is: a look at one number, where it needs no transfer."""
    if be.xp is not np or out == out:
        return
    if target.dtype.kind == "f" and np.isnan(target).any():
        where = tuple(int(i) for i in np.argwhere(np.isnan(target))[0])
        raise ValueError(
            f"{name}: the target holds {int(np.isnan(target).sum())} NaN, the first at {where}"
        )


def _check_same_shape(name, x, t):
    shapes = getattr(x, "shape", ()), getattr(t, "shape", ())  # a number has none
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"{name}: prediction and target must have one shape; got {shapes[0]} and {shapes[1]}"
        )


@op
def mse_loss(be, x, t, *, reduction="mean"):
    """Squared error, (x - t)^2."""
    _check_same_shape("mse_loss", x, t)
    d = x - t
    out, spread = _reduce(be, "mse_loss", d * d, t, reduction)
    return out, (lambda g: spread(g) * 2 * d, lambda g: spread(g) * -2 * d)


@op
def l1_loss(be, x, t, *, reduction="mean"):
    """Absolute error, |x - t|; the gradient at 0 is 0."""
    _check_same_shape("l1_loss", x, t)
    d = x - t
    out, spread = _reduce(be, "l1_loss", be.xp.abs(d), t, reduction)
    return out, (lambda g: spread(g) * be.xp.sign(d), lambda g: -spread(g) * be.xp.sign(d))


@op
def huber_loss(be, x, t, *, reduction="mean", delta=1.0):
    """Half the squared error up to a distance of delta, linear beyond. Huber 1964."""
    _check_same_shape("huber_loss", x, t)
    if not delta > 0:
        raise ValueError(f"huber_loss: delta must be positive; got {delta}")
    d = x - t
    far = be.xp.abs(d)
    losses = be.xp.where(far <= delta, 0.5 * d * d, delta * (far - 0.5 * delta))
    out, spread = _reduce(be, "huber_loss", losses, t, reduction)
    slope = be.xp.clip(d, -delta, delta)
    return out, (lambda g: spread(g) * slope, lambda g: -spread(g) * slope)


@op
def binary_cross_entropy(be, p, t, *, reduction="mean"):
    """-t log(p) - (1 - t) log(1 - p) of probabilities p in 0..1.

    Logarithms are held above -100. Prefer the form with logits: it has no such edge.
    """
    name = "binary_cross_entropy"
    _check_same_shape(name, p, t)
    k = be.kernels
    losses = k.binary_cross_entropy(p, t)
    out, spread = _reduce(be, name, losses, t, reduction)
    if be.xp is np and reduction != "none" and out != out and ((p < 0) | (p > 1)).any():
        raise ValueError(
            f"{name}: probabilities must lie in 0..1; got {p.min():.4g}..{p.max():.4g} "
            "(for raw scores use binary_cross_entropy_with_logits)"
        )

    def grad_t(g):
        return spread(g) * (be.xp.log1p(-p) - be.xp.log(p))

    return out, (lambda g: k.binary_cross_entropy_grad(spread(g), p, t), grad_t)


@op
def binary_cross_entropy_with_logits(be, x, t, *, reduction="mean", pos_weight=None):
    """Binary cross-entropy of raw scores x, finite at any size.

    pos_weight: how much more a target of 1 counts than one of 0 (a number).
    """
    name = "binary_cross_entropy_with_logits"
    _check_same_shape(name, x, t)
    k = be.kernels
    extra = 0.0 if pos_weight is None else pos_weight - 1
    if reduction == "mean" and not extra and x.size > 0:
        mean = k.bce_with_logits_mean(x, t)
        _find_nan(be, name, mean, t)
        return mean, (
            lambda g: k.bce_with_logits_mean_grad(g, x, t),
            lambda g: g * (-1 / x.size) * x,
        )
    losses = k.bce_with_logits(x, t)
    if extra:  # t log(sigmoid(x)) once more for each part of the weight above 1
        losses = losses + extra * t * k.softplus(-x, 1.0)
    out, spread = _reduce(be, name, losses, t, reduction)

    def grad_x(g):
        gx = k.bce_with_logits_grad(spread(g), x, t)
        return gx - spread(g) * (extra * t * k.sigmoid(-x)) if extra else gx

    def grad_t(g):
        return spread(g) * (extra * k.softplus(-x, 1.0) - x)

    return out, (grad_x, grad_t)


def cross_entropy(
    x, target, weight=None, *, ignore_index=-100, reduction="mean", label_smoothing=0.0
):
    """Cross-entropy of raw scores (logits) against classes.

    x: (N, C), (C,) or (N, C, d1, ...). target: integer classes in 0..C-1, shaped like x without C; or
    probabilities (one-hot or soft) in the shape of x. weight: (C,), how much each class counts; the
    mean is then over the weights of the labels. Labels equal to ignore_index count nothing.
    label_smoothing: the share of each target that is spread evenly over the classes.
    """
    name = "cross_entropy"
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"{name}: label_smoothing must lie in [0, 1); got {label_smoothing}")
    target = target if hasattr(target, "dtype") else np.asarray(target)
    x, target, shape = _as_rows(name, x, target)
    if weight is not None:
        weight = weight if hasattr(weight, "dtype") else np.asarray(weight, x.dtype)
        if weight.shape != x.shape[1:]:
            raise ValueError(f"{name}: weight must be (C,) for x {x.shape}; got {weight.shape}")
    if target.dtype.kind == "f" or target.shape == x.shape:
        out = _soft_cross_entropy(x, target, weight, smoothing=label_smoothing, reduction=reduction)
    else:
        out = _label_cross_entropy(
            x,
            target,
            weight,
            ignore_index=ignore_index,
            reduction=reduction,
            smoothing=label_smoothing,
        )
    return reshape(out, shape=shape) if reduction == "none" else out


def _as_rows(name, x, target):
    """x as (rows, C), target to match, and the shape of one loss for each row."""
    if x.ndim == 0:
        raise ValueError(f"{name}: scores need an axis of classes; got shape ()")
    at = 0 if x.ndim == 1 else 1
    shape = x.shape[:at] + x.shape[at + 1 :]
    if target.shape not in (shape, x.shape):
        raise ValueError(
            f"{name}: target must be classes {shape} or probabilities {x.shape} for x {x.shape}; "
            f"got {target.shape}"
        )
    soft = target.shape == x.shape
    if not soft and target.dtype.kind not in "iu":
        raise TypeError(
            f"{name}: labels must be integers; got {target.dtype} of shape {target.shape}"
        )
    if x.ndim == 2:
        return x, target, shape
    rows = (-1, x.shape[at])
    x = reshape(moveaxis(x, at, -1), shape=rows)
    if soft:
        if isinstance(target, np.ndarray):
            return x, np.moveaxis(target, at, -1).reshape(rows), shape
        return x, reshape(moveaxis(target, at, -1), shape=rows), shape
    return x, target.reshape(-1), shape


def _check_labels(name, labels, classes, ignore_index):
    """Labels with the ignored ones set to 0, and which count (None: all do)."""
    low, high = bounds(labels) if labels.size else (0, 0)
    if 0 <= low and high < classes and not low <= ignore_index <= high:
        return labels, None
    counts = labels != ignore_index
    labels = labels * counts
    low, high = bounds(labels)
    if low < 0 or high >= classes:
        raise ValueError(
            f"{name}: labels must lie in 0..{classes - 1}; got {low if low < 0 else high}"
        )
    return labels, counts


@op
def _label_cross_entropy(be, x, labels, weight, *, ignore_index, reduction, smoothing):
    k = be.kernels
    labels, counts = _check_labels("cross_entropy", labels, x.shape[1], ignore_index)
    losses, logp = k.cross_entropy(x, labels, weight, smoothing)
    total = len(labels)
    if counts is not None:
        counts = counts.astype(x.dtype)
        losses, total = losses * counts, counts.sum()
    if weight is not None:
        share = weight[labels]
        total = (share if counts is None else share * counts).sum()
    out, spread = _reduce(be, "cross_entropy", losses, labels, reduction, total)

    def grad_x(g):
        each = spread(g)
        each = be.xp.broadcast_to(each, labels.shape) if counts is None else each * counts
        return k.cross_entropy_grad(each, logp, labels, weight, smoothing)

    return out, (grad_x, None, None)


@op
def _soft_cross_entropy(be, x, t, weight, *, smoothing, reduction):
    k = be.kernels
    if t.dtype.kind != "f":
        t = t.astype(x.dtype)
    if smoothing:
        t = t * (1 - smoothing) + smoothing / x.shape[1]
    if weight is not None:
        t = t * weight
    logp = k.log_softmax(x, 1)
    out, spread = _reduce(be, "cross_entropy", -(t * logp).sum(axis=1), t, reduction)

    def each(g):
        return spread(g).reshape((-1, 1))

    def grad_t(g):
        gt = -each(g) * logp * (1 - smoothing)
        return gt if weight is None else gt * weight

    return out, (
        lambda g: each(g) * (be.xp.exp(logp) * t.sum(axis=1, keepdims=True) - t),
        grad_t,
        None,
    )


def nll_loss(logp, labels, weight=None, *, ignore_index=-100, reduction="mean"):
    """Minus the log-probability of each label; logp as log_softmax gives it, shapes as cross_entropy."""
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    logp, labels, shape = _as_rows("nll_loss", logp, labels)
    if labels.ndim != 1:
        raise ValueError(f"nll_loss: labels must be integer classes {shape}; got {labels.shape}")
    if weight is not None and not hasattr(weight, "dtype"):
        weight = np.asarray(weight, logp.dtype)
    if weight is not None and weight.shape != logp.shape[1:]:
        raise ValueError(f"nll_loss: weight must be (C,) for logp {logp.shape}; got {weight.shape}")
    out = _label_nll(logp, labels, weight, ignore_index=ignore_index, reduction=reduction)
    return reshape(out, shape=shape) if reduction == "none" else out


@op
def _label_nll(be, logp, labels, weight, *, ignore_index, reduction):
    labels, counts = _check_labels("nll_loss", labels, logp.shape[1], ignore_index)
    picked = (be.xp.arange(len(labels)), labels)
    share = 1.0 if weight is None else weight[labels]
    if counts is not None:
        share = share * counts.astype(logp.dtype)
    total = len(labels) if counts is None and weight is None else share.sum()
    out, spread = _reduce(be, "nll_loss", -logp[picked] * share, labels, reduction, total)

    def grad_x(g):
        each = be.xp.broadcast_to(-spread(g) * share, labels.shape).astype(logp.dtype)
        return be.kernels.getitem_grad(each, picked, logp.shape)

    return out, (grad_x, None, None)


@op
def kl_div(be, x, t, *, reduction="mean", log_target=False):
    """Kullback-Leibler divergence t (log t - x) of log-probabilities x from probabilities t.

    log_target: t holds logarithms too. reduction="batchmean" divides by the first axis: the
    divergence proper; "mean" divides by all elements.
    """
    _check_same_shape("kl_div", x, t)
    if log_target:
        logt, prob = t, be.xp.exp(t)
    else:
        logt, prob = be.xp.log(be.xp.where(t > 0, t, 1.0)), t  # 0 log 0 is 0
    total = None
    if reduction == "batchmean":
        total, reduction = max(x.shape[0], 1), "mean"
    out, spread = _reduce(be, "kl_div", prob * (logt - x), t, reduction, total)

    def grad_t(g):
        return spread(g) * ((prob if log_target else 1.0) * (logt - x + 1.0))

    return out, (lambda g: -spread(g) * prob, grad_t)


@op
def hinge_loss(be, x, t, *, reduction="mean", margin=1.0):
    """max(0, margin - t x) for targets t of -1 or 1; the gradient at the kink is 0."""
    _check_same_shape("hinge_loss", x, t)
    gap = margin - t * x
    active = gap > 0
    out, spread = _reduce(be, "hinge_loss", be.xp.maximum(gap, 0.0), t, reduction)
    return out, (lambda g: -spread(g) * active * t, lambda g: -spread(g) * active * x)


def multi_margin_loss(x, labels, *, margin=1.0, reduction="mean"):
    """Multi-class hinge: the mean over classes j of max(0, margin - x[label] + x[j]), j not the label."""
    labels = labels if hasattr(labels, "dtype") else np.asarray(labels)
    if x.ndim != 2 or labels.shape != x.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"multi_margin_loss: x (N, C) and integer labels (N,) are needed; got {x.shape} and "
            f"{labels.dtype} {labels.shape}"
        )
    return _multi_margin(x, labels, margin=margin, reduction=reduction)


@op
def _multi_margin(be, x, labels, *, margin, reduction):
    name = "multi_margin_loss"
    labels, _ = _check_labels(name, labels, x.shape[1], -math.inf)
    rows = be.xp.arange(len(labels))
    own = x[rows, labels].reshape((-1, 1))
    others = labels.reshape((-1, 1)) != be.xp.arange(x.shape[1])
    gap = (margin - own + x) * others
    active = (gap > 0).astype(x.dtype)
    out, spread = _reduce(
        be, name, be.xp.maximum(gap, 0.0).sum(axis=1) / x.shape[1], labels, reduction
    )

    def grad_x(g):
        each = active * (be.xp.broadcast_to(spread(g), labels.shape).reshape((-1, 1)) / x.shape[1])
        return each - be.kernels.getitem_grad(each.sum(axis=1), (rows, labels), x.shape)

    return out, (grad_x, None)
