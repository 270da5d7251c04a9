"""Normalisation: subtract the mean, divide by the standard deviation, scale and shift."""

from ._arrays import namespace
from .activation import relu, relu_grad


def batch_norm(x, w, b, eps, running):
    """Normalise each channel over the batch and what lies behind: (N, C, ...), (C,), (C,) -> y.

    Returns y, and the batch's mean and 1 / sqrt(variance + eps) for the gradient. running: None, or
    (mean, variance, momentum), whose arrays move towards the batch's (unbiased) statistics.
    """
    xp = namespace(x)
    axes = (0, *range(2, x.ndim))
    each = (1, -1) + (1,) * (x.ndim - 2)  # one number a channel, against (N, C, ...)
    mean = x.mean(axis=axes)
    centred = x - mean.reshape(each)
    var = (centred * centred).mean(axis=axes)
    rstd = 1 / xp.sqrt(var + eps)
    if running is not None:
        running_mean, running_var, momentum = running
        count = x.size // x.shape[1]
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * (count / max(count - 1, 1)) - running_var)
    return centred * (rstd * w).reshape(each) + b.reshape(each), mean, rstd


def batch_norm_grad(g, x, w, mean, rstd):
    """Gradients of batch_norm for x, w and b; mean and rstd as the forward returned them."""
    axes = (0, *range(2, x.ndim))
    each = (1, -1) + (1,) * (x.ndim - 2)
    normal = (x - mean.reshape(each)) * rstd.reshape(each)
    gb = g.sum(axis=axes)
    gw = (g * normal).sum(axis=axes)
    count = x.size // x.shape[1]
    # the mean and the variance depend on every element: hence the two terms that are taken away
    gx = (g - (gb / count).reshape(each) - normal * (gw / count).reshape(each)) * (
        rstd * w
    ).reshape(each)
    return gx, gw, gb


def batch_norm_relu(x, w, b, eps, running):
    """relu(batch_norm(x)); arguments and results as of batch_norm."""
    y, mean, rstd = batch_norm(x, w, b, eps, running)
    return relu(y), mean, rstd


def batch_norm_relu_grad(g, x, w, b, mean, rstd):
    """Gradients of batch_norm_relu for x, w and b; where y was positive is computed anew."""
    each = (1, -1) + (1,) * (x.ndim - 2)
    y = (x - mean.reshape(each)) * (rstd * w).reshape(each) + b.reshape(each)
    return batch_norm_grad(relu_grad(g, y), x, w, mean, rstd)


def layer_norm(x, w, b, eps):
    """Normalise each row: (R, D), (D,), (D,) -> y (R, D), mean (R, 1), 1 / sqrt(variance + eps)."""
    xp = namespace(x)
    mean = x.mean(axis=1, keepdims=True)
    centred = x - mean
    rstd = 1 / xp.sqrt((centred * centred).mean(axis=1, keepdims=True) + eps)
    return centred * rstd * w + b, mean, rstd


def layer_norm_grad(g, x, w, mean, rstd):
    """Gradients of layer_norm for x, w and b; mean and rstd as the forward returned them."""
    normal = (x - mean) * rstd
    gn = g * w
    gx = rstd * (
        gn - gn.mean(axis=1, keepdims=True) - normal * (gn * normal).mean(axis=1, keepdims=True)
    )
    return gx, (g * normal).sum(axis=0), g.sum(axis=0)
