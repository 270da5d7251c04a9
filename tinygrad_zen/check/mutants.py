"""Mutation testing of gradients: would gradcheck catch a wrong vjp? Make them wrong and see.

Every vjp of every op in the table of samples is spoiled in three ways, one mutant at a time:
- what it returns: scaled, negated, zeroed, moved by a place, a sum over a broadcast axis dropped, ...
- what it saved: the arrays of another call (a stale value);
- how it is written: each small wrong edit of its source, and of the gradient kernels that it calls.
The value of the op stays right; only its gradient lies. A mutant is killed when gradcheck raises on
one of the samples that run it. One that changes no number in any sample, beyond rounding, is no mutant,
unless it is an edit of source: those must be named, with the reason, in `equivalent.py`.
"""

import ast
import functools
import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..autograd import Watcher, grad, unbroadcast, watching
from ..backend import backend
from ..tensor import Tensor
from . import edits
from .equivalent import EQUIVALENT
from .gradcheck import GradientError, derivative_errors
from .samples import SAMPLES

# which library computes, and in which memory order: no matter of gradients
LAYOUT = {"namespace", "channels_last", "new_images", "ordered_as", "pad", "erf", "tanh"}
ROUNDING = 1e-14  # of the largest number in an array
OPS, KERNELS = "tinygrad_zen.ops", "tinygrad_zen.kernels"


@dataclass(frozen=True)
class Mutant:
    """A wrong gradient: of which op of the table, where, in what way, and the cases that run it.

    cases: (sample, order) pairs. make: from a backend to a backend and a Spoiler that run the mutant.
    """

    op: str
    where: str
    what: str
    cases: list
    make: Any
    source: bool = False

    def __str__(self):
        return f"{self.where}: {self.what}"


class Spoiler(Watcher):
    """A Watcher that makes gradients wrong, and knows whether any number has changed by it."""

    changed = False

    def compare(self, wrong, right):
        if right is not None and not _same(wrong, right):
            self.changed = True
        return wrong


def _same(a, b):
    """Whether two arrays differ by rounding at most, as sums do whose order the memory layout sets."""
    if np.array_equal(a, b, equal_nan=True):
        return True
    if np.shape(a) != np.shape(b):
        return False
    finite = np.abs(b)[np.isfinite(b)]
    return np.allclose(a, b, rtol=0, atol=ROUNDING * finite.max(initial=0), equal_nan=True)


class WrongResult(Spoiler):
    """Changes what the vjp of one op gives for one argument."""

    def __init__(self, body, argument, change):
        self.body, self.argument, self.change = body, argument, change

    def vjp(self, node, i, vjp, g):
        right = vjp(g)
        if node.fn is not self.body or i not in (None, self.argument) or isinstance(g, Tensor):
            return right
        if i is not None:
            return self.spoiled(right, node)
        results = list(right)
        results[self.argument] = self.spoiled(results[self.argument], node)
        return tuple(results)

    def spoiled(self, right, node):
        shape = node.parents[self.argument].shape
        if self.change is not _drop_broadcast_sum:  # as the engine will sum it
            right = unbroadcast(right, shape)
        return self.compare(self.change(right, shape), right)


class WrongBody(Spoiler):
    """Takes the value of an op from its body, but the vjps from another."""

    def __init__(self, others):
        self.others = others  # {body: the function in its place}
        self.right = {}

    def call(self, fn, backend, arrays, options):
        out, right = fn(backend, *arrays, **options)
        other = self.others.get(fn)
        if other is None or right is None:
            return out, right
        wrong = other(backend, *arrays, **options)[1]
        self.right[id(wrong)] = wrong, right
        return out, wrong

    def vjp(self, node, i, vjp, g):
        if isinstance(g, Tensor) or id(node.vjps) not in self.right:
            return vjp(g)
        right = self.right[id(node.vjps)][1]
        right = right(g) if i is None else right[i](g)
        wrong = vjp(g)
        for a, b in zip(wrong, right, strict=True) if i is None else [(wrong, right)]:
            self.compare(a, b)
        return wrong


# what a vjp returns


def _drop_broadcast_sum(g, shape):
    """The first slice alone where the engine would sum over an axis that was stretched."""
    extra = g.ndim - len(shape)
    for axis in range(g.ndim):
        if axis < extra:
            return g.take(0, axis=axis)
        if shape[axis - extra] == 1 != g.shape[axis]:
            return g.take([0], axis=axis)
    return g


def _lose_one(g, shape):
    flat = np.array(g).reshape(-1)
    flat[np.flatnonzero(flat)[-1:]] = 0
    return flat.reshape(g.shape)


CHANGES = {
    "scaled by 1.001": lambda g, shape: g * 1.001,
    "negated": lambda g, shape: -g,
    "zeroed": lambda g, shape: g * 0.0,
    "a constant added": lambda g, shape: g + 1e-3 * np.abs(g).max(initial=1e-3),
    "one element lost": _lose_one,
    "cut at 0": lambda g, shape: np.maximum(g, 0),
    "moved by one place": lambda g, shape: np.roll(g, 1, axis=-1) if g.ndim else g,
    "reversed along the first axis": lambda g, shape: g[::-1] if g.ndim else g,
    "reversed along the last axis": lambda g, shape: g[..., ::-1] if g.ndim else g,
    "averaged along the first axis": lambda g, shape: _level(g, 0) if g.ndim else g,
    "averaged along the last axis": lambda g, shape: _level(g, -1) if g.ndim else g,
    "transposed, then reshaped": lambda g, shape: g.T.reshape(g.shape),
    "reshaped, then transposed": lambda g, shape: g.reshape(g.T.shape).T,
    "one broadcast sum dropped": _drop_broadcast_sum,
}


def _level(g, axis):
    return np.broadcast_to(g.mean(axis=axis, keepdims=True), g.shape) if g.size else g


def _stale(body):
    """The body of an op with what it saves of another call: its numbers up to 1 % larger."""

    @functools.wraps(body)
    def call(be, *arrays, **options):
        return body(be, *map(_moved, arrays), **options)

    return call


def _moved(a):
    if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
        return a
    return a * np.linspace(1.001, 1.01, a.size).reshape(a.shape)


# which sample runs what


class _Running(Watcher):
    """Notes which vjps run, by body and argument."""

    def __init__(self):
        self.vjps = {}

    def vjp(self, node, i, vjp, g):
        if not isinstance(g, Tensor):
            wanted = [i]
            if i is None:
                wanted = [
                    j
                    for j, p in enumerate(node.parents)
                    if isinstance(p, Tensor) and p.requires_grad
                ]
            self.vjps.setdefault(node.fn, set()).update(wanted)
        return vjp(g)


def _runs(samples):
    """What each sample runs: {(body, argument): cases} and {kernel: cases}.

    A case of first order where there is one: what runs in second derivatives alone has those.
    """
    plain = backend("numpy")
    names = [n for n in vars(plain.kernels) if "_grad" in n or n.endswith("_pick")]
    vjps, kernels = {}, {}
    for order in (1, 2):
        for sample in samples:
            used = set()
            noted = {n: _noting(getattr(plain.kernels, n), n, used) for n in names}
            running = _Running()
            with watching(running):
                _differentiate(sample, plain.replace(**noted), min(order, 1 if sample.once else 2))
            for body, arguments in running.vjps.items():
                for i in arguments:
                    _case(vjps.setdefault((body, i), []), sample, order)
            for n in used:
                _case(kernels.setdefault(n, []), sample, order)
    for cases in [*vjps.values(), *kernels.values()]:
        cases.sort(key=_size)
    return vjps, kernels


def _noting(kernel, name, used):
    def call(*args):
        used.add(name)
        return kernel(*args)

    return call


def _size(case):
    """How long a case takes, roughly: first order first, small arrays first."""
    sample, order = case
    return order, sum(a.size for a in sample.arrays())


def _case(cases, sample, order):
    if order == 1 or all(o == 2 for _, o in cases):
        cases.append((sample, order))


def _differentiate(sample, where, order):
    """Run the backward pass of a sample once, or twice."""
    xs = sample.tensors(backend=where)
    outputs = sample(*xs)
    outputs = outputs if isinstance(outputs, tuple | list) else [outputs]
    xs = [x for x in xs if x.requires_grad]
    for level in range(1, order + 1):
        outputs = [o for o in outputs if o.requires_grad]
        if not outputs:
            return
        seeds = [Tensor(np.ones(o.shape), where, True) for o in outputs]
        found = grad(outputs, xs, seeds, create_graph=level < order, allow_unused=True)
        xs, outputs = [*xs, *seeds], [g for g in found if g is not None]


# the mutants


def mutants(samples=SAMPLES):
    """Every mutant of every vjp that the samples run, as a list."""
    vjps, kernels = _runs(samples)
    return [*_of_results(vjps), *_of_bodies(vjps), *_of_kernels(kernels)]


def _owner(cases, name):
    """The op of the table that a mutant is counted under: of that name, else the first to run it."""
    ops = [sample.op for sample, _ in cases]
    return name if name in ops else ops[0]


def _of_results(vjps):
    for (body, i), cases in vjps.items():
        name = body.__name__.lstrip("_")
        op, where = _owner(cases, name), f"{name}, argument {i}"
        for what, change in CHANGES.items():
            make = functools.partial(_wrong_result, body, i, change)
            yield Mutant(op, where, what, cases, make)


def _wrong_result(body, i, change, be):
    return be, WrongResult(body, i, change)


def _of_bodies(vjps):
    cases_of = {}
    for (body, _), cases in vjps.items():
        known = cases_of.setdefault(body, [])
        known += [c for c in cases if c not in known]
    for body, cases in cases_of.items():
        name = body.__name__.lstrip("_")
        make = functools.partial(_wrong_bodies, {body: _stale(body)})
        yield Mutant(_owner(cases, name), name, "saved values stale", cases, make)
    callers = {}  # function -> the bodies that call it
    for body in cases_of:
        for f in edits.called(body, OPS):
            callers.setdefault(f, []).append(body)
    for f, (tree, region) in _gradient_regions(list(callers)).items():
        cases = [c for body in callers[f] for c in cases_of[body]]
        cases = [c for i, c in enumerate(cases) if c not in cases[:i]]
        cases.sort(key=_size)
        data = f.__code__.co_varnames[1 : f.__code__.co_argcount] if f in cases_of else ()
        name = f"{f.__module__.rpartition('.')[2]}.{f.__name__}"
        for what, code in edits.edits(tree, region, data):
            make = functools.partial(_edited_bodies, callers[f], f, code)
            op = _owner(cases, f.__name__.lstrip("_"))
            yield Mutant(op, f"ops.{name}", what, cases, make, source=True)


def _wrong_bodies(others, be):
    return be, WrongBody(others)


def _edited_bodies(bodies, function, code, be):
    return be, WrongBody({b: edits.changed(b, function, code(), OPS) for b in bodies})


def _gradient_regions(functions):
    """{function: (tree, the code in it that makes gradients)}; all of what only gradients call."""
    trees = {f: edits.tree_of(f) for f in functions}
    regions = {f: edits.gradient_code(tree) for f, tree in trees.items()}
    while True:
        there, elsewhere = set(), set()
        for f, tree in trees.items():
            inside = {id(n) for top in regions[f] for n in ast.walk(top)}
            there |= edits.referred(f, regions[f])
            elsewhere |= edits.referred(f, [tree], inside)
        helpers = [f for f in functions if f in there - elsewhere and regions[f] != trees[f].body]
        if not helpers:
            return {f: (trees[f], regions[f]) for f in functions}
        regions.update({f: trees[f].body for f in helpers})


def _of_kernels(kernels):
    reference = backend("numpy").kernels
    for name, cases in kernels.items():
        kernel = getattr(reference, name)
        for f in edits.called(kernel, KERNELS):
            if f.__name__ in LAYOUT:
                continue
            tree = edits.tree_of(f)
            inner = f.__name__ if f is kernel else f"{name} in {f.__name__}"
            for what, code in edits.edits(tree, tree.body):
                make = functools.partial(_edited_kernel, name, kernel, f, code)
                op = _owner(cases, name.partition("_grad")[0])
                yield Mutant(op, f"kernels.{inner}", what, cases, make, source=True)


def _edited_kernel(name, kernel, function, code, be):
    spoiler = Spoiler()
    wrong = edits.changed(kernel, function, code(), KERNELS)

    def call(*args):
        right, result = kernel(*args), wrong(*args)
        for a, b in (
            zip(result, right, strict=True) if isinstance(right, tuple) else [(result, right)]
        ):
            spoiler.compare(a, b)
        return result

    return be.replace(**{name: call}), spoiler


# trial and report


def trial(mutant, where="numpy", seed=0):
    """What becomes of a mutant.

    "killed": gradcheck raised; "refused": it ran into another error, of shapes or names; "equivalent":
    it survived, and equivalent.py says why it must; "idle": it changed no number in any sample beyond
    rounding, which says nothing; "survived": gradcheck let a wrong gradient pass.
    """
    changed = False
    for sample, order in mutant.cases:
        be, spoiler = mutant.make(backend(where))
        try:
            with watching(spoiler), np.errstate(all="ignore"):
                derivative_errors(sample, sample.tensors(seed, backend=be), order, seed=seed)
        except GradientError:
            return "killed"
        except Exception:
            return "refused"
        changed = changed or spoiler.changed
    if why_equivalent(mutant, changed):
        return "equivalent"
    return "survived" if changed else "idle"


def why_equivalent(mutant, changed=False):
    """Why equivalent.py says that a mutant changes no derivative, or None."""
    if changed:
        return EQUIVALENT.get(str(mutant))
    return next((why for key, why in EQUIVALENT.items() if fits(key, str(mutant))), None)


def fits(key, words):
    """Whether a key of EQUIVALENT means this mutant; `...` in it stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, key.split("..."))), words) is not None


def campaign(chosen, where="numpy", seed=0):
    """Try mutants; -> [(mutant, what became of it)]."""
    outcomes = [(mutant, trial(mutant, where, seed)) for mutant in chosen]
    # a gradient of 0, scaled, is no mutant at all
    return [(m, outcome) for m, outcome in outcomes if m.source or outcome != "idle"]


def by_op(outcomes):
    """{op: Counter of what became of its mutants}."""
    table = {}
    for mutant, outcome in outcomes:
        table.setdefault(mutant.op, Counter())[outcome] += 1
    return table


def rate(counts):
    """The share of real mutants (neither equivalent nor idle) that was killed, by whatever error."""
    killed = counts["killed"] + counts["refused"]
    return killed / max(killed + counts["survived"], 1)


def report(ops, seed, where):
    """Try every mutant of these ops and print the kill rate of each; -> 1 if any survived, else 0."""
    start = time.perf_counter()
    chosen = [m for m in mutants() if m.op in ops]
    print("gradients made wrong, and what gradcheck makes of them")
    print(
        f"{'op':34}{'killed':>8}{'refused':>9}{'survived':>10}{'equivalent':>12}{'idle':>6}{'rate':>8}"
    )
    outcomes = []
    for op in ops:
        tried = campaign([m for m in chosen if m.op == op], where, seed)
        outcomes += tried
        for name, counts in by_op(tried).items():
            print(f"{name:34}{_cells(counts)}", flush=True)
    total = Counter(outcome for _, outcome in outcomes)
    print(f"{'all':34}{_cells(total)}")
    for mutant, outcome in outcomes:
        if outcome == "survived":
            print(f"SURVIVED {mutant}")
    killed = total["killed"] + total["refused"]
    print(
        f"{killed} of {killed + total['survived']} mutants killed on {where}, {100 * rate(total):.4g} %; "
        f"{time.perf_counter() - start:.0f} s"
    )
    return 1 if total["survived"] else 0


def _cells(counts):
    words = f"{counts['killed']:8}{counts['refused']:9}{counts['survived']:10}"
    return f"{words}{counts['equivalent']:12}{counts['idle']:6}{100 * rate(counts):7.4g}%"
