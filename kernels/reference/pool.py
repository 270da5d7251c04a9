"""Pooling of images: the largest element or the mean of each window.

All loops are over the taps of the window, each a step on whole arrays: KH * KW steps, whatever the
size of the images. Shapes are (N, C, H, W) in any memory order, which results keep. kernel, stride,
padding and dilation are (height, width). With ceil_mode a last window may hang over the border.
"""

import math

from ._arrays import namespace
from ._windows import new_images, ordered_as, pad, taps, window_counts

NOT_DILATED = (1, 1)


def max_pool2d(x, kernel, stride, padding, dilation, ceil_mode):
    """The largest element of each window, and which tap it was, row by row; the first of equals.

    x (N, C, H, W) -> y (N, C, OH, OW), argmax (N, C, OH, OW) of unsigned integers
    """
    xp = namespace(x)
    out = window_counts(x.shape[2:], kernel, stride, padding, dilation, ceil_mode)
    padded = _pad_to_windows(x, kernel, out, stride, padding, dilation, -math.inf)
    number = xp.uint8 if kernel[0] * kernel[1] <= 256 else xp.uint32
    first, *others = taps(kernel, out, stride, dilation)
    y = padded[first].copy(order="K")
    argmax = xp.zeros_like(y, dtype=number)
    for t, tap in enumerate(others, 1):
        value = padded[tap]
        # t grows, so the largest number among the taps that won a round is the last winner's
        xp.maximum(argmax, (value > y) * number(t), out=argmax)
        xp.maximum(y, value, out=y)
    return y, argmax


def relu_max_pool2d(x, kernel, stride, padding, dilation, ceil_mode):
    """max_pool2d of relu(x), which is relu of max_pool2d(x): a quarter of the work for 2 x 2 windows.

    x (N, C, H, W) -> y (N, C, OH, OW), argmax as of max_pool2d; it names no tap, but their number
    KH * KW, where no element is positive: so no gradient goes there.
    """
    xp = namespace(x)
    y, argmax = max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
    taps = kernel[0] * kernel[1]
    number = xp.uint8 if taps < 256 else xp.uint32
    return xp.maximum(y, 0), xp.where(y > 0, argmax, number(taps)).astype(number)


def max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation):
    """Gradient of max_pool2d: each g goes to the winner of its window.

    g (N, C, OH, OW), argmax as max_pool2d gave it -> x_shape (N, C, H, W)
    """
    xp = namespace(g)
    out = g.shape[2:]
    shape = _padded_shape(x_shape, kernel, out, stride, padding, dilation)
    g = ordered_as(argmax, g)  # steps on arrays of two memory orders would be slow
    gx = new_images(g, shape, g.dtype)
    disjoint = all(s > d * (k - 1) for k, s, d in zip(kernel, stride, dilation, strict=True))
    for t, tap in enumerate(taps(kernel, out, stride, dilation)):
        won = argmax == t
        if disjoint:  # no other tap reaches these elements
            xp.multiply(g, won, out=gx[tap])
        else:
            gx[tap] += g * won
    return _unpad(gx, x_shape, padding)


def relu_max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation):
    """Gradient of relu_max_pool2d for x, and for a bias that was added to each channel of x.

    g (N, C, OH, OW), argmax as relu_max_pool2d gave it -> x_shape (N, C, H, W), (C,)
    """
    gx = max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation)
    return gx, gx.sum(axis=(0, 2)).sum(axis=1)


def max_pool2d_pick(x, argmax, kernel, stride, padding, dilation):
    """The element of each window that argmax names: the adjoint of max_pool2d_grad.

    x (N, C, H, W), argmax as max_pool2d gave it -> (N, C, OH, OW)
    """
    xp = namespace(x)
    out = argmax.shape[2:]
    padded = _pad_to_windows(x, kernel, out, stride, padding, dilation, 0)
    y = xp.zeros_like(argmax, dtype=x.dtype)
    for t, tap in enumerate(taps(kernel, out, stride, dilation)):
        xp.copyto(y, padded[tap], where=argmax == t)
    return y


def avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad):
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW).

    The padding's zeros count as elements only if count_include_pad; what hangs over beyond the
    padding never counts.
    """
    out = window_counts(x.shape[2:], kernel, stride, padding, NOT_DILATED, ceil_mode)
    padded = _pad_to_windows(x, kernel, out, stride, padding, NOT_DILATED, 0)
    first, *others = taps(kernel, out, stride, NOT_DILATED)
    y = padded[first].copy(order="K")
    for tap in others:
        y += padded[tap]
    y /= _element_counts(x, x.shape, out, kernel, stride, padding, count_include_pad)
    return y


def avg_pool2d_grad(g, x_shape, kernel, stride, padding, ceil_mode, count_include_pad):
    """Gradient of avg_pool2d: every element of a window gets the same share of its g.

    g (N, C, OH, OW) -> x_shape (N, C, H, W)
    """
    out = g.shape[2:]
    share = g / _element_counts(g, x_shape, out, kernel, stride, padding, count_include_pad)
    shape = _padded_shape(x_shape, kernel, out, stride, padding, NOT_DILATED)
    gx = new_images(g, shape, g.dtype)
    for tap in taps(kernel, out, stride, NOT_DILATED):
        gx[tap] += share
    return _unpad(gx, x_shape, padding)


def _element_counts(like, x_shape, out, kernel, stride, padding, count_include_pad):
    """By how much each window's sum is divided: (OH, OW), in the library and dtype of `like`."""
    xp = namespace(like)

    def along(size, n, k, s, p):
        start = xp.arange(n) * s - p
        end = xp.minimum(start + k, size + p)
        if not count_include_pad:
            start, end = xp.maximum(start, 0), xp.minimum(end, size)
        return (end - start).astype(like.dtype)

    rows, columns = map(along, x_shape[2:], out, kernel, stride, padding)
    return rows[:, None] * columns


def _overhang(size, kernel, out, stride, padding, dilation):
    """How far the last window reaches beyond images of a size (H, W), below and to the right."""
    return tuple(
        max(0, (n_out - 1) * s + d * (k - 1) + 1 - n - p)
        for n, k, n_out, s, p, d in zip(size, kernel, out, stride, padding, dilation, strict=True)
    )


def _pad_to_windows(x, kernel, out, stride, padding, dilation, value):
    """Images with the border that the windows need: the padding, and what hangs over."""
    return pad(x, padding, _overhang(x.shape[2:], kernel, out, stride, padding, dilation), value)


def _padded_shape(x_shape, kernel, out, stride, padding, dilation):
    """The shape that _pad_to_windows gives to images of x_shape."""
    n, c, h, w = x_shape
    bottom, right = _overhang((h, w), kernel, out, stride, padding, dilation)
    return n, c, padding[0] + h + bottom, padding[1] + w + right


def _unpad(x, shape, padding):
    """Images of a shape (N, C, H, W) without the border that _pad_to_windows put around them."""
    (top, left), (h, w) = padding, shape[2:]
    return x[:, :, top : top + h, left : left + w]
