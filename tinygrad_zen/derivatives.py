"""Jacobians, Hessians and products with them, from the engine's gradients of gradients."""

from . import ops
from .autograd import enable_grad, grad
from .tensor import Tensor


def jacobian(f, x, create_graph=False):
    """All partial derivatives of f at x: shape f(x).shape + x.shape, one backward pass a row."""
    with enable_grad():
        x = _variable(x, create_graph)
        y = f(x)
        rows = []
        for i in range(y.size):
            seed = y.backend.xp.zeros(y.size, y.dtype)
            seed[i] = 1
            seed = Tensor(seed.reshape(y.shape), y.backend)
            rows.append(grad(y, x, seed, retain_graph=True, create_graph=create_graph))
        return ops.reshape(ops.stack(rows), shape=y.shape + x.shape)


def hessian(f, x):
    """All second derivatives at x of a function with one number as its value: x.shape + x.shape."""
    with enable_grad():
        return jacobian(lambda x: _gradient(f, x), _variable(x))


def vjp(f, x, v):
    """f(x), and v's product with the Jacobian, v @ J: one backward pass."""
    with enable_grad():
        x = _variable(x)
        y = f(x)
        return y.detach(), grad(y, x, v)


def jvp(f, x, v):
    """f(x), and the Jacobian's product with v, J @ v: the change of f along v.

    The gradient u -> u @ J is linear in u, so its own gradient is J: two backward passes.
    """
    with enable_grad():
        x = _variable(x)
        y = f(x)
        u = Tensor(y.backend.xp.zeros_like(y.data), y.backend, requires_grad=True)
        back = grad(y, x, u, create_graph=True)
        return y.detach(), grad(back, u, v)


def hvp(f, x, v):
    """The Hessian's product with v at x, of a function with one number as its value."""
    with enable_grad():
        x = _variable(x)
        return grad(_gradient(f, x), x, v)


def _gradient(f, x):
    return grad(f(x), x, create_graph=True)


def _variable(x, keep=False):
    """x itself where its own graph is wanted, else a leaf that requires a gradient."""
    return x if keep or x.requires_grad else Tensor(x.data, x.backend, requires_grad=True)
