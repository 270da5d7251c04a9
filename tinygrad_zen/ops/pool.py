"""Pooling: the largest element or the mean of windows, of fixed size or of a fixed number.

A sequence is an image of one row. The gradient of max pooling sends g to the winners; the gradient
of that picks from the winners; and so on in turns.
"""

import numpy as np

from ..autograd import op
from ._windows import as_rows, check_fits, check_images, from_rows, on_rows, per_axis, two
from .linear import matmul
from .reduce import mean
from .shape import concat, reshape


@op
def max_pool2d(be, x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest element of each window: (N, C, H, W) -> (N, C, OH, OW).

    stride is the kernel_size unless given; padding never wins; ceil_mode keeps a last window that
    hangs over the border. The first of equal winners receives the gradient.
    """
    options = check_pool("max_pool2d", x, 2, kernel_size, stride, padding, dilation)
    return _max_pool2d(be, x, *options, ceil_mode)


@op
def max_pool1d(be, x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest element of each window: (N, C, L) -> (N, C, OL). Options as for max_pool2d."""
    kernel, stride, padding, dilation = check_pool(
        "max_pool1d", x, 1, kernel_size, stride, padding, dilation
    )
    y, (grad_x,) = _max_pool2d(
        be, as_rows(x), two(kernel, 1), two(stride, 1), two(padding, 0), two(dilation, 1), ceil_mode
    )
    return from_rows(y), (on_rows(grad_x),)


@op
def avg_pool2d(
    be, x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
):
    """The mean of each window: (N, C, H, W) -> (N, C, OH, OW).

    stride is the kernel_size unless given; the zeros of the padding count unless count_include_pad
    is False; ceil_mode keeps a last window that hangs over, and what hangs over never counts.
    """
    kernel, stride, padding, _ = check_pool("avg_pool2d", x, 2, kernel_size, stride, padding)
    return _avg_pool2d(be, x, kernel, stride, padding, ceil_mode, count_include_pad)


@op
def avg_pool1d(
    be, x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
):
    """The mean of each window: (N, C, L) -> (N, C, OL). Options as for avg_pool2d."""
    kernel, stride, padding, _ = check_pool("avg_pool1d", x, 1, kernel_size, stride, padding)
    y, (grad_x,) = _avg_pool2d(
        be,
        as_rows(x),
        two(kernel, 1),
        two(stride, 1),
        two(padding, 0),
        ceil_mode,
        count_include_pad,
    )
    return from_rows(y), (on_rows(grad_x),)


def adaptive_avg_pool2d(x, *, output_size):
    """The mean of OH x OW windows that cover the image: (N, C, H, W) -> (N, C, OH, OW).

    Window i of OH reaches from floor(i * H / OH) to ceil((i + 1) * H / OH). output_size: an int or a
    pair, None keeps a size; 1 is global average pooling.
    """
    out = _check_adaptive("adaptive_avg_pool2d", x, 2, output_size)
    return _adaptive_avg(x, out)


def adaptive_avg_pool1d(x, *, output_size):
    """The mean of OL windows that cover the sequence: (N, C, L) -> (N, C, OL)."""
    out = _check_adaptive("adaptive_avg_pool1d", x, 1, output_size)
    return from_rows(_adaptive_avg(as_rows(x), two(out, 1)))


def adaptive_max_pool2d(x, *, output_size):
    """The largest element of OH x OW windows that cover the image: (N, C, H, W) -> (N, C, OH, OW).

    Windows and output_size as for adaptive_avg_pool2d; 1 is global max pooling.
    """
    out = _check_adaptive("adaptive_max_pool2d", x, 2, output_size)
    return _adaptive_max(x, out)


def adaptive_max_pool1d(x, *, output_size):
    """The largest element of OL windows that cover the sequence: (N, C, L) -> (N, C, OL)."""
    out = _check_adaptive("adaptive_max_pool1d", x, 1, output_size)
    return from_rows(_adaptive_max(as_rows(x), two(out, 1)))


@op
def max_pool2d_grad(be, g, *, argmax, x_shape, kernel, stride, padding, dilation):
    """Gradient of max_pool2d, each g sent to the winner of its window: (N, C, OH, OW) -> x_shape."""
    k, window = be.kernels, (kernel, stride, padding, dilation)
    gx = k.max_pool2d_grad(g, argmax, x_shape, *window)
    return gx, (lambda h: k.max_pool2d_pick(h, argmax, *window),)


@op
def max_pool2d_pick(be, x, *, argmax, kernel, stride, padding, dilation):
    """The element of each window that argmax names: (N, C, H, W) -> (N, C, OH, OW)."""
    k, window = be.kernels, (kernel, stride, padding, dilation)
    y = k.max_pool2d_pick(x, argmax, *window)
    return y, (lambda g: k.max_pool2d_grad(g, argmax, x.shape, *window),)


@op
def avg_pool2d_grad(be, g, *, x_shape, kernel, stride, padding, ceil_mode, count_include_pad):
    """Gradient of avg_pool2d, linear in g: (N, C, OH, OW) -> x_shape."""
    k, window = be.kernels, (kernel, stride, padding, ceil_mode, count_include_pad)
    return k.avg_pool2d_grad(g, x_shape, *window), (lambda h: k.avg_pool2d(h, *window),)


def _max_pool2d(be, x, kernel, stride, padding, dilation, ceil_mode):
    k, window = be.kernels, (kernel, stride, padding, dilation)
    y, argmax = k.max_pool2d(x, *window, ceil_mode)
    return y, (lambda g: k.max_pool2d_grad(g, argmax, x.shape, *window),)


def _avg_pool2d(be, x, kernel, stride, padding, ceil_mode, count_include_pad):
    k, window = be.kernels, (kernel, stride, padding, ceil_mode, count_include_pad)
    return k.avg_pool2d(x, *window), (lambda g: k.avg_pool2d_grad(g, x.shape, *window),)


def _adaptive_avg(x, out):
    n, c, h, w = x.shape
    oh, ow = out
    if h % oh == 0 and w % ow == 0:
        return mean(reshape(x, shape=(n, c, oh, h // oh, ow, w // ow)), axis=(3, 5))
    rows = x.backend.array(_averages(h, oh), x.dtype)
    columns = x.backend.array(_averages(w, ow).T, x.dtype)
    return matmul(matmul(rows, x), columns)


def _adaptive_max(x, out):
    (h, w), (oh, ow) = x.shape[2:], out
    if h % oh == 0 and w % ow == 0:
        return max_pool2d(x, kernel_size=(h // oh, w // ow))
    # columns first: of equal winners the first one, row by row, keeps the gradient
    x = concat(
        [max_pool2d(x[:, :, :, a:b], kernel_size=(1, b - a)) for a, b in _bounds(w, ow)], axis=3
    )
    return concat(
        [max_pool2d(x[:, :, a:b], kernel_size=(b - a, 1)) for a, b in _bounds(h, oh)], axis=2
    )


def _bounds(n, count):
    """Start and end of the windows that divide n elements, as evenly as they can, into count."""
    return [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]


def _averages(n, count):
    """The matrix (count, n) whose row i takes the mean of window i."""
    matrix = np.zeros((count, n))
    for row, (a, b) in zip(matrix, _bounds(n, count), strict=True):
        row[a:b] = 1 / (b - a)
    return matrix


def check_pool(name, x, axes, kernel_size, stride, padding, dilation=1):
    """The rules of pooling. Returns kernel, stride, padding and dilation for each axis."""
    check_images(name, x, axes)
    kernel = per_axis(name, "kernel_size", kernel_size, axes, 1)
    stride = kernel if stride is None else per_axis(name, "stride", stride, axes, 1)
    padding = per_axis(name, "padding", padding, axes, 0)
    dilation = per_axis(name, "dilation", dilation, axes, 1)
    for k, p, d in zip(kernel, padding, dilation, strict=True):
        if 2 * p > d * (k - 1) + 1:  # otherwise a window could lie in the padding alone
            raise ValueError(
                f"{name}: padding must be at most half of the window; got padding {padding} for "
                f"kernel_size {kernel} and dilation {dilation}"
            )
    check_fits(name, x.shape[2:], kernel, padding, dilation)
    return kernel, stride, padding, dilation


def _check_adaptive(name, x, axes, output_size):
    """The rules of adaptive pooling. Returns the output size for each axis."""
    check_images(name, x, axes)
    if 0 in x.shape[2:]:
        raise ValueError(f"{name}: there is nothing to pool in shape {x.shape}")
    if output_size is None or isinstance(output_size, tuple | list):
        wanted = (None,) * axes if output_size is None else output_size
        if len(wanted) == axes:
            output_size = tuple(
                n if o is None else o for o, n in zip(wanted, x.shape[2:], strict=True)
            )
    return per_axis(name, "output_size", output_size, axes, 1)


def _kernel_max_pool2d(x, kernel, stride, padding, dilation, ceil_mode):
    """The winners are found on arrays; picking them is what is differentiated."""
    _, argmax = x.backend.kernels.max_pool2d(x.data, kernel, stride, padding, dilation, ceil_mode)
    return _kernel_max_pool2d_pick(x, argmax, kernel, stride, padding, dilation), argmax


def _kernel_relu_max_pool2d(x, kernel, stride, padding, dilation, ceil_mode):
    _, argmax = x.backend.kernels.relu_max_pool2d(
        x.data, kernel, stride, padding, dilation, ceil_mode
    )
    return _kernel_max_pool2d_pick(x, argmax, kernel, stride, padding, dilation), argmax


def _kernel_relu_max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation):
    gx = _kernel_max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation)
    return gx, gx.sum(axis=(0, 2, 3))


def _kernel_max_pool2d_grad(g, argmax, x_shape, kernel, stride, padding, dilation):
    return max_pool2d_grad(
        g,
        argmax=argmax,
        x_shape=x_shape,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
    )


def _kernel_max_pool2d_pick(x, argmax, kernel, stride, padding, dilation):
    return max_pool2d_pick(
        x, argmax=argmax, kernel=kernel, stride=stride, padding=padding, dilation=dilation
    )


def _kernel_avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad):
    return avg_pool2d(
        x,
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


def _kernel_avg_pool2d_grad(g, x_shape, kernel, stride, padding, ceil_mode, count_include_pad):
    return avg_pool2d_grad(
        g,
        x_shape=x_shape,
        kernel=kernel,
        stride=stride,
        padding=padding,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )


# the ops under the kernels' signatures, for derivatives of derivatives
KERNELS_ON_TENSORS = {
    "max_pool2d": _kernel_max_pool2d,
    "max_pool2d_grad": _kernel_max_pool2d_grad,
    "max_pool2d_pick": _kernel_max_pool2d_pick,
    "relu_max_pool2d": _kernel_relu_max_pool2d,
    "relu_max_pool2d_grad": _kernel_relu_max_pool2d_grad,
    "avg_pool2d": _kernel_avg_pool2d,
    "avg_pool2d_grad": _kernel_avg_pool2d_grad,
}
