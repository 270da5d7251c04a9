"""Convolution and transposed convolution, of images and of sequences.

A sequence is an image of one row. Transposed convolution is the gradient of convolution with respect
to its images, and the other way round; so three kernels serve every derivative of any order.
"""

from ..autograd import op
from ._windows import IMAGES, as_rows, check_fits, check_images, from_rows, on_rows, per_axis, two


@op
def conv2d(be, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate images with filters.

    (N, C, H, W), (K, C/groups, KH, KW), (K,) -> (N, K, OH, OW), where
    OH = (H + 2 * padding - dilation * (KH - 1) - 1) // stride + 1. Options are ints or pairs
    (height, width). padding "valid" is 0; "same" keeps the size and needs stride 1.
    """
    options = check_conv("conv2d", x, w, b, 2, stride, padding, dilation, groups)
    return _conv2d(be, x, w, b, *options)


@op
def conv1d(be, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlate sequences with filters: (N, C, L), (K, C/groups, KL), (K,) -> (N, K, OL).

    Options as for conv2d.
    """
    stride, padding, extra, dilation, groups = check_conv(
        "conv1d", x, w, b, 1, stride, padding, dilation, groups
    )
    y, (grad_x, grad_w, grad_b) = _conv2d(
        be,
        as_rows(x),
        as_rows(w),
        b,
        two(stride, 1),
        two(padding, 0),
        two(extra, 0),
        two(dilation, 1),
        groups,
    )
    return from_rows(y), (on_rows(grad_x), on_rows(grad_w), lambda g: grad_b(as_rows(g)))


@op
def conv_transpose2d(
    be, x, w, b=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """Transposed convolution: each pixel paints its filter, scaled, onto the result.

    (N, C, H, W), (C, K/groups, KH, KW), (K,) -> (N, K, OH, OW), where
    OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1) + output_padding + 1.
    output_padding chooses among the sizes that conv2d with that stride maps to H.
    """
    options = _check_transpose(
        "conv_transpose2d", x, w, b, 2, stride, padding, output_padding, groups, dilation
    )
    return _conv_transpose2d(be, x, w, b, *options)


@op
def conv_transpose1d(
    be, x, w, b=None, *, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """Transposed convolution of sequences: (N, C, L), (C, K/groups, KL), (K,) -> (N, K, OL).

    Options as for conv_transpose2d.
    """
    size, stride, padding, dilation, groups = _check_transpose(
        "conv_transpose1d", x, w, b, 1, stride, padding, output_padding, groups, dilation
    )
    y, (grad_x, grad_w, grad_b) = _conv_transpose2d(
        be,
        as_rows(x),
        as_rows(w),
        b,
        two(size, 1),
        two(stride, 1),
        two(padding, 0),
        two(dilation, 1),
        groups,
    )
    return from_rows(y), (on_rows(grad_x), on_rows(grad_w), lambda g: grad_b(as_rows(g)))


@op
def conv2d_grad_x(be, g, w, *, x_shape, stride, padding, dilation, groups):
    """Gradient of conv2d for x, linear in g and w.

    (N, K, OH, OW), (K, C/groups, KH, KW) -> x_shape (N, C, H, W)
    """
    k, options = be.kernels, (stride, padding, dilation, groups)
    return k.conv2d_grad_x(g, w, x_shape, *options), (
        lambda h: crop(k.conv2d(h, w, None, *options), g.shape),
        lambda h: k.conv2d_grad_w(g, h, w.shape, *options),
    )


@op
def conv2d_grad_w(be, g, x, *, w_shape, stride, padding, dilation, groups):
    """Gradient of conv2d for w, linear in g and x.

    (N, K, OH, OW), (N, C, H, W) -> w_shape (K, C/groups, KH, KW)
    """
    k, options = be.kernels, (stride, padding, dilation, groups)
    return k.conv2d_grad_w(g, x, w_shape, *options), (
        lambda h: crop(k.conv2d(x, h, None, *options), g.shape),
        lambda h: k.conv2d_grad_x(g, h, x.shape, *options),
    )


def _conv2d(be, x, w, b, stride, padding, extra, dilation, groups):
    """Value and vjps of conv2d; extra: rows and columns of padding wanted below and right only."""
    k, options = be.kernels, (stride, padding, dilation, groups)
    size = x.shape
    if any(extra):
        x = be.xp.pad(x, ((0, 0), (0, 0), (0, extra[0]), (0, extra[1])))
    return k.conv2d(x, w, b, *options), (
        lambda g: crop(k.conv2d_grad_x(g, w, x.shape, *options), size),
        lambda g: k.conv2d_grad_w(g, x, w.shape, *options),
        grad_b,
    )


def _conv_transpose2d(be, x, w, b, size, stride, padding, dilation, groups):
    """Value and vjps of conv_transpose2d; size: (OH, OW)."""
    k, options = be.kernels, (stride, padding, dilation, groups)
    y_shape = (x.shape[0], w.shape[1] * groups, *size)
    y = k.conv2d_grad_x(x, w, y_shape, *options)
    if b is not None:
        y = y + b.reshape((1, -1, 1, 1))
    return y, (
        lambda g: crop(k.conv2d(g, w, None, *options), x.shape),
        lambda g: k.conv2d_grad_w(x, g, w.shape, *options),
        grad_b,
    )


def grad_b(g):
    """Gradient of a bias: (N, K, OH, OW) -> (K,). Two sums: the first adds whole rows of memory."""
    return g.sum(axis=(0, 2)).sum(axis=1)


def crop(x, shape):
    """The upper left part of images, of a shape (N, C, H, W).

    What is cut off is the border that padding "same" had added, or windows that transposed
    convolution did not start from: an output_padding of stride or more leaves room for them.
    """
    return x if x.shape == tuple(shape) else x[:, :, : shape[2], : shape[3]]


def check_conv(name, x, w, b, axes, stride, padding, dilation, groups):
    """The rules of convolution. Returns stride, padding, extra padding, dilation, groups."""
    taps = "KH, KW" if axes == 2 else "KL"
    _check_kinds(name, x, w, b, axes, f"(K, C/groups, {taps})", groups)
    filters, channels = w.shape[0], x.shape[1]
    if channels % groups or filters % groups:
        raise ValueError(
            f"{name}: groups must divide the channels C of x and the filters K of w; got "
            f"groups={groups}, C={channels}, K={filters}"
        )
    if channels != w.shape[1] * groups:
        spelled = "C" if groups == 1 else "C/groups"
        note = "" if groups == 1 else f" with groups={groups}"
        raise ValueError(
            f"{name}: x {IMAGES[axes]} and w (K, {spelled}, {taps}) must share C; "
            f"got {x.shape} and {w.shape}{note}"
        )
    if b is not None and b.shape != (filters,):
        raise ValueError(
            f"{name}: b must be (K,), one number for each filter; got {b.shape} for K={filters}"
        )
    stride = per_axis(name, "stride", stride, axes, 1)
    dilation = per_axis(name, "dilation", dilation, axes, 1)
    kernel = w.shape[2:]
    padding, extra = _check_padding(name, padding, axes, kernel, stride, dilation)
    size = x.shape[2:]
    if any(extra):
        size = tuple(n + e for n, e in zip(size, extra, strict=True))
    check_fits(name, size, kernel, padding, dilation)
    return stride, padding, extra, dilation, groups


def _check_padding(name, padding, axes, kernel, stride, dilation):
    """padding for each axis, and what "same" adds below and right where it cannot be symmetric."""
    none = (0,) * axes
    if not isinstance(padding, str):
        return per_axis(name, "padding", padding, axes, 0), none
    if padding == "valid":
        return none, none
    if padding != "same":
        raise ValueError(f"{name}: padding must be 'same', 'valid' or numbers; got {padding!r}")
    if any(s != 1 for s in stride):
        raise ValueError(f"{name}: padding 'same' needs stride 1; got stride {stride}")
    total = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple(t // 2 for t in total), tuple(t % 2 for t in total)


def _check_transpose(name, x, w, b, axes, stride, padding, output_padding, groups, dilation):
    """The rules of transposed convolution. Returns output size, stride, padding, dilation, groups."""
    spelled = "(C, K/groups, KH, KW)" if axes == 2 else "(C, K/groups, KL)"
    _check_kinds(name, x, w, b, axes, spelled, groups)
    if x.shape[1] != w.shape[0]:
        raise ValueError(
            f"{name}: x {IMAGES[axes]} and w {spelled} must share C; got {x.shape} and {w.shape}"
        )
    if x.shape[1] % groups:
        raise ValueError(
            f"{name}: groups must divide the channels C of x; got groups={groups}, C={x.shape[1]}"
        )
    filters = w.shape[1] * groups
    if b is not None and b.shape != (filters,):
        raise ValueError(
            f"{name}: b must be (K,), one number for each filter; got {b.shape} for K={filters}"
        )
    stride = per_axis(name, "stride", stride, axes, 1)
    padding = per_axis(name, "padding", padding, axes, 0)
    dilation = per_axis(name, "dilation", dilation, axes, 1)
    output_padding = per_axis(name, "output_padding", output_padding, axes, 0)
    if any(o >= max(s, d) for o, s, d in zip(output_padding, stride, dilation, strict=True)):
        raise ValueError(
            f"{name}: output_padding must be smaller than stride or dilation; got {output_padding} "
            f"with stride {stride} and dilation {dilation}"
        )
    size = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + o + 1
        for n, k, s, p, d, o in zip(
            x.shape[2:], w.shape[2:], stride, padding, dilation, output_padding, strict=True
        )
    )
    if min(size) < 1:
        raise ValueError(
            f"{name}: padding {padding} leaves nothing of the output; its size would be {size}"
        )
    return size, stride, padding, dilation, groups


def _check_kinds(name, x, w, b, axes, spelled, groups):
    """Dimensions and dtypes of the arrays; groups a positive int."""
    check_images(name, x, axes)
    if w.ndim != axes + 2 or 0 in w.shape:
        raise ValueError(f"{name}: w must be {spelled} and not empty; got shape {w.shape}")
    if w.dtype.kind != "f" or (b is not None and b.dtype.kind != "f"):
        kinds = f"{w.dtype}" if b is None else f"{w.dtype} and {b.dtype}"
        raise TypeError(f"{name}: w and b must hold floating-point numbers; got {kinds}")
    if not isinstance(groups, int):
        raise TypeError(f"{name}: groups must be an int; got {groups!r}")
    if groups < 1:
        raise ValueError(f"{name}: groups must be at least 1; got {groups}")


def _kernel_conv2d(x, w, b, stride, padding, dilation, groups):
    return conv2d(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)


def _kernel_conv2d_grad_x(g, w, x_shape, stride, padding, dilation, groups):
    return conv2d_grad_x(
        g, w, x_shape=x_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


def _kernel_conv2d_grad_w(g, x, w_shape, stride, padding, dilation, groups):
    return conv2d_grad_w(
        g, x, w_shape=w_shape, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


# the ops under the kernels' signatures, for derivatives of derivatives
KERNELS_ON_TENSORS = {
    "conv2d": _kernel_conv2d,
    "conv2d_grad_x": _kernel_conv2d_grad_x,
    "conv2d_grad_w": _kernel_conv2d_grad_w,
}
