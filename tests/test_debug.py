"""tz.debug(): the first value that is not finite, and arrays changed between forward and backward."""

import re

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn as nn
import tinygrad_zen.nn.functional as F
from tinygrad_zen import ops
from tinygrad_zen.check import advice
from tinygrad_zen.check.samples import SAMPLES


def leaf(values, dtype="float32"):
    return tz.tensor(values, requires_grad=True, dtype=dtype)


def message(kind, run):
    """What debug() says while something runs."""
    with pytest.raises(kind) as caught, tz.debug():
        run()
    return str(caught.value)


# values


SCORES = [[200.0, -200.0, 0.0]]


@pytest.mark.parametrize(
    "run, op, form",
    [
        (lambda x: tz.log(F.softmax(x)), "log", "log_softmax"),
        (lambda x: tz.log(F.sigmoid(x)), "log", "logsigmoid"),
        (lambda x: tz.log(1 - F.sigmoid(x)), "log", "logsigmoid"),
        (lambda x: tz.log(tz.exp(x - 200) / tz.exp(x - 200).sum()), "log", "log_softmax"),
        (lambda x: tz.log(tz.exp(-300 + 0 * x).sum()), "log", "logsumexp"),
        (lambda x: tz.exp(x - 500) / tz.exp(x - 500).sum(), "div", "softmax"),
        (lambda x: tz.log(1 + tz.exp(x)), "exp", "softplus"),
        (lambda x: tz.sqrt(x), "sqrt", "x >= 0"),
        (lambda x: ops.pow(x, 0.5), "pow", "fractional"),
        (lambda x: ops.log1p(x), "log1p", "x > -1"),
        (lambda x: ops.arcsin(x), "arcsin", "<= 1"),
        (lambda x: 1.0 / x, "div", "y holds 0"),
        (lambda x: x / (0.0 * x), "div", "y holds 0"),
        (lambda x: x * 3e38, "mul", "above the largest float32"),
        (lambda x: F.softmax(x * 0 + tz.where(x < 1e9, -np.inf, x)), "softmax", "a mask leaves"),
        (lambda x: (x * 0) * tz.where(x > 0, np.inf, x), "mul", "0 * inf"),
    ],
)
def test_the_op_its_line_and_the_stable_form(backend, run, op, form):
    x = leaf(SCORES)
    for tensor in (x, x.detach()):  # recorded or not
        text = message(FloatingPointError, lambda: run(tensor))
        assert text.startswith(f"{op}: made the first "), text
        assert form in text.partition("advice: ")[2], text
        assert f"test_debug.py:{run.__code__.co_firstlineno} in <lambda>: `(lambda x: " in text


def test_the_ranges_of_the_inputs():
    x = leaf([[1.0, 0.0], [np.inf, -2.0]])
    text = message(FloatingPointError, lambda: tz.log(x.detach()))
    assert text.startswith(
        "log: made the first NaN of the forward pass: nan at (1, 1), 1 of 4 values"
    )
    assert "\n  x: float32 (2, 2), -2 to 1, 1 zeros, 1 infinite; -2 there" in text


def test_every_form_is_found_by_its_expression():
    """The table of forms is read from the top; each line has an expression that reaches it."""
    texts = [
        "log(softmax(_))",
        "log(sigmoid(_))",
        "log(sub(1, sigmoid(_)))",
        "log(div(exp(_), sum(exp(_))))",
        "log(sum(exp(_)))",
        "log(add(1, exp(_)))",
        "div(exp(_), sum(exp(_)))",
        "div(1, add(1, exp(neg(_))))",
        "binary_cross_entropy(sigmoid(_), _)",
        "exp(_)",
    ]
    for text, (_, form) in zip(texts, advice.FORMS, strict=True):
        assert next(f for pattern, f in advice.FORMS if re.match(pattern, text)) == form, text


def test_nan_that_comes_in_and_infinity_that_may():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2)))
    ones = np.ones((2, 3), np.float32)
    text = message(FloatingPointError, lambda: net(tz.tensor(ones * np.nan)))
    assert text.startswith("linear: its argument x, data, came in with NaN")
    assert "\n  layer: 0 (Linear)\n" in text
    net[2][0].weight.data[0, 0] = np.inf
    text = message(FloatingPointError, lambda: net(tz.tensor(ones)))
    assert text.startswith("linear: its argument w, a weight, came in with infinity")
    assert "\n  layer: 2.0 (Linear)\n" in text and "1 infinite" in text
    x = leaf([[1.0, 2.0]])
    with tz.debug():  # a mask
        y = F.softmax(x + tz.tensor([0.0, -np.inf]))
        y.sum().backward()
    assert y.tolist() == [[1, 0]]


# gradients


def test_the_first_gradient(backend):
    x = leaf([0.0, 1.0, 4.0])
    text = message(FloatingPointError, lambda: tz.sqrt(x).sum().backward())
    assert text.startswith(
        "sqrt: its gradient for x is the first of the backward pass that is not "
    )
    assert "inf at (0,), 1 of 3 values" in text and "`text = message(" in text
    assert "x: float32 (3,), 0 to 4, 1 zeros; 0 there" in text
    assert "the slope of sqrt at 0 is infinite" in text
    text = message(FloatingPointError, lambda: tz.where(x > 0, tz.sqrt(x), 0.0).sum().backward())
    assert "nan at (0,)" in text and "where() computes both branches" in text


def test_gradients_that_do_not_come_of_an_op():
    x = leaf([1.0, 2.0])
    text = message(FloatingPointError, lambda: (x * 2).backward(np.float32([np.inf, 0])))
    assert text.startswith("mul: the gradient that comes in is not finite")
    y = tz.sqrt(x * 0)
    text = message(FloatingPointError, lambda: y.sum().backward())
    assert "sqrt: its gradient" in text and "line: before debug() began" in text


def test_the_optimizer():
    x = leaf([1.0, 2.0])
    optimizer = tz.optim.SGD([x], lr=1e30)
    x.grad = tz.tensor([1e20, 0.0])
    text = message(FloatingPointError, optimizer.step)
    assert text.startswith("SGD.step: made weights that are not finite of finite gradients")
    assert "gradient: float32 (2,), 0 to 1e+20" in text
    x.grad = tz.tensor([np.nan, 0.0])
    text = message(FloatingPointError, optimizer.step)
    assert text.startswith("SGD.step: a gradient of 2 values is not finite")


def test_second_derivatives():
    x = leaf([0.0, 1.0])

    def twice():
        (g,) = tz.grad(ops.pow(x, 1.5).sum(), [x], create_graph=True)
        g.sum().backward()

    assert "pow: its gradient for x" in message(FloatingPointError, twice)


# arrays changed in place


def test_a_change_by_index():
    w, data = leaf([1.0, 2.0]), tz.tensor([3.0, 4.0])

    def step():
        loss = (w * data).sum()
        data[0] = 5.0
        loss.backward()

    text = message(RuntimeError, step)
    assert text.startswith(
        "mul: argument y, float32 (2,), was changed in place between forward and"
    )
    assert "in step: `loss = (w * data).sum()`" in text
    assert "changed: by x[...] = ... at" in text and "`data[0] = 5.0`" in text


def test_a_change_behind_the_engines_back():
    w, data = leaf([1.0, 2.0]), tz.tensor([3.0, 4.0])

    def step():
        first = w * data
        second = w * data
        data.data[0] = 5.0
        third = w * data
        (first + second + third).sum().backward()

    text = message(RuntimeError, step)
    assert "`second = w * data` and before " in text and text.count("`third = w * data`") == 1


def test_a_result_that_was_changed():
    x = leaf([1.0, 2.0])

    def step():
        y = tz.exp(x)
        y.data *= 2
        y.sum().backward()

    text = message(RuntimeError, step)
    assert text.startswith("exp: its result, float32 (2,), was changed in place")
    assert "changed: after" in text and "`y = tz.exp(x)`" in text


def test_a_step_of_the_optimizer_too_early():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    optimizer = tz.optim.Adam(net.parameters())
    x = tz.tensor([[1.0, 2.0]])

    def step():
        one, two = net(x).sum(), net(x).sum()
        one.backward()
        optimizer.step()
        two.backward()

    text = message(RuntimeError, step)
    assert text.startswith("linear: argument w, float32 (1, 3), was changed in place")
    assert "changed: Adam.step ran since, at" in text and "`optimizer.step()`" in text


def test_a_change_that_matters_to_second_derivatives_alone():
    x, y = leaf([1.0, 2.0]), tz.tensor([1.0, 1.0])

    def step(create_graph):
        z = x + y  # its gradient needs neither
        y[0] = y[0].item() + 1
        tz.grad(z.sum(), [x], create_graph=create_graph)

    with tz.debug():
        step(False)
    assert "add: argument y" in message(RuntimeError, lambda: step(True))


def test_a_change_of_any_array_of_any_op(backend):
    """Whatever is changed after the forward pass: the gradient is as without it, or the change is told."""
    told = 0
    for sample in SAMPLES:
        right = gradients(sample, backend)
        if not right:
            continue  # integers, booleans
        count = len(sample.tensors(backend=backend)) + len(outputs_of(sample, backend))
        for victim in range(count):
            try:
                with tz.debug():
                    changed = gradients(sample, backend, victim)
            except RuntimeError as e:
                assert "was changed in place" in str(e) and "in gradients: `ys = " in str(e)
                told += 1
                continue
            for a, b in zip(changed, right, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=f"{sample}, array {victim}")
    assert told > 250


def outputs_of(sample, backend):
    ys = sample(*sample.tensors(backend=backend))
    return ys if isinstance(ys, tuple | list) else [ys]


def gradients(sample, backend, victim=None):
    """The gradients of a sample as arrays, with one of its arrays changed before the backward pass."""
    tz.seed(0)
    xs = sample.tensors(backend=backend)
    ys = sample(*xs)
    ys = ys if isinstance(ys, tuple | list) else [ys]
    if victim is not None:
        array = [*xs, *ys][victim].data
        if array.flags.writeable:  # not a broadcast
            np.add(array, 1, out=array, casting="unsafe")
    ys = [y for y in ys if y.requires_grad]
    wanted = [x for x in xs if x.requires_grad]
    if not ys:
        return []
    found = tz.grad([y.sum() for y in ys], wanted, allow_unused=True)
    return [g.numpy() for g in found if g is not None]


def test_no_false_alarm_on_any_op_of_the_table(backend):
    """Forward and backward to second order, with nothing wrong."""
    for sample in SAMPLES:
        with tz.debug():
            xs = sample.tensors(backend=backend)
            ys = sample(*xs)
            ys = [y for y in (ys if isinstance(ys, tuple | list) else [ys]) if y.requires_grad]
            wanted = [x for x in xs if x.requires_grad]
            tz.grad([y.sum() for y in ys], wanted, allow_unused=True, retain_graph=True)
            if sample.once is None:
                tz.grad([y.sum() for y in ys], wanted, allow_unused=True, create_graph=True)


def test_training_gives_the_same_bits(backend):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, 1, 8, 8), dtype=np.float32), rng.integers(0, 3, 32)

    def weights(watched):
        tz.seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Dropout(0.2), nn.Linear(36, 3)),
        )
        model = tz.Model(net)
        model.compile("adam", loss="cross_entropy")
        if watched:
            with tz.debug():
                model.fit(x, y, epochs=2, verbose=0, seed=0)
        else:
            model.fit(x, y, epochs=2, verbose=0, seed=0)
        return net.state_dict()

    plain, watched = weights(False), weights(True)
    assert all(np.array_equal(plain[k], watched[k]) for k in plain)


def test_it_keeps_nothing_alive():
    x = leaf(np.ones(1000))
    with tz.debug() as detective:
        for _ in range(50):
            y = (x * 2.0).exp()
            y.sum().backward()
        del y
        x.grad = None
        assert not detective._calls and not detective._expressions
        assert len(detective._sightings) <= 1  # the array of x
