"""The ops that are timed: their arguments at a size, and the sizes to run."""

from collections.abc import Callable
from typing import NamedTuple

ONE, TWO, ZERO = (1, 1), (2, 2), (0, 0)


class Op(NamedTuple):
    """How to run an op at a size, and the sizes to run.

    arguments(normal, *size) -> the kernel's arguments, where normal(*shape) makes an array; axes: what
    the numbers of a size are; sizes: {"cpu": [...], "gpu", "quick", "sim"}, from small to large.
    """

    arguments: Callable
    axes: str
    sizes: dict


def matmul(normal, m, k, n):
    return normal(m, k), normal(k, n)


def convolution(normal, n, c, side, k):
    """3 x 3 filters on square images (n, c, side, side), k filters, as the networks use them."""
    out = side - 2
    return normal(n, c, side, side), normal(k, c, 3, 3), normal(n, k, out, out)


def conv2d(normal, *size):
    x, w, _ = convolution(normal, *size)
    return x, w, None, ONE, ZERO, ONE, 1


def conv2d_grad_x(normal, *size):
    x, w, g = convolution(normal, *size)
    return g, w, x.shape, ONE, ZERO, ONE, 1


def conv2d_grad_w(normal, *size):
    x, w, g = convolution(normal, *size)
    return g, x, w.shape, ONE, ZERO, ONE, 1


def max_pool2d(normal, n, c, side):
    return normal(n, c, side, side), TWO, TWO, ZERO, ONE, False


def softmax(normal, rows, columns):
    return normal(rows, columns), 1


def layer_norm(normal, rows, columns):
    return normal(rows, columns), normal(columns), normal(columns), 1e-5


def gelu(normal, n):
    return (normal(n),)


def adam(normal, n):
    w, g, m = normal(n), normal(n), normal(n)
    return w, g, m, m * m, None, 3, 1e-3, 0.9, 0.999, 1e-8, 0.0, False


def squares(*sides):
    return [(n, n, n) for n in sides]


FILTERS = "N x C x side x K, filters 3 x 3"
IMAGES = {
    "cpu": [(64, 1, 28, 32), (32, 64, 6, 64), (64, 32, 13, 64)],  # the layers of our networks
    "gpu": [(64, 32, 13, 64), (256, 64, 34, 64)],
    "quick": [(2, 3, 10, 8), (4, 16, 10, 16)],
    "sim": [(1, 2, 5, 3)],
}
ROWS = {
    "cpu": [(64, 10), (4096, 128), (4096, 2048)],
    "gpu": [(4096, 128), (16384, 4096)],
    "quick": [(32, 10), (256, 128)],
    "sim": [(3, 9)],
}
NUMBERS = {
    "cpu": [(1000,), (100_000,), (4_000_000,)],
    "gpu": [(100_000,), (50_000_000,)],
    "quick": [(1000,), (50_000,)],
    "sim": [(50,)],
}
OPS = {
    "matmul": Op(
        matmul,
        "M x K x N",
        {
            "cpu": squares(64, 256, 1024),
            "gpu": squares(256, 1024, 4096),
            "quick": squares(32, 128),
            "sim": squares(9),
        },
    ),
    "conv2d": Op(conv2d, FILTERS, IMAGES),
    "conv2d_grad_x": Op(conv2d_grad_x, FILTERS, IMAGES),
    "conv2d_grad_w": Op(conv2d_grad_w, FILTERS, IMAGES),
    "max_pool2d": Op(
        max_pool2d,
        "N x C x side, windows 2 x 2",
        {
            "cpu": [(64, 32, 26), (64, 64, 64)],
            "gpu": [(64, 32, 26), (64, 64, 112)],
            "quick": [(2, 8, 10), (4, 16, 20)],
            "sim": [(1, 2, 6)],
        },
    ),
    "softmax": Op(softmax, "rows x columns", ROWS),
    "layer_norm": Op(layer_norm, "rows x columns", ROWS),
    "gelu": Op(gelu, "numbers", NUMBERS),
    "adam_": Op(adam, "weights", NUMBERS),
}
