"""The proof tools themselves: does gradcheck find what is wrong, and say what it is?"""

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import ops
from tinygrad_zen.check import GradientError, ParityError, gradcheck, parity
from tinygrad_zen.check import table as table_of_ops
from tinygrad_zen.check.domains import away, normal
from tinygrad_zen.check.samples import SAMPLES, sample


def leaf(*shape, seed=0):
    array = np.random.default_rng(seed).standard_normal(shape)
    return tz.tensor(array, requires_grad=True)


def mutant(value, *vjps):
    """An op with this value and these, mostly wrong, vjps: functions of g and the arguments."""

    @tz.op
    def op(be, *xs):
        return value(*xs), tuple((lambda g, v=v: v(g, *xs)) for v in vjps)

    return op


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_grad(g, x):
    y = softmax(x)
    return y * (g - (g * y).sum(axis=-1, keepdims=True))


RIGHT = [
    (mutant(np.sin, lambda g, x: g * np.cos(x)), (3, 4)),
    (mutant(softmax, softmax_grad), (3, 4)),
    (mutant(lambda x: x.T, lambda g, x: g.T), (3, 4)),
]


@pytest.mark.parametrize(("op", "shape"), RIGHT)
def test_right_gradients_pass_with_room_to_spare(op, shape):
    assert gradcheck(op, leaf(*shape)) < 1e-9


# (wrong op, shape of x, what the message says); the first three are those that a check with
# backward(ones) against differences of the sum lets pass
MUTANTS = [
    (mutant(softmax, lambda g, x: np.zeros_like(x)), (3, 4), "it is zero"),
    (
        mutant(softmax, lambda g, x: 3.7 * softmax_grad(g, x)),
        (3, 4),
        "a scale factor: it is 3.7 times",
    ),
    (
        mutant(lambda x: x.T, lambda g, x: g.reshape(x.shape)),
        (3, 4),
        "the right values in the wrong places",
    ),
    (mutant(np.sin, lambda g, x: -g * np.cos(x)), (3, 4), "the sign is wrong"),
    (mutant(lambda x: x.mean(), lambda g, x: g * np.ones_like(x)), (3, 4), "it is 12 times"),
    (
        mutant(lambda x: x @ MATRIX, lambda g, x: (g @ MATRIX.T).T),
        (3, 3),
        "it is transposed",
    ),
    (
        mutant(lambda x: x[::-1] * 2, lambda g, x: g * 2),
        (5,),
        "the right values in the wrong places",
    ),
    (
        mutant(lambda x: x + np.zeros((4, 1)), lambda g, x: g[0]),
        (3,),
        "a missing sum over axis 0 of the output",
    ),
    (
        mutant(lambda x: np.abs(x), lambda g, x: g * (x > 0)),
        (6,),
        "a mask that is off: it is zero where it should not be",
    ),
    (
        mutant(lambda x: np.maximum(x, 0), lambda g, x: g),
        (6,),
        "a mask that is off: it is not zero where it should be",
    ),
    (
        mutant(lambda x: x**3, lambda g, x: g * 2 * x**2),
        (2,),
        "it is 0.666667 times what it should be",
    ),
    (mutant(np.exp, lambda g, x: g * x), (3,), "none of the common slips"),
]
MATRIX = np.random.default_rng(9).standard_normal((3, 3))


@pytest.mark.parametrize(("op", "shape", "words"), MUTANTS, ids=[m[2] for m in MUTANTS])
@pytest.mark.parametrize("full", [True, False])
def test_wrong_gradients_are_found_and_named(op, shape, words, full):
    with pytest.raises(GradientError) as caught:
        gradcheck(op, leaf(*shape), full=full)
    assert words in str(caught.value)


def test_a_gradient_error_says_where():
    @tz.op
    def product(be, x, y):
        def grad_y(g):
            gy = g * x
            gy[1, 2] *= 2
            return gy

        return x * y, (lambda g: g * y, grad_y)

    with pytest.raises(GradientError) as caught:
        gradcheck(product, leaf(3, 4), leaf(3, 4, seed=1))
    e = caught.value
    assert (e.function, e.argument, e.index) == ("product", 1, (1, 2))
    assert e.analytic == pytest.approx(2 * e.numeric) and e.error > 1e-3
    assert "product: the gradient of argument 1 is wrong at index (1, 2): the engine gives" in str(
        e
    )


@pytest.mark.parametrize("full", [True, False])
def test_a_gradient_that_is_no_number_is_found(full):
    for odd in (np.nan, np.inf):
        wrong = mutant(np.sin, lambda g, x, odd=odd: np.where(x > 0, g * np.cos(x), odd))
        with pytest.raises(GradientError, match=f"the engine gives {odd}.*division"):
            gradcheck(wrong, leaf(3, 4), full=full)


def test_a_single_wrong_entry_among_many_is_found():
    def spoil(g, x):
        g = g * np.cos(x)
        g[7, 7] *= 1 + 1e-4
        return g

    with pytest.raises(GradientError, match=r"index \(7, 7\)"):
        gradcheck(mutant(np.sin, spoil), leaf(20, 20))


def test_entries_that_mix_up_small_and_large_are_found_by_the_jacobian():
    """An error of 1e-3 in an entry that is a thousandth of the largest."""
    scale = np.array([1.0, 1e-3])

    def off(g, x):
        return g * scale * np.array([1.0, 1.001])

    with pytest.raises(GradientError):
        gradcheck(mutant(lambda x: x * scale, off), leaf(2))


def test_second_derivatives_are_held_to_differences_too():
    def third_power(slope):
        @tz.op
        def op(be, x):
            # right to first order; what it is made of is differentiated for the second
            return x * x * x, (lambda g: g * slope(x),)

        return op

    assert gradcheck(third_power(lambda x: 3 * x * x), leaf(4), order=2) < 1e-6
    frozen = third_power(lambda x: 3 * np.asarray(x) ** 2)  # leaves the graph
    assert gradcheck(frozen, leaf(4)) < 1e-6
    with pytest.raises(GradientError, match="the second derivative of argument 0 is wrong"):
        gradcheck(frozen, leaf(4), order=2)


def test_a_gradient_that_create_graph_changes_is_found():
    @tz.op
    def op(be, x):
        return x * x, (lambda g: g * x * (3 if be.name == "tensors" else 2),)

    with pytest.raises(ValueError, match="create_graph=True gives .*, create_graph=False "):
        gradcheck(op, leaf(3), order=2)


def test_a_detached_path_is_a_gradient_of_zero():
    with pytest.raises(GradientError, match="it is zero"):
        gradcheck(lambda x: x.detach() * 2, leaf(3))
    with pytest.raises(GradientError, match="0.5 times what it should be"):
        gradcheck(lambda x: x.detach() * x, leaf(3))


def test_functions_of_several_tensors_with_several_results():
    def f(x, k, y, labels):
        return x @ y * k, ops.cross_entropy(x, labels), x > 0

    labels = np.array([0, 3, 1])
    assert gradcheck(f, leaf(3, 4), 2, leaf(4, 2, seed=1), labels, order=2) < 1e-7
    fixed = tz.tensor(np.ones((4, 2)))
    assert gradcheck(f, leaf(3, 4), 2.0, fixed, labels) < 1e-7


def test_kinks_nearby_are_stepped_around_and_kinks_here_are_named():
    close = tz.tensor(np.array([2e-4, -3e-4, 1.0]), requires_grad=True)
    assert gradcheck(ops.relu, close) < 1e-6
    with pytest.raises(GradientError, match="the function has a kink here"):
        gradcheck(ops.relu, tz.tensor(np.array([0.0, 1.0]), requires_grad=True))


def test_large_arrays_are_checked_along_directions_alone():
    calls = []

    def f(x):
        calls.append(1)
        return x.tanh()

    assert gradcheck(f, leaf(100, 100)) < 1e-6
    assert len(calls) < 50


def test_a_wrong_element_of_a_large_array_is_found_by_halving():
    def spoil(g, x):
        g = g * np.cos(x)
        g[77, 33] += 1
        return g

    with pytest.raises(GradientError) as caught:
        gradcheck(mutant(np.sin, spoil), leaf(100, 100))
    assert caught.value.index == (77, 33)
    assert caught.value.analytic == pytest.approx(caught.value.numeric + 1)


def test_flat_functions_and_empty_arrays_pass():
    assert gradcheck(ops.floor, tz.tensor(np.array([0.5, 1.5]), requires_grad=True)) == 0
    assert gradcheck(lambda x: ops.softmax(x).sum(), leaf(3, 4)) < 1e-6  # constant: 1 a row
    assert gradcheck(ops.exp, leaf(0, 3)) == 0


def test_what_cannot_be_checked_is_refused_in_words():
    with pytest.raises(TypeError, match='argument 0 is float32, whose .* dtype="float64"'):
        gradcheck(ops.exp, tz.tensor([1.0], requires_grad=True))
    with pytest.raises(ValueError, match="exp: no input requires a gradient"):
        gradcheck(ops.exp, tz.tensor([1.0], dtype="float64"))
    with pytest.raises(ValueError, match="gives different values for the same inputs"):
        gradcheck(ops.dropout, leaf(10))
    with pytest.raises(ValueError, match="<lambda> is not finite at this point"):
        gradcheck(lambda x: x * np.inf, leaf(2))


def test_domains_are_drawn_from_on_a_backend(backend):
    seen = []

    def f(x, k):
        seen.append((x.backend, x.shape, np.abs(x.numpy()).min()))
        return ops.relu(x) * k

    assert gradcheck(f, away(3, 4), 2, seed=5, backend=backend) < 1e-6
    where, shape, smallest = seen[0]
    assert where is backend and shape == (3, 4) and smallest >= 0.2


def test_float32_is_held_to_a_budget():
    assert gradcheck(ops.softmax, normal(3, 4), float32=1e-6) < 1e-6
    assert gradcheck(lambda x: (x + 1e3).log() * 1e3, normal(5), float32=1e-5) < 1e-6
    with pytest.raises(
        GradientError, match="argument 0 is wrong at .* float64 gives .* beyond the budget of 1e-08"
    ):
        gradcheck(lambda x: (x + 1e3).log() * 1e3, normal(5), float32=1e-8)


def test_a_complex_step_sees_what_differences_cannot():
    def mostly_constant(slope):
        return mutant(lambda x: np.sin(x) + 1e12, lambda g, x: g * slope(x))

    right, wrong = mostly_constant(np.cos), mostly_constant(lambda x: 1.001 * np.cos(x))
    assert gradcheck(wrong, leaf(5)) < 1e-6  # what differences see is rounding
    assert gradcheck(right, leaf(5), method="complex") < 1e-12
    with pytest.raises(GradientError, match="a scale factor: it is 1.001 times"):
        gradcheck(wrong, leaf(5), method="complex")
    assert (
        gradcheck(lambda x, y: x @ y.tanh(), normal(2, 3), normal(3, 2), method="complex") < 1e-12
    )
    for options in ({"order": 2}, {"eps": 1e-5}):
        with pytest.raises(ValueError, match="a complex step is of first order and has no eps"):
            gradcheck(right, leaf(5), method="complex", **options)
    with pytest.raises(ValueError, match="method must be 'differences' or 'complex'; got 'exact'"):
        gradcheck(right, leaf(5), method="exact")


def test_gradcheck_leaves_no_gradients_behind():
    x = leaf(3)
    gradcheck(ops.exp, x, order=2)
    assert x.grad is None and x.node is None


# parity


def test_parity_measures_the_largest_differences():
    close = tz.backend("numpy").replace(relu=lambda x: np.maximum(x, 0) * (1 + 1e-13))
    a = np.random.default_rng(0).standard_normal((3, 4))
    result = parity(ops.relu, [a], ["numpy", close])
    assert result["numpy"] == (0, 0)
    difference = result["numpy[relu=<lambda>]"]
    assert 1e-14 < difference.forward < 1e-12 and difference.gradient == 0


def test_parity_names_what_differs():
    broken = tz.backend("numpy").replace(relu=lambda x: np.maximum(x, 0.1))
    with pytest.raises(
        ParityError,
        match=r"relu on numpy\[relu=<lambda>\]: output 0 is 0.1 at index \(1,\); numpy gives 0.0 ",
    ):
        parity(ops.relu, [np.array([1.0, -1.0])], [broken])
    broken = tz.backend("numpy").replace(relu_grad=lambda g, y: g)
    with pytest.raises(ParityError, match=r"the gradient of argument 0 is .* at index \(1,\)"):
        parity(ops.relu, [np.array([1.0, -1.0])], [broken])
    wide = tz.backend("numpy").replace(relu=lambda x: np.maximum(x, 0).astype("float64"))
    with pytest.raises(
        ParityError, match=r"output 0 is float64 \(2,\); numpy gives float32 \(2,\)"
    ):
        parity(ops.relu, [np.array([1.0, -1.0], "float32")], [wide])
    lost = tz.backend("numpy").replace(relu=lambda x: np.where(x > 0, x, np.nan))
    with pytest.raises(ParityError, match="output 0 is nan at index"):
        parity(ops.relu, [np.array([1.0, -1.0])], [lost])


def test_parity_takes_options_tensors_and_constants():
    x = tz.tensor([[1.0, 2.0], [0.0, 1.0]], requires_grad=True)
    other = tz.backend("numpy").replace(softmax=lambda x, axis: softmax(x))
    assert parity(ops.softmax, [x], [other], axis=-1).popitem()[1].forward < 1e-6
    assert parity(ops.cross_entropy, [x, np.array([0, 1])], ["numpy"], reduction="sum")
    assert parity(ops.mul, [x, 2.0], ["numpy"]) == {"numpy": (0, 0)}
    infinite = np.array([1.0, np.inf, -np.inf, np.nan])
    assert parity(ops.neg, [infinite], ["numpy"]) == {"numpy": (0, 0)}


# the table


def test_the_command_prints_a_line_for_each_op(capsys):
    assert table_of_ops.main(["--op", "mul", "--op", "tanh", "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert "mul" in out and "tanh" in out and "conv2d" not in out
    assert "2 ops, 7 samples on numpy: all ok" in out


def test_the_command_fails_where_a_gradient_is_wrong(capsys, monkeypatch):
    monkeypatch.setattr(ops, "tanh", mutant(np.tanh, lambda g, x: g))
    assert table_of_ops.main(["--op", "tanh", "--op", "mul"]) == 1
    out = capsys.readouterr().out
    assert "FAIL tanh(3x4): the gradient of argument 0 is wrong" in out and "1 FAILED" in out


def test_the_command_refuses_what_it_does_not_know(capsys):
    for arguments, words in (
        (["--op", "tahn"], "unknown op tahn: choose from add, sub"),
        (["--backend", "tpu"], "unknown backend 'tpu': choose from numpy"),
    ):
        with pytest.raises(SystemExit) as caught:
            table_of_ops.main(arguments)
        assert caught.value.code == 2 and words in capsys.readouterr().err


def test_an_op_without_a_second_derivative_says_why(capsys):
    once = sample("tanh", normal(3), once="its kernel is not differentiated again")
    assert table_of_ops.report({"tanh": [once]}, 0, "numpy") == 0
    line = next(li for li in capsys.readouterr().out.splitlines() if li.startswith("tanh"))
    assert line.split()[1] == "1" and line.split()[3] == "-" and line.split()[-1] == "ok"


def test_samples_draw_the_same_numbers_for_a_seed():
    for s in SAMPLES[::20]:
        for a, b in zip(s.arrays(4), s.arrays(4), strict=True):
            np.testing.assert_array_equal(a, b)
    assert (SAMPLES[0].arrays(1)[0] != SAMPLES[0].arrays(2)[0]).all()
