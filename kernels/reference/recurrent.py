"""Recurrent layers: one cell, applied to every step of a sequence and to the state it left before.

Sequences are (L, N, I): steps, batch, features; the state is (N, H). Weights are (k H, I) and (k H, H),
the k gates of a cell one below the other, in PyTorch's order. The results are the states after each
step (L, N, H), 0 where a sequence is over, and behind them the last state: (L + 1, N, H), for the LSTM,
which has two, (L + 2, N, H).

lengths: None, or integers (N,). Where t >= lengths[n] nothing happens: the state stays as it is.
reverse: start with the last step.
"""

from ._arrays import namespace
from .activation import sigmoid


def rnn(x, h, w_ih, w_hh, b, lengths, reverse, relu):
    """h = tanh(W_ih x + W_hh h + b), or relu in place of tanh; b may be None. Elman 1990.

    Returns the states, and what the gradient needs: the states before each step.
    """
    xp = namespace(x)
    inputs = _affine(xp, x, w_ih, b)
    steps = range(x.shape[0])
    hidden, before = [None] * len(steps), [None] * len(steps)
    for t in steps[::-1] if reverse else steps:
        before[t] = h
        z = inputs[t] + xp.matmul(h, w_hh.T)
        new = xp.maximum(z, 0) if relu else xp.tanh(z)
        hidden[t], h = _step(xp, t, lengths, new, h)
    return xp.stack([*hidden, h]), xp.stack(before)


def rnn_grad(g, x, w_ih, w_hh, lengths, reverse, relu, states, before):
    """Gradients of rnn for x, h, w_ih, w_hh and b; states and before as the forward returned them."""
    xp = namespace(g)
    steps = range(x.shape[0])
    gz = [None] * len(steps)
    gh = g[len(steps)]
    for t in steps if reverse else steps[::-1]:
        y = states[t]
        gz[t] = (gh + g[t]) * ((y > 0).astype(g.dtype) if relu else 1 - y * y)
        gz[t], gh = _step(xp, t, lengths, gz[t], gh, xp.matmul(gz[t], w_hh))
    gx, gw_ih, gb = _affine_grad(xp, xp.stack(gz), x, w_ih)
    return gx, gh, gw_ih, _product(xp, xp.stack(gz), before), gb


def lstm(x, h, c, w_ih, w_hh, b, lengths, reverse):
    """c = f c + i u, h = o tanh(c), for i, f, o = sigmoid and u = tanh of W_ih x + W_hh h + b.

    The gates lie in the order i, f, u, o. Hochreiter & Schmidhuber 1997, Gers et al. 2000. Returns the
    states, and what the gradient needs: i, f, u, o, tanh(c) and the states c and h before each step.
    """
    xp = namespace(x)
    n = w_hh.shape[1]
    inputs = _affine(xp, x, w_ih, b)
    steps = range(x.shape[0])
    hidden, saved = [None] * len(steps), [None] * len(steps)
    for t in steps[::-1] if reverse else steps:
        z = inputs[t] + xp.matmul(h, w_hh.T)
        i, f, o = sigmoid(z[:, :n]), sigmoid(z[:, n : 2 * n]), sigmoid(z[:, 3 * n :])
        u = xp.tanh(z[:, 2 * n : 3 * n])
        new = f * c + i * u
        squashed = xp.tanh(new)
        saved[t] = i, f, u, o, squashed, c, h
        hidden[t], h = _step(xp, t, lengths, o * squashed, h)
        _, c = _step(xp, t, lengths, new, c)
    return xp.stack([*hidden, h, c]), saved


def lstm_grad(g, x, w_ih, w_hh, lengths, reverse, saved):
    """Gradients of lstm for x, h, c, w_ih, w_hh and b; saved as the forward returned it."""
    xp = namespace(g)
    steps = range(x.shape[0])
    gz = [None] * len(steps)
    gh, gc = g[len(steps)], g[len(steps) + 1]
    for t in steps if reverse else steps[::-1]:
        i, f, u, o, squashed, c, _ = saved[t]
        gy = gh + g[t]
        inside = gc + gy * o * (1 - squashed * squashed)
        gates = [
            inside * u * (i * (1 - i)),
            inside * c * (f * (1 - f)),
            inside * i * (1 - u * u),
            gy * squashed * (o * (1 - o)),
        ]
        gz[t] = xp.concatenate(gates, axis=1)
        gz[t], gh = _step(xp, t, lengths, gz[t], gh, xp.matmul(gz[t], w_hh))
        _, gc = _step(xp, t, lengths, inside * f, gc)
    gz = xp.stack(gz)
    gx, gw_ih, gb = _affine_grad(xp, gz, x, w_ih)
    return gx, gh, gc, gw_ih, _product(xp, gz, xp.stack([s[-1] for s in saved])), gb


def gru(x, h, w_ih, w_hh, b_ih, b_hh, lengths, reverse):
    """h = (1 - z) u + z h with u = tanh(W_iu x + b_iu + r (W_hu h + b_hu)); b_ih, b_hh may be None.

    r and z are sigmoids of W_ih x + b_ih + W_hh h + b_hh; the gates lie in the order r, z, u. Cho et al.
    2014, in the form that PyTorch and cuDNN have. Returns the states, and what the gradient needs: r,
    z, u, W_hu h + b_hu and the state h before each step.
    """
    xp = namespace(x)
    n = w_hh.shape[1]
    inputs = _affine(xp, x, w_ih, b_ih)
    steps = range(x.shape[0])
    hidden, saved = [None] * len(steps), [None] * len(steps)
    for t in steps[::-1] if reverse else steps:
        from_x, from_h = inputs[t], _affine(xp, h, w_hh, b_hh)
        r = sigmoid(from_x[:, :n] + from_h[:, :n])
        z = sigmoid(from_x[:, n : 2 * n] + from_h[:, n : 2 * n])
        inner = from_h[:, 2 * n :]
        u = xp.tanh(from_x[:, 2 * n :] + r * inner)
        saved[t] = r, z, u, inner, h
        hidden[t], h = _step(xp, t, lengths, u + z * (h - u), h)
    return xp.stack([*hidden, h]), saved


def gru_grad(g, x, w_ih, w_hh, lengths, reverse, saved):
    """Gradients of gru for x, h, w_ih, w_hh, b_ih and b_hh; saved as the forward returned it."""
    xp = namespace(g)
    steps = range(x.shape[0])
    gx_parts, gh_parts = [None] * len(steps), [None] * len(steps)
    gh = g[len(steps)]
    for t in steps if reverse else steps[::-1]:
        r, z, u, inner, h = saved[t]
        gy = gh + g[t]
        gu = gy * (1 - z) * (1 - u * u)
        gr, gz = gu * inner * (r * (1 - r)), gy * (h - u) * (z * (1 - z))
        from_x = xp.concatenate([gr, gz, gu], axis=1)
        from_h = xp.concatenate([gr, gz, gu * r], axis=1)
        new = gy * z + xp.matmul(from_h, w_hh)
        gx_parts[t], _ = _step(xp, t, lengths, from_x, gh, new)
        gh_parts[t], gh = _step(xp, t, lengths, from_h, gh, new)
    gx, gw_ih, gb_ih = _affine_grad(xp, xp.stack(gx_parts), x, w_ih)
    from_h, before = xp.stack(gh_parts), xp.stack([s[-1] for s in saved])
    return gx, gh, gw_ih, _product(xp, from_h, before), gb_ih, from_h.sum(axis=(0, 1))


def _step(xp, t, lengths, out, state, new=None):
    """(out, the new state: out itself if none is given); for sequences that are over (0, state)."""
    new = out if new is None else new
    if lengths is None:
        return out, new
    goes_on = (lengths > t).reshape((-1, 1))
    return xp.where(goes_on, out, 0), xp.where(goes_on, new, state)


def _affine(xp, x, w, b):
    y = xp.matmul(x, w.T)
    return y if b is None else y + b


def _affine_grad(xp, g, x, w):
    """Gradients of _affine over a whole sequence, for x, w and b."""
    return xp.matmul(g, w), _product(xp, g, x), g.sum(axis=(0, 1))


def _product(xp, g, x):
    """The sum over steps and batch: (L, N, A), (L, N, B) -> (A, B)."""
    return xp.matmul(g.reshape((-1, g.shape[-1])).T, x.reshape((-1, x.shape[-1])))
