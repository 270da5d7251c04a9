"""Spectral normalisation of a layer's weight."""

import functools

import numpy as np

from .. import ops
from ..tensor import Tensor
from .conv import ConvTranspose1d, ConvTranspose2d
from .module import Parameter


def spectral_norm(module, name="weight", n_power_iterations=1, eps=1e-12, axis=None):
    """Divide a module's weight by its largest singular value, at each call; returns the module.

    The weight counts as a matrix: its axis (0; for transposed convolutions 1) against all others. What is
    learned is now called weight_orig. The singular value comes from n_power_iterations steps of power
    iteration at each call in training, which go on from the vectors of the last call, the buffers
    weight_u and weight_v. Miyato et al. 2018.

        layer = nn.spectral_norm(nn.Conv2d(16, 32, 3))
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Parameter) or weight.ndim < 2:
        raise ValueError(
            f"spectral_norm: {type(module).__name__} has no parameter {name!r} of two axes or more"
        )
    if n_power_iterations < 1:
        raise ValueError(
            f"spectral_norm: n_power_iterations must be at least 1; got {n_power_iterations}"
        )
    if axis is None:
        axis = 1 if isinstance(module, ConvTranspose1d | ConvTranspose2d) else 0
    delattr(module, name)
    setattr(module, f"{name}_orig", weight)
    be, matrix = weight.backend, _matrix(weight.data, axis)
    # the first left singular vector itself: no warm-up is needed, and no random number drawn
    u = np.linalg.svd(be.numpy(matrix).astype(np.float64), full_matrices=False)[0][:, 0]
    u = be.array(u, weight.dtype)
    setattr(module, f"{name}_u", Tensor(u, be))
    setattr(module, f"{name}_v", Tensor(_unit(matrix.T @ u, eps), be))
    module.forward = functools.partial(_forward, module, name, axis, n_power_iterations, eps)
    return module


def _forward(module, name, axis, iterations, eps, *args, **options):
    """The module's own forward, with its weight divided."""
    weight, u, v = (getattr(module, name + end) for end in ("_orig", "_u", "_v"))
    if module.training:
        matrix = _matrix(weight.data, axis)
        for _ in range(iterations):
            v.data = _unit(matrix.T @ u.data, eps)  # new arrays: a graph may hold the old ones
            u.data = _unit(matrix @ v.data, eps)
    matrix = _matrix(weight, axis)
    largest = (ops.matmul(matrix, v.data) * u.data).sum()
    setattr(module, name, weight / largest)
    try:
        return type(module).forward(module, *args, **options)
    finally:
        delattr(module, name)


def _matrix(weight, axis):
    """The weight with one axis against all others: an array or a Tensor."""
    order = (axis, *(a for a in range(weight.ndim) if a != axis))
    return weight.transpose(order).reshape((weight.shape[axis], -1))


def _unit(x, eps):
    return x / max(float((x * x).sum()) ** 0.5, eps)
