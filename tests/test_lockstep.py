"""tz.check.lockstep: two runs of one step, op by op; the first that parts is named."""

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn as nn
import tinygrad_zen.nn.functional as F
from tinygrad_zen import ops
from tinygrad_zen.check import lockstep

NUMPY = tz.backend("numpy")


def network(*between):
    """With layers between batch norm and ReLU, the two are not one op."""
    tz.seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), *between, nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Dropout(0.2), nn.Linear(36, 3)),
    )


def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((8, 1, 8, 8), dtype=np.float32), rng.integers(0, 3, 8)


@pytest.mark.parametrize(
    "sides",
    [
        ("numpy", "numpy"),
        ("numpy", "numba"),
        ("float64", "float32"),
        ("numpy", ("numba", "float64")),
    ],
)
def test_runs_that_agree(sides):
    if tz.backends()["numba"] != "usable" and "numba" in str(sides):
        pytest.skip("needs Numba")
    net = network()
    before = net.state_dict()
    random = tz.default_generator().bit_generator.state
    report = lockstep(net, batch(), *sides, loss="cross_entropy")
    assert report.ok and report.first is None and report.unlike is None, str(report)
    assert {row.op for row in report.rows} >= {"conv2d", "batch_norm_relu", "mul", "linear"}
    assert sum(row.what == "forward" for row in report.rows) == 7
    assert set(report.gradients) == {name for name, _ in net.named_parameters()}
    assert max(report.gradients.values()) < 1e-4
    assert report.loss[0] == pytest.approx(report.loss[1], rel=1e-5)
    if sides[0] == sides[1]:
        assert all(row.error == 0 for row in report.rows)
        assert "results of ops agree to the last bit" in str(report)
    # the model and the random numbers are as they were
    assert all(np.array_equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())
    assert tz.default_generator().bit_generator.state == random


def broken(**kernels):
    """numpy with kernels that are off; its name says which."""
    return NUMPY.replace(**kernels)


def test_the_first_op_that_parts_is_named_whatever_came_of_it():
    def conv2d(x, w, b, *options):
        y = NUMPY.kernels.conv2d(x, w, b, *options)
        y[2, 1, 3, 4] += 0.01
        return y

    report = lockstep(network(), batch(), "numpy", broken(conv2d=conv2d), loss="cross_entropy")
    row = report.first
    assert (row.op, row.what, row.index) == ("conv2d", "forward", (2, 1, 3, 4)) and not report.ok
    assert row.b - row.a == pytest.approx(0.01, rel=1e-3)
    assert [r.op for r in report.rows if r.parts] == [
        "conv2d"
    ]  # its own error, not what came of it
    text = str(report)
    assert "first beyond its budget: conv2d, forward (8, 4, 6, 6): 0.00" in text
    assert "at (2, 1, 3, 4): numpy gives " in text and "numpy[conv2d=conv2d] gives " in text
    assert "layer: 0 (Conv2d)" in text and "! conv2d" in text
    assert "test_lockstep.py:" in text


def test_a_gradient_that_parts_on_either_side():
    off = broken(relu_grad=lambda g, y: g * (y >= 0))
    for sides in (("numpy", off), (off, "numpy"), (("numpy", "float64"), off)):
        net = network(nn.Identity())
        report = lockstep(net, batch(), *sides, loss="cross_entropy")
        row = report.first
        assert (row.op, row.what) == ("relu", "gradient for x"), str(report)
        assert row.place.layer == "3 (ReLU)"
        right, wrong = (row.b, row.a) if sides[0] is off else (row.a, row.b)
        assert right == 0 and wrong != 0
        assert max(report.gradients.values()) > 0.01


def test_the_budget():
    def tanh(x):
        return NUMPY.kernels.tanh(x) * np.float32(1 + 1e-3)

    def run(**options):
        return lockstep(ops.tanh, np.linspace(-1, 1, 9), "numpy", broken(tanh=tanh), **options)

    assert run().first.budget == 1e-5
    assert run(budget={"tanh": 5e-3}).ok and run(budget=5e-3).ok
    assert run(budget=5e-4).first.budget == 5e-4
    assert run(budget={"exp": 1.0}).first.op == "tanh"


def test_results_that_cancel_are_allowed_one_rounding():
    x = np.float32([1.0, 1e-6, -1.0])

    def run(wrong):
        @tz.op
        def total(be, a):
            return np.asarray(be.kernels.relu(a)), (lambda g: g * np.ones_like(a),)

        return lockstep(
            total,
            x,
            broken(relu=lambda a: a.sum(dtype=a.dtype)),
            broken(relu=lambda a: a.sum(dtype=a.dtype) + np.float32(wrong)),
        )

    assert run(3e-8).ok  # 3 % of the result, but less than the roundings of 1 and -1
    assert not run(1e-5).ok


def test_a_function_and_a_model():
    def f(x, y):
        return F.softmax(x @ y).log()

    report = lockstep(f, (np.ones((2, 3)), np.ones((3, 4))), "float32", "float64")
    assert report.ok and set(report.gradients) == {"argument 0", "argument 1"}
    model = tz.Model(network())
    with pytest.raises(ValueError, match=r"lockstep: compile the model first, or pass loss="):
        lockstep(model, batch())
    model.compile("adam", loss="cross_entropy")
    assert lockstep(model, batch(), "numpy", "numpy").ok


def test_runs_that_call_different_ops():
    @tz.op
    def doubled(be, x):
        return x * 2, (lambda g: g * 2,)

    def f(x):
        return doubled(x) if x.dtype == "float64" else x + x

    report = lockstep(f, np.ones(3), "float32", "float64")
    assert not report.ok and report.first is None and report.rows == []
    assert report.unlike.startswith(
        "the runs part: where float64 runs doubled, float32 ran add, at "
    )
    assert report.loss[0] == pytest.approx(report.loss[1])
    longer = lockstep(
        lambda x: x + 1 if x.dtype == "float64" else x + 1 + 1, np.ones(3), "float64", "float32"
    )
    assert longer.unlike.startswith(
        "the runs part: where float64 runs the gradient of add, float32 ran add"
    )


def test_words_for_what_makes_no_sense():
    with pytest.raises(ValueError, match="unknown backend 'torch': choose from numpy"):
        lockstep(ops.exp, np.ones(2), "torch")
    with pytest.raises(
        ValueError, match=r"with a loss the batch is \(x, ..., target\); got 1 array"
    ):
        lockstep(network(), batch()[0], "numpy", "numpy", loss="cross_entropy")
