"""Two runs of one step in lockstep: the first op whose results part, whatever came of it later."""

import copy
from typing import NamedTuple

import numpy as np

from ..autograd import Watcher, watching
from ..backend import Backend, default_backend, default_generator
from ..backend import backend as find_backend
from ..tensor import Tensor
from .debug import argument_names, as_numpy
from .parity import TOLERANCES, relative_gap
from .places import Place, Places


class Row(NamedTuple):
    """A result of an op in both runs.

    what: "forward", or "gradient for x". error: the largest difference over the largest value. budget:
    what was allowed. a, b: the two values at the index where they differ most.
    """

    op: str
    what: str
    place: Place
    shape: tuple
    error: float
    budget: float
    index: tuple
    a: float
    b: float

    @property
    def parts(self):
        """Whether the difference is beyond the budget."""
        return self.error > self.budget


class Lockstep(NamedTuple):
    """What `lockstep` found; print it.

    rows: every result of every op, in the order in which they came. loss: the loss of either run, each
    on its own. gradients: {parameter: how far its gradients in two runs on their own are apart},
    relative to the largest of all gradients. unlike: where the runs called different ops, in words, or
    None.
    """

    sides: tuple
    rows: list
    loss: tuple
    gradients: dict
    unlike: str | None

    @property
    def first(self):
        """The first Row beyond its budget, or None."""
        return next((row for row in self.rows if row.parts), None)

    @property
    def ok(self):
        """Whether both runs called the same ops, and no result was beyond its budget."""
        return self.first is None and self.unlike is None

    def __str__(self):
        a, b = self.sides
        forward = sum(row.what == "forward" for row in self.rows)
        lines = [
            f"lockstep of {a} and {b}: {forward} ops forward, {len(self.rows) - forward} gradients"
        ]
        if self.unlike:
            lines.append(self.unlike)
        lines += self._verdict(a, b)
        lines.append("\nlargest error of each op, given the same inputs")
        worst = self._worst()
        for row in sorted(worst, key=lambda row: -row.error / row.budget):
            if not row.error:
                continue
            mark = "!" if row.parts else " "
            lines.append(
                f"{mark} {row.op:28} {row.what:18} {row.error:8.1e} of {row.budget:.0e}   "
                f"{row.place.layer}"
            )
        equal = sum(not row.error for row in worst)
        if equal:
            lines.append(f"  {equal} results of ops agree to the last bit")
        lines.append("\neach run on its own")
        x, y = self.loss
        lines.append(f"  loss        {a} {x:.9g}, {b} {y:.9g}")
        if self.gradients:
            worst = max(self.gradients, key=self.gradients.get)
            lines.append(
                f"  gradients   {self.gradients[worst]:.1e} of the largest apart at most, in {worst}"
            )
        return "\n".join(lines)

    def _verdict(self, a, b):
        row = self.first
        if row is None:
            return ["every result is within its budget"]
        lines = [
            f"first beyond its budget: {row.op}, {row.what} {row.shape}: {row.error:.2g} of the largest "
            f"value (budget {row.budget:.0e})",
            f"  at {row.index}: {a} gives {row.a:.9g}, {b} gives {row.b:.9g}",
            f"  line: {row.place}",
        ]
        return lines + ([f"  layer: {row.place.layer}"] if row.place.layer else [])

    def _worst(self):
        """The row of the largest error for each op and kind of result."""
        worst = {}
        for row in self.rows:
            key = row.op, row.what
            if key not in worst or row.error > worst[key].error:
                worst[key] = row
        return list(worst.values())


def lockstep(model, batch, a="numpy", b="numba", *, loss=None, budget=None):
    """Run one step, forward and backward, twice and compare op by op; -> Lockstep.

        print(tz.check.lockstep(model, (x, y), "numpy", "numba"))
        print(tz.check.lockstep(net, (x, y), "float32", "float64", loss="cross_entropy"))

    model: a Model that was compiled, a Module, or a function of Tensors; it is copied, not changed.
    batch: (x, ..., target), the target only where there is a loss; without one the gradient starts
    with fixed random numbers. a, b: backends, float dtypes, or pairs of them, ("numba", "float64");
    what is not named is the default backend, and the model's own dtype. loss: a name or a function
    (output, target) -> Tensor; that of a compiled Model if None. budget: how far results may be
    apart, relative to the largest; one number, or {op: number}; else by the narrower dtype (1e-10 for
    float64, 1e-5 for float32).

    At every op, both runs get the inputs and gradients of one of them (of the narrower dtype, else
    of a): so the error of an op is its own, not what came in. Where a result cancels, so that one
    rounding of the inputs, all upwards, moves it by more than the budget, that much is allowed.
    Random numbers are the same in both. Raises ValueError for a batch or sides that make no sense.
    """
    loss = getattr(model, "loss", None) if loss is None else loss
    if hasattr(model, "net"):
        if loss is None:
            raise ValueError("lockstep: compile the model first, or pass loss=")
        model = model.net
    arrays = tuple(np.asarray(part) for part in (batch if isinstance(batch, tuple) else (batch,)))
    if loss is not None and len(arrays) < 2:
        raise ValueError(
            f"lockstep: with a loss the batch is (x, ..., target); got {len(arrays)} array"
        )
    sides = [_side(where) for where in (a, b)]
    runs = [_Run(model, arrays, loss, *side) for side in sides]
    swapped = runs[1].dtype.itemsize < runs[0].dtype.itemsize
    leader, follower = runs[::-1] if swapped else runs
    budgets = budget if isinstance(budget, dict) else {}
    usual = TOLERANCES[leader.dtype.name] if budget is None or budgets else budget

    state = default_generator().bit_generator.state
    try:
        lead = _Leader()
        own = [leader.step(lead, state), follower.step(Watcher(), state)]
        follow = _Follower(lead.events, budgets, usual, np.finfo(leader.dtype).eps)
        follower.step(follow, state)
    finally:
        default_generator().bit_generator.state = state
    names = [_label(where) for where in (a, b)]
    unlike = follow.unlike and follow.unlike.format(*(names[::-1] if swapped else names))
    if not follow.unlike and follow.events:
        unlike = f"the runs part: {names[swapped]} goes on with {follow.events[0].op}"
    rows = [r._replace(a=r.b, b=r.a) for r in follow.rows] if swapped else follow.rows
    (first, gradients), (second, others) = own
    return Lockstep(
        tuple(names),
        rows,
        (second, first) if swapped else (first, second),
        _apart(gradients, others),
        unlike,
    )


def _apart(some, others):
    """{name: the largest difference of two gradients}, over the largest number of all gradients."""
    largest = max((float(np.abs(g).max(initial=0)) for g in some.values()), default=0) or 1.0
    return {
        name: float(np.abs(g.astype(np.float64) - others[name]).max(initial=0)) / largest
        for name, g in some.items()
    }


def _side(where):
    """What names a run as (Backend or None, dtype or None)."""
    place = dtype = None
    for part in where if isinstance(where, tuple) else (where,):
        if isinstance(part, Backend) or part not in TOLERANCES:
            place = find_backend(part)
        else:
            dtype = np.dtype(part)
    return place, dtype


def _label(where):
    parts = where if isinstance(where, tuple) else (where,)
    return " ".join(getattr(part, "name", str(part)) for part in parts)


class _Run:
    """One side: a copy of the model on its backend, in its dtype."""

    def __init__(self, model, arrays, loss, backend, dtype):
        self.backend = default_backend() if backend is None else backend
        self.model, self.params = model, {}
        if hasattr(model, "named_parameters"):
            self.model = copy.deepcopy(model).to(self.backend)
            if dtype is not None:
                self.model.to(dtype)
            self.params = dict(self.model.named_parameters())
        given = [p.dtype for p in self.params.values()] or [np.dtype("float32")]
        self.dtype = given[0] if dtype is None else dtype
        self.inputs = arrays if loss is None else arrays[:-1]
        self.loss = None if loss is None else _as_loss(loss)
        self.target = arrays[-1]

    def step(self, watcher, state):
        """Forward and backward; -> (the loss, {name: gradient}) as NumPy has them."""
        default_generator().bit_generator.state = state
        inputs = [self._input(array) for array in self.inputs]
        leaves = self.params or {
            f"argument {i}": x for i, x in enumerate(inputs) if x.requires_grad
        }
        for leaf in leaves.values():
            leaf.grad = None
        with watching(watcher):
            output = self.model(*inputs)
            if self.loss is None:
                rng = np.random.default_rng(0)
                start = rng.standard_normal(output.shape).astype(output.dtype)
                value = float((start * output.numpy()).sum())
                output.backward(self.backend.array(start))
            else:
                output = self.loss(output, self.target)
                value = output.item()
                output.backward()
        return value, {k: p.grad.numpy() for k, p in leaves.items() if p.grad is not None}

    def _input(self, array):
        """An array as a Tensor; it carries a gradient where there is no parameter that does."""
        floats = array.dtype.kind == "f"
        array = self.backend.array(array, self.dtype if floats else None)
        return Tensor(array, self.backend, floats and not self.params)


def _as_loss(loss):
    from ..train.losses import Loss

    return loss if isinstance(loss, Loss) else Loss(loss)


class _Event(NamedTuple):
    """An op that ran, or one of its gradients: which, where, what it was given, what came out."""

    op: str
    argument: int | None  # of a gradient; None for a forward result, or all gradients at once
    backward: bool
    place: Place
    inputs: list
    outputs: list


class _Leader(Watcher):
    """Writes everything down."""

    def __init__(self):
        self.events = []
        self._places = Places()

    def call(self, fn, backend, arrays, options):
        out = super().call(fn, backend, arrays, options)
        self._note(fn.__name__, None, False, arrays, [out[0]])
        return out

    def vjp(self, node, i, vjp, g):
        out = super().vjp(node, i, vjp, g)
        self._note(node.fn.__name__, i, True, [g], out if i is None else [out])
        return out

    def _note(self, name, i, backward, inputs, outputs):
        inputs, outputs = ([_copy(x) for x in some] for some in (inputs, outputs))
        place = self._places.here()
        self.events.append(_Event(name.lstrip("_"), i, backward, place, inputs, outputs))


class _Follower(Watcher):
    """Does what the leader did, op by op on the leader's inputs, and compares."""

    def __init__(self, events, budgets, usual, eps):
        self.events = list(reversed(events))
        self.rows = []
        self.unlike = None  # set once, in words, where an op is another: then both go their own way
        self._places = {}  # Node -> Place of its forward
        self._budgets, self._usual, self._eps = budgets, usual, eps

    def call(self, fn, backend, arrays, options):
        event = self._next(fn.__name__, None, False)
        if event is None:
            return fn(backend, *arrays, **options)
        arrays = [_like(a, b, backend) for a, b in zip(event.inputs, arrays, strict=True)]
        out, vjps = fn(backend, *arrays, **options)

        def moved():
            return [fn(backend, *(_upwards(a, self._eps) for a in arrays), **options)[0]]

        self._compare(event, ["forward"], [out], moved, event.place)
        self._place = event.place
        return out, vjps

    def made(self, result, fn, args):
        if result.node is not None and self.unlike is None:
            self._places[result.node] = self._place

    def vjp(self, node, i, vjp, g):
        event = self._next(node.fn.__name__, i, True)
        if event is None:
            return vjp(g)
        backend = next(p.backend for p in node.parents if isinstance(p, Tensor))
        g = _like(event.inputs[0], g, backend)
        out = vjp(g)
        names = argument_names(node.fn, node.parents)
        whats = [f"gradient for {name}" for name in (names if i is None else [names[i]])]

        def moved():
            out = vjp(_upwards(g, self._eps))
            return out if i is None else [out]

        self._compare(event, whats, out if i is None else [out], moved, self._places[node])
        return out

    def _next(self, name, i, backward):
        """The leader's event that this one answers; None once the two have parted."""
        name = name.lstrip("_")
        if self.unlike is not None:
            return None
        event = self.events.pop() if self.events else None
        if event is not None and (event.op, event.argument, event.backward) == (name, i, backward):
            return event
        theirs = "ended" if event is None else f"ran {_words(event.op, event.backward)}"
        at = "" if event is None else f", at {event.place}"
        self.unlike = (
            f"the runs part: where {{1}} runs {_words(name, backward)}, {{0}} {theirs}{at}; from there on "
            "only their results can be compared"
        )
        return None

    def _compare(self, event, whats, outputs, moved, place):
        """A Row for each result; moved() gives them for inputs that are one rounding larger."""
        outputs = [_copy(out) for out in outputs]
        for k, (what, theirs, ours) in enumerate(zip(whats, event.outputs, outputs, strict=True)):
            if theirs is None or ours is None or not np.size(ours):
                continue
            theirs, ours = np.asarray(theirs), np.asarray(ours)
            budget = self._budgets.get(event.op, self._usual)
            gap = relative_gap(ours, theirs)
            index = tuple(int(i) for i in np.unravel_index(gap.argmax(), gap.shape))
            error = float(gap[index])
            if error > budget and ours.dtype.kind == "f":
                change = relative_gap(np.asarray(as_numpy(moved()[k])), ours).max()
                budget = max(budget, float(change))
            a, b = float(theirs[index]), float(ours[index])
            self.rows.append(Row(event.op, what, place, ours.shape, error, budget, index, a, b))


def _words(op, backward):
    return f"the gradient of {op}" if backward else op


def _copy(x):
    """A copy in the memory order that it has, on the host; numbers and None as they are."""
    return np.array(as_numpy(x)) if hasattr(x, "dtype") else x


def _upwards(x, eps):
    """An array of floats with every number a rounding larger."""
    floats = hasattr(x, "dtype") and x.dtype.kind == "f"
    return x + (abs(x) * eps).astype(x.dtype) if floats else x


def _like(theirs, ours, backend):
    """The leader's value in the follower's dtype and on its backend."""
    return backend.array(theirs, ours.dtype) if hasattr(ours, "dtype") else ours
