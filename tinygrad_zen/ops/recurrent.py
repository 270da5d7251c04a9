"""Recurrent layers over whole sequences: rnn, lstm, gru; one layer in one direction.

x (L, N, I): steps, batch, features. States (N, H). lengths: None, or integers (N,): sequence n is over
after lengths[n] steps. Then its states are 0, and the last state is the one it ended with. reverse:
from the last step (of each sequence) to the first.
"""

from ..autograd import op


@op
def rnn(be, x, h, w_ih, w_hh, b_ih=None, b_hh=None, lengths=None, *, relu=False, reverse=False):
    """h = tanh(W_ih x + b_ih + W_hh h + b_hh), step by step: -> (L + 1, N, H).

    All states, and once more the last. w_ih (H, I), w_hh (H, H), b_ih and b_hh (H,). relu: in place of
    tanh. Elman 1990.
    """
    _check("rnn", 1, x, {"h": h}, w_ih, w_hh, b_ih, b_hh, lengths)
    k, options = be.kernels, (lengths, reverse, relu)
    y, before = k.rnn(x, h, w_ih, w_hh, _sum(b_ih, b_hh), *options)

    def grads(g):
        gx, gh, gw_ih, gw_hh, gb = k.rnn_grad(g, x, w_ih, w_hh, *options, y, before)
        return gx, gh, gw_ih, gw_hh, gb, gb, None

    return y, grads


@op
def lstm(be, x, h, c, w_ih, w_hh, b_ih=None, b_hh=None, lengths=None, *, reverse=False):
    """c = f c + i u, h = o tanh(c), step by step: -> (L + 2, N, H).

    All states h, once more the last of them, and the last c. The gates i, f, o = sigmoid and u = tanh
    of W_ih x + b_ih + W_hh h + b_hh, in the order i, f, u, o: w_ih (4 H, I), w_hh (4 H, H), b_ih and
    b_hh (4 H,). Hochreiter & Schmidhuber 1997, Gers et al. 2000.
    """
    _check("lstm", 4, x, {"h": h, "c": c}, w_ih, w_hh, b_ih, b_hh, lengths)
    k = be.kernels
    y, saved = k.lstm(x, h, c, w_ih, w_hh, _sum(b_ih, b_hh), lengths, reverse)

    def grads(g):
        *gs, gb = k.lstm_grad(g, x, w_ih, w_hh, lengths, reverse, saved)
        return *gs, gb, gb, None

    return y, grads


@op
def gru(be, x, h, w_ih, w_hh, b_ih=None, b_hh=None, lengths=None, *, reverse=False):
    """h = (1 - z) u + z h, step by step: -> (L + 1, N, H).

    All states, and once more the last. r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh) and u = tanh(W_iu x
    + b_iu + r (W_hu h + b_hu)), in the order r, z, u: w_ih (3 H, I), w_hh (3 H, H), b_ih and b_hh
    (3 H,). Cho et al. 2014, in PyTorch's form.
    """
    _check("gru", 3, x, {"h": h}, w_ih, w_hh, b_ih, b_hh, lengths)
    k = be.kernels
    y, saved = k.gru(x, h, w_ih, w_hh, b_ih, b_hh, lengths, reverse)
    return y, lambda g: (*k.gru_grad(g, x, w_ih, w_hh, lengths, reverse, saved), None)


def _sum(b_ih, b_hh):
    """Two biases that are only ever added up."""
    return b_ih if b_hh is None else b_hh if b_ih is None else b_ih + b_hh


def _check(name, gates, x, states, w_ih, w_hh, b_ih, b_hh, lengths):
    if x.ndim != 3 or x.shape[0] == 0:
        raise ValueError(f"{name}: x must be (L, N, I) with at least one step; got {x.shape}")
    steps, batch, features = x.shape
    size = w_hh.shape[-1]
    if w_ih.shape != (gates * size, features) or w_hh.shape != (gates * size, size):
        rows = f"{gates} H" if gates > 1 else "H"
        raise ValueError(
            f"{name}: w_ih ({rows}, I) and w_hh ({rows}, H) must fit x (L, N, I); got {w_ih.shape}, "
            f"{w_hh.shape} and {x.shape}"
        )
    for word, state in states.items():
        if state.shape != (batch, size):
            raise ValueError(f"{name}: {word} must be (N, H) = {(batch, size)}; got {state.shape}")
    for word, b in (("b_ih", b_ih), ("b_hh", b_hh)):
        if b is not None and b.shape != (gates * size,):
            raise ValueError(f"{name}: {word} must be ({gates * size},); got {b.shape}")
    if lengths is None:
        return
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{name}: lengths must be integers; got {lengths.dtype}")
    if lengths.shape != (batch,):
        raise ValueError(f"{name}: lengths must be (N,) = ({batch},); got {lengths.shape}")
    if batch and not (0 <= lengths.min() and lengths.max() <= steps):
        raise ValueError(
            f"{name}: lengths must lie in 0..{steps}; got {lengths.min()}..{lengths.max()}"
        )
