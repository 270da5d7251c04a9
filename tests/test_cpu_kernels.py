"""The kernels for the CPU: every kernel and every rung of a ladder against the reference in float64.

Each runs in float32 on one thread, in float32 on many, and in float64. The reference has its own judges.
"""

import inspect
import itertools
import math
import platform
import subprocess
import sys

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from scipy import special  # noqa: E402

from tinygrad_zen.backend import WHOLES  # noqa: E402
from tinygrad_zen.kernels import cpu, reference  # noqa: E402
from tinygrad_zen.kernels.cpu import _arrays, _compiled, _images  # noqa: E402
from tinygrad_zen.kernels.cpu._product import DEPTH, product  # noqa: E402
from tinygrad_zen.kernels.cpu.activation import SOFTMAXES  # noqa: E402
from tinygrad_zen.kernels.cpu.conv import (  # noqa: E402
    CONV2D_GRAD_WS,
    CONV2D_GRAD_XS,
    CONV2DS,
    conv2d_grad_w_winograd,
    conv2d_winograd,
)
from tinygrad_zen.kernels.cpu.linear import MATMULS, linear  # noqa: E402
from tinygrad_zen.kernels.cpu.optim import ADAMS  # noqa: E402
from tinygrad_zen.kernels.cpu.pool import MAX_POOL2DS  # noqa: E402

KINDS = ["float32", "float32 threads", "float64"]
ONE, ZERO = (1, 1), (0, 0)


@pytest.fixture(params=KINDS)
def normal(request, monkeypatch):
    """Makes normal numbers, always the same, of the dtype under test; and chooses the threads."""
    dtype, _, threads = request.param.partition(" ")
    monkeypatch.setattr(_compiled, "PARALLEL_FROM", 0 if threads else 1 << 62)
    rng = np.random.default_rng(0)
    return lambda *shape: rng.standard_normal(shape).astype(dtype)


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) if x.ndim == 4 else x


def scattered(x):
    """The same numbers as every second element, backwards, of a larger array."""
    big = np.full(tuple(2 * n for n in x.shape), 77, x.dtype)
    view = big[tuple(slice(None, None, -2) for _ in x.shape)]
    view[...] = x
    return view


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


ORDERS = [channels_last, np.asfortranarray, scattered, read_only]


def converted(args, change):
    return [change(a) if isinstance(a, np.ndarray) and a.ndim else a for a in args]


def in_double(args):
    return converted(args, lambda a: a.astype(np.float64) if a.dtype.kind == "f" else a)


def assert_equal(kernel, args, expected, tolerance=2e-6):
    """kernel(*args) is what is expected, of args' dtype; args stay as they were."""
    before = converted(args, np.copy)
    result = kernel(*args)
    for a, b in zip(args, before, strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a, b)
    dtype = next(a.dtype for a in args if isinstance(a, np.ndarray))
    together = zip(as_tuple(result), as_tuple(expected), strict=True)
    for i, (got, want) in enumerate(together):
        assert got.shape == want.shape, f"result {i}"
        assert got.dtype == (dtype if want.dtype.kind == "f" else want.dtype), f"result {i}"
        if got.size == 0:
            continue
        scale = max(1, np.abs(want).max())
        error = np.abs(got.astype(np.float64) - want).max() / scale
        assert error <= (tolerance if dtype == np.float32 else 1e-12), f"result {i}"


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)


def check(name, args, tolerance=2e-6, orders=ORDERS):
    expected = getattr(reference, name)(*in_double(args))
    for order in [np.copy, *orders]:
        assert_equal(getattr(cpu, name), converted(args, order), expected, tolerance)


def test_names_and_signatures_are_the_reference_s():
    def signatures(module):
        functions = vars(module).items()
        return {
            name: list(inspect.signature(f).parameters)
            for name, f in functions
            if inspect.isfunction(f) and not name.startswith("_")
        }

    ours = {name: names for name, names in signatures(cpu).items() if name not in WHOLES}
    assert ours == signatures(reference)


# elementwise


@pytest.mark.parametrize("shape", [(1,), (0, 3), (3, 5, 7), (2, 3, 60, 70)])
@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh"])
def test_activations(normal, name, shape):
    check(name, [3 * normal(*shape)])
    check("softplus", [3 * normal(*shape), 2.0])


@pytest.mark.parametrize("shape", [(1,), (0, 3), (3, 5, 7), (2, 3, 60, 70)])
@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh"])
def test_gradients_of_activations(normal, name, shape):
    g, x = normal(*shape), 3 * normal(*shape)
    check(f"{name}_grad", [g, x])
    # a gradient in another memory order than x
    expected = getattr(reference, f"{name}_grad")(*in_double([g, x]))
    assert_equal(getattr(cpu, f"{name}_grad"), [np.asfortranarray(g), x], expected)


def test_results_keep_the_memory_order():
    x = channels_last(np.ones((2, 3, 60, 70), np.float32))
    for name in ("relu", "tanh"):
        assert getattr(cpu, name)(x).strides == x.strides
    assert cpu.relu_grad(np.ones(x.shape, np.float32), x).strides == x.strides


SPECIAL = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1e-45, -1e-30, 88, -88, 200, -200], "f4")


@pytest.mark.parametrize(
    "name", ["relu", "sigmoid", "tanh", "silu", "gelu", "gelu_tanh", "softplus"]
)
def test_activations_at_the_ends(name):
    args = (1.0,) if name == "softplus" else ()
    with np.errstate(all="ignore"):
        expected = getattr(reference, name)(SPECIAL, *args)
    result = getattr(cpu, name)(SPECIAL, *args)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-36)


def relative_error(values, exact):
    return np.abs(values.astype(np.float64) / exact - 1).max()


def test_functions_are_accurate_to_a_few_roundings():
    """float32 rounds by 6e-8."""
    x = np.linspace(-87, 20, 200_001, dtype=np.float32)
    double = x.astype(np.float64)
    small = np.linspace(1e-6, 9, 100_001, dtype=np.float32)
    assert relative_error(cpu.sigmoid(x), special.expit(double)) < 3e-7
    assert relative_error(cpu.softplus(x, 1.0), np.logaddexp(0, double)) < 3e-7
    assert relative_error(cpu.tanh(small), np.tanh(small.astype(np.float64))) < 3e-7
    # the tail of a normal distribution: x is rounded, and the slope of log(cdf) is about x
    tail = np.linspace(-9, 9, 200_001, dtype=np.float32)
    exact = tail * special.ndtr(tail.astype(np.float64))
    within = np.abs(tail) > 1e-3
    bound = 7e-7 + 1e-7 * tail[within].astype(np.float64) ** 2
    error = np.abs(cpu.gelu(tail)[within] / exact[within] - 1)
    assert (error < bound).all()


# softmax and losses


@pytest.mark.parametrize("shape, axis", [((3, 1), 1), ((5, 33), -1), ((4, 7, 3), 1), ((2, 3), 0)])
def test_softmax(normal, shape, axis):
    x, g = 5 * normal(*shape), normal(*shape)
    check("softmax", [x, axis])
    check("log_softmax", [x, axis], 3e-6)
    y, log_y = reference.softmax(x, axis), reference.log_softmax(x, axis)
    check("softmax_grad", [g, y, axis])
    check("log_softmax_grad", [g, log_y, axis])


@pytest.mark.parametrize("softmax", SOFTMAXES)
def test_softmax_ladder(normal, softmax):
    for shape in [(1, 1), (5, 33), (3, 1000)]:
        x = 5 * normal(*shape)
        assert_equal(softmax, [x, 1], reference.softmax(*in_double([x, 1])))


def test_softmax_with_masks_and_nan():
    inf, nan = np.inf, np.nan
    x = np.array([[1, -inf, 2], [-inf, -inf, 0], [nan, 1, 2], [1, 2, nan]], np.float32)
    expected = reference.softmax(x, 1)
    np.testing.assert_allclose(cpu.softmax(x, 1), expected, rtol=1e-6)
    np.testing.assert_allclose(cpu.log_softmax(x, 1), reference.log_softmax(x, 1), rtol=1e-6)


@pytest.mark.parametrize("classes", [1, 10, 37])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(normal, classes, smoothing, weighted):
    x, g = 3 * normal(9, classes), normal(9)
    labels = np.arange(9) % classes
    weight = np.abs(normal(classes)) if weighted else None
    check("cross_entropy", [x, labels, weight, smoothing], 3e-6)
    logp = reference.log_softmax(x, 1)
    check("cross_entropy_grad", [g, logp, labels, weight, smoothing])
    mean = x.dtype.type(1 / 9)  # one gradient for all rows
    expected = reference.cross_entropy_grad(
        np.float64(mean), *in_double([logp, labels, weight, smoothing])
    )
    result = cpu.cross_entropy_grad(mean, logp, labels.astype(np.int32), weight, smoothing)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_cross_entropy_with_a_class_masked_out():
    x = np.array([[1, -np.inf, 2], [3, 1, -np.inf]], np.float32)
    losses, logp = cpu.cross_entropy(x, np.array([2, 0]), None, 0.0)
    np.testing.assert_allclose(losses, np.log1p(np.exp([-1.0, -2.0])), rtol=1e-6)
    gx = cpu.cross_entropy_grad(np.ones(2, np.float32), logp, np.array([2, 0]), None, 0.0)
    assert np.isfinite(gx).all() and gx[0, 1] == 0


def test_binary_cross_entropy(normal):
    x, g = 4 * normal(6, 50), normal(6, 50)
    t = (normal(6, 50) > 0).astype(x.dtype)
    check("bce_with_logits", [x, t])
    check("bce_with_logits_grad", [g, x, t])
    check("bce_with_logits_mean", [x, t])
    check("bce_with_logits_mean_grad", [g[0, :1].reshape(()), x, t])
    many = 3 * normal(3, 1000)  # more than one chunk
    check("bce_with_logits_mean", [many, (many > 1).astype(x.dtype)])


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh", "gelu"])
def test_feed_forward(normal, activation):
    """Whole tiles, odd sizes, what goes layer by layer (wide, narrow, few rows), and in one call."""
    in_tiles = [(150, 32, 64, 32), (131, 33, 70, 21)]
    by_layer = [(128, 3, 1100, 4), (150, 40, 70, 5), (40, 40, 40, 40)]
    for r, i, h, o in in_tiles + by_layer + [(20, 8, 9, 8), (32, 10, 64, 1), (3, 70, 5, 12)]:
        args = [normal(r, i), normal(h, i), normal(h), normal(o, h), normal(o)]
        x, w1, _, w2, _ = args
        g, results = normal(r, o), []
        for kernels, change in (cpu, list), (reference, in_double):
            y, saved = kernels.feed_forward(*change(args), activation)
            given = *change([g, x, w1, w2]), activation, saved
            grads = kernels.feed_forward_grad(*given, True)
            none, *others = kernels.feed_forward_grad(*given, False)
            assert none is None
            for again, grad in zip(others, grads[1:], strict=True):
                np.testing.assert_array_equal(again, grad)
            results.append([y, *grads])
        for got, expected in zip(*results, strict=True):
            assert got.shape == expected.shape and got.dtype == g.dtype
            np.testing.assert_allclose(got, expected, rtol=0, atol=3e-6 * np.abs(expected).max())


# matrix products


@pytest.mark.parametrize("matmul", MATMULS)
def test_matmul_ladder(normal, matmul):
    for m, k, n in [(1, 1, 1), (14, 5, 64), (33, 300, 70), (200, 17, 31), (3, 0, 2), (0, 3, 4)]:
        x, y = normal(m, k), normal(k, n)
        for order in (np.copy, np.asfortranarray, scattered):
            args = converted([x, y], order)
            assert_equal(matmul, args, reference.matmul(*in_double(args)))


def test_long_products_round_little():
    """Parts have sums of their own: 2.9e-7 of the whole here, and 5.0e-7 in one go."""
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(shape).astype(np.float32) for shape in ((128, 784), (784, 512)))
    exact = x.astype(np.float64) @ y
    assert np.linalg.norm(product(x, y) - exact) < 4e-7 * np.linalg.norm(exact)


def test_products_with_a_start(normal):
    """In every memory order, in one go and in several, with columns and rows that hang over."""
    for m, k, n in [(1, 1, 1), (33, 5, 64), (40, 3 * DEPTH + 1, 35), (2, 0, 3)]:
        x, y, start = normal(m, k), normal(k, n), normal(n)
        for order in (np.copy, np.asfortranarray, scattered):
            args = [order(x), order(y), start]
            expected = np.matmul(*in_double(args[:2])) + in_double([start])[0]
            assert_equal(product, args, expected, 1e-5)


def test_large_products_take_the_tiles(normal, monkeypatch):
    """By matmul and linear alike, for stacks of rows and for transposed factors; others go to BLAS."""
    taken = []
    module = sys.modules[linear.__module__]
    monkeypatch.setattr(module, "product", lambda *a: taken.append(1) or product(*a))
    x, w, b = normal(2, 150, 96), normal(320, 96), normal(320)
    check("linear", [x, w, b], 1e-5)
    check("linear_activation", [x, w, b, "relu"], 1e-5)
    check("matmul", [x, w.T], 1e-5)
    assert bool(taken) == (x.dtype == np.float32)
    taken.clear()
    check("matmul", [normal(300, 1024), normal(1024, 32)], 1e-5, [])  # rows a page apart
    check("matmul", [normal(20, 96), normal(96, 5000)], 1e-5, [])
    check("matmul", [normal(2, 300, 96), normal(2, 96, 300)], 1e-5, [])
    assert not taken


def test_products_of_stacks(normal):
    x, y = normal(2, 1, 5, 7), normal(3, 7, 4)
    for matmul in MATMULS:
        assert_equal(matmul, [x, y], reference.matmul(*in_double([x, y])))
    check("linear", [normal(2, 3, 7), normal(4, 7), normal(4)])
    check("linear", [normal(2, 7), normal(4, 7), None])


@pytest.mark.parametrize("n", [1, 14, 17])
@pytest.mark.parametrize("n_in", [1, 10, 33])
@pytest.mark.parametrize("n_out", [1, 9, 40, 64])
def test_small_layers(normal, n, n_in, n_out):
    """Edges of panels, tiles and squares, in layers for one compiled call; bias and activation in it."""
    x, w, b, g = normal(n, n_in), normal(n_out, n_in), normal(n_out), normal(n, n_out)
    check("linear", [x, w, b])
    check("linear_grad", [g, x])
    check("matmul", [g, w])
    for activation in ("relu", "sigmoid", "tanh"):
        check("linear_activation", [x, w, b, activation], 1e-5)  # sums of up to 33 products


@pytest.mark.parametrize("n, n_out", [(128, 656), (160, 528), (130, 656), (128, 650), (656, 128)])
def test_large_layers(normal, n, n_out):
    """By tiles, in whole panels and rows of tiles or not."""
    x, w, b = normal(n, 101), normal(n_out, 101), normal(n_out)
    for bias in (b, None):
        check("linear", [x, w, bias], 1e-5)
        for activation in ("relu", "sigmoid", "tanh"):
            check("linear_activation", [x, w, bias, activation], 1e-5)


def test_the_gradient_of_a_stack_of_rows(normal):
    check("linear_grad", [normal(2, 3, 5), normal(2, 3, 7)])
    check("linear_grad", [normal(150, 130), normal(150, 140)], 1e-5)


# convolution: (N, C, H, W), (K, KH, KW), stride, padding, dilation, groups
CONVOLUTIONS = [
    ((1, 1, 3, 3), (1, 3, 3), ONE, ZERO, ONE, 1),
    ((3, 2, 9, 7), (5, 3, 3), ONE, ZERO, ONE, 1),
    ((2, 32, 8, 8), (64, 3, 3), ONE, ZERO, ONE, 1),
    ((2, 5, 7, 7), (32, 3, 3), ONE, ONE, ONE, 1),
    ((5, 48, 5, 7), (16, 3, 3), ONE, (1, 2), ONE, 1),
    ((1, 16, 3, 4), (80, 3, 3), ONE, ZERO, ONE, 1),
    ((9, 16, 12, 9), (32, 3, 3), ONE, (0, 1), ONE, 1),
    ((3, 6, 9, 9), (48, 3, 3), (2, 2), ONE, ONE, 1),
    ((2, 17, 6, 9), (33, 2, 3), (2, 3), (1, 2), (2, 1), 1),
    ((2, 5, 9, 8), (40, 3, 2), (1, 2), (2, 1), (1, 2), 1),
    ((5, 33, 4, 4), (7, 1, 1), ONE, ZERO, ONE, 1),
    ((70, 3, 3, 3), (16, 3, 3), ONE, ZERO, ONE, 1),
    ((2, 6, 5, 5), (4, 3, 3), ONE, ONE, ONE, 2),
    ((0, 3, 5, 5), (4, 3, 3), ONE, ONE, ONE, 1),
]


def convolution(normal, case):
    shape, (k, *kernel), *options = case
    return normal(*shape), normal(k, shape[1] // options[-1], *kernel), options


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("conv2d", CONV2DS)
def test_conv2d_ladder(normal, conv2d, case):
    x, w, options = convolution(normal, case)
    for b in (None, normal(len(w))):
        args = [x, w, b, *options]
        expected = reference.conv2d(*in_double(args))
        for order in (np.copy, channels_last, scattered):
            assert_equal(conv2d, converted(args, order), expected, allowed(conv2d))


def allowed(rung):
    """The error that a convolution may have: see kernels.cpu.conv.winograd."""
    return 4e-6 if rung.__name__.endswith("4x4") else 2e-6


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("conv2d_grad_w", CONV2D_GRAD_WS)
def test_conv2d_grad_w_ladder(normal, conv2d_grad_w, case):
    x, w, options = convolution(normal, case)
    g = normal(*reference.conv2d(x, w, None, *options).shape)
    args = [g, x, w.shape, *options]
    expected = reference.conv2d_grad_w(*in_double(args))
    for order in (np.copy, channels_last, scattered):
        assert_equal(conv2d_grad_w, converted(args, order), expected, allowed(conv2d_grad_w))


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("conv2d_grad_x", CONV2D_GRAD_XS)
def test_conv2d_grad_x_ladder(normal, conv2d_grad_x, case):
    x, w, options = convolution(normal, case)
    g = normal(*reference.conv2d(x, w, None, *options).shape)
    args = [g, w, x.shape, *options]
    expected = reference.conv2d_grad_x(*in_double(args))
    for order in (np.copy, channels_last, scattered):
        assert_equal(conv2d_grad_x, converted(args, order), expected, allowed(conv2d_grad_x))


def test_transposed_convolution_may_leave_pixels_unread(normal):
    """g smaller than the windows that fit: an output_padding of transposed convolution."""
    g, w = normal(2, 4, 3, 3), normal(4, 5, 2, 2)
    check("conv2d_grad_x", [g, w, (2, 5, 8, 7), (2, 2), ZERO, ONE, 1])


def test_arrays_of_two_dtypes_go_to_the_reference():
    x, w = np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float64)
    assert cpu.conv2d(x, w, None, ONE, ZERO, ONE, 1).dtype == np.float64


# pooling: (N, C, H, W), kernel, stride, padding, dilation, ceil_mode
POOLS = [
    ((2, 3, 8, 6), (2, 2), (2, 2), ZERO, ONE, False),
    ((1, 70, 7, 9), (2, 2), (2, 2), ZERO, ONE, False),
    ((2, 3, 7, 9), (2, 2), (2, 2), ZERO, ONE, True),
    ((2, 1, 9, 9), (3, 3), (3, 3), ZERO, ONE, False),
    ((2, 5, 9, 8), (3, 2), (2, 1), (1, 1), (1, 2), True),
    ((2, 2, 9, 9), (2, 2), (3, 3), (1, 0), ONE, False),
    ((0, 3, 8, 8), (2, 2), (2, 2), ZERO, ONE, False),
]


@pytest.mark.parametrize("case", POOLS, ids=str)
@pytest.mark.parametrize("max_pool2d", MAX_POOL2DS)
def test_max_pool2d_ladder(normal, max_pool2d, case):
    shape, *options = case
    x = np.rint(normal(*shape))  # whole numbers, so that many windows have several winners
    expected = reference.max_pool2d(*in_double([x, *options]))
    for order in (np.copy, channels_last, scattered):
        assert_equal(max_pool2d, [order(x), *options], expected)


@pytest.mark.parametrize("case", POOLS, ids=str)
def test_gradient_of_max_pool2d(normal, case):
    shape, *options, ceil_mode = case
    y, argmax = reference.max_pool2d(np.rint(normal(*shape)), *options, ceil_mode)
    check("max_pool2d_grad", [normal(*y.shape), argmax, shape, *options])


@pytest.mark.parametrize("max_pool2d", MAX_POOL2DS)
def test_max_pool2d_of_nan_is_nan(max_pool2d):
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    x[0, 0, 1, 2] = x[0, 0, 4, 4] = np.nan
    y, _ = max_pool2d(x, (2, 2), (2, 2), ZERO, ONE, False)
    assert np.isnan(y).sum() == 2 and np.isnan(y[0, 0, 0, 1]) and np.isnan(y[0, 0, 2, 2])


# normalisation


@pytest.mark.parametrize("shape", [(2, 1), (64, 7), (5, 33, 6, 3), (3, 7, 150), (1, 3, 2, 2)])
def test_batch_norm(normal, shape):
    x, g, w, b = 5 + 2 * normal(*shape), normal(*shape), normal(shape[1]), normal(shape[1])
    _, mean, rstd = reference.batch_norm(x, w, b, 1e-5, None)
    check("batch_norm", [x, w, b, 1e-5, None], 1e-5)
    check("batch_norm_grad", [g, x, w, mean, rstd], 1e-5)
    check("batch_norm_relu", [x, w, b, 1e-5, None], 1e-5)
    check("batch_norm_relu_grad", [g, x, w, b, mean, rstd], 1e-5)


@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_relu"])
def test_batch_norm_moves_the_running_statistics(normal, name):
    x, one, zero = 5 + normal(8, 3, 4, 4), np.ones_like(normal(3)), np.zeros_like(normal(3))
    running = [(zero.copy(), one.copy(), 0.1) for _ in range(2)]
    getattr(cpu, name)(x, one, zero, 1e-5, running[0])
    reference.batch_norm(x, one, zero, 1e-5, running[1])
    for got, want in zip(running[0][:2], running[1][:2], strict=True):
        assert got.dtype == x.dtype
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_sums_of_a_large_batch_stay_accurate(monkeypatch):
    """Added one by one in float32, 400,000 numbers near 1 would be off by 1e-4 or more."""
    rng = np.random.default_rng(0)
    x = (1 + 0.01 * rng.standard_normal((400_000, 2))).astype(np.float32)
    one = np.ones(2, np.float32)
    _, mean, rstd = cpu.batch_norm(x, one, one, 0.0, None)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(rstd, 1 / x.std(axis=0, dtype=np.float64), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (5, 33), (200, 8)])
def test_layer_norm(normal, shape):
    x, g, w, b = 5 + 2 * normal(*shape), normal(*shape), normal(shape[1]), normal(shape[1])
    _, mean, rstd = reference.layer_norm(x, w, b, 1e-5)
    check("layer_norm", [x, w, b, 1e-5], 1e-5)
    check("layer_norm_grad", [g, x, w, mean, rstd], 1e-5)


# scattering


@pytest.mark.parametrize("rows, width", [(1, 1), (7, 3), (50, 64)])
def test_embedding_grad(normal, rows, width):
    index = np.arange(60).reshape(4, 15) ** 2 % rows
    check("embedding_grad", [normal(4, 15, width), index, (rows, width)])
    check("embedding_grad", [normal(0, width), index[:0, 0], (rows, width)])


@pytest.mark.parametrize(
    "key",
    [
        2,
        slice(1, 4),
        np.array([3, 1, 3, -1]),
        np.array([[0, 1], [1, 0]]),
        (np.array([3, 1, 3]),),
        (np.array([3, 1, 3]), np.array([0, 0, 0])),
        np.array([True, False, True, False, True]),
        (Ellipsis, 1),
    ],
    ids=str,
)
def test_getitem_grad(normal, key):
    shape = 5, 3, 4
    check("getitem_grad", [normal(*normal(*shape)[key].shape), key, shape], orders=ORDERS[:-1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_gather_grad(normal, axis):
    g = normal(4, 5, 3)
    shape = tuple(9 if i == axis else n for i, n in enumerate(g.shape))
    index = np.arange(60).reshape(4, 5, 3) ** 2 % 9
    check("gather_grad", [g, index, shape, axis], orders=ORDERS[:-1])


# optimizers


@pytest.mark.parametrize("adam_", ADAMS)
@pytest.mark.parametrize("decay", [(0.0, False), (0.1, False), (0.1, True)])
@pytest.mark.parametrize("order", [np.copy, np.asfortranarray, scattered])
def test_adam_over_many_steps(normal, adam_, decay, order):
    """1 - beta2 formed in float32 is off by 1.3e-5: one step does not show it, a hundred do."""
    w, m, v = order(normal(20, 30)), order(np.zeros((20, 30))), order(np.zeros((20, 30)))
    state = [w, m.astype(w.dtype), v.astype(w.dtype)]
    exact = [a.astype(np.float64) for a in state]
    for t in range(1, 101):
        g = normal(20, 30)
        options = None, t, 1e-2, 0.9, 0.999, 1e-8, *decay
        adam_(state[0], g, *state[1:], *options)
        reference.adam_(exact[0], g.astype(np.float64), *exact[1:], *options)
    for got, want in zip(state, exact, strict=True):
        limit = 2e-6 if w.dtype == np.float32 else 1e-13
        assert np.abs(got - want).max() <= limit * max(1, np.abs(want).max())


def test_amsgrad(normal):
    w, g = normal(30), normal(30)
    states = [[w.copy(), np.zeros_like(w), np.zeros_like(w), np.zeros_like(w)] for _ in range(2)]
    for adam_, (w, m, v, v_max) in zip((cpu.adam_, reference.adam_), states, strict=True):
        for t in range(1, 4):
            adam_(w, g / t, m, v, v_max, t, 1e-2, 0.9, 0.999, 1e-8, 0.0, False)
    for got, want in zip(*states, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [(0.0, 0.0, 0.0, False), (0.9, 0.0, 0.1, False), (0.9, 0.2, 0, False), (0.9, 0, 0, True)],
)
def test_sgd(normal, options):
    w = normal(7, 9)
    exact = w.astype(np.float64)
    # whatever the buffer holds before the first step must not matter
    buf = np.full_like(w, np.nan) if options[0] else None
    exact_buf = None if buf is None else buf.astype(np.float64)
    for t in range(1, 8):
        g = normal(9, 7).T
        cpu.sgd_(w, g, buf, t, 0.1, *options)
        reference.sgd_(exact, g.astype(np.float64), exact_buf, t, 0.1, *options)
    np.testing.assert_allclose(w, exact, rtol=0, atol=1e-5 if w.dtype == np.float32 else 1e-13)


# threads, memory, compilation


def results_of_a_step(rng):
    """A result of each kernel that uses threads."""

    def f(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    x, w, options = f(10, 5, 9, 9), f(33, 5, 3, 3), (ONE, ZERO, ONE, 1)
    y = cpu.conv2d(x, w, f(33), *options)
    g = f(*y.shape)
    yield from (y, cpu.conv2d_grad_w(g, x, w.shape, *options))
    yield cpu.conv2d_grad_x(g, w, x.shape, *options)
    x, w = f(10, 16, 9, 9), f(32, 16, 3, 3)
    for conv2d, grad_w, grad_x in zip(
        CONV2DS[-2:], CONV2D_GRAD_WS[-2:], CONV2D_GRAD_XS[-2:], strict=True
    ):
        g = conv2d(x, w, None, *options)
        yield from (g, grad_w(g, x, w.shape, *options), grad_x(g, w, x.shape, *options))
    pool = (2, 2), (2, 2), ZERO, ONE
    pooled, argmax = cpu.max_pool2d(y, *pool, False)
    yield from (pooled, argmax, cpu.max_pool2d_grad(pooled, argmax, y.shape, *pool))
    yield from (cpu.relu(f(50_000)), cpu.relu_grad(f(50_000), f(50_000)))
    table = f(100, 700)
    yield from (cpu.softmax(table, 1), cpu.log_softmax(table, 1))
    yield from cpu.batch_norm(y, f(33), f(33), 1e-5, None)
    yield from cpu.batch_norm_grad(y, y, f(33), f(33), f(33))
    yield from cpu.layer_norm(table, f(700), f(700), 1e-5)
    yield from cpu.layer_norm_grad(f(100, 700), table, f(700), f(100, 1), f(100, 1))
    yield cpu.embedding_grad(f(500, 3), rng.integers(0, 20, 500), (20, 3))
    weights = f(50_000)
    cpu.adam_(weights, f(50_000), f(50_000), abs(f(50_000)), None, 1, 1, 0.9, 0.99, 0, 0, False)
    yield weights
    yield from (matmul(table.T, table) for matmul in MATMULS[:-1])


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")
def test_threads_do_not_change_a_bit(monkeypatch):
    monkeypatch.setattr(_compiled, "PARALLEL_FROM", 0)
    results = []
    try:
        for threads in (1, 2):
            numba.set_num_threads(threads)
            results.append(list(results_of_a_step(np.random.default_rng(0))))
    finally:
        numba.set_num_threads(numba.config.NUMBA_NUM_THREADS)
    for i, (one, two) in enumerate(zip(*results, strict=True)):
        np.testing.assert_array_equal(one, two, err_msg=f"result {i}")


def test_memory_is_used_again_but_never_while_an_array_needs_it():
    size = _arrays.LARGE
    first = _arrays.empty((size // 4,), np.float32)
    view = first[5:9].reshape(2, 2)
    del first
    view[...] = 7
    second = _arrays.empty((size // 4,), np.float32)
    second[...] = 1
    assert (view == 7).all() and not np.shares_memory(view, second)
    del view
    third = _arrays.empty((size,), np.uint8)  # the same number of bytes
    assert not np.shares_memory(second, third)
    at = third.__array_interface__["data"][0]
    del third
    assert _arrays.empty((size // 8,), np.float64).__array_interface__["data"][0] == at


def run(code, **environment):
    import os

    env = os.environ | environment
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_micro_kernel_runs_on_any_processor():
    """Compiled for a processor without AVX or FMA."""
    run(
        """
import numpy as np
from tinygrad_zen.kernels.cpu import _tile
from tinygrad_zen.kernels.cpu.linear import matmul_registers
assert (_tile.VECTOR_BYTES, _tile.REGISTERS) in [(16, 16), (16, 32)]
x = np.random.default_rng(0).standard_normal((20, 33)).astype(np.float32)
np.testing.assert_allclose(matmul_registers(x, x.T), x @ x.T, rtol=1e-4, atol=1e-5)
""",
        NUMBA_CPU_NAME="generic",
    )


def test_compiled_code_is_kept_between_processes():
    code = """
import numpy as np
from tinygrad_zen.kernels import cpu
from tinygrad_zen.kernels.cpu import conv
x = np.ones((2, 3, 6, 6), np.float32)
cpu.conv2d(x, x[:, :, :3, :3], None, (1, 1), (0, 0), (1, 1), 1)
print(sum(conv._direct.serial.stats.cache_misses.values()))
"""
    run(code)
    assert run(code).strip() == "0"


@pytest.mark.parametrize("case", POOLS, ids=str)
def test_relu_max_pool2d(normal, case):
    shape, *options = case
    x = np.rint(2 * normal(*shape))  # with ties, and windows where nothing is positive
    x[:1, 0] = -1
    check("relu_max_pool2d", [x, *options])
    y, argmax = reference.relu_max_pool2d(x, *options)
    check("relu_max_pool2d_grad", [normal(*y.shape), argmax, x.shape, *options[:-1]])


PLAIN = (1, 1), (0, 0), (1, 1), 1
SIDE_BY_SIDE = (2, 2), (2, 2)
WINNERS = {
    "plain": ((3, 32, 9, 10), (16, 3, 3), PLAIN, SIDE_BY_SIDE),
    "more images than parts": ((9, 16, 7, 6), (5, 3, 2), ((1, 1), (1, 2), (1, 1), 1), SIDE_BY_SIDE),
    "steps": ((2, 48, 13, 12), (3, 2, 3), ((2, 1), (0, 1), (1, 2), 1), ((3, 2), (3, 2))),
    "rows in strips": ((2, 16, 6, 200), (2, 3, 3), PLAIN, SIDE_BY_SIDE),
    "windows overlap": ((2, 16, 9, 9), (4, 3, 3), PLAIN, ((2, 2), (1, 1))),
    "few channels": ((9, 3, 9, 10), (32, 3, 3), PLAIN, SIDE_BY_SIDE),
    "one channel, steps": (
        (2, 1, 14, 12),
        (16, 2, 3),
        ((2, 1), (0, 1), (2, 1), 1),
        ((3, 2), (3, 2)),
    ),
    "few channels apart": ((2, 2, 12, 12), (16, 3, 2), ((1, 1), (0, 0), (1, 2), 1), SIDE_BY_SIDE),
    "no whole vectors": ((2, 3, 9, 9), (4, 3, 3), PLAIN, SIDE_BY_SIDE),
    "groups": ((2, 32, 9, 9), (4, 3, 3), ((1, 1), (0, 0), (1, 1), 2), SIDE_BY_SIDE),
    "too many taps": ((2, 16, 9, 9), (4, 7, 7), PLAIN, SIDE_BY_SIDE),
}


@pytest.mark.parametrize("case", WINNERS.values(), ids=WINNERS)
def test_convolutions_are_pooled_as_they_are_computed(normal, case):
    x_shape, filters, options, pool = case
    x, w = normal(*x_shape), normal(filters[0], x_shape[1] // options[-1], *filters[1:])
    window = *pool, (0, 0), (1, 1), False
    for b in (None, normal(filters[0])):
        z = reference.conv2d(*in_double([x, w]), None if b is None else b.astype(float), *options)
        expected = reference.relu_max_pool2d(z, *window)
        for order in [np.copy, *ORDERS]:
            args = converted([x, w, b, *options, *pool], order)
            assert_equal(cpu.conv2d_relu_max_pool2d, args, expected)


@pytest.mark.parametrize("case", WINNERS.values(), ids=WINNERS)
def test_gradients_of_winners(normal, case):
    """The zeros between the winners say nothing; a filter may have no winner at all."""
    x_shape, filters, options, pool = case
    groups = options[-1]
    x, w = normal(*x_shape), normal(filters[0], x_shape[1] // groups, *filters[1:])
    z = reference.conv2d(x, w, None, *options)
    z[:, 1] = -1
    y, argmax = reference.relu_max_pool2d(z, *pool, (0, 0), (1, 1), False)
    g = normal(*y.shape)
    sent = gz, gb = reference.relu_max_pool2d_grad(g, argmax, z.shape, *pool, (0, 0), (1, 1))
    gz, x64, w64 = in_double([gz, x, w])
    gw = reference.conv2d_grad_w(gz, x64, w.shape, *options)
    gx = reference.conv2d_grad_x(gz, w64, x.shape, *options)
    for known, order in itertools.product((sent, None), [np.copy, *ORDERS]):
        args = converted([known, g, argmax, z.shape, x, w.shape, *options, *pool], order)
        assert_equal(cpu.conv2d_grad_w_of_winners, args, (gw, gb))
        args = converted([known, g, argmax, z.shape, w, x.shape, *options, *pool], order)
        assert_equal(lambda *args: cpu.conv2d_grad_x_of_winners(*args)[0], args, gx)
    # winners as somebody else's pooling may count them
    known, of, options = None, argmax.astype(np.int64), (*options, *pool)
    args = [known, g, of, z.shape, x, w.shape, *options]
    assert_equal(cpu.conv2d_grad_w_of_winners, args, (gw, gb))
    args = [known, g, of, z.shape, w, x.shape, *options]
    assert_equal(lambda *args: cpu.conv2d_grad_x_of_winners(*args)[0], args, gx)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_stays_in_the_process():
    """Arrays that NumPy makes and frees again and again cost no new pages from the system."""
    faults = run(
        """
import resource
import numpy as np
from tinygrad_zen.kernels.cpu import _arrays
x = _arrays.empty((16, 128, 128), np.float32)
x[...] = 1

def faults(n):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n):
        (x - x) * (x + x) + x
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(3)
print(faults(10))
"""
    )
    assert int(faults) < 100  # a page fault for each page of each array would be some 10,000


def test_scipy_is_loaded_when_compiled_code_needs_it():
    """Not by the backend, which saves 16 MB; np.dot of somebody's own compiled function has it load."""
    before, product, after = run(
        """
import sys
import numba, numpy as np, tinygrad_zen as tz
tz.set_backend("numba")
tz.tensor([1.0]).tanh()
print("scipy.linalg" in sys.modules)
print(numba.njit(lambda x: np.dot(x, x))(np.full((2, 2), 3.0))[0, 0])
print("scipy.linalg" in sys.modules)
"""
    ).split()
    assert (before, product, after) == ("False", "18.0", "True")


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_images_are_turned_to_channels_last(dtype):
    for shape in [
        (2, 3, 7, 5),
        (3, 16, 4, 4),
        (2, 48, 5, 5),
        (1, 20, 1, 3),
        (2, 1, 3, 3),
        (0, 3, 2, 2),
    ]:
        x = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
        turned = _images.pixels(x)
        assert turned.flags.carray and turned.dtype == dtype
        np.testing.assert_array_equal(turned, x.transpose(0, 2, 3, 1))
        assert _images.pixels(turned.transpose(0, 3, 1, 2)).base is not None  # no copy: they lie so


def test_images_cut_from_larger_ones_are_convolved_where_they_lie():
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((3, 13, 14, 16)).transpose(0, 3, 1, 2)
    x = whole[:, :, :11, :12]
    lying, size = _images.corner(x)
    assert np.shares_memory(lying, whole) and lying.shape == (3, 13, 14, 16) and size == (11, 12)
    w, options = rng.standard_normal((8, 16, 3, 3)), ((1, 1), (1, 0), (1, 1), 1)
    y = reference.conv2d(x, w, None, *options)
    np.testing.assert_allclose(conv2d_winograd(x, w, None, *options), y, atol=1e-12)
    g = rng.standard_normal(y.shape)
    expected = reference.conv2d_grad_w(g, x, w.shape, *options)
    ours = conv2d_grad_w_winograd(g, x, w.shape, *options)
    np.testing.assert_allclose(ours, expected, atol=1e-11)
    repeated = [
        np.broadcast_to(whole[:, :, :1], whole.shape),
        np.broadcast_to(whole[:1], whole.shape),
    ]
    backwards = whole[:, :, ::-1], whole[::-1]
    # not upper left parts
    for other in (whole[:, :, 1:, 1:], whole[:, :8], whole[::2], x[:0], *repeated, *backwards):
        lying, size = _images.corner(other)
        assert size == other.shape[2:]
        part = lying[:, : size[0], : size[1]].transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(part, other)
