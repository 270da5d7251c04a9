"""Every CUDA kernel, and every rung of its ladders, against the reference, in Numba's simulator.

test_cudasim.py runs this file with the simulator switched on; by hand:

    NUMBA_ENABLE_CUDASIM=1 python -m pytest tests/test_cuda_kernels.py
"""

import os

import numpy as np
import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    pytest.skip("needs NUMBA_ENABLE_CUDASIM=1; see test_cudasim.py", allow_module_level=True)

import tinygrad_zen as tz
import tinygrad_zen.nn as nn
import tinygrad_zen.nn.functional as F
import tinygrad_zen.optim as optim
from tinygrad_zen.kernels import cuda, reference
from tinygrad_zen.kernels.cuda.activation import SOFTMAX_GRADS, SOFTMAXES
from tinygrad_zen.kernels.cuda.conv import CONV_GRAD_WS, CONV_GRAD_XS, CONVS
from tinygrad_zen.kernels.cuda.embedding import EMBEDDING_GRADS
from tinygrad_zen.kernels.cuda.linear import MATMULS
from tinygrad_zen.kernels.cuda.loss import CROSS_ENTROPIES
from tinygrad_zen.kernels.cuda.optim import ADAMS
from tinygrad_zen.kernels.cuda.pool import MAX_POOLS

TOLERANCE = {"float64": 1e-11, "float32": 2e-5}
FLOATS = pytest.mark.parametrize("dtype", ["float64", "float32"])


@pytest.fixture
def draw():
    """draw(shape, ...): a normal array; last: (N, C, H, W) with the channels last in memory; gaps: every
    second number of a larger array."""
    rng = np.random.default_rng(7)

    def array(*shape, dtype="float64", last=False, gaps=False):
        if gaps:
            return array(*(2 * n for n in shape), dtype=dtype)[
                tuple(slice(1, None, 2) for _ in shape)
            ]
        if last:
            n, c, h, w = shape
            return array(n, h, w, c, dtype=dtype).transpose(0, 3, 1, 2)
        return rng.normal(size=shape).astype(dtype)

    return array


def agree(ours, theirs, dtype):
    """One result, or a tuple of them, in shape, dtype and value."""
    ours, theirs = (r if isinstance(r, tuple) else (r,) for r in (ours, theirs))
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype, (a.shape, b.shape, a.dtype, b.dtype)
        tolerance = TOLERANCE[dtype]
        size = np.abs(b[np.isfinite(b)]).max(initial=1)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * size)


# --- products ----------------------------------------------------------------------------------------

SHAPES = [
    ((5, 7), (7, 3)),  # smaller than a tile, odd
    ((33, 2), (2, 17)),  # a tile and a bit
    ((4, 8), (8, 12)),  # rows in fours: the 16-byte loads
    ((2, 1, 5, 3), (3, 3, 4)),  # both stacks are broadcast
    ((3, 6, 4), (4, 5)),  # a stack against one matrix
    ((1, 1), (1, 1)),
    ((3, 0), (0, 2)),  # sums of nothing
    ((0, 3), (3, 2)),
]


@FLOATS
@pytest.mark.parametrize("matmul", [*MATMULS, cuda.matmul], ids=lambda f: f.__name__)
def test_matmul(matmul, dtype, draw):
    for a, b in SHAPES:
        x, y = draw(*a, dtype=dtype), draw(*b, dtype=dtype)
        agree(matmul(x, y), x @ y, dtype)
    x, y = draw(9, 8, dtype=dtype), draw(12, 9, dtype=dtype)
    agree(matmul(x.T, y.T), x.T @ y.T, dtype)
    x, y = draw(6, 5, dtype=dtype, gaps=True), draw(5, 6, dtype=dtype, gaps=True)
    agree(matmul(x, y), x @ y, dtype)


def test_matmul_of_vectors(draw):
    x, y = draw(3, 4), draw(4)
    agree(cuda.matmul(x, y), x @ y, "float64")
    agree(cuda.matmul(y, x.T), y @ x.T, "float64")
    assert abs(cuda.matmul(y, y) - y @ y) < 1e-12


def test_matmul_of_other_kinds_is_left_to_the_library(draw):
    x = np.arange(6).reshape(2, 3)
    agree(cuda.matmul(x, x.T), x @ x.T, "float64")
    y = draw(3, 2, dtype="float32")
    assert cuda.matmul(x, y).dtype == np.float64


@FLOATS
def test_linear(dtype, draw):
    for shape, out in (((6, 9), 10), ((2, 3, 8), 4), ((5,), 3), ((0, 4), 3)):
        x, w, b = (
            draw(*shape, dtype=dtype),
            draw(out, shape[-1], dtype=dtype),
            draw(out, dtype=dtype),
        )
        agree(cuda.linear(x, w, b), reference.linear(x, w, b), dtype)
        agree(cuda.linear(x, w, None), reference.linear(x, w, None), dtype)


# --- convolution -------------------------------------------------------------------------------------

# images, filters, stride, padding, dilation, groups
CONVOLUTIONS = [
    ((1, 3, 5, 4), (5, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((2, 4, 5, 6), (8, 4, 3, 2), (2, 3), (1, 0), (1, 2), 1),  # channels in fours, strides, dilation
    ((1, 8, 3, 4), (8, 4, 3, 2), (1, 1), (1, 1), (1, 1), 2),  # two groups
    ((1, 3, 4, 4), (6, 1, 2, 2), (2, 2), (1, 1), (1, 1), 3),  # one channel a group
    ((2, 2, 3, 3), (3, 2, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    ((0, 2, 3, 3), (3, 2, 2, 2), (1, 1), (0, 0), (1, 1), 1),
]


@FLOATS
@pytest.mark.parametrize("conv2d", [*CONVS, cuda.conv2d], ids=lambda f: f.__name__)
def test_conv2d(conv2d, dtype, draw):
    for last, (images, filters, *options) in zip([True, False] * 3, CONVOLUTIONS, strict=True):
        x, w = draw(*images, dtype=dtype, last=last), draw(*filters, dtype=dtype)
        b = draw(filters[0], dtype=dtype) if filters[1] > 1 else None
        agree(conv2d(x, w, b, *options), reference.conv2d(x, w, b, *options), dtype)


@FLOATS
@pytest.mark.parametrize("grad", [*CONV_GRAD_XS, cuda.conv2d_grad_x], ids=lambda f: f.__name__)
def test_conv2d_grad_x(grad, dtype, draw):
    for images, filters, *options in CONVOLUTIONS:
        x, w = draw(*images, dtype=dtype), draw(*filters, dtype=dtype)
        g = draw(*reference.conv2d(x, w, None, *options).shape, dtype=dtype)
        arguments = g, w, images, *options
        agree(grad(*arguments), reference.conv2d_grad_x(*arguments), dtype)


@FLOATS
@pytest.mark.parametrize("grad", [*CONV_GRAD_WS, cuda.conv2d_grad_w], ids=lambda f: f.__name__)
def test_conv2d_grad_w(grad, dtype, draw):
    stretched = (
        (2, 1, 10, 9),
        (2, 1, 3, 3),
        (1, 1),
        (1, 1),
        (1, 1),
        1,
    )  # pixels enough for two blocks
    for images, filters, *options in (*CONVOLUTIONS[:5], stretched):
        x, w = draw(*images, dtype=dtype), draw(*filters, dtype=dtype)
        g = draw(*reference.conv2d(x, w, None, *options).shape, dtype=dtype)
        arguments = g, x, filters, *options
        agree(grad(*arguments), reference.conv2d_grad_w(*arguments), dtype)


# --- pooling -----------------------------------------------------------------------------------------

# images, kernel, stride, padding, dilation, ceil_mode
POOLS = [
    ((2, 3, 5, 6), (2, 2), (2, 2), (0, 0), (1, 1), False),
    ((1, 4, 7, 5), (3, 2), (2, 1), (1, 1), (1, 2), True),
    ((2, 1, 4, 4), (3, 3), (1, 1), (1, 1), (1, 1), False),  # windows overlap
]


@FLOATS
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("max_pool2d", [*MAX_POOLS, cuda.max_pool2d], ids=lambda f: f.__name__)
def test_max_pool2d(max_pool2d, last, dtype, draw):
    for images, *options in POOLS:
        x = draw(*images, dtype=dtype, last=last)
        agree(max_pool2d(x, *options), reference.max_pool2d(x, *options), dtype)
    ties = np.round(x)
    agree(max_pool2d(ties, *options), reference.max_pool2d(ties, *options), dtype)
    x[0, 0, 1, 1] = np.nan
    agree(max_pool2d(x, *options), reference.max_pool2d(x, *options), dtype)


@FLOATS
@pytest.mark.parametrize("last", [False, True])
def test_max_pool2d_gradients(last, dtype, draw):
    for images, *options in POOLS:
        x = draw(*images, dtype=dtype, last=last)
        y, argmax = reference.max_pool2d(x, *options)
        g, options = draw(*y.shape, dtype=dtype), options[:4]
        arguments = g, argmax, images, *options
        agree(cuda.max_pool2d_grad(*arguments), reference.max_pool2d_grad(*arguments), dtype)
        arguments = x, argmax, *options
        agree(cuda.max_pool2d_pick(*arguments), reference.max_pool2d_pick(*arguments), dtype)


@FLOATS
@pytest.mark.parametrize("include_pad", [False, True])
def test_avg_pool2d(include_pad, dtype, draw):
    for last, (images, kernel, stride, padding, _, ceil_mode) in zip(
        [True, False, True], POOLS, strict=True
    ):
        x = draw(*images, dtype=dtype, last=last)
        options = kernel, stride, padding, ceil_mode, include_pad
        y = reference.avg_pool2d(x, *options)
        agree(cuda.avg_pool2d(x, *options), y, dtype)
        g = draw(*y.shape, dtype=dtype)
        expected = reference.avg_pool2d_grad(g, images, *options)
        agree(cuda.avg_pool2d_grad(g, images, *options), expected, dtype)


def test_results_of_pooling_keep_the_order_of_memory(draw):
    for last in (False, True):
        x = draw(2, 4, 4, 6, last=last)
        for y in (
            cuda.max_pool2d(x, *POOLS[0][1:])[0],
            cuda.avg_pool2d(x, *POOLS[0][1:4], False, True),
        ):
            assert (y.strides[1] == y.itemsize) == last


# --- elementwise, softmax, losses --------------------------------------------------------------------

ONE = ["sigmoid", "silu", "gelu", "gelu_tanh"]
ONE_AND_NUMBER = [("leaky_relu", 0.1), ("elu", 1.5), ("softplus", 2.0)]
GRADIENTS = ["relu_grad", "sigmoid_grad", "tanh_grad", "silu_grad", "gelu_grad", "gelu_tanh_grad"]
GRADIENTS_AND_NUMBER = [("leaky_relu_grad", 0.1), ("elu_grad", 1.5)]


@FLOATS
def test_elementwise(dtype, draw):
    x, g = draw(3, 4, 5, dtype=dtype).transpose(2, 0, 1), draw(5, 3, 4, dtype=dtype)
    calls = [(name, x) for name in ONE]
    calls += [(name, x, number) for name, number in ONE_AND_NUMBER]
    calls += [(name, g, x) for name in GRADIENTS]
    calls += [(name, g, x, number) for name, number in GRADIENTS_AND_NUMBER]
    for name, *arguments in calls:
        result = getattr(cuda, name)(*arguments)
        agree(result, getattr(reference, name)(*arguments), dtype)
        if arguments[0] is x:
            assert result.strides == x.strides, f"{name} keeps the order of memory"


def test_elementwise_at_the_ends():
    x = np.array([-1e4, -100.0, 0.0, 100.0, 1e4, np.inf, -np.inf], "float32")
    for name, *number in (("sigmoid",), ("softplus", 1.0), ("elu", 1.0), ("leaky_relu", 0.1)):
        expected = getattr(reference, name)(x, *number)
        np.testing.assert_allclose(getattr(cuda, name)(x, *number), expected, atol=1e-30)


@FLOATS
def test_a_gradient_that_is_one_number_is_broadcast(dtype, draw):
    x, t = draw(4, 3, dtype=dtype), (draw(4, 3) > 0).astype(dtype)
    g = np.asarray(0.25, dtype)
    agree(cuda.bce_with_logits_grad(g, x, t), reference.bce_with_logits_grad(g, x, t), dtype)


@FLOATS
def test_binary_cross_entropies(dtype, draw):
    x, t, g = draw(4, 5, dtype=dtype), (draw(4, 5) > 0).astype(dtype), draw(4, 5, dtype=dtype)
    p = reference.sigmoid(x)
    p[0, :2], t[0, :2] = (0, 1), (1, 0)
    agree(cuda.bce_with_logits(x, t), reference.bce_with_logits(x, t), dtype)
    agree(cuda.bce_with_logits_grad(g, x, t), reference.bce_with_logits_grad(g, x, t), dtype)
    agree(cuda.binary_cross_entropy(p, t), reference.binary_cross_entropy(p, t), dtype)
    p = np.clip(p, 0.01, 0.99).astype(dtype)
    expected = reference.binary_cross_entropy_grad(g, p, t)
    agree(cuda.binary_cross_entropy_grad(g, p, t), expected, dtype)


@FLOATS
@pytest.mark.parametrize("softmax", SOFTMAXES, ids=lambda f: f.__name__)
def test_softmax_rungs(softmax, dtype, draw):
    for shape in ((3, 5), (2, 21), (5, 1)):
        x = 10 * draw(*shape, dtype=dtype)
        x[0, :1] = -np.inf if shape[1] > 1 else 0
        agree(softmax(x), reference.softmax(x, 1), dtype)
        agree(softmax(x, log=True)[1:], reference.log_softmax(x, 1)[1:], dtype)


@FLOATS
def test_softmax_along_any_axis(dtype, draw):
    x, g = draw(3, 4, 2, dtype=dtype), draw(3, 4, 2, dtype=dtype)
    for axis in (0, 1, -1):
        for name in ("softmax", "log_softmax"):
            y = getattr(reference, name)(x, axis)
            agree(getattr(cuda, name)(x, axis), y, dtype)
            expected = getattr(reference, f"{name}_grad")(g, y, axis)
            agree(getattr(cuda, f"{name}_grad")(g, y, axis), expected, dtype)


@FLOATS
@pytest.mark.parametrize("grad", SOFTMAX_GRADS, ids=lambda f: f.__name__)
def test_softmax_grad_rungs(grad, dtype, draw):
    g, y = draw(3, 9, dtype=dtype), reference.softmax(draw(3, 9, dtype=dtype), 1)
    for log in (False, True):
        expected = (reference.log_softmax_grad if log else reference.softmax_grad)(g, y, 1)
        agree(grad(g, y, log), expected, dtype)


@FLOATS
@pytest.mark.parametrize("run", [*CROSS_ENTROPIES, cuda.cross_entropy], ids=lambda f: f.__name__)
def test_cross_entropy(run, dtype, draw):
    x, labels, g = draw(5, 7, dtype=dtype), np.array([0, 6, 3, 3, 1]), draw(5, dtype=dtype)
    for weight in (None, np.abs(draw(7, dtype=dtype))):
        for smoothing in (0.0, 0.1):
            losses, logp = reference.cross_entropy(x, labels, weight, smoothing)
            agree(run(x, labels, weight, smoothing), (losses, logp), dtype)
            arguments = g, logp, labels, weight, smoothing
            expected = reference.cross_entropy_grad(*arguments)
            agree(cuda.cross_entropy_grad(*arguments), expected, dtype)


# --- normalisation, embedding ------------------------------------------------------------------------


@FLOATS
def test_batch_norm(dtype, draw):
    for shape, last in (
        ((3, 5, 2, 2), True),
        ((2, 3, 4, 5), False),
        ((40, 6), False),
        ((2, 1, 3), False),
    ):
        x = draw(*shape, dtype=dtype, last=last) + 100 if last else draw(*shape, dtype=dtype)
        w, b = draw(shape[1], dtype=dtype), draw(shape[1], dtype=dtype)
        running = [(draw(shape[1], dtype=dtype), np.abs(draw(shape[1], dtype=dtype)), 0.1)]
        running.append(tuple(np.copy(r) if i < 2 else r for i, r in enumerate(running[0])))
        expected = reference.batch_norm(x, w, b, 1e-5, running[0])
        if last and dtype == "float32":  # far from 0 the digits are few: judge by double precision
            expected = reference.batch_norm(x.astype("float64"), w, b, 1e-5, None)
            expected = tuple(e.astype(dtype) for e in expected)
            ours = cuda.batch_norm(x, w, b, 1e-5, running[1])
            for a, e in zip(ours, expected, strict=True):
                np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-3)
            continue
        agree(cuda.batch_norm(x, w, b, 1e-5, running[1]), expected, dtype)
        agree(running[1][:2], running[0][:2], dtype)
        agree(cuda.batch_norm(x, w, b, 1e-5, None)[0], expected[0], dtype)
        g = draw(*shape, dtype=dtype)
        arguments = g, x, w, *expected[1:]
        agree(cuda.batch_norm_grad(*arguments), reference.batch_norm_grad(*arguments), dtype)
        arguments = x, w, b, 1e-5, None
        agree(cuda.batch_norm_relu(*arguments), reference.batch_norm_relu(*arguments), dtype)
        arguments = g, x, w, b, *expected[1:]
        expected = reference.batch_norm_relu_grad(*arguments)
        agree(cuda.batch_norm_relu_grad(*arguments), expected, dtype)


@FLOATS
def test_layer_norm(dtype, draw):
    for shape in ((3, 5), (2, 19), (18, 6)):
        x, g = draw(*shape, dtype=dtype), draw(*shape, dtype=dtype)
        w, b = draw(shape[1], dtype=dtype), draw(shape[1], dtype=dtype)
        expected = reference.layer_norm(x, w, b, 1e-5)
        agree(cuda.layer_norm(x, w, b, 1e-5), expected, dtype)
        arguments = g, x, w, *expected[1:]
        agree(cuda.layer_norm_grad(*arguments), reference.layer_norm_grad(*arguments), dtype)


@FLOATS
@pytest.mark.parametrize("grad", [*EMBEDDING_GRADS, cuda.embedding_grad], ids=lambda f: f.__name__)
def test_embedding_grad(grad, dtype, draw):
    index = np.array([[3, 0, 3], [5, 3, 0]])
    g = draw(2, 3, 4, dtype=dtype)
    agree(grad(g, index, (7, 4)), reference.embedding_grad(g, index, (7, 4)), dtype)


# --- optimizers --------------------------------------------------------------------------------------


def same_steps(ours, theirs, state, options, dtype, draw):
    """Three steps of both from one start, on odd sizes in two orders of memory."""
    for shape in ((3, 5), (8,), ()):
        start = [draw(*shape, dtype=dtype) for _ in range(1 + state)]
        start[1:] = [np.abs(a) for a in start[1:]]
        runs = [[np.array(a.T, order="C").T for a in start] for _ in range(2)]
        for t in (1, 2, 3):
            g = draw(*shape, dtype=dtype)
            for step, arrays in zip((ours, theirs), runs, strict=True):
                step(arrays, g, t, **options)
        agree(tuple(runs[0]), tuple(runs[1]), dtype)


@FLOATS
@pytest.mark.parametrize("adam_", [*ADAMS, cuda.adam_], ids=lambda f: f.__name__)
def test_adam(adam_, dtype, draw):
    def stepper(function, with_largest):
        def step(arrays, g, t, **options):
            w, m, v, *rest = arrays
            function(
                w, g, m, v, rest[0] if with_largest else None, t, 0.1, 0.9, 0.99, 1e-8, **options
            )

        return step

    for with_largest in (False, True):
        for options in (
            {"weight_decay": 0.0, "decoupled": False},
            {"weight_decay": 0.1, "decoupled": False},
            {"weight_decay": 0.1, "decoupled": True},
        ):
            ours, theirs = stepper(adam_, with_largest), stepper(reference.adam_, with_largest)
            same_steps(ours, theirs, 2 + with_largest, options, dtype, draw)


@FLOATS
def test_sgd(dtype, draw):
    def stepper(function, buffer):
        def step(arrays, g, t, **options):
            function(arrays[0], g, arrays[1] if buffer else None, t, 0.1, **options)

        return step

    for buffer in (False, True):
        for nesterov in (False, True):
            options = {
                "momentum": 0.9 * buffer,
                "dampening": 0.0 if nesterov else 0.2,
                "weight_decay": 0.1,
                "nesterov": nesterov,
            }
            ours, theirs = stepper(cuda.sgd_, buffer), stepper(reference.sgd_, buffer)
            same_steps(ours, theirs, int(buffer), options, dtype, draw)


def test_optimizers_leave_arrays_with_gaps_to_the_library(draw):
    arrays = [draw(4, 3, gaps=True) for _ in range(4)]
    arrays[3] = np.abs(arrays[3])
    copies = [a.copy() for a in arrays]
    for function, (w, g, m, v) in ((cuda.adam_, arrays), (reference.adam_, copies)):
        function(w, g, m, v, None, 1, 0.1, 0.9, 0.99, 1e-8, 0.0, False)
    agree(tuple(arrays), tuple(copies), "float64")


def test_a_network_learns_as_on_numpy():
    x, labels = np.random.default_rng(0).normal(size=(8, 1, 8, 8)), np.arange(8) % 3

    def losses(backend):
        tz.seed(0)
        with tz.using(backend):
            net = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
            )
            adam = optim.Adam(net.parameters(), lr=0.02)
            for _ in range(3):
                loss = F.cross_entropy(net(tz.tensor(x, dtype="float32")), labels)
                adam.zero_grad()
                loss.backward()
                adam.step()
                yield loss.item()

    np.testing.assert_allclose(list(losses("cudasim")), list(losses("numpy")), rtol=1e-6)
