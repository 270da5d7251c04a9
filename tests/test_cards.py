"""Op cards: their formulas are run against the ops, so what a card shows cannot rot."""

import inspect
import re

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import ops
from tinygrad_zen.backend import WHOLES
from tinygrad_zen.cards._tools import Outside
from tinygrad_zen.cards.card import Card, formulas
from tinygrad_zen.cards.cost import counted
from tinygrad_zen.cards.latex import latex
from tinygrad_zen.check import work
from tinygrad_zen.check.domains import Draw
from tinygrad_zen.check.samples import SAMPLES
from tinygrad_zen.check.table import by_op

TABLE = by_op(SAMPLES)
each_op = pytest.mark.parametrize("name", TABLE)


def test_every_op_of_the_table_has_a_formula():
    assert set(formulas()) == set(TABLE)


def compare(sample, formula, seed=0):
    """Hold a formula to the op on a sample: value, and gradients for a random g; raises Outside."""
    try:
        inspect.signature(formula).bind(*sample.args, **sample.options)
    except TypeError as e:
        raise Outside(str(e)) from None
    with np.errstate(all="ignore"):
        value, vjps = sample(*sample.arrays(seed), function=formula)
        inputs = sample.tensors(seed)
        result = sample(*inputs)
        results = result if isinstance(result, list | tuple) else [result]
        values = value if isinstance(value, list | tuple) else [value]
        assert len(results) == len(values)
        for r, v in zip(results, values, strict=True):
            np.testing.assert_allclose(r.numpy(), v, rtol=1e-9, atol=1e-12, strict=False)

        rng = np.random.default_rng(seed + 1)
        gs = [np.asarray(rng.standard_normal(r.shape)) for r in results]
        wanted = [x for x in inputs if x.requires_grad]
        total = sum(
            (r * tz.tensor(g, dtype="float64", backend="numpy")).sum()
            for r, g in zip(results, gs, strict=True)
        )
        right = tz.grad(total, wanted)
        got = gradients(sample, vjps, gs if isinstance(value, list) else gs[0])
    assert len(got) == len(right)
    for a, b in zip(got, right, strict=True):
        np.testing.assert_allclose(summed_to(a, b.shape), b.numpy(), rtol=1e-8, atol=1e-10)


def gradients(sample, vjps, g):
    """What the formula gives for each argument that carries a gradient."""
    carried = (
        vjps(g)
        if callable(vjps)
        else [v and v(g) if _drawn(a) else None for v, a in zip(vjps, sample.args, strict=False)]
    )
    found = []
    for a, back in zip(sample.args, carried, strict=False):
        if isinstance(a, list):
            found += list(back)
        elif isinstance(a, Draw) and a.differentiable:
            found.append(back)
    return found


def _drawn(a):
    return isinstance(a, list) or (isinstance(a, Draw) and a.differentiable)


def summed_to(g, shape):
    """A gradient summed over what was broadcast, as the engine does."""
    g = np.asarray(g)
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g


@each_op
def test_formulas_are_what_the_ops_compute(name):
    spoken_of = 0
    for sample in TABLE[name]:
        try:
            compare(sample, formulas()[name])
            spoken_of += 1
        except Outside:
            continue
    assert spoken_of, f"no sample of {name} is one that its formula speaks of"


def test_how_many_samples_formulas_speak_of():
    """Most: a formula may leave out rare options, not the usual call."""
    spoken_of = 0
    for sample in SAMPLES:
        try:
            inspect.signature(formulas()[sample.op]).bind(*sample.args, **sample.options)
            with np.errstate(all="ignore"):
                sample(*sample.arrays(), function=formulas()[sample.op])
            spoken_of += 1
        except (TypeError, Outside):
            continue
    assert spoken_of >= 0.7 * len(SAMPLES)


def test_a_wrong_formula_is_found():
    def wrong_value(x, *, axis=-1):
        y = np.exp(x) / np.sum(np.exp(x), axis, keepdims=True)
        return y * 1.0001, (lambda g: y * (g - np.sum(g * y, axis, keepdims=True)),)

    def wrong_gradient(x, *, axis=-1):
        y = np.exp(x) / np.sum(np.exp(x), axis, keepdims=True)
        return y, (lambda g: y * g,)

    for formula in (wrong_value, wrong_gradient):
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            compare(TABLE["softmax"][0], formula)


# mathematics


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("np.exp(-x) + 1", "e^{-x} + 1"),
        ("x * (y + 1.0)", r"x\,\left(y + 1\right)"),
        ("-x / y**2", r"\frac{-x}{y^{2}}"),
        ("-g * t * n", r"-g\,t\,n"),
        ("(a - b) - (c - d)", r"a - b - \left(c - d\right)"),
        ("(x - 1) ** 2", r"\left(x - 1\right)^{2}"),
        ("np.sum(g * y, axis, keepdims=True)", r"\sum_{\text{axis}} g\,y"),
        ("np.sum(x, 1) * r", r"\left(\sum_{1} x\right)\,r"),
        ("y - np.sum(x + 1)", r"y - \sum \left(x + 1\right)"),
        ("np.max(x, (4, 5))", r"\max_{4, 5} x"),
        ("np.maximum(x, 0)", r"\max\left(x, 0\right)"),
        ("g * (x > 0)", r"g\,[x > 0]"),
        (
            "np.where(x > 0, x, alpha)",
            r"\begin{cases} x & x > 0 \\ \alpha & \text{else} \end{cases}",
        ),
        ("transposed(x) @ w.T", r"x^T\,w^T"),
        ("np.einsum('nk,kc->nc', g, w)", r"\sum_{k} g_{nk}\,w_{kc}"),
        ("np.sqrt(np.abs(w_ih))", r"\sqrt{\left|w_{ih}\right|}"),
        ("y if b is None else y + b", "y + b"),
        ("g[..., None]", "g"),
        ("x.size / math.log(2)", r"\frac{\left|x\right|}{\log\left(2\right)}"),
        ("[n for n in x]", r"\texttt{[n for n in x]}"),
        ("f(x, stride=2)", r"\texttt{f(x, stride=2)}"),
    ],
)
def test_latex(expression, shown):
    assert latex(expression) == shown


@pytest.fixture
def unproved(monkeypatch):
    """Cards without the proof, which takes a moment each."""
    monkeypatch.setattr(Card, "_proof", lambda self: "proof")


@each_op
def test_cards_are_whole(name, unproved):
    card = tz.explain(name)
    text, rich = str(card), card._repr_markdown_()
    assert text.startswith(f"{name}(") and f"cost of {name}(" in text
    assert card.costs[0].what == "value" and len(card.costs) > 1
    for cost in card.costs:
        assert 0 <= cost.flops and 0 <= cost.saved < cost.bytes
    for mathematics in re.findall(r"\$\$(.*?)\$\$", rich):
        assert mathematics.count("{") == mathematics.count("}")
        assert mathematics.count(r"\left") == mathematics.count(r"\right")
        assert r"\texttt" not in mathematics
    for kernel in card.kernels:
        assert f"**Kernel** `{kernel}`" in rich


def test_most_formulas_are_shown_as_mathematics(unproved):
    shown = [name for name in TABLE if "$$" in tz.explain(name)._repr_markdown_()]
    assert len(shown) >= 85
    assert {"softmax", "matmul", "conv2d", "gelu", "cross_entropy", "batch_norm"} <= set(shown)


# cost


def test_costs_are_those_of_the_work_formulas():
    """Counted on the formula as it stands, and by formula for the kernel: within a factor of two."""
    compared = 0
    for name in sorted(set(TABLE) & set(work.FLOPS) - set(WHOLES)):
        if name in ("linear_activation", "cross_entropy"):
            continue  # the kernel gives more, or the formula all activations at once
        card = tz.explain(name)
        (sample,) = [s for s in TABLE[name] if str(s) == card.call]
        kernel = getattr(tz.backend("numpy").kernels, name)
        args = sample.arrays()
        if len(args) != len(list(inspect.signature(kernel).parameters)):
            continue  # with options
        expected = work.flops(name, kernel(*args), args)
        assert expected / 2 <= card.costs[0].flops <= 2 * expected, name
        compared += 1
    assert compared >= 6


def test_costs_of_a_call_of_ones_own():
    a, b = np.ones((8, 5)), tz.tensor(np.ones((5, 3)))
    card = tz.explain("matmul", a, b)
    assert card.call == "matmul(8x5, 5x3)"
    value, to_a, to_b = card.costs
    assert value == ("value", 2 * 8 * 5 * 3, 4 * (40 + 15 + 24), 0)
    assert to_a == ("x", 2 * 8 * 5 * 3, 4 * (24 + 15 + 40), 4 * 15)
    assert to_b == ("y", 2 * 8 * 5 * 3, 4 * (24 + 40 + 15), 4 * 40)
    assert tz.explain("sum", np.ones((4, 6)), axis=1).costs[0] == ("value", 24, 4 * (24 + 4), 0)
    # a sum needs nothing of the way there: its gradient is g in every place
    assert tz.explain("sum", np.ones((4, 6))).costs[1].saved == 0
    assert tz.explain("reshape", np.ones((4, 6)), shape=24).costs[1].saved == 0
    images, filters = np.ones((2, 3, 8, 8)), np.ones((4, 3, 3, 3))
    assert tz.explain("conv2d", images, filters).costs[0].flops == 2 * (2 * 4 * 6 * 6) * 27


def test_operations_are_counted():
    def run(x, y):
        a = x * y + 1  # 2 * 6
        b = np.sum(a, axis=1)  # 6
        c = np.einsum("ij,kj->ik", x, y)  # 2 * 2 * 2 * 3
        d = x @ y.T  # 2 * 2 * 2 * 3
        return a, b, c, d, np.cumsum(x), x.reshape(-1), np.concatenate([x, y])  # 6, 0, 0

    _, since = counted(run, np.ones((2, 3)), np.ones((2, 3)))
    assert since()[0] == 12 + 6 + 24 + 24 + 6
    assert since() == (0, set())


# what it says


def test_a_card_in_a_terminal():
    text = str(tz.explain("softmax"))
    for line in (
        "softmax(x, *, axis=-1)",
        "  s = exp(x - max(x, axis, keepdims=True))",
        "  x: y * (g - sum(g * y, axis, keepdims=True))",
        "  value  60 operations, 96 bytes",
        "kernels/reference/activation.py",
    ):
        assert line in text
    assert re.search(
        r"against differences \d\.\de-\d\d, of the second \d\.\de-\d\d: 3 samples", text
    )
    assert "Leaves out groups." in str(tz.explain("conv2d"))
    assert "Holds for matrices." in str(tz.explain("matmul"))
    assert repr(tz.explain("exp")) == "<Card of exp: print it, or show it in a notebook>"


def test_the_error_is_measured():
    card = tz.explain("gelu")
    first, second = card.error
    assert 0 < first < 1e-6 and 0 < second < 1e-5
    assert tz.explain("sign").error[0] < 1e-9


def test_a_wrong_gradient_is_not_shown_as_proved(monkeypatch):
    @tz.op
    def exp(be, x):
        return be.xp.exp(x), (lambda g: g,)

    monkeypatch.setattr(ops, "exp", exp)
    with pytest.raises(AssertionError, match="the gradient of argument 0 is wrong"):
        str(tz.explain("exp"))


def test_the_code_of_rungs():
    pytest.importorskip("numba")
    card = tz.explain("softmax")
    names = [rung.name for rung in card.kernels["softmax"]]
    assert names[:5] == [
        "softmax",
        "softmax_loops",
        "softmax_arrays",
        "softmax_rows",
        "softmax_parallel",
    ]
    assert "def softmax_rows(x, axis):" in card.code("softmax_rows")
    loops = card.code("softmax_loops")
    assert loops.startswith("# kernels/cpu/activation.py\ndef softmax_loops(x, axis):")
    assert "@njit(**COMPILED)\ndef _softmax_loops" in loops  # and the loops that it compiles
    whole = card.code()
    assert whole.startswith("# tinygrad_zen.ops.activation\n@op\ndef softmax(be, x, *, axis=-1):")
    assert all(f"def {name}(" in whole for name in names)
    assert tz.explain("var").code().startswith("# tinygrad_zen.ops.reduce\n@op\ndef var(")
    assert "softmax_loops" in card._repr_markdown_()


def test_errors():
    with pytest.raises(
        ValueError, match="explain: no op 'sofmax'; did you mean softmax, log_softmax"
    ):
        tz.explain("sofmax")
    with pytest.raises(
        ValueError, match="explain: no op 'zzz'; there are abs, adaptive_avg_pool1d"
    ):
        tz.explain("zzz")
    with pytest.raises(TypeError, match="explain: the name of an op is needed.*got function"):
        tz.explain(ops.softmax)
    with pytest.raises(ValueError, match="explain: matmul: the formula holds for matrices"):
        tz.explain("matmul", np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="explain: matmul: .*mismatch"):
        tz.explain("matmul", np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(
        ValueError, match="explain: conv2d: the formula takes no such call: .*'groups'"
    ):
        tz.explain("conv2d", np.ones((1, 2, 3, 3)), np.ones((2, 1, 3, 3)), groups=2)
    with pytest.raises(ValueError, match="code: exp has no kernel 'exp_fast'; there are none"):
        tz.explain("exp").code("exp_fast")
    with pytest.raises(ValueError, match="code: relu has no kernel 'rel'; there are relu"):
        tz.explain("relu").code("rel")
