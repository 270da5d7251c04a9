"""Pooling: kernels against loops and PyTorch, ops against PyTorch, rules by their messages."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_zen import grad, ops, tensor
from tinygrad_zen.kernels import reference

few = settings(deadline=None, max_examples=60)


def normal(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def with_ties(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 3, shape).astype(np.float64)


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def torch_of(array):
    torch = pytest.importorskip("torch")
    return torch.tensor(array, requires_grad=True)


def loops(x, winner, kernel, stride, padding, dilation, out):
    """A pooled image from the definition: winner(the window's elements that are no padding)."""
    n, c, h, w = x.shape
    y = np.zeros((n, c, *out))
    for image, channel, r, s in itertools.product(*map(range, y.shape)):
        rows = (r * stride[0] - padding[0] + i * dilation[0] for i in range(kernel[0]))
        columns = [s * stride[1] - padding[1] + j * dilation[1] for j in range(kernel[1])]
        y[image, channel, r, s] = winner(
            [x[image, channel, i, j] for i in rows for j in columns if 0 <= i < h and 0 <= j < w]
        )
    return y


@st.composite
def poolings(draw, dilated):
    """(x, kernel, stride, padding, dilation, ceil_mode) where at least one window fits."""

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, stride = pair(1, 3), pair(1, 4)
    dilation = pair(1, 2) if dilated else (1, 1)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    room = pair(0, 6)
    # images smaller than the dilation can fall between the taps, so that a window sees only padding
    size = [
        max(d, d * (k - 1) + 1 - 2 * p + extra)
        for k, p, d, extra in zip(kernel, padding, dilation, room, strict=True)
    ]
    values = draw(st.sampled_from([normal, with_ties]))
    x = values(
        draw(st.integers(1, 2)), draw(st.integers(1, 3)), *size, seed=draw(st.integers(0, 99))
    )
    return x, kernel, stride, padding, dilation, draw(st.booleans())


@given(poolings(dilated=True))
@settings(deadline=None, max_examples=25)
def test_max_pool2d_equals_its_definition(case):
    x, *window, ceil_mode = case
    y, _ = reference.max_pool2d(x, *window, ceil_mode)
    np.testing.assert_array_equal(y, loops(x, max, *window, y.shape[2:]))


@given(poolings(dilated=False))
@settings(deadline=None, max_examples=25)
def test_avg_pool2d_equals_its_definition(case):
    x, kernel, stride, padding, dilation, ceil_mode = case
    y = reference.avg_pool2d(x, kernel, stride, padding, ceil_mode, False)
    expected = loops(x, np.mean, kernel, stride, padding, dilation, y.shape[2:])
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12)


@given(poolings(dilated=True))
@few
def test_max_pool2d_equals_torch(case):
    """Ties included: the first of equal winners receives the gradient."""
    torch = pytest.importorskip("torch")
    x, *window, ceil_mode = case
    tx = torch_of(x)
    ty = torch.nn.functional.max_pool2d(tx, *window, ceil_mode=ceil_mode)
    y, argmax = reference.max_pool2d(x, *window, ceil_mode)
    np.testing.assert_array_equal(y, ty.detach().numpy())
    np.testing.assert_array_equal(reference.max_pool2d_pick(x, argmax, *window), y)

    g = normal(*y.shape, seed=7)
    (tgx,) = torch.autograd.grad(ty, tx, torch.tensor(g))
    gx = reference.max_pool2d_grad(g, argmax, x.shape, *window)
    np.testing.assert_allclose(gx, tgx.numpy(), rtol=0, atol=1e-12)


@given(poolings(dilated=False), st.booleans())
@few
def test_avg_pool2d_equals_torch(case, count_include_pad):
    torch = pytest.importorskip("torch")
    x, kernel, stride, padding, _, ceil_mode = case
    options = kernel, stride, padding, ceil_mode, count_include_pad
    tx = torch_of(x)
    ty = torch.nn.functional.avg_pool2d(tx, *options)
    y = reference.avg_pool2d(x, *options)
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=0, atol=1e-12)

    g = normal(*y.shape, seed=7)
    (tgx,) = torch.autograd.grad(ty, tx, torch.tensor(g))
    gx = reference.avg_pool2d_grad(g, x.shape, *options)
    np.testing.assert_allclose(gx, tgx.numpy(), rtol=0, atol=1e-12)


@given(poolings(dilated=True), st.booleans())
@few
def test_gradients_are_adjoint(case, count_include_pad):
    """<pick(x), g> = <x, max_grad(g)> and <avg(x), g> = <x, avg_grad(g)>."""
    x, kernel, stride, padding, dilation, ceil_mode = case
    window = kernel, stride, padding, dilation
    y, argmax = reference.max_pool2d(x, *window, ceil_mode)
    g = normal(*y.shape, seed=7)
    gx = reference.max_pool2d_grad(g, argmax, x.shape, *window)
    np.testing.assert_allclose(np.vdot(x, gx), np.vdot(y, g), rtol=1e-10, atol=1e-10)

    options = kernel, stride, padding, ceil_mode, count_include_pad
    y = reference.avg_pool2d(x, *options)
    g = normal(*y.shape, seed=8)
    gx = reference.avg_pool2d_grad(g, x.shape, *options)
    np.testing.assert_allclose(np.vdot(x, gx), np.vdot(y, g), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [channels_last, np.asfortranarray])
@pytest.mark.parametrize("stride", [(1, 2), (3, 3)])
def test_memory_order_changes_nothing(order, stride):
    x = normal(2, 3, 7, 8)
    window = (2, 3), stride, (1, 1), (1, 1)
    y, argmax = reference.max_pool2d(x, *window, True)
    oy, oargmax = reference.max_pool2d(order(x), *window, True)
    np.testing.assert_array_equal(oy, y)
    np.testing.assert_array_equal(oargmax, argmax)
    np.testing.assert_array_equal(
        reference.max_pool2d_grad(order(y), oargmax, x.shape, *window),
        reference.max_pool2d_grad(y, argmax, x.shape, *window),
    )
    options = *window[:3], True, False
    mean = reference.avg_pool2d(x, *options)
    np.testing.assert_allclose(reference.avg_pool2d(order(x), *options), mean, atol=1e-12)
    np.testing.assert_allclose(
        reference.avg_pool2d_grad(order(mean), x.shape, *options),
        reference.avg_pool2d_grad(mean, x.shape, *options),
        atol=1e-12,
    )


def test_memory_order_is_kept():
    x = channels_last(normal(2, 3, 8, 8))
    window = (2, 2), (2, 2), (0, 0)
    y, argmax = reference.max_pool2d(x, *window, (1, 1), False)
    results = [
        y,
        argmax,
        reference.max_pool2d_grad(y, argmax, x.shape, *window, (1, 1)),
        reference.avg_pool2d(x, *window, False, True),
        reference.avg_pool2d_grad(y, x.shape, *window, False, True),
    ]
    assert all(a.transpose(0, 2, 3, 1).flags.c_contiguous for a in results)


def test_dtype_is_kept():
    x = normal(2, 3, 8, 8, dtype="float32")
    window = (3, 3), (2, 2), (1, 1)
    y, argmax = reference.max_pool2d(x, *window, (1, 1), False)
    assert argmax.dtype == np.uint8
    results = [
        y,
        reference.max_pool2d_grad(y, argmax, x.shape, *window, (1, 1)),
        reference.max_pool2d_pick(x, argmax, *window, (1, 1)),
        reference.avg_pool2d(x, *window, False, False),
        reference.avg_pool2d_grad(y, x.shape, *window, False, False),
    ]
    assert {a.dtype for a in results} == {np.dtype(np.float32)}


def test_argmax_counts_beyond_a_byte():
    x = np.zeros((1, 1, 20, 20))
    x[0, 0, 19, 3] = 1
    _, argmax = reference.max_pool2d(x, (20, 20), (20, 20), (0, 0), (1, 1), False)
    assert argmax.item() == 383


def test_max_pool2d_hands_on_nan():
    x = np.zeros((1, 1, 2, 4))
    x[0, 0, 0, 1] = np.nan
    y, _ = reference.max_pool2d(x, (2, 2), (2, 2), (0, 0), (1, 1), False)
    np.testing.assert_array_equal(y[0, 0], [[np.nan, 0.0]])


# ops


def check_against_torch(name, x, args, options):
    """Value, gradient and second derivative of the op against torch.nn.functional's function."""
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn.functional, name)
    a, t = tensor(x, requires_grad=True), torch_of(x)
    y, ty = getattr(ops, name)(a, **args, **options), theirs(t, **args, **options)
    np.testing.assert_allclose(y.numpy(), ty.detach().numpy(), rtol=0, atol=1e-12)

    g = normal(*y.shape, seed=5)
    first = grad((y * y * y * g).sum(), a, create_graph=True)
    (t_first,) = torch.autograd.grad((ty**3 * torch.tensor(g)).sum(), t, create_graph=True)
    np.testing.assert_allclose(first.numpy(), t_first.detach().numpy(), rtol=0, atol=1e-10)

    second = grad((first * first * first).sum(), a, create_graph=True)
    (t_second,) = torch.autograd.grad((t_first**3).sum(), t, create_graph=True)
    np.testing.assert_allclose(second.numpy(), t_second.detach().numpy(), rtol=1e-9, atol=1e-9)

    third = grad((second * second).sum(), a)
    (t_third,) = torch.autograd.grad((t_second**2).sum(), t)
    np.testing.assert_allclose(third.numpy(), t_third.numpy(), rtol=1e-9, atol=1e-9)


WINDOWS = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True},
]


@pytest.mark.parametrize(
    "args", [*WINDOWS, {"kernel_size": 3, "stride": 1, "dilation": 2}], ids=str
)
def test_max_pool(args):
    check_against_torch("max_pool2d", with_ties(2, 3, 7, 9) + 1, args, {})
    check_against_torch("max_pool1d", normal(2, 3, 9), args, {})


@pytest.mark.parametrize("args", WINDOWS, ids=str)
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_avg_pool(args, count_include_pad):
    options = {"count_include_pad": count_include_pad}
    check_against_torch("avg_pool2d", normal(2, 3, 7, 9), args, options)
    check_against_torch("avg_pool1d", normal(2, 3, 9), args, options)


@pytest.mark.parametrize("output_size", [1, 3, (2, 3), (6, 9), (4, 5), (None, 2), (7, 11)], ids=str)
@pytest.mark.parametrize("name", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_adaptive_pool2d(name, output_size):
    check_against_torch(name, normal(2, 3, 6, 9), {"output_size": output_size}, {})


@pytest.mark.parametrize("output_size", [1, 3, 5])
@pytest.mark.parametrize("name", ["adaptive_avg_pool1d", "adaptive_max_pool1d"])
def test_adaptive_pool1d(name, output_size):
    check_against_torch(name, normal(2, 3, 9), {"output_size": output_size}, {})


@pytest.mark.parametrize("output_size", [2, 3])
def test_adaptive_max_gives_ties_to_the_first(output_size):
    x = tensor(np.ones((1, 1, 4, 4)), requires_grad=True)
    t = torch_of(np.ones((1, 1, 4, 4)))
    ops.adaptive_max_pool2d(x, output_size=output_size).sum().backward()
    torch = pytest.importorskip("torch")
    torch.nn.functional.adaptive_max_pool2d(t, output_size).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), t.grad.numpy())


X = (2, 3, 6, 7)
ERRORS = [
    (
        ops.max_pool2d,
        (3, 6, 7),
        {"kernel_size": 2},
        r"max_pool2d: x must be \(N, C, H, W\); got shape \(3, 6, 7\)",
    ),
    (
        ops.avg_pool1d,
        X,
        {"kernel_size": 2},
        r"avg_pool1d: x must be \(N, C, L\); got shape \(2, 3, 6, 7\)",
    ),
    (
        ops.max_pool2d,
        X,
        {"kernel_size": 8},
        r"max_pool2d: the window must fit into the padded input; got \(8, 8\) for \(6, 7\)",
    ),
    (
        ops.avg_pool2d,
        X,
        {"kernel_size": (2, 3), "padding": (1, 2)},
        r"avg_pool2d: padding must be at most half of the window; got padding \(1, 2\) for "
        r"kernel_size \(2, 3\) and dilation \(1, 1\)",
    ),
    (
        ops.max_pool1d,
        (2, 3, 6),
        {"kernel_size": 2, "padding": 2},
        r"max_pool1d: padding must be at most half of the window; got padding \(2,\) for "
        r"kernel_size \(2,\) and dilation \(1,\)",
    ),
    (
        ops.max_pool2d,
        X,
        {"kernel_size": 0},
        "max_pool2d: kernel_size must be at least 1; got 0",
    ),
    (
        ops.avg_pool2d,
        X,
        {"kernel_size": 2, "stride": (0, 1)},
        r"avg_pool2d: stride must be at least 1; got \(0, 1\)",
    ),
    (
        ops.max_pool2d,
        X,
        {"kernel_size": 2, "padding": -1},
        "max_pool2d: padding must be at least 0; got -1",
    ),
    (
        ops.max_pool2d,
        X,
        {"kernel_size": 2, "dilation": 0},
        "max_pool2d: dilation must be at least 1; got 0",
    ),
    (
        ops.adaptive_avg_pool2d,
        (3, 6, 7),
        {"output_size": 1},
        r"adaptive_avg_pool2d: x must be \(N, C, H, W\); got shape \(3, 6, 7\)",
    ),
    (
        ops.adaptive_max_pool2d,
        X,
        {"output_size": 0},
        "adaptive_max_pool2d: output_size must be at least 1; got 0",
    ),
    (
        ops.adaptive_max_pool1d,
        (2, 3, 0),
        {"output_size": 1},
        r"adaptive_max_pool1d: there is nothing to pool in shape \(2, 3, 0\)",
    ),
]


@pytest.mark.parametrize(("op", "shape", "options", "message"), ERRORS)
def test_wrong_values_are_named(op, shape, options, message):
    with pytest.raises(ValueError, match=message):
        op(tensor(normal(*shape)), **options)


KINDS = [
    (
        ops.max_pool2d,
        "int64",
        {"kernel_size": 2},
        "max_pool2d: x must hold floating-point numbers; got int64",
    ),
    (
        ops.avg_pool2d,
        "float32",
        {"kernel_size": 2.5},
        "avg_pool2d: kernel_size must be an int or a pair of ints; got 2.5",
    ),
    (
        ops.adaptive_avg_pool2d,
        "float32",
        {"output_size": (1, 2, 3)},
        r"adaptive_avg_pool2d: output_size must be an int or a pair of ints; got \(1, 2, 3\)",
    ),
]


@pytest.mark.parametrize(("op", "dtype", "options", "message"), KINDS)
def test_wrong_kinds_are_named(op, dtype, options, message):
    with pytest.raises(TypeError, match=message):
        op(tensor(np.ones(X, dtype)), **options)
