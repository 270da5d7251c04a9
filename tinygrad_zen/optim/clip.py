"""Clipping of gradients, between backward() and step()."""

import math

from ..tensor import Tensor


def clip_grad_norm_(parameters, max_norm, norm_type=2.0, error_if_nonfinite=False):
    """Scale all gradients together so that their norm, taken as one vector, is at most max_norm.

    norm_type: the p of the p-norm; math.inf for the largest element. Returns the norm before, a
    Tensor of shape (). Pascanu, Mikolov & Bengio 2013.
    """
    if not max_norm >= 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be at least 0; got {max_norm}")
    if not norm_type > 0:
        raise ValueError(f"clip_grad_norm_: norm_type must be positive; got {norm_type}")
    grads, backend = _gradients("clip_grad_norm_", parameters)
    xp = backend.xp
    norms = xp.stack([_norm(xp, g.reshape(-1), norm_type) for g in grads])
    norm = _norm(xp, norms, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        raise ValueError(
            f"clip_grad_norm_: the norm of the gradients is {float(norm)}; nothing was changed"
        )
    # without a look at the norm: on a GPU that would wait for it
    scale = xp.minimum(max_norm / (norm + 1e-6), 1.0)
    for g in grads:
        g *= scale.astype(g.dtype)
    return Tensor(xp.asarray(norm), backend)


def clip_grad_value_(parameters, clip_value):
    """Hold each element of the gradients between -clip_value and clip_value."""
    if not clip_value >= 0:
        raise ValueError(f"clip_grad_value_: clip_value must be at least 0; got {clip_value}")
    grads, backend = _gradients("clip_grad_value_", parameters)
    for g in grads:
        backend.xp.clip(g, -clip_value, clip_value, out=g)


def _norm(xp, x, p):
    """The p-norm of a vector, a number of its dtype."""
    if p == math.inf:
        return xp.abs(x).max()
    if p == 2:
        return xp.sqrt(xp.dot(x, x))
    return (xp.abs(x) ** p).sum() ** (1 / p)


def _gradients(name, parameters):
    """The arrays of the gradients that there are, and their backend."""
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = [p.grad for p in parameters if p.grad is not None]
    if not grads:
        raise ValueError(f"{name}: none of the {len(parameters)} parameters has a gradient")
    names = sorted({g.backend.name for g in grads})
    if len(names) > 1:
        raise ValueError(f"{name}: the gradients are on {' and '.join(names)}; clip them apart")
    return [g.data for g in grads], grads[0].backend
