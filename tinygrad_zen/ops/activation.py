"""Activation functions."""

from ..autograd import op
from .reduce import fold


@op
def relu(be, x):
    """max(x, 0); the gradient at 0 is 0."""
    y = be.kernels.relu(x)
    return y, (lambda g: be.kernels.relu_grad(g, y),)


@op
def leaky_relu(be, x, *, slope=0.01):
    """x where positive, else slope * x; the gradient at 0 is slope."""
    return be.kernels.leaky_relu(x, slope), (lambda g: be.kernels.leaky_relu_grad(g, x, slope),)


@op
def elu(be, x, *, alpha=1.0):
    """x where positive, else alpha * (exp(x) - 1)."""
    return be.kernels.elu(x, alpha), (lambda g: be.kernels.elu_grad(g, x, alpha),)


@op
def sigmoid(be, x):
    """1 / (1 + exp(-x))."""
    y = be.kernels.sigmoid(x)
    return y, (lambda g: be.kernels.sigmoid_grad(g, y),)


@op
def tanh(be, x):
    """Hyperbolic tangent."""
    y = be.kernels.tanh(x)
    return y, (lambda g: be.kernels.tanh_grad(g, y),)


@op
def softplus(be, x, *, beta=1.0):
    """log(1 + exp(beta x)) / beta, a smooth ReLU."""
    if not beta > 0:
        raise ValueError(f"softplus: beta must be positive; got {beta}")
    return be.kernels.softplus(x, beta), (lambda g: g * be.kernels.sigmoid(beta * x),)


@op
def silu(be, x):
    """x * sigmoid(x), also called swish."""
    return be.kernels.silu(x), (lambda g: be.kernels.silu_grad(g, x),)


@op
def gelu(be, x, *, approximate="none"):
    """x times the normal distribution function of x; approximate="tanh" for the older formula.

    Hendrycks & Gimpel 2016.
    """
    k = be.kernels
    if approximate == "none":
        return k.gelu(x), (lambda g: k.gelu_grad(g, x),)
    if approximate == "tanh":
        return k.gelu_tanh(x), (lambda g: k.gelu_tanh_grad(g, x),)
    raise ValueError(f"gelu: approximate must be 'none' or 'tanh'; got {approximate!r}")


@op
def softmax(be, x, *, axis=-1):
    """exp(x) over its sum along an axis: numbers in 0..1 that add up to 1."""
    fold("softmax", x, axis)
    y = be.kernels.softmax(x, axis) if x.size else x  # nothing has no largest element
    return y, (lambda g: be.kernels.softmax_grad(g, y, axis),)


@op
def log_softmax(be, x, *, axis=-1):
    """The logarithm of softmax, exact where softmax itself underflows."""
    fold("log_softmax", x, axis)
    y = be.kernels.log_softmax(x, axis) if x.size else x
    return y, (lambda g: be.kernels.log_softmax_grad(g, y, axis),)


def logsigmoid(x):
    """log(sigmoid(x)), exact where sigmoid itself underflows."""
    return -softplus(-x)
