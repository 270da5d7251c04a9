"""The ops that are timed: arguments at a size, what a call needs by formula, and the sizes to run.

Operations and bytes are the least that an op needs: each input read once, each output written once.
"""

from collections.abc import Callable
from typing import NamedTuple

ONE, TWO, ZERO = (1, 1), (2, 2), (0, 0)
FLOAT = 4  # bytes of a float32


class Op(NamedTuple):
    """How to run an op at a size, what a call needs, and the sizes to run.

    arguments(normal, *size) -> the kernel's arguments, where normal(*shape) makes an array;
    work(*size) -> (floating-point operations, bytes); axes: what the numbers of a size are; sizes:
    {"cpu": [...], "gpu", "quick", "sim"}.
    """

    arguments: Callable
    work: Callable
    axes: str
    sizes: dict


def matmul(normal, m, k, n):
    return normal(m, k), normal(k, n)


def matmul_work(m, k, n):
    return 2 * m * k * n, FLOAT * (m * k + k * n + m * n)


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


def convolution_work(n, c, side, k):
    """The same for all three: each output pixel meets each weight of its filter once."""
    out = (side - 2) ** 2
    return 2 * n * k * out * c * 9, FLOAT * (n * c * side**2 + k * c * 9 + n * k * out)


def max_pool2d(normal, n, c, side):
    return normal(n, c, side, side), TWO, TWO, ZERO, ONE, False


def max_pool2d_work(n, c, side):
    """Three comparisons a window of four; x is read, y and one byte an index are written."""
    windows = n * c * (side // 2) ** 2
    return 3 * windows, FLOAT * n * c * side**2 + (FLOAT + 1) * windows


def softmax(normal, rows, columns):
    return normal(rows, columns), 1


def softmax_work(rows, columns):
    """A comparison, a difference, an exp (counted as one), a sum and a quotient for each number."""
    return 5 * rows * columns, 2 * FLOAT * rows * columns


def layer_norm(normal, rows, columns):
    return normal(rows, columns), normal(columns), normal(columns), 1e-5


def layer_norm_work(rows, columns):
    """Mean 1, centring 1, variance 2, scaling 1, weight and bias 2."""
    return 7 * rows * columns, 2 * FLOAT * (rows * columns + rows + columns)


def gelu(normal, n):
    return (normal(n),)


def gelu_work(n):
    """erf is counted as one, with a sum and three products around it."""
    return 5 * n, 2 * FLOAT * n


def adam(normal, n):
    w, g, m = normal(n), normal(n), normal(n)
    return w, g, m, m * m, None, 3, 1e-3, 0.9, 0.999, 1e-8, 0.0, False


def adam_work(n):
    """3 for m, 4 for v, 5 for w; four arrays are read and three written."""
    return 12 * n, 7 * FLOAT * n


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
        matmul_work,
        "M x K x N",
        {
            "cpu": squares(64, 256, 1024),
            "gpu": squares(256, 1024, 4096),
            "quick": squares(32, 128),
            "sim": squares(9),
        },
    ),
    "conv2d": Op(conv2d, convolution_work, FILTERS, IMAGES),
    "conv2d_grad_x": Op(conv2d_grad_x, convolution_work, FILTERS, IMAGES),
    "conv2d_grad_w": Op(conv2d_grad_w, convolution_work, FILTERS, IMAGES),
    "max_pool2d": Op(
        max_pool2d,
        max_pool2d_work,
        "N x C x side, windows 2 x 2",
        {
            "cpu": [(64, 32, 26), (64, 64, 64)],
            "gpu": [(64, 32, 26), (64, 64, 112)],
            "quick": [(2, 8, 10), (4, 16, 20)],
            "sim": [(1, 2, 6)],
        },
    ),
    "softmax": Op(softmax, softmax_work, "rows x columns", ROWS),
    "layer_norm": Op(layer_norm, layer_norm_work, "rows x columns", ROWS),
    "gelu": Op(gelu, gelu_work, "numbers", NUMBERS),
    "adam_": Op(adam, adam_work, "weights", NUMBERS),
}
