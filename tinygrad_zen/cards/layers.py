"""Formulas of products, convolutions, pooling, normalisation, attention and recurrent layers.

_tools.py says how a formula is written.
"""

import math

import numpy as np

from ._tools import (
    adaptive_pieces,
    adaptive_sizes,
    all_but_channels,
    averages,
    erf,
    last_axes,
    normalized,
    only,
    pair,
    per_channel,
    put_windows,
    rows,
    sigmoid,
    transposed,
    windows,
)


def matmul(x, y):
    only(min(x.ndim, y.ndim) > 1, "matrices")
    return x @ y, (lambda g: g @ transposed(y), lambda g: transposed(x) @ g)


def linear(x, w, b=0):
    return x @ w.T + b, (lambda g: g @ w, lambda g: rows(g).T @ rows(x), lambda g: g)


def linear_activation(x, w, b=0, *, activation):
    z = x @ w.T + b
    y = {"relu": lambda z: np.maximum(z, 0), "sigmoid": sigmoid, "tanh": np.tanh}[activation](z)
    slope = {"relu": 1.0 * (y > 0), "sigmoid": y * (1 - y), "tanh": 1 - y**2}[activation]
    return y, (
        lambda g: (g * slope) @ w,
        lambda g: rows(g * slope).T @ rows(x),
        lambda g: g * slope,
    )


def feed_forward(x, w1, b1, w2, b2, *, activation="gelu"):
    z = x @ w1.T + b1
    phi = (1 + erf(z / math.sqrt(2))) / 2
    s, t = sigmoid(z), np.tanh(z)
    h = {"relu": np.maximum(z, 0), "sigmoid": s, "tanh": t, "gelu": z * phi}[activation]
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    slope = {
        "relu": 1.0 * (z > 0),
        "sigmoid": s * (1 - s),
        "tanh": 1 - t**2,
        "gelu": phi + z * density,
    }[activation]
    return h @ w2.T + b2, (
        lambda g: (g @ w2 * slope) @ w1,
        lambda g: rows(g @ w2 * slope).T @ rows(x),
        lambda g: g @ w2 * slope,
        lambda g: rows(g).T @ rows(h),
        lambda g: g,
    )


def einsum(subscripts, *xs):
    names, _, out = subscripts.partition("->")
    names = names.split(",")
    only("->" in subscripts and "..." not in subscripts, "subscripts written out, with ->")
    only(all(len(set(n)) == len(n) for n in names), "names that stand once in an operand")

    def back(i):
        others = [*names[:i], out, *names[i + 1 :]]
        only(set(names[i]) <= set("".join(others)), "names that stand in another operand too")
        return lambda g: np.einsum(f"{','.join(others)}->{names[i]}", *xs[:i], g, *xs[i + 1 :])

    return np.einsum(subscripts, *xs), (None, *(back(i) for i in range(len(xs))))


def conv2d(x, w, b=None, *, stride=1, padding=0, dilation=1):
    v = windows(x, w.shape[2:], stride, padding, dilation)
    y = np.einsum("ncijab,kcab->nkij", v, w)
    return y if b is None else y + per_channel(b, y), (
        lambda g: put_windows(
            np.einsum("nkij,kcab->ncijab", g, w), x.shape, stride, padding, dilation
        ),
        lambda g: np.einsum("nkij,ncijab->kcab", g, v),
        lambda g: np.sum(g, (0, 2, 3)),
    )


def conv1d(x, w, b=None, *, stride=1, padding=0, dilation=1):
    only(not isinstance(padding, str), "sizes in numbers")
    y, (to_x, to_w, to_b) = conv2d(
        x[:, :, None],
        w[:, :, None],
        b,
        stride=(1, stride),
        padding=(0, padding),
        dilation=(1, dilation),
    )
    return y[:, :, 0], (
        lambda g: to_x(g[:, :, None])[:, :, 0],
        lambda g: to_w(g[:, :, None])[:, :, 0],
        lambda g: to_b(g[:, :, None]),
    )


def conv_transpose2d(x, w, b=None, *, stride=1, padding=0, output_padding=0, dilation=1):
    sizes = zip(
        x.shape[2:],
        w.shape[2:],
        *map(pair, (stride, padding, dilation, output_padding)),
        strict=True,
    )
    full = [(n - 1) * s - 2 * p + d * (k - 1) + 1 + o for n, k, s, p, d, o in sizes]
    shape = (len(x), w.shape[1], *full)
    y = put_windows(np.einsum("nkij,kcab->ncijab", x, w), shape, stride, padding, dilation)

    def seen(g):
        oh, ow = x.shape[2:]
        return windows(g, w.shape[2:], stride, padding, dilation)[:, :, :oh, :ow]

    return y if b is None else y + per_channel(b, y), (
        lambda g: np.einsum("ncijab,kcab->nkij", seen(g), w),
        lambda g: np.einsum("ncijab,nkij->kcab", seen(g), x),
        lambda g: np.sum(g, (0, 2, 3)),
    )


def conv_transpose1d(x, w, b=None, *, stride=1, padding=0, output_padding=0, dilation=1):
    y, (to_x, to_w, to_b) = conv_transpose2d(
        x[:, :, None],
        w[:, :, None],
        b,
        stride=(1, stride),
        padding=(0, padding),
        output_padding=(0, output_padding),
        dilation=(1, dilation),
    )
    return y[:, :, 0], (
        lambda g: to_x(g[:, :, None])[:, :, 0],
        lambda g: to_w(g[:, :, None])[:, :, 0],
        lambda g: to_b(g[:, :, None]),
    )


def max_pool2d(x, *, kernel_size, stride=None, padding=0, dilation=1):
    steps = stride or kernel_size
    v = windows(x, pair(kernel_size), steps, padding, dilation, -math.inf)
    y = np.max(v, (4, 5))
    return y, (
        lambda g: put_windows(
            g[..., None, None] * (v == y[..., None, None]), x.shape, steps, padding, dilation
        ),
    )


def max_pool1d(x, *, kernel_size, stride=None, padding=0, dilation=1):
    y, (to_x,) = max_pool2d(
        x[:, :, None],
        kernel_size=(1, kernel_size),
        stride=(1, stride or kernel_size),
        padding=(0, padding),
        dilation=(1, dilation),
    )
    return y[:, :, 0], (lambda g: to_x(g[:, :, None])[:, :, 0],)


def avg_pool2d(x, *, kernel_size, stride=None, padding=0):
    n = math.prod(pair(kernel_size))
    steps = stride or kernel_size
    v = windows(x, pair(kernel_size), steps, padding)
    return np.sum(v, (4, 5)) / n, (
        lambda g: put_windows(
            np.broadcast_to(g[..., None, None] / n, v.shape), x.shape, steps, padding
        ),
    )


def avg_pool1d(x, *, kernel_size, stride=None, padding=0):
    y, (to_x,) = avg_pool2d(
        x[:, :, None],
        kernel_size=(1, kernel_size),
        stride=(1, stride or kernel_size),
        padding=(0, padding),
    )
    return y[:, :, 0], (lambda g: to_x(g[:, :, None])[:, :, 0],)


def adaptive_avg_pool2d(x, *, output_size):
    a, b = map(averages, x.shape[2:], adaptive_sizes(x, output_size))
    return a @ x @ b.T, (lambda g: a.T @ g @ b,)


def adaptive_avg_pool1d(x, *, output_size):
    a = averages(x.shape[2], output_size)
    return x @ a.T, (lambda g: g @ a,)


def adaptive_max_pool2d(x, *, output_size):
    down, across = map(adaptive_pieces, x.shape[2:], adaptive_sizes(x, output_size))
    places = [(slice(*r), slice(*c)) for r in down for c in across]
    shape = (*x.shape[:2], len(down), len(across))
    y = np.stack([np.max(x[:, :, r, c], (2, 3)) for r, c in places], -1).reshape(shape)

    def back(g):
        out = np.zeros_like(x)
        best, arriving = (a.reshape(*a.shape[:2], -1, 1, 1) for a in (y, g))
        for i, (r, c) in enumerate(places):
            out[:, :, r, c] += arriving[:, :, i] * (x[:, :, r, c] == best[:, :, i])
        return out

    return y, (back,)


def adaptive_max_pool1d(x, *, output_size):
    y, (to_x,) = adaptive_max_pool2d(x[:, :, None], output_size=(1, output_size))
    return y[:, :, 0], (lambda g: to_x(g[:, :, None])[:, :, 0],)


def conv2d_relu_max_pool2d(x, w, b=None, *, stride=1, padding=0, kernel_size, pool_stride=None):
    z, from_conv = conv2d(x, w, b, stride=stride, padding=padding)
    y, (from_pool,) = max_pool2d(np.maximum(z, 0), kernel_size=kernel_size, stride=pool_stride)
    return y, (
        lambda g: from_conv[0](from_pool(g) * (z > 0)),
        lambda g: from_conv[1](from_pool(g) * (z > 0)),
        lambda g: from_conv[2](from_pool(g) * (z > 0)),
    )


def batch_norm(x, w, b, *, eps=1e-5):
    axes = all_but_channels(x)
    u, back = normalized(x, axes, eps)
    return u * per_channel(w, x) + per_channel(b, x), (
        lambda g: back(g * per_channel(w, x)),
        lambda g: np.sum(g * u, axes),
        lambda g: np.sum(g, axes),
    )


def batch_norm_relu(x, w, b, *, eps=1e-5):
    y, back = batch_norm(x, w, b, eps=eps)
    return np.maximum(y, 0), tuple(lambda g, f=f: f(g * (y > 0)) for f in back)


def batch_norm_eval(x, w, b, mean, var, eps=1e-5):
    r = 1 / np.sqrt(var + eps)
    c = x - per_channel(mean, x)
    axes = all_but_channels(x)
    return c * per_channel(w * r, x) + per_channel(b, x), (
        lambda g: g * per_channel(w * r, x),
        lambda g: np.sum(g * c, axes) * r,
        lambda g: np.sum(g, axes),
        lambda g: -np.sum(g, axes) * w * r,
        lambda g: -np.sum(g * c, axes) * w * r**3 / 2,
    )


def layer_norm(x, w, b, *, eps=1e-5):
    axes = last_axes(w.ndim)
    u, back = normalized(x, axes, eps)
    return u * w + b, (lambda g: back(g * w), lambda g: g * u, lambda g: g)


def group_norm(x, w, b, *, groups, eps=1e-5):
    rows_of, back = normalized(x.reshape(len(x), groups, -1), 2, eps)
    u = rows_of.reshape(x.shape)
    axes = all_but_channels(x)
    return u * per_channel(w, x) + per_channel(b, x), (
        lambda g: back((g * per_channel(w, x)).reshape(len(x), groups, -1)).reshape(x.shape),
        lambda g: np.sum(g * u, axes),
        lambda g: np.sum(g, axes),
    )


def attention(q, k, v, *, causal=False, scale=None):
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    s = scale * q @ transposed(k)
    s = np.where(np.tri(*s.shape[-2:]), s, -math.inf) if causal else s
    e = np.exp(s - np.max(s, -1, keepdims=True))
    p = e / np.sum(e, -1, keepdims=True)

    def to_scores(g):
        gp = g @ transposed(v)
        return p * (gp - np.sum(gp * p, -1, keepdims=True))

    return p @ v, (
        lambda g: scale * to_scores(g) @ k,
        lambda g: scale * transposed(to_scores(g)) @ q,
        lambda g: transposed(p) @ g,
    )


def rnn(x, h, w_ih, w_hh, b_ih=0, b_hh=0, *, relu=False):
    states = [h]
    for t in range(len(x)):
        z = x[t] @ w_ih.T + b_ih + states[t] @ w_hh.T + b_hh
        states.append(np.maximum(z, 0) if relu else np.tanh(z))
    y = np.stack([*states[1:], states[-1]])

    def back(g):
        gx, gw_ih, gw_hh, gb, gh = [], 0, 0, 0, g[-1]
        for t in reversed(range(len(x))):
            gz = (g[t] + gh) * ((y[t] > 0) if relu else 1 - y[t] ** 2)
            gx.append(gz @ w_ih)
            gw_ih, gw_hh, gb = gw_ih + gz.T @ x[t], gw_hh + gz.T @ states[t], gb + np.sum(gz, 0)
            gh = gz @ w_hh
        return np.stack(gx[::-1]), gh, gw_ih, gw_hh, gb, gb

    return y, back


def lstm(x, h, c, w_ih, w_hh, b_ih=0, b_hh=0):
    states, cells, gates = [h], [c], []
    for t in range(len(x)):
        z = x[t] @ w_ih.T + b_ih + states[t] @ w_hh.T + b_hh
        i, f, u, o = np.split(z, 4, axis=1)
        i, f, u, o = sigmoid(i), sigmoid(f), np.tanh(u), sigmoid(o)
        gates.append((i, f, u, o))
        cells.append(f * cells[t] + i * u)
        states.append(o * np.tanh(cells[-1]))
    y = np.stack([*states[1:], states[-1], cells[-1]])

    def back(g):
        gx, gw_ih, gw_hh, gb, gh, gc = [], 0, 0, 0, g[-2], g[-1]
        for t in reversed(range(len(x))):
            (i, f, u, o), a = gates[t], np.tanh(cells[t + 1])
            gh = gh + g[t]
            gc = gc + gh * o * (1 - a**2)
            parts = (
                gc * u * i * (1 - i),
                gc * cells[t] * f * (1 - f),
                gc * i * (1 - u**2),
                gh * a * o * (1 - o),
            )
            gz = np.concatenate(parts, axis=1)
            gx.append(gz @ w_ih)
            gw_ih, gw_hh, gb = gw_ih + gz.T @ x[t], gw_hh + gz.T @ states[t], gb + np.sum(gz, 0)
            gh, gc = gz @ w_hh, gc * f
        return np.stack(gx[::-1]), gh, gc, gw_ih, gw_hh, gb, gb

    return y, back


def gru(x, h, w_ih, w_hh, b_ih=0, b_hh=0):
    states, gates = [h], []
    for t in range(len(x)):
        r, z, u = np.split(x[t] @ w_ih.T + b_ih, 3, axis=1)
        hr, hz, hu = np.split(states[t] @ w_hh.T + b_hh, 3, axis=1)
        r, z = sigmoid(r + hr), sigmoid(z + hz)
        u = np.tanh(u + r * hu)
        gates.append((r, z, u, hu))
        states.append((1 - z) * u + z * states[t])
    y = np.stack([*states[1:], states[-1]])

    def back(g):
        gx, gw_ih, gw_hh, gb_ih, gb_hh, gh = [], 0, 0, 0, 0, g[-1]
        for t in reversed(range(len(x))):
            r, z, u, hu = gates[t]
            gh = gh + g[t]
            gu = gh * (1 - z) * (1 - u**2)
            gr, gz = gu * hu * r * (1 - r), gh * (states[t] - u) * z * (1 - z)
            from_x = np.concatenate((gr, gz, gu), axis=1)
            from_h = np.concatenate((gr, gz, gu * r), axis=1)
            gx.append(from_x @ w_ih)
            gw_ih, gb_ih = gw_ih + from_x.T @ x[t], gb_ih + np.sum(from_x, 0)
            gw_hh, gb_hh = gw_hh + from_h.T @ states[t], gb_hh + np.sum(from_h, 0)
            gh = gh * z + from_h @ w_hh
        return np.stack(gx[::-1]), gh, gw_ih, gw_hh, gb_ih, gb_hh

    return y, back
