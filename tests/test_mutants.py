"""Mutation testing: gradients made wrong in every way are found; the tool finds what it should."""

import ast
import datetime
import inspect
import random
from collections import Counter

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import ops
from tinygrad_zen.check import edits, mutants, table
from tinygrad_zen.check.domains import normal
from tinygrad_zen.check.equivalent import EQUIVALENT
from tinygrad_zen.check.samples import SAMPLES, Sample


@pytest.fixture(scope="module")
def every():
    return mutants.mutants()


def test_a_sample_of_today_is_killed(every):
    """Other mutants every day, all of them in `make proof`."""
    chosen = random.Random(datetime.date.today().toordinal()).sample(every, 120)
    outcomes = mutants.campaign(chosen)
    assert not [str(m) for m, outcome in outcomes if outcome == "survived"]
    assert Counter(outcome for _, outcome in outcomes)["killed"] > 40


def test_every_vjp_of_the_table_has_mutants(every):
    """Results are spoiled for each argument that carries a gradient, of each op that has a vjp."""
    spoiled = {m.where for m in every if "argument" in m.where}
    assert len(spoiled) > 150 and len(every) > 4000
    for name in ("mul, argument 0", "mul, argument 1", "lstm, argument 3", "conv2d, argument 2"):
        assert name in spoiled
    own = {s.op for s in SAMPLES if hasattr(getattr(ops, s.op), "body")}  # not made of others
    assert not own - {m.op for m in every}, "ops of the table without a mutant"
    kernels = {m.where.split()[0].rstrip(":") for m in every if m.where.startswith("kernels.")}
    names = [n for n in vars(tz.backend("numpy").kernels) if "_grad" in n]
    assert {f"kernels.{n}" for n in names} <= kernels


def test_a_gradcheck_that_sees_nothing_lets_mutants_survive(every, monkeypatch):
    monkeypatch.setattr(
        mutants, "derivative_errors", lambda f, xs, *rest, **o: f(*xs).sum().backward()
    )
    (negated,) = [m for m in every if str(m) == "tanh, argument 0: negated"]
    assert mutants.trial(negated) == "survived"
    outcomes = mutants.campaign([negated])
    assert outcomes == [(negated, "survived")]
    assert mutants.rate(mutants.by_op(outcomes)["tanh"]) == 0


def test_what_changes_nothing_is_no_mutant(every):
    (zeroed,) = [m for m in every if str(m) == "floor, argument 0: scaled by 1.001"]
    assert mutants.trial(zeroed) == "idle" and mutants.campaign([zeroed]) == []


def test_the_order_of_a_sum_is_no_change():
    """An edit that changes the memory layout alone may lead BLAS to another order of adding up."""
    spoiler = mutants.Spoiler()
    right = np.array([1.0, -300.0, 0.0, np.inf, np.nan])
    for same in (right, right * (1 + 2e-16), right + 1e-14):
        spoiler.compare(same, right)
        assert not spoiler.changed
    for wrong in (right + 1e-11, np.nan_to_num(right), right[:, None]):
        spoiler.changed = False
        spoiler.compare(wrong, right)
        assert spoiler.changed


def test_equivalent_mutants_are_named_with_reasons(every):
    assert all(len(why) > 10 for why in EQUIVALENT.values())
    (tie,) = [
        m for m in every if str(m).startswith("ops.elementwise._share: 0.5 -> ")
    ]  # a key with `...`: an excuse only for what changes nothing
    assert mutants.why_equivalent(tie) and not mutants.why_equivalent(tie, changed=True)
    sources = [str(m) for m in every if m.source]
    stale = [key for key in EQUIVALENT if not any(mutants.fits(key, words) for words in sources)]
    assert not stale, f"the code has changed; tinygrad_zen/check/equivalent.py still names {stale}"


def test_the_value_of_the_op_stays_right(every):
    """Only the gradient lies, else differences would follow the mutant."""
    for mutant in every[::97]:
        # a kernel that carries a convolution's gradient makes the value of a transposed convolution
        shared = "conv_transpose" if mutant.where.startswith("kernels.") else ()
        sample = next((s for s, _ in mutant.cases if not s.op.startswith(shared)), None)
        if sample is None:
            continue
        be, spoiler = mutant.make(tz.backend("numpy"))
        xs = sample.tensors(backend=be)
        right = sample(*sample.tensors())
        with mutants.watching(spoiler):
            try:
                wrong = sample(*xs)
            except Exception:
                continue  # refused
        for a, b in zip(*([y] if hasattr(y, "dtype") else y for y in (right, wrong)), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def cube(x, y, be=None):
    scale = 3
    z = x * x * x
    kept = z.shape
    return z, (lambda g: (g * scale * x * y.sum(axis=0)).reshape(kept), None)


def test_edits_are_made_where_the_gradient_is():
    tree = edits.tree_of(cube)
    region = edits.gradient_code(tree)
    assert ast.unparse(region[-1]) == "3" and len(region) == 4  # lambda, vjps, kept, scale
    words = [w for w, _ in edits.edits(tree, region, ("x", "y"))]
    for expected in (
        "g * scale * x * y.sum(axis=0) -> g * scale * x / y.sum(axis=0)",
        "g * scale -> g",
        "y.sum(axis=0) -> y",
        "y.sum(axis=0) -> y.sum()",
        "y.sum(axis=0) -> y.mean(axis=0)",
        "0 -> 1",
        "3 -> 4",
        "x -> y",
    ):
        assert expected in words
    assert not any(w.startswith("x * x") for w in words)  # the value
    before = inspect.getsource(cube)
    for w, compiled in edits.edits(tree, region):
        if w == "3 -> 4":
            assert edits.changed(cube, cube, compiled(), __name__)(np.float64(2), 1)[0] == 8
    assert (
        ast.unparse(edits.tree_of(cube)) == ast.unparse(tree) and inspect.getsource(cube) == before
    )


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("-x", ["x"]),
        ("f(x, axis=-1)", ["x", "f(x)", "f(x, axis=1)", "f(x, axis=0)"]),
        ("x.T", ["x", "x.reshape(x.T.shape)"]),
        ("x.swapaxes(0, 1)", ["x", "x.reshape(x.swapaxes(0, 1).shape)", "x.swapaxes(1, 1)"]),
        ("k.matmul(x, y)", ["x", "k.matmul(y, x)"]),
        ("xp.cos(x)", ["x", "xp.sin(x)"]),
        ("x > y", ["x < y"]),
        ("a if b else c", ["a", "c"]),
        ("x[1:]", ["x", "x[2:]"]),
        ("f(keepdims=True)", ["f()", "f(keepdims=False)"]),
        ("x.astype(t)", []),
    ],
)
def test_the_kinds_of_edits(code, wrong):
    tree = ast.parse(f"def f():\n    {code}").body[0]
    found = []
    for parent, field, index, node in edits._places(tree, tree.body):
        for new in edits._wrong(node, ()):
            edits._put(parent, field, index, new)
            found.append(ast.unparse(tree.body[0]))
            edits._put(parent, field, index, node)
    assert set(wrong) <= set(found) and bool(wrong) == bool(found)


def test_the_command_prints_the_kill_rate_by_op(capsys, monkeypatch):
    assert table.main(["--mutants", "--op", "tanh", "--op", "sub"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.endswith("%")}
    assert rows["tanh"][-1] == rows["sub"][-1] == rows["all"][-1] == "100%"
    assert "mutants killed on numpy, 100 %; " in out
    monkeypatch.setattr(mutants, "trial", lambda *args: "survived")
    assert table.main(["--mutants", "--op", "tanh"]) == 1
    out = capsys.readouterr().out
    assert "SURVIVED tanh, argument 0: negated" in out and "0 of " in out


def test_a_new_op_has_its_mutants_killed(monkeypatch):
    """A user's op with a sample is mutated like the others."""

    @tz.op
    def cubed(be, x):
        return x * x * x, (lambda g: g * (3 * x * x),)

    monkeypatch.setattr(ops, "cubed", cubed, raising=False)
    chosen = mutants.mutants([Sample("cubed", (normal(2, 3),), {})])
    own = [m for m in chosen if "cubed" in m.where]  # others are of the ops that its gradient calls
    outcomes = [outcome for _, outcome in mutants.campaign(own)]
    assert "survived" not in outcomes and outcomes.count("killed") > 10
