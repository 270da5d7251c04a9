"""Convolution of images, as every deep-learning library means it: cross-correlation.

Forward and weight gradient are im2col: copy each window out into a column, then one matrix product.
The input gradient goes the other way: one matrix product a tap, added where that tap had read.

Shapes are (N, C, H, W), and any memory order is taken. Results lie in memory as (N, H, W, C),
"channels last": so a matrix product with one row a pixel leaves them, and so the next im2col copies
long runs of channels. With groups, which have few channels each, they lie as (C, N, H, W).
kernel, stride, padding and dilation are (height, width).
"""

from ._arrays import namespace
from ._windows import channels_last, new_images, pad, taps, window_counts


def conv2d(x, w, b, stride, padding, dilation, groups):
    """Cross-correlate images with filters.

    x (N, C, H, W), w (K, C/groups, KH, KW), b (K,) or None -> (N, K, OH, OW)
    """
    kernel = w.shape[2:]
    out = window_counts(x.shape[2:], kernel, stride, padding, dilation)
    columns = _columns(x, kernel, out, stride, padding, dilation, groups)
    filters = w.transpose(0, 2, 3, 1).reshape(groups, len(w) // groups, -1)
    y = _images(_product(filters, columns), (len(x), len(w), *out))
    if b is not None:
        y += b[:, None, None]
    return y


def conv2d_grad_w(g, x, w_shape, stride, padding, dilation, groups):
    """Gradient of conv2d with respect to its filters, given the gradient g of its output.

    g (N, K, OH, OW), x (N, C, H, W) -> w_shape (K, C/groups, KH, KW)
    """
    k, c, kh, kw = w_shape
    columns = _columns(x, (kh, kw), g.shape[2:], stride, padding, dilation, groups)
    gw = columns @ _pixels(g, groups).swapaxes(1, 2)
    return gw.reshape(groups, kh, kw, c, k // groups).transpose(0, 4, 3, 1, 2).reshape(w_shape)


def conv2d_grad_x(g, w, x_shape, stride, padding, dilation, groups):
    """Gradient of conv2d with respect to its images; also the forward of transposed convolution.

    g (N, K, OH, OW), w (K, C/groups, KH, KW) -> x_shape (N, C, H, W)
    """
    n, c, height, width = x_shape
    (top, left), kernel, out = padding, w.shape[2:], g.shape[2:]
    pixels = _pixels(g, groups)
    # one (C/groups, K/groups) matrix for each tap and group
    matrices = w.reshape(groups, len(w) // groups, c // groups, -1).transpose(3, 0, 2, 1)
    matrices = namespace(w).ascontiguousarray(matrices)
    gx = None
    for tap, matrix in zip(taps(kernel, out, stride, dilation), matrices, strict=True):
        part = _images(_product(matrix, pixels), (n, c, *out))
        if gx is None:
            gx = new_images(part, (n, c, height + 2 * top, width + 2 * left), g.dtype)
        gx[tap] += part
    return gx[:, :, top : top + height, left : left + width]


def _columns(x, kernel, out, stride, padding, dilation, groups):
    """im2col, a column of numbers for each window: (N, C, H, W) -> (G, KH*KW*C/G, N*OH*OW).

    First a view of all windows, without copying; then one copy, which is fast if it follows the
    memory order of x, since then it moves long runs: of channels, or of the pixels in a row.
    """
    xp = namespace(x)
    x = pad(x, padding, padding)
    if groups > 1:
        x = xp.ascontiguousarray(x)  # the channels of one group are too short a run
    n, c = x.shape[:2]
    c //= groups
    image, channel, row, column = x.strides
    windows, window_strides = (n, *out), (image, row * stride[0], column * stride[1])
    inside, inside_strides = (*kernel, c), (row * dilation[0], column * dilation[1], channel)
    size = groups, kernel[0] * kernel[1] * c, n * out[0] * out[1]

    def view(shape, strides):
        return xp.lib.stride_tricks.as_strided(x, (groups, *shape), (channel * c, *strides))

    if channels_last(x):
        rows = xp.ascontiguousarray(view(windows + inside, window_strides + inside_strides))
        return rows.reshape(groups, size[2], size[1]).swapaxes(1, 2)
    columns = xp.ascontiguousarray(view(inside + windows, inside_strides + window_strides))
    return columns.reshape(size)


def _product(a, b):
    """Multiply the matrices of each group: (G, P, Q) @ (G, Q, M) -> (G, P, M).

    Without groups it is computed transposed: M are the pixels, P the channels, to lie last.
    """
    if len(a) == 1:
        return (b.swapaxes(1, 2) @ a.swapaxes(1, 2)).swapaxes(1, 2)
    if a.shape[2] == 1:
        return a * b  # one channel a group: much faster than many products of 1 x 1 matrices
    return a @ b


def _pixels(images, groups):
    """Images as matrices with a column for each pixel: (N, C, H, W) -> (G, C/G, N*H*W)."""
    n, c, h, w = images.shape
    pixels = images.swapaxes(0, 1).reshape(groups, c // groups, n * h * w)
    return pixels if groups == 1 else namespace(pixels).ascontiguousarray(pixels)


def _images(pixels, shape):
    """The inverse of _pixels, a view: (G, C/G, N*H*W) -> shape (N, C, H, W)."""
    n, c, h, w = shape
    return pixels.reshape(c, n, h, w).swapaxes(0, 1)
