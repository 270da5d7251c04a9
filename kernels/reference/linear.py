"""Matrix products."""

from . import activation as activations
from ._arrays import namespace


def matmul(x, y):
    """(..., M, K) @ (..., K, N) -> (..., M, N); leading axes broadcast."""
    return namespace(x).matmul(x, y)


def linear(x, w, b):
    """x @ w.T + b: (..., I), (O, I), (O,) or None -> (..., O)."""
    y = namespace(x).matmul(x, w.T)
    return y if b is None else y + b


def linear_activation(x, w, b, activation):
    """relu, sigmoid or tanh of linear(x, w, b): (..., I), (O, I), (O,) or None -> (..., O)."""
    return getattr(activations, activation)(linear(x, w, b))


def linear_grad(g, x):
    """The gradients of linear for w and b: g (..., O), x (..., I) -> (O, I), (O,)."""
    g, x = g.reshape((-1, g.shape[-1])), x.reshape((-1, x.shape[-1]))
    return namespace(x).matmul(g.T, x), g.sum(axis=0)
