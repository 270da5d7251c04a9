"""Calls of the CUDA kernels, for the tests that compile them and those that run them on a card."""

import numpy as np

from tinygrad_zen.kernels import cuda, reference
from tinygrad_zen.kernels.cuda.activation import SOFTMAX_GRADS, SOFTMAXES
from tinygrad_zen.kernels.cuda.conv import CONV_GRAD_WS, CONV_GRAD_XS, CONVS
from tinygrad_zen.kernels.cuda.embedding import EMBEDDING_GRADS
from tinygrad_zen.kernels.cuda.linear import MATMULS
from tinygrad_zen.kernels.cuda.loss import CROSS_ENTROPIES
from tinygrad_zen.kernels.cuda.optim import ADAMS
from tinygrad_zen.kernels.cuda.pool import MAX_POOLS


def calls(dtype, every_variant=True):
    """(reference function, ours, *arguments) for every kernel function and rung, on NumPy arrays.

    The shapes lead to all kernels, and with every_variant to all forms that the large ones are compiled
    in: large and small tiles, matrices turned, rows in fours and not.
    """
    rng = np.random.default_rng(0)

    def a(*shape):
        return rng.normal(size=shape).astype(dtype)

    def positive(*shape):
        return rng.uniform(0.1, 0.9, size=shape).astype(dtype)

    def each(expected, rungs, *arguments):
        return ((expected, rung, *arguments) for rung in rungs)

    def public(name, *arguments):
        return getattr(reference, name), getattr(cuda, name), *arguments

    square = a(2112, 2112)  # large enough for the large tiles
    yield from each(reference.matmul, MATMULS[:-1], a(2, 5, 7), a(7, 3))
    yield public("linear", square, square, square[0])
    yield public("linear_grad", square, square)
    if every_variant:
        yield public("matmul", a(2, 5, 7), a(7, 3))
        yield public("matmul", square, square)
        yield public("matmul", a(8, 16), a(12, 16).T)
        yield public("matmul", a(16, 8).T, a(16, 12))
        yield public("linear", a(16, 144), a(10, 144), a(10))

    one, pair, none = (1, 1), (2, 2), (0, 0)
    x, w, y = a(2, 3, 6, 6), a(8, 3, 3, 3), a(2, 8, 6, 6)
    same = one, one, one, 1
    large = a(64, 24, 24, 32).transpose(0, 3, 1, 2)
    wide = a(2, 4, 4, 128).transpose(0, 3, 1, 2)
    yield from each(reference.conv2d, CONVS[:-1], x, w, a(8), *same)
    yield public("conv2d", large, a(256, 32, 1, 1), a(256), one, none, one, 1)
    yield from each(reference.conv2d_grad_x, CONV_GRAD_XS[:-1], y, w, x.shape, *same)
    yield from each(reference.conv2d_grad_w, CONV_GRAD_WS[:-1], y, x, w.shape, *same)
    yield public("conv2d_grad_w", wide, wide, (128, 128, 1, 1), one, none, one, 1)
    if every_variant:
        yield public("conv2d", x, w, a(8), *same)
        yield public("conv2d_grad_x", y, w, x.shape, *same)
        yield public("conv2d_grad_w", y, x, w.shape, *same)
        strided = (2, 4, 6, 6), pair, none, one, 1
        yield public("conv2d_grad_x", a(2, 8, 3, 3), a(8, 4, 2, 2), *strided)

    options = pair, pair, none, one
    for images in (a(2, 3, 6, 6), a(2, 6, 6, 4).transpose(0, 3, 1, 2)):
        yield from each(reference.max_pool2d, MAX_POOLS, images, *options, False)
        yield public("relu_max_pool2d", images, *options, False)
        pooled, argmax = reference.max_pool2d(images, *options, False)
        yield public("max_pool2d_grad", pooled, argmax, images.shape, *options)
        yield public("relu_max_pool2d_grad", pooled, argmax, images.shape, *options)
        yield public("max_pool2d_pick", images, argmax, *options)
        yield public("avg_pool2d", images, pair, pair, none, False, True)
        yield public("avg_pool2d_grad", pooled, images.shape, pair, pair, none, False, True)

    rows, other, chances = a(5, 40), a(5, 40), positive(5, 40)
    for name in ("sigmoid", "silu", "gelu", "gelu_tanh"):
        yield public(name, rows)
        yield public(f"{name}_grad", other, rows)
    for name in ("relu_grad", "tanh_grad", "bce_with_logits"):
        yield public(name, other, rows)
    for name in ("leaky_relu", "elu"):
        yield public(name, rows, 0.1)
        yield public(f"{name}_grad", other, rows, 0.1)
    yield public("softplus", rows, 2.0)
    yield public("bce_with_logits_grad", other, rows, chances)
    yield public("bce_with_logits_mean", rows, chances)
    yield public("bce_with_logits_mean_grad", other[0, :1].reshape(()), rows, chances)
    yield public("binary_cross_entropy", chances, chances[::-1])
    yield public("binary_cross_entropy_grad", other, chances, chances[::-1])
    for log in (True, False) if every_variant else (True,):
        forward = reference.log_softmax if log else reference.softmax
        backward = reference.log_softmax_grad if log else reference.softmax_grad
        yield from each(lambda x, log, f=forward: f(x, 1), SOFTMAXES, rows, log)
        y = forward(rows, 1)
        yield from each(lambda g, y, log, f=backward: f(g, y, 1), SOFTMAX_GRADS, other, y, log)

    labels = np.array([3, 0, 39, 3, 1])
    for weight, smoothing in ((None, 0.0), (positive(40), 0.1)):
        yield from each(reference.cross_entropy, CROSS_ENTROPIES, rows, labels, weight, smoothing)
        logp = reference.log_softmax(rows, 1)
        yield public("cross_entropy_grad", a(5), logp, labels, weight, smoothing)

    x, w, b = a(2, 3, 4, 4), a(3), a(3)
    yield public("batch_norm", x, w, b, 1e-5, (a(3), positive(3), 0.1))
    yield public("batch_norm_grad", a(2, 3, 4, 4), x, w, a(3), positive(3))
    yield public("layer_norm", rows, a(40), a(40), 1e-5)
    yield public("layer_norm_grad", other, rows, a(40), a(5, 1), positive(5, 1))
    yield from each(reference.embedding_grad, EMBEDDING_GRADS, a(5, 4), labels % 7, (7, 4))

    for largest, decoupled in ((None, True), (positive(11), False)):
        numbers = 1, 1e-3, 0.9, 0.99, 1e-8, 0.1, decoupled
        for adam_ in ADAMS:
            yield reference.adam_, adam_, a(11), a(11), a(11), positive(11), largest, *numbers
    yield public("sgd_", a(11), a(11), None, 1, 0.1, 0.0, 0.0, 0.0, False)
    for t in (1, 2):
        yield public("sgd_", a(11), a(11), a(11), t, 0.1, 0.9, 0.0, 0.0, t > 1)
