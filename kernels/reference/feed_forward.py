"""Two dense layers with an activation between them, as in each layer of a Transformer."""

from . import activation as activations
from ._arrays import namespace
from .linear import linear


def feed_forward(x, w1, b1, w2, b2, activation):
    """linear(activation(linear(x, w1, b1)), w2, b2): (R, I), (H, I), (H,), (O, H), (O,) -> (R, O).

    activation: "relu" or "gelu". Returns the result, and what the gradient needs: what goes into the
    activation and what comes out of it, both (R, H).
    """
    z = linear(x, w1, b1)
    h = getattr(activations, activation)(z)
    return linear(h, w2, b2), (z, h)


def feed_forward_grad(g, x, w1, w2, activation, saved):
    """Gradients of feed_forward for x, w1, b1, w2 and b2; saved as the forward returned it."""
    xp = namespace(g)
    z, h = saved
    gh = xp.matmul(g, w2)
    gz = activations.gelu_grad(gh, z) if activation == "gelu" else activations.relu_grad(gh, h)
    return xp.matmul(gz, w1), xp.matmul(gz.T, x), gz.sum(axis=0), xp.matmul(g.T, h), g.sum(axis=0)
