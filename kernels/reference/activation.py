"""Activation functions and their gradients. Gradients take the output y where it says enough."""

import math

import numpy as np

from ._arrays import namespace


def erf(x):
    """The error function, by SciPy, or by CuPy's copy of it; a Tensor brings its own."""
    if isinstance(x, np.ndarray):
        from scipy.special import erf as array_erf
    elif hasattr(namespace(x), "erf"):
        array_erf = namespace(x).erf
    else:
        from cupyx.scipy.special import erf as array_erf
    return array_erf(x)


def relu(x):
    """max(x, 0)."""
    return namespace(x).maximum(x, 0)


def relu_grad(g, y):
    """g where the output is positive, else 0 (so 0 at x = 0)."""
    return g * (y > 0).astype(g.dtype)  # NumPy multiplies two floats faster than a float and a bool


def leaky_relu(x, slope):
    """x where positive, else slope * x."""
    return namespace(x).where(x > 0, x, slope * x)


def leaky_relu_grad(g, x, slope):
    return namespace(x).where(x > 0, g, slope * g)


def elu(x, alpha):
    """x where positive, else alpha * (exp(x) - 1)."""
    xp = namespace(x)
    return xp.where(x > 0, x, alpha * xp.expm1(xp.minimum(x, 0)))


def elu_grad(g, x, alpha):
    xp = namespace(x)
    return g * xp.where(x > 0, 1.0, alpha * xp.exp(xp.minimum(x, 0)))


def sigmoid(x):
    """1 / (1 + exp(-x)). Where exp(-x) overflows to inf the quotient is 0, as it should be."""
    with np.errstate(over="ignore"):
        return 1 / (1 + namespace(x).exp(-x))


def sigmoid_grad(g, y):
    return g * (y * (1 - y))


def tanh(x):
    """Hyperbolic tangent."""
    return namespace(x).tanh(x)


def tanh_grad(g, y):
    return g * (1 - y * y)


def softplus(x, beta):
    """log(1 + exp(beta x)) / beta, written so that neither end overflows."""
    xp = namespace(x)
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-beta * xp.abs(x))) / beta


def silu(x):
    """x * sigmoid(x)."""
    return x * sigmoid(x)


def silu_grad(g, x):
    s = sigmoid(x)
    return g * (s * (1 + x * (1 - s)))


def gelu(x):
    """x times the normal distribution function: x / 2 * (1 + erf(x / sqrt 2))."""
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def gelu_grad(g, x):
    xp = namespace(x)
    cdf = 0.5 * (1 + erf(x * math.sqrt(0.5)))
    pdf = xp.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
    return g * (cdf + x * pdf)


def gelu_tanh(x):
    """GELU's older approximation: x / 2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""
    return 0.5 * x * (1 + namespace(x).tanh(_GELU * (x + 0.044715 * x * x * x)))


def gelu_tanh_grad(g, x):
    t = namespace(x).tanh(_GELU * (x + 0.044715 * x * x * x))
    inner = _GELU * (1 + 3 * 0.044715 * x * x)
    return g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner)


_GELU = math.sqrt(2 / math.pi)


def softmax(x, axis):
    """exp(x) over its sum along an axis, shifted by the largest so that nothing overflows."""
    xp = namespace(x)
    e = xp.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def softmax_grad(g, y, axis):
    return y * (g - (g * y).sum(axis=axis, keepdims=True))


def log_softmax(x, axis):
    """x minus log(sum(exp(x))) along an axis, never through a softmax that underflows to 0."""
    xp = namespace(x)
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - xp.log(xp.exp(shifted).sum(axis=axis, keepdims=True))


def log_softmax_grad(g, y, axis):
    return g - namespace(y).exp(y) * g.sum(axis=axis, keepdims=True)
