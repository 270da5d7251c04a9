"""Every op of the table against the same demands: derivatives, dtypes, memory orders, manners."""

import gc
import inspect
import weakref

import numpy as np
import pytest
from samples import SAMPLES

import tinygrad_zen as tz
from tinygrad_zen import autograd, ops
from tinygrad_zen.check import parity
from tinygrad_zen.check.gradcheck import derivative_errors
from tinygrad_zen.tensor import Tensor

every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=str)
OTHERS = [n for n, why in tz.backends().items() if why == "usable" and n != "numpy"]

# ops whose results are integers or bools, and helpers: nothing to differentiate
WITHOUT_DERIVATIVE = set(
    "equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not "
    "isfinite isnan argmax argmin any all plain_key check_attention dropout_mask".split()
)


def several(outputs):
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


def run(sample, arrays, backend="numpy"):
    """Outputs, and the gradients for a fixed random gradient of the outputs, as arrays."""
    xs = sample.lift(arrays, backend)
    ys = several(sample(*xs))
    ends = [y for y in ys if y.requires_grad]
    rng = np.random.default_rng(5)
    seeds = [rng.standard_normal(y.shape) for y in ends]
    wanted = [x for x in xs if x.requires_grad]
    gs = tz.grad(ends, wanted, seeds, allow_unused=True)
    return [y.numpy() for y in ys], [g.numpy() for g in gs if g is not None], wanted


def assert_close(ours, expected, tolerance):
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected, strict=True):
        assert a.shape == b.shape
        scale = max(np.abs(b).max(initial=0.0), 1.0)
        np.testing.assert_allclose(a / scale, b / scale, rtol=0, atol=tolerance)


def test_every_op_with_a_derivative_is_in_the_table():
    listed = {
        name for name, value in vars(ops).items() if callable(value) and not inspect.isclass(value)
    }
    missing = listed - WITHOUT_DERIVATIVE - {s.op for s in SAMPLES}
    assert not missing, f"no sample in tinygrad_zen/check/samples.py for {sorted(missing)}"
    assert not WITHOUT_DERIVATIVE - listed


def test_no_two_samples_are_the_same():
    names = [str(s) for s in SAMPLES]
    assert len(set(names)) == len(names), {n for n in names if names.count(n) > 1}


@every_sample
def test_derivatives(sample):
    errors = derivative_errors(sample, sample.tensors(), 1 if sample.once else 2)
    assert errors[0] < 1e-6
    assert sample.once or errors[1] < 1e-6


@every_sample
def test_float32_stays_float32_and_agrees_with_float64(sample, monkeypatch):
    if sample.op == "astype":
        pytest.skip("the dtype is what it changes")
    # without the engine's net for integers, which would hide a body or kernel that widens
    monkeypatch.setattr(autograd, "DOUBLE", None)
    arrays = sample.arrays(dtype="float32")
    wide = [a.astype("float64") if a.dtype.kind == "f" else a for a in arrays]
    ys, gs, _ = run(sample, arrays)
    assert {a.dtype.name for a in ys + gs} == {"float32"}
    expected_ys, expected_gs, _ = run(sample, wide)
    assert_close(ys, expected_ys, sample.float32)
    assert_close(gs, expected_gs, sample.float32)


def transposed(a):
    """Column by column in memory."""
    return a.T.copy().T


def scattered(a):
    """Every second element of a larger array, along each axis."""
    big = np.full([2 * n for n in a.shape], -77, a.dtype)
    view = big[(..., *(slice(None, None, 2) for _ in a.shape))]
    view[...] = a
    return view


def backwards(a):
    """From the last element to the first."""
    flipped = (..., *(slice(None, None, -1) for _ in a.shape))
    return a[flipped].copy()[flipped]


def channels_last(a):
    """Images and filters with the channels of a pixel side by side."""
    if a.ndim != 4:
        return a
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


ORDERS = (transposed, scattered, backwards, channels_last)


@every_sample
def test_memory_order_does_not_matter(sample):
    arrays = sample.arrays()
    ys, gs, _ = run(sample, arrays)
    for order in ORDERS:
        moved = [order(a) for a in arrays]
        their_ys, their_gs, _ = run(sample, moved)
        assert_close(their_ys, ys, 1e-13)
        assert_close(their_gs, gs, 1e-12)


@every_sample
def test_gradients_fit_and_inputs_are_left_alone(sample):
    arrays = sample.arrays()
    before = [a.copy() for a in arrays]
    for a in arrays:
        a.flags.writeable = False  # an op that writes into its input fails here
    xs = sample.lift(arrays)
    ys = several(sample(*xs))
    after_forward = [y.numpy().copy() for y in ys]
    sum((y * y).sum() for y in ys).backward()
    held = [*arrays, *(y.numpy() for y in ys)]
    for x in xs:
        if x.requires_grad and x.grad is not None:
            assert isinstance(x.grad.data, np.ndarray)
            assert (x.grad.shape, x.grad.dtype) == (x.shape, x.dtype)
            assert x.grad.data.flags.writeable
            assert not any(np.shares_memory(x.grad.data, a) for a in held)
            assert not x.grad.requires_grad
            held.append(x.grad.data)
    for a, b in zip([*arrays, *(y.numpy() for y in ys)], before + after_forward, strict=True):
        np.testing.assert_array_equal(a, b)


@every_sample
def test_the_graph_goes_without_the_garbage_collector(sample):
    xs = sample.tensors()
    ys = several(sample(*xs))
    held = [weakref.ref(x.data) for x in xs] + [weakref.ref(y) for y in ys]
    gc.disable()
    try:
        del xs, ys
        assert not any(ref() is not None for ref in held)
    finally:
        gc.enable()


@pytest.mark.parametrize("sample, name", [(s, n) for n in OTHERS for s in SAMPLES], ids=str)
def test_backends_agree(sample, name):
    for dtype in ("float64", "float32"):
        parity(sample, sample.tensors(dtype=dtype), [name])


X = np.zeros((0, 3))
IMAGES = np.zeros((0, 2, 4, 4))
ON_EMPTY_BATCHES = {
    "add": (lambda x: x + np.ones(3), X, (0, 3)),
    "mul broadcast": (lambda x: x * np.ones((2, 1, 1)), X, (2, 0, 3)),
    "exp": (lambda x: x.exp(), X, (0, 3)),
    "sum": (lambda x: x.sum(), X, ()),
    "sum of rows": (lambda x: x.sum(axis=1), X, (0,)),
    "mean of rows": (lambda x: x.mean(axis=1), X, (0,)),
    "max of rows": (lambda x: x.max(axis=1), X, (0,)),
    "prod": (lambda x: x.prod(), X, ()),
    "softmax": (lambda x: ops.softmax(x), X, (0, 3)),
    "log_softmax": (lambda x: ops.log_softmax(x), X, (0, 3)),
    "relu": (lambda x: x.relu(), X, (0, 3)),
    "gelu": (lambda x: ops.gelu(x), X, (0, 3)),
    "matmul": (lambda x: x @ np.ones((3, 2)), X, (0, 2)),
    "linear": (lambda x: ops.linear(x, np.ones((2, 3)), np.ones(2)), X, (0, 2)),
    "einsum": (lambda x: ops.einsum("ij,kj->ik", x, np.ones((2, 3))), X, (0, 2)),
    "layer_norm": (lambda x: ops.layer_norm(x, np.ones(3), np.ones(3)), X, (0, 3)),
    "batch_norm_eval": (lambda x: ops.batch_norm_eval(x, *np.ones((4, 3))), X, (0, 3)),
    "concat": (lambda x: ops.concat([x, np.ones((2, 3))]), X, (2, 3)),
    "reshape": (lambda x: x.reshape(3, 0), X, (3, 0)),
    "flatten": (lambda x: x.flatten(1), IMAGES, (0, 32)),
    "getitem": (lambda x: x[:, 1], X, (0,)),
    "getitem by mask": (lambda x: x[x > 0], X, (0,)),
    "repeat": (lambda x: x.repeat(2, axis=0), X, (0, 3)),
    "conv2d": (lambda x: ops.conv2d(x, np.ones((3, 2, 3, 3)), np.ones(3)), IMAGES, (0, 3, 2, 2)),
    "max_pool2d": (lambda x: ops.max_pool2d(x, kernel_size=2), IMAGES, (0, 2, 2, 2)),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, kernel_size=2), IMAGES, (0, 2, 2, 2)),
    "mse_loss": (lambda x: ops.mse_loss(x, X, reduction="sum"), X, ()),
    "cross_entropy": (
        lambda x: ops.cross_entropy(x, np.zeros(0, int), reduction="sum"),
        X,
        (),
    ),
    "cross_entropy of each": (
        lambda x: ops.cross_entropy(x, np.zeros(0, int), reduction="none"),
        X,
        (0,),
    ),
}


@pytest.mark.parametrize("name", ON_EMPTY_BATCHES)
def test_an_empty_batch_passes_through(name):
    f, array, shape = ON_EMPTY_BATCHES[name]
    x = tz.tensor(array, requires_grad=True)
    y = f(x)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_an_empty_batch_leaves_weights_a_gradient_of_zeros():
    w = tz.tensor(np.ones((2, 3)), requires_grad=True)
    b = tz.tensor(np.ones(2), requires_grad=True)
    ops.linear(tz.tensor(X), w, b).sum().backward()
    assert not w.grad.numpy().any() and not b.grad.numpy().any()
    w = tz.tensor(np.ones((3, 2, 3, 3)), requires_grad=True)
    ops.conv2d(tz.tensor(IMAGES), w).sum().backward()
    assert w.grad.shape == w.shape and not w.grad.numpy().any()


COMPARISONS = {
    "equal": np.equal,
    "not_equal": np.not_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_are_numpys_and_carry_no_gradient(name, backend):
    a, b = np.array([[0.0, 1.0, 2.0]]), np.array([[0.0], [1.0]])
    out = getattr(ops, name)(tz.tensor(a, requires_grad=True), tz.tensor(b))
    assert isinstance(out, Tensor) and not out.requires_grad and out.dtype == bool
    np.testing.assert_array_equal(out.numpy(), COMPARISONS[name](a, b))


def test_what_has_no_gradient_is_numpys(backend):
    a = np.array([[0.0, np.inf, 2.0], [np.nan, 5.0, 5.0]])
    x = tz.tensor(a, requires_grad=True)
    for ours, numpys in (
        (ops.isnan(x), np.isnan(a)),
        (ops.isfinite(x), np.isfinite(a)),
        (ops.logical_not(x), np.logical_not(a)),
        (~(x > 1), ~(a > 1)),
        ((x > 1) & (x < 3), (a > 1) & (a < 3)),
        ((x > 4) | (x < 1), (a > 4) | (a < 1)),
        ((x > 1).any(axis=1), (a > 1).any(axis=1)),
        ((x > 1).all(axis=0, keepdims=True), (a > 1).all(axis=0, keepdims=True)),
        (x[0].argmax(), a[0].argmax()),
        (x[:, 1:].argmax(axis=1), a[:, 1:].argmax(axis=1)),
        (x[0].argmin(axis=-1), a[0].argmin(axis=-1)),
    ):
        assert isinstance(ours, Tensor) and not ours.requires_grad
        assert ours.dtype == np.asarray(numpys).dtype
        np.testing.assert_array_equal(ours.numpy(), numpys)


def test_dropout_keeps_the_expectation_and_the_seed():
    x = tz.tensor(np.ones((200, 300)))
    y = ops.dropout(x, p=0.25)
    kept = y.numpy() != 0
    assert abs(kept.mean() - 0.75) < 0.01 and np.allclose(y.numpy()[kept], 1 / 0.75)
    tz.seed(3)
    first = ops.dropout(x).numpy()
    tz.seed(3)
    np.testing.assert_array_equal(ops.dropout(x).numpy(), first)
    assert (ops.dropout(x).numpy() != first).any()


def test_dropout_of_channels_drops_all_of_a_channel():
    y = ops.dropout_channels(tz.tensor(np.ones((50, 8, 3, 3))), p=0.5).numpy()
    assert (y == y[:, :, :1, :1]).all() and 0.3 < (y[:, :, 0, 0] == 0).mean() < 0.7


def test_arrays_beside_tensors_follow_them_to_their_backend(backend):
    """Whatever the default is: here another than that of the Tensor."""
    x = tz.tensor(np.random.default_rng(0).standard_normal((4, 2, 3)), backend="numpy")
    w, b, mean, var = np.ones((4, 2))
    for y in (ops.group_norm(x, w, b, groups=2), ops.batch_norm_eval(x, w, b, mean, var)):
        assert y.backend is x.backend and y.dtype == np.float64
