"""Convolution: kernels against loops and PyTorch, ops against PyTorch, rules by their messages."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_zen import grad, ops, tensor
from tinygrad_zen.kernels import reference

ONE, ZERO = (1, 1), (0, 0)
few = settings(deadline=None, max_examples=60)


def normal(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def channels_last(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def scattered(x):
    """The same numbers as every second element, backwards, of a larger array."""
    big = np.full(tuple(2 * n for n in x.shape), np.nan, x.dtype)
    view = big[tuple(slice(None, None, -2) for _ in x.shape)]
    view[...] = x
    return view


def loops(x, w, b, stride, padding, dilation, groups):
    """conv2d from its definition, one multiplication at a time."""
    n, c, h, width = x.shape
    k, c_group, kh, kw = w.shape
    oh = (h + 2 * padding[0] - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width + 2 * padding[1] - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    y = np.zeros((n, k, oh, ow))
    for image, f, r, s in itertools.product(range(n), range(k), range(oh), range(ow)):
        first = f // (k // groups) * c_group
        for channel, i, j in itertools.product(range(c_group), range(kh), range(kw)):
            row = r * stride[0] + i * dilation[0] - padding[0]
            column = s * stride[1] + j * dilation[1] - padding[1]
            if 0 <= row < h and 0 <= column < width:
                y[image, f, r, s] += x[image, first + channel, row, column] * w[f, channel, i, j]
        y[image, f, r, s] += 0 if b is None else b[f]
    return y


@st.composite
def convolutions(draw):
    """(x, w, (stride, padding, dilation, groups)) where at least one window fits."""

    def pair(low, high):
        return draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    kernel, stride, padding, dilation = pair(1, 3), pair(1, 4), pair(0, 2), pair(1, 2)
    groups = draw(st.integers(1, 3))
    room = pair(0, 5)
    size = [
        max(1, d * (k - 1) + 1 - 2 * p + extra)
        for k, p, d, extra in zip(kernel, padding, dilation, room, strict=True)
    ]
    n = draw(st.integers(0, 3))
    c, k = (groups * draw(st.integers(1, 3)) for _ in range(2))
    seed = draw(st.integers(0, 99))
    x, w = normal(n, c, *size, seed=seed), normal(k, c // groups, *kernel, seed=seed + 1)
    return x, w, (stride, padding, dilation, groups)


@given(convolutions())
@settings(deadline=None, max_examples=25)
def test_conv2d_equals_its_definition(case):
    x, w, options = case
    b = normal(len(w))
    np.testing.assert_allclose(
        reference.conv2d(x, w, b, *options), loops(x, w, b, *options), rtol=0, atol=1e-10
    )


@given(convolutions())
@few
def test_kernels_equal_torch(case):
    torch = pytest.importorskip("torch")
    x, w, options = case
    stride, padding, dilation, groups = options
    tx, tw = (torch.tensor(a, requires_grad=True) for a in (x, w))
    ty = torch.nn.functional.conv2d(tx, tw, None, stride, padding, dilation, groups)
    y = reference.conv2d(x, w, None, *options)
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=0, atol=1e-10)

    g = normal(*y.shape, seed=7)
    tgx, tgw = torch.autograd.grad(ty, (tx, tw), torch.tensor(g))
    gx = reference.conv2d_grad_x(g, w, x.shape, *options)
    gw = reference.conv2d_grad_w(g, x, w.shape, *options)
    np.testing.assert_allclose(gx, tgx.numpy(), rtol=0, atol=1e-10)
    np.testing.assert_allclose(gw, tgw.numpy(), rtol=0, atol=1e-10)


@given(convolutions())
@few
def test_gradients_are_adjoint(case):
    """<conv(x, w), g> = <x, grad_x(g, w)> = <w, grad_w(g, x)>."""
    x, w, options = case
    y = reference.conv2d(x, w, None, *options)
    g = normal(*y.shape, seed=7)
    product = np.vdot(y, g)
    gx = reference.conv2d_grad_x(g, w, x.shape, *options)
    gw = reference.conv2d_grad_w(g, x, w.shape, *options)
    np.testing.assert_allclose(np.vdot(x, gx), product, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(np.vdot(w, gw), product, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [channels_last, scattered, np.asfortranarray])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kernel", [(1, 1), (2, 3)])
def test_memory_order_changes_nothing(order, groups, kernel):
    x, w = normal(2, 4, 6, 7), normal(8, 4 // groups, *kernel, seed=1)
    options = ONE, (1, 0), ONE, groups
    y = reference.conv2d(x, w, None, *options)
    g = normal(*y.shape, seed=2)
    ox, ow, og = map(order, (x, w, g))
    pairs = [
        (reference.conv2d(ox, ow, None, *options), y),
        (
            reference.conv2d_grad_x(og, ow, x.shape, *options),
            reference.conv2d_grad_x(g, w, x.shape, *options),
        ),
        (
            reference.conv2d_grad_w(og, ox, w.shape, *options),
            reference.conv2d_grad_w(g, x, w.shape, *options),
        ),
    ]
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_dtype_is_kept(groups):
    x, w, b = (normal(*s, dtype="float32") for s in ((2, 4, 6, 6), (4, 4 // groups, 3, 3), (4,)))
    options = ONE, ONE, ONE, groups
    y = reference.conv2d(x, w, b, *options)
    gx = reference.conv2d_grad_x(y, w, x.shape, *options)
    gw = reference.conv2d_grad_w(y, x, w.shape, *options)
    assert y.dtype == gx.dtype == gw.dtype == np.float32


def test_results_lie_channels_last():
    y = reference.conv2d(normal(2, 3, 6, 6), normal(4, 3, 3, 3), None, ONE, ZERO, ONE, 1)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_pointwise_convolution_copies_no_windows():
    x = channels_last(normal(2, 3, 4, 5))
    columns = reference.conv._columns(x, ONE, (4, 5), ONE, ZERO, ONE, 1)
    assert np.shares_memory(columns, x)


def test_columns_between_windows_get_no_gradient():
    g, w = normal(1, 1, 2, 2), normal(1, 1, 1, 1)
    gx = reference.conv2d_grad_x(g, w, (1, 1, 5, 5), (3, 3), ZERO, ONE, 1)
    assert np.count_nonzero(gx) == 4


# ops


def leaves(*arrays):
    return [tensor(a, requires_grad=True) for a in arrays]


def check_against_torch(ours, theirs, arrays):
    """Value, gradients and second derivatives of f(*arrays), differentiated in a fixed direction."""
    torch = pytest.importorskip("torch")
    xs, ts = leaves(*arrays), [torch.tensor(a, requires_grad=True) for a in arrays]
    y, t = ours(*xs), theirs(*ts)
    np.testing.assert_allclose(y.numpy(), t.detach().numpy(), rtol=0, atol=1e-10)

    g = normal(*y.shape, seed=5)
    first = grad((y * y * g).sum(), xs, create_graph=True)
    t_first = torch.autograd.grad((t * t * torch.tensor(g)).sum(), ts, create_graph=True)
    for a, b in zip(first, t_first, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=0, atol=1e-9)

    second = grad(sum((a * a).sum() for a in first), xs)
    t_second = torch.autograd.grad(sum((a * a).sum() for a in t_first), ts)
    for a, b in zip(second, t_second, strict=True):
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-8)


CONVOLUTIONS = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (1, 3), "padding": (2, 0), "dilation": (1, 2)},
    {"groups": 2, "padding": 1},
    {"padding": "same"},
    {"padding": "same", "dilation": 2},
    {"padding": "valid"},
]


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")  # torch's, even kernels
@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("kernel", [(3, 3), (2, 3), (1, 1)], ids=str)
def test_conv2d(options, kernel):
    torch = pytest.importorskip("torch")
    groups = options.get("groups", 1)
    arrays = normal(2, 4, 6, 7), normal(6, 4 // groups, *kernel, seed=1), normal(6, seed=2)
    check_against_torch(
        lambda x, w, b: ops.conv2d(x, w, b, **options),
        lambda x, w, b: torch.nn.functional.conv2d(x, w, b, **options),
        arrays,
    )


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2, "padding": 1}, {"groups": 2, "dilation": (2,)}, {"padding": "same"}],
    ids=str,
)
@pytest.mark.parametrize("kernel", [4, 3])
def test_conv1d(options, kernel):
    torch = pytest.importorskip("torch")
    groups = options.get("groups", 1)
    check_against_torch(
        lambda x, w, b: ops.conv1d(x, w, b, **options),
        lambda x, w, b: torch.nn.functional.conv1d(x, w, b, **options),
        (normal(2, 4, 9), normal(6, 4 // groups, kernel, seed=1), normal(6, seed=2)),
    )


TRANSPOSED = [
    {},
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": (3, 1), "dilation": (1, 2)},
    {"stride": 2, "groups": 2},
    {"stride": 1, "dilation": 3, "output_padding": 2},  # output_padding larger than the stride
]


@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_conv_transpose2d(options):
    torch = pytest.importorskip("torch")
    groups = options.get("groups", 1)
    check_against_torch(
        lambda x, w, b: ops.conv_transpose2d(x, w, b, **options),
        lambda x, w, b: torch.nn.functional.conv_transpose2d(x, w, b, **options),
        (normal(2, 4, 3, 5), normal(4, 6 // groups, 3, 2, seed=1), normal(6, seed=2)),
    )


@pytest.mark.parametrize("options", [{}, {"stride": 3, "padding": 1, "output_padding": 2}], ids=str)
def test_conv_transpose1d(options):
    torch = pytest.importorskip("torch")
    check_against_torch(
        lambda x, w, b: ops.conv_transpose1d(x, w, b, **options),
        lambda x, w, b: torch.nn.functional.conv_transpose1d(x, w, b, **options),
        (normal(2, 4, 5), normal(4, 3, 4, seed=1), normal(3, seed=2)),
    )


def test_convolutions_work_without_bias():
    x, w = leaves(normal(2, 3, 5, 5), normal(3, 3, 2, 2))
    for f in ops.conv2d, ops.conv_transpose2d:
        zero = tensor(np.zeros(3))
        assert np.array_equal(f(x, w, None).numpy(), f(x, w, zero).numpy())
        assert all(np.any(g.numpy()) for g in grad(f(x, w).sum(), [x, w]))


X, W = (2, 4, 6, 7), (8, 4, 3, 3)
ERRORS = [
    (ops.conv2d, [(4, 6, 7), W], {}, r"conv2d: x must be \(N, C, H, W\); got shape \(4, 6, 7\)"),
    (
        ops.conv2d,
        [X, (8, 4, 3)],
        {},
        r"conv2d: w must be \(K, C/groups, KH, KW\) and not empty; got shape \(8, 4, 3\)",
    ),
    (ops.conv2d, [X, (8, 4, 0, 3)], {}, r"and not empty; got shape \(8, 4, 0, 3\)"),
    (
        ops.conv2d,
        [X, (8, 3, 3, 3)],
        {},
        r"conv2d: x \(N, C, H, W\) and w \(K, C, KH, KW\) must share C; "
        r"got \(2, 4, 6, 7\) and \(8, 3, 3, 3\)",
    ),
    (
        ops.conv2d,
        [X, W],
        {"groups": 2},
        r"conv2d: x \(N, C, H, W\) and w \(K, C/groups, KH, KW\) must share C; "
        r"got \(2, 4, 6, 7\) and \(8, 4, 3, 3\) with groups=2",
    ),
    (
        ops.conv2d,
        [X, W],
        {"groups": 3},
        "conv2d: groups must divide the channels C of x and the filters K of w; "
        "got groups=3, C=4, K=8",
    ),
    (ops.conv2d, [X, W], {"groups": 0}, "conv2d: groups must be at least 1; got 0"),
    (
        ops.conv2d,
        [X, W, (4,)],
        {},
        r"conv2d: b must be \(K,\), one number for each filter; got \(4,\) for K=8",
    ),
    (ops.conv2d, [X, W], {"stride": 0}, "conv2d: stride must be at least 1; got 0"),
    (ops.conv2d, [X, W], {"stride": (1, -2)}, r"conv2d: stride must be at least 1; got \(1, -2\)"),
    (ops.conv2d, [X, W], {"dilation": 0}, "conv2d: dilation must be at least 1; got 0"),
    (ops.conv2d, [X, W], {"padding": -1}, "conv2d: padding must be at least 0; got -1"),
    (
        ops.conv2d,
        [X, W],
        {"padding": "full"},
        "conv2d: padding must be 'same', 'valid' or numbers; got 'full'",
    ),
    (
        ops.conv2d,
        [X, W],
        {"padding": "same", "stride": 2},
        r"conv2d: padding 'same' needs stride 1; got stride \(2, 2\)",
    ),
    (
        ops.conv2d,
        [X, W],
        {"dilation": 4, "padding": 1},
        r"conv2d: the window must fit into the padded input; got \(9, 9\) for \(8, 9\)",
    ),
    (ops.conv1d, [X, W], {}, r"conv1d: x must be \(N, C, L\); got shape \(2, 4, 6, 7\)"),
    (
        ops.conv1d,
        [(2, 4, 6), (8, 3, 3)],
        {},
        r"conv1d: x \(N, C, L\) and w \(K, C, KL\) must share C; got \(2, 4, 6\) and \(8, 3, 3\)",
    ),
    (
        ops.conv_transpose2d,
        [X, W],
        {},
        r"conv_transpose2d: x \(N, C, H, W\) and w \(C, K/groups, KH, KW\) must share C; "
        r"got \(2, 4, 6, 7\) and \(8, 4, 3, 3\)",
    ),
    (
        ops.conv_transpose2d,
        [X, (4, 2, 3, 3)],
        {"groups": 3},
        "conv_transpose2d: groups must divide the channels C of x; got groups=3, C=4",
    ),
    (
        ops.conv_transpose2d,
        [X, (4, 2, 3, 3), (3,)],
        {},
        r"conv_transpose2d: b must be \(K,\), one number for each filter; got \(3,\) for K=2",
    ),
    (
        ops.conv_transpose2d,
        [X, (4, 2, 3, 3)],
        {"stride": 2, "output_padding": 2},
        r"conv_transpose2d: output_padding must be smaller than stride or dilation; got \(2, 2\) "
        r"with stride \(2, 2\) and dilation \(1, 1\)",
    ),
    (
        ops.conv_transpose2d,
        [X, (4, 2, 3, 3)],
        {"padding": 4},
        r"conv_transpose2d: padding \(4, 4\) leaves nothing of the output; "
        r"its size would be \(0, 1\)",
    ),
    (
        ops.conv_transpose1d,
        [(2, 4, 6), W],
        {},
        r"conv_transpose1d: w must be \(C, K/groups, KL\) and not empty; got shape \(8, 4, 3, 3\)",
    ),
]


@pytest.mark.parametrize(("op", "shapes", "options", "message"), ERRORS)
def test_wrong_values_are_named(op, shapes, options, message):
    with pytest.raises(ValueError, match=message):
        op(*(tensor(normal(*s)) for s in shapes), **options)


KINDS = [
    (["int64", "float32"], {}, "conv2d: x must hold floating-point numbers; got int64"),
    (["float32", "int64"], {}, "conv2d: w and b must hold floating-point numbers; got int64"),
    (["float32", "float32"], {"groups": 2.0}, "conv2d: groups must be an int; got 2.0"),
    (
        ["float32", "float32"],
        {"stride": 1.5},
        "conv2d: stride must be an int or a pair of ints; got 1.5",
    ),
    (
        ["float32", "float32"],
        {"padding": (1, 2, 3)},
        r"conv2d: padding must be an int or a pair of ints; got \(1, 2, 3\)",
    ),
]


@pytest.mark.parametrize(("dtypes", "options", "message"), KINDS)
def test_wrong_kinds_are_named(dtypes, options, message):
    x, w = (tensor(np.ones(s, d)) for s, d in zip((X, W), dtypes, strict=True))
    with pytest.raises(TypeError, match=message):
        ops.conv2d(x, w, **options)
