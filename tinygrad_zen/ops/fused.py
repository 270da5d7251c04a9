"""Ops that do the work of several in a row, in fewer passes over memory.

Nobody needs to call them: layers do, where those of a kind stand in a row (nn/fusion.py).
"""

from ..autograd import once, op
from ._windows import check_fits, per_axis, window_counts
from .conv import check_conv, crop
from .linear import check_linear
from .normalize import check_batch_norm


@op
def conv2d_relu_max_pool2d(
    be, x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, kernel_size, pool_stride=None
):
    """max_pool2d(relu(conv2d(x, w, b))): (N, C, H, W), (K, C/groups, KH, KW), (K,) -> (N, K, OH, OW).

    kernel_size and pool_stride are those of the pooling, the other options those of conv2d. What the
    pooling does not read is not computed; what relu and conv2d give is not kept, since the winners
    of the windows say where the gradient goes. A backend may have kernels for the whole (backend.WHOLES).
    """
    name = "conv2d_relu_max_pool2d"
    stride, padding, extra, dilation, groups = check_conv(
        name, x, w, b, 2, stride, padding, dilation, groups
    )
    k, convolution = be.kernels, (stride, padding, dilation, groups)
    pool_kernel = per_axis(name, "kernel_size", kernel_size, 2, 1)
    pool_stride = (
        pool_kernel if pool_stride is None else per_axis(name, "pool_stride", pool_stride, 2, 1)
    )
    size = x.shape
    if any(extra):
        x = be.xp.pad(x, ((0, 0), (0, 0), (0, extra[0]), (0, extra[1])))
    padded = x.shape
    if padding == (0, 0):
        x = _what_pooling_reads(x, w.shape[2:], stride, dilation, pool_kernel, pool_stride)
    out = window_counts(x.shape[2:], w.shape[2:], stride, padding, dilation)
    check_fits(name, out, pool_kernel, (0, 0), (1, 1))
    z_shape, window = (x.shape[0], w.shape[0], *out), (pool_kernel, pool_stride, (0, 0), (1, 1))
    if hasattr(k, "conv2d_relu_max_pool2d"):
        y, argmax = k.conv2d_relu_max_pool2d(x, w, b, *convolution, pool_kernel, pool_stride)
    else:
        y, argmax = k.relu_max_pool2d(k.conv2d(x, w, b, *convolution), *window, False)
    # what came back through pooling and relu, if anybody asked for it; and of which gradient of y
    sent = of = None

    def send(g):
        nonlocal sent, of
        if of is not g or sent is None:
            sent, of = k.relu_max_pool2d_grad(g, argmax, z_shape, *window), g
        return sent

    def grad_x(g):
        nonlocal sent, of
        if hasattr(k, "conv2d_grad_x_of_winners"):
            known = sent if of is g else None
            gx, sent = k.conv2d_grad_x_of_winners(
                known, g, argmax, z_shape, w, padded, *convolution, pool_kernel, pool_stride
            )
            of = g
        else:
            gx = k.conv2d_grad_x(send(g)[0], w, padded, *convolution)
        return crop(gx, size)

    @once
    def grad_w_and_b(g):
        if hasattr(k, "conv2d_grad_w_of_winners"):
            known = sent if of is g else None
            return k.conv2d_grad_w_of_winners(
                known, g, argmax, z_shape, x, w.shape, *convolution, pool_kernel, pool_stride
            )
        gz, gb = send(g)
        return k.conv2d_grad_w(gz, x, w.shape, *convolution), gb

    return y, (grad_x, lambda g: grad_w_and_b(g)[0], lambda g: grad_w_and_b(g)[1])


@op
def batch_norm_relu(be, x, w, b, *, eps=1e-5, running=None):
    """relu(batch_norm(x, w, b)): (N, C, ...), (C,), (C,) -> y. Options as of batch_norm."""
    check_batch_norm("batch_norm_relu", x, w, b)
    y, mean, rstd = be.kernels.batch_norm_relu(x, w, b, eps, running)
    return y, lambda g: be.kernels.batch_norm_relu_grad(g, x, w, b, mean, rstd)


@op
def feed_forward(be, x, w1, b1, w2, b2, *, activation="gelu"):
    """linear(activation(linear(x, w1, b1)), w2, b2): (..., I), (H, I), (H,), (O, H), (O,) -> (..., O).

    activation: relu, sigmoid, tanh or gelu. A network with one hidden layer, or a part of a Transformer's:
    Vaswani et al. 2017, section 3.3. On `numba` what stands between the layers does not leave the caches.
    """
    check_linear("feed_forward", x, w1, b1)
    outputs = w2.shape[:1]
    if w2.shape != outputs + w1.shape[:1] or b2.shape != outputs:
        raise ValueError(
            "feed_forward: w1 (H, I) and w2 (O, H) must share H, w2 and b2 (O,) share O; got "
            f"{w1.shape}, {w2.shape} and {b2.shape}"
        )
    if activation not in ("relu", "sigmoid", "tanh", "gelu"):
        raise ValueError(
            f"feed_forward: activation must be relu, sigmoid, tanh or gelu; got {activation!r}"
        )
    k, size = be.kernels, x.shape
    flat = len(size) == 2
    rows = x if flat else x.reshape((-1, size[-1]))
    y, saved = k.feed_forward(rows, w1, b1, w2, b2, activation)
    shape = y.shape

    left, of = (), None  # gradients that nobody has taken yet, and that of y behind them

    def grads(g, i):
        """The i-th of the five gradients; who asks first has all computed, that of x only if it is that."""
        nonlocal left, of
        if of is not g or left[i] is None:
            rows_g = g if flat else g.reshape(shape)
            left = [*k.feed_forward_grad(rows_g, rows, w1, w2, activation, saved, i == 0)]
            of = g
        mine, left[i] = left[i], None
        return mine if flat or i > 0 else mine.reshape(size)

    return y if flat else y.reshape((*size[:-1], shape[-1])), (
        lambda g: grads(g, 0),
        lambda g: grads(g, 1),
        lambda g: grads(g, 2),
        lambda g: grads(g, 3),
        lambda g: grads(g, 4),
    )


def _what_pooling_reads(x, kernel, stride, dilation, pool_kernel, pool_stride):
    """The upper left part of images (N, C, H, W) from which convolution makes what pooling reads."""
    size = []
    for n, k, s, d, pool_k, pool_s in zip(
        x.shape[2:], kernel, stride, dilation, pool_kernel, pool_stride, strict=True
    ):
        reach = d * (k - 1) + 1
        windows = ((n - reach) // s + 1 - pool_k) // pool_s + 1
        read = (max(windows, 1) - 1) * pool_s + pool_k
        size.append((read - 1) * s + reach)
    return crop(x, (*x.shape[:2], *size))
