"""What formulas are written with.

A formula is a function named after its op, in NumPy and nothing else, as a textbook would have it: it takes
the op's arguments and returns the value, and for each argument the gradient g of the value carried back
(None where there is none), or one function that gives all of them. What was broadcast the engine sums up,
so no formula does. Options that it does not take, and calls for which it raises Outside, it says nothing
about. Speed, memory and overflow are the kernels' business.
"""

import numpy as np


class Outside(ValueError):
    """The formula does not speak of this call, though the op may take it."""


def only(condition, words):
    """Raise Outside unless the condition holds."""
    if not condition:
        raise Outside(f"the formula holds for {words}")


def erf(x):
    """The error function."""
    from scipy import special

    return special.erf(x)


def spread(g, x, axis):
    """What a reduction of x along axes gave, or its gradient, in every place it came from."""
    axes = range(x.ndim) if axis is None else np.atleast_1d(axis) % max(x.ndim, 1)
    kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return np.broadcast_to(np.reshape(g, kept), x.shape)


def zeros_with(g, key, like):
    """Zeros shaped like an array, with g added at an index."""
    out = np.zeros_like(like)
    np.add.at(out, key, g)
    return out


def along(index, axis):
    """The index of take_along_axis, as plain indexing has it."""
    key = list(np.indices(index.shape))
    key[axis] = index
    return tuple(key)


def rows(x):
    """(..., D) as (R, D)."""
    return x.reshape(-1, x.shape[-1])


def transposed(x):
    """The last two axes exchanged."""
    return np.swapaxes(x, -1, -2)


def pair(size):
    """A size as (down, across)."""
    only(not isinstance(size, str), "sizes in numbers")
    return tuple(size) if isinstance(size, tuple | list) else (size, size)


def windows(x, kernel, stride=1, padding=0, dilation=1, fill=0):
    """Every window of images: (N, C, H, W) -> (N, C, OH, OW, KH, KW)."""
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    x = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=fill)
    reach = [d * (k - 1) + 1 for d, k in zip((dh, dw), kernel, strict=True)]
    all_windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=(2, 3))
    return all_windows[:, :, ::sh, ::sw, ::dh, ::dw]


def put_windows(w, shape, stride=1, padding=0, dilation=1):
    """Windows (N, C, OH, OW, KH, KW) laid back onto images of a shape; where they overlap they add up."""
    n, c, h, width = shape
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    out = np.zeros((n, c, h + 2 * ph, width + 2 * pw), w.dtype)
    oh, ow, kh, kw = w.shape[2:]
    for a in range(kh):
        for b in range(kw):
            down = slice(a * dh, a * dh + (oh - 1) * sh + 1, sh)
            across = slice(b * dw, b * dw + (ow - 1) * sw + 1, sw)
            out[:, :, down, across] += w[..., a, b]
    return out[:, :, ph : ph + h, pw : pw + width]


def per_channel(v, x):
    """(C,) to go with (N, C, ...)."""
    return np.reshape(v, (1, -1) + (1,) * (x.ndim - 2))


def all_but_channels(x):
    """The axes of (N, C, ...) without that of the channels."""
    return (0, *range(2, x.ndim))


def last_axes(count):
    """The last so many axes."""
    return tuple(range(-count, 0))


def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def folded(losses, reduction):
    """Losses reduced: their mean, their sum, or as they are."""
    only(reduction in ("mean", "sum", "none"), "reduction mean, sum or none")
    return {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](losses)


def count(losses, reduction):
    """What a reduction divides by: their number for the mean, else 1."""
    return losses.size if reduction == "mean" else 1


def as_shares(t, x):
    """Labels (N,) as one-hot rows for scores x (N, C); rows of shares stay."""
    if t.dtype.kind == "f":
        return t
    only(x.ndim == 2 and t.size and t.min() >= 0, "scores (N, C) and labels that all count")
    return np.eye(x.shape[1])[t].view(type(x))  # counted where x is


def adaptive_pieces(n, count):
    """Where each of `count` windows over n places begins and ends."""
    return [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]


def adaptive_sizes(x, output_size):
    """The output's height and width; None keeps the input's."""
    return [n or size for n, size in zip(pair(output_size), x.shape[2:], strict=True)]


def averages(n, count):
    """A matrix (count, n) that takes the mean of each window."""
    a = np.zeros((count, n))
    for i, (start, end) in enumerate(adaptive_pieces(n, count)):
        a[i, start:end] = 1 / (end - start)
    return a


def normalized(x, axes, eps):
    """x with mean 0 and variance 1 over axes, and the way back of its gradient."""
    c = x - np.mean(x, axes, keepdims=True)
    r = 1 / np.sqrt(np.mean(c**2, axes, keepdims=True) + eps)
    u = c * r

    def back(g):
        along_u = np.mean(g * u, axes, keepdims=True)
        return r * (g - np.mean(g, axes, keepdims=True) - u * along_u)

    return u, back
