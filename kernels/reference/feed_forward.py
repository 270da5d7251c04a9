"""Two dense layers with an activation between them, as in each layer of a Transformer."""

from . import activation as activations
from ._arrays import namespace
from .linear import linear


def feed_forward(x, w1, b1, w2, b2, activation):
    """linear(activation(linear(x, w1, b1)), w2, b2): (R, I), (H, I), (H,), (O, H), (O,) -> (R, O).

    activation: "relu", "sigmoid", "tanh" or "gelu". Returns the result, and what the gradient needs: what
    comes out of the activation, and what its derivative is taken of, both (R, H).
    """
    z = linear(x, w1, b1)
    h = getattr(activations, activation)(z)
    return linear(h, w2, b2), (h, z if activation == "gelu" else h)


def feed_forward_grad(g, x, w1, w2, activation, saved, of_x):
    """Gradients of feed_forward for x, w1, b1, w2 and b2; saved as the forward returned it.

    of_x: whether the first is asked for; else it is None.
    """
    xp = namespace(g)
    h, known = saved
    gz = getattr(activations, f"{activation}_grad")(xp.matmul(g, w2), known)
    gx = xp.matmul(gz, w1) if of_x else None
    return gx, xp.matmul(gz.T, x), gz.sum(axis=0), xp.matmul(g.T, h), g.sum(axis=0)
