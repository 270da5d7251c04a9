"""The detective: which op made the first NaN, and who changed an array that a gradient needs."""

import contextlib
import functools
import weakref
import zlib
from types import FunctionType
from typing import NamedTuple

import numpy as np

from ..autograd import Watcher, watching
from ..tensor import Tensor
from . import advice
from .places import Places


@contextlib.contextmanager
def debug():
    """Find the first value that is not finite, and arrays that were changed too early.

        with tz.debug():
            loss = F.cross_entropy(net(x), y)
            loss.backward()

    Every op, gradient and optimizer step inside the block, in this thread, is checked as it runs.
    Raises FloatingPointError at the first NaN or infinity that is made of finite numbers: it names
    the op and the pass, your line, the layer, the ranges of the inputs and the stable form, where
    there is one. Infinities that are handed in (masks of -inf) are left alone, NaN is not. Raises
    RuntimeError in the backward pass where an array that a gradient needs was changed in place after
    the forward pass, with the line that saved it, and the line or the two lines between which it
    changed. Arrays are compared by checksums. Costs time, not results.
    """
    with np.errstate(all="ignore"), watching(Detective()) as detective:
        yield detective


class Saved(NamedTuple):
    """An array that a gradient needs, as it was in the forward pass."""

    role: str
    checksum: int


class Call:
    """What is remembered of an op that was recorded."""

    def __init__(self, place, steps):
        self.place = place
        self.steps = steps  # how many the optimizers had taken
        self.saved = {}  # number of the vjp (None: one for all; "parents") -> {id(array): Saved}


class Detective(Watcher):
    """The Watcher behind debug()."""

    fuses = False

    def __init__(self):
        self._places = Places()
        self._expressions = {}  # id(Tensor) -> (weak reference to it, its expression)
        self._calls = weakref.WeakKeyDictionary()  # Node -> Call
        self._sightings = {}  # id(array) -> (weak reference, [(checksum, first place, last place)])
        self._writes = {}  # id(array) -> (weak reference, place): written by x[...] = ...
        self._options = {}  # of the op that is running
        self._steps = []  # (name of the optimizer, place)

    # forward

    def call(self, fn, backend, arrays, options):
        self._options = options
        return super().call(fn, backend, arrays, options)

    def made(self, result, fn, args):
        place = self._places.here()
        name = fn.__name__.lstrip("_")
        names = argument_names(fn, args)
        expression = (name, *(self._expression(a) for a in args))
        remember(self._expressions, result, expression)
        if holds(result.data):
            self._judge_value(name, expression, place, names, args, result)
        if result.node is not None:
            call = self._calls[result.node] = Call(place, len(self._steps))
            self._save(call, result, args, names)

    def _expression(self, arg):
        """How a Tensor was made, cut to the depth that advice looks at; numbers as they are."""
        if isinstance(arg, int | float):
            return arg
        found = self._expressions.get(id(arg))
        return None if found is None else cut(found[1], advice.DEPTH - 1)

    def _judge_value(self, name, expression, place, names, args, result):
        out = as_numpy(result)
        arrays = [np.asarray(a) if isinstance(a, float) else as_numpy(a) for a in args]
        nan = bool(np.isnan(out).any())
        kind, among = ("NaN", np.isnan) if nan else ("infinity", np.isinf)
        for arg, label, array in zip(args, names, arrays, strict=True):
            if not holds(array):
                continue
            weight = isinstance(arg, Tensor) and arg.requires_grad and arg.node is None
            if weight or (nan and np.isnan(array).any()):
                came = "NaN" if np.isnan(array).any() else "infinity"
                made = self._expression(arg) is not None
                whence = "a weight" if weight else "a result" if made else "data"
                what = f"{name}: its argument {label}, {whence}, came in with {came}"
                raise FloatingPointError(story(what, place, ranges(names, arrays, None)))
            if not nan:
                return  # an infinity that was handed in, such as a mask
        if not nan and any(isinstance(v, float) and np.isinf(v) for v in self._options.values()):
            return
        index = first(among(out))
        bad = out[index]
        count = int(among(out).sum())
        raise FloatingPointError(
            story(
                f"{name}: made the first {kind} of the forward pass: {bad} at {index}, "
                f"{count} of {out.size} values",
                place,
                ranges(names, arrays, index if out.ndim else None, out.shape),
                advice.of_value(expression, [a for a in arrays if is_number(a)], bad),
            )
        )

    def _save(self, call, result, args, names):
        """Checksums of what the vjps close over, and of the arguments (for second derivatives)."""
        roles = {
            id(a.data): f"argument {label}"
            for a, label in zip(args, names, strict=True)
            if isinstance(a, Tensor)
        }
        roles[id(result.data)] = "its result"
        checksums = {}

        def saved(arrays):
            kept = {}
            for array in arrays:
                if id(array) not in checksums:
                    checksums[id(array)] = checksum(array)
                    self._sight(array, checksums[id(array)], call.place)
                role = roles.get(id(array), "an array it computed")
                kept[id(array)] = Saved(role, checksums[id(array)])
            return kept

        vjps = result.node.vjps
        each = {None: vjps} if callable(vjps) else dict(enumerate(vjps))
        call.saved = {i: saved(arrays_under(vjp)) for i, vjp in each.items()}
        call.saved["parents"] = saved(a.data for a in args if isinstance(a, Tensor))

    def _sight(self, array, number, place):
        """Note that an array had this checksum at a place."""
        seen = self._sightings.get(id(array))
        if seen is None:
            seen = remember(self._sightings, array, [])
        seen = seen[1]
        if seen and seen[-1][0] == number:
            seen[-1] = (number, seen[-1][1], place)
        else:
            seen.append((number, place, place))

    def wrote(self, tensor):
        remember(self._writes, tensor.data, self._places.here())

    # backward

    def vjp(self, node, i, vjp, g):
        call = self._calls.get(node)
        again = isinstance(g, Tensor)  # create_graph: the op runs once more on its arguments
        if call is not None:
            arrays = (
                (p.data for p in node.parents if isinstance(p, Tensor))
                if again
                else arrays_under(vjp)
            )
            self._must_be_unchanged(node, call, "parents" if again else i, arrays)
        if holds(g.data if again else g):
            raise FloatingPointError(
                story(
                    f"{node.name}: the gradient that comes in is not finite: a sum of several "
                    "overflowed, a hook changed it, or backward() was started with it",
                    None if call is None else call.place,
                )
            )
        out = vjp(g)
        for k, grad in enumerate(out) if i is None else ((i, out),):
            wanted = isinstance(node.parents[k], Tensor) and node.parents[k].requires_grad
            if wanted and grad is not None and holds(grad.data if again else grad):
                self._judge_gradient(node, k, call, g, grad)
        return out

    def _judge_gradient(self, node, k, call, g, grad):
        grad, g = as_numpy(grad), as_numpy(g)
        names = argument_names(node.fn, node.parents)
        arrays = [as_numpy(p) for p in node.parents]
        wrong = ~np.isfinite(grad)
        index = first(wrong)
        meets = g[index] if g.shape == grad.shape else None
        raise FloatingPointError(
            story(
                f"{node.name}: its gradient for {names[k]} is the first of the backward pass that is "
                f"not finite: {grad[index]} at {index}, {int(wrong.sum())} of {grad.size} values",
                None if call is None else call.place,
                ranges(
                    [*names, "gradient that comes in"],
                    [*arrays, g],
                    index if grad.ndim else None,
                    grad.shape,
                ),
                advice.of_gradient(node.name, meets),
            )
        )

    def _must_be_unchanged(self, node, call, which, arrays):
        saved = call.saved.get(which, {})
        for array in arrays:
            before = saved.get(id(array))
            if before is not None and checksum(array) != before.checksum:
                raise RuntimeError(
                    story(
                        f"{node.name}: {before.role}, {array.dtype} {array.shape}, was changed in place "
                        "between forward and backward; the gradient needs it as it was",
                        call.place,
                        [f"changed: {self._who(array, before, call)}"],
                        "call backward() before the change, or change a copy",
                    )
                )

    def _who(self, array, before, call):
        """Who changed an array after the call, as far as anybody saw."""
        for candidate in (array, array.base):
            write = self._writes.get(id(candidate))
            if write is not None and write[0]() is candidate:
                return f"by x[...] = ... at {write[1]}"
        since = self._steps[call.steps :]
        if since and before.role.startswith("argument"):
            name, place = since[0]
            return f"{name}.step ran since, at {place}"
        seen = self._sightings[id(array)][1]
        at = next(i for i, (number, _, _) in enumerate(seen) if number == before.checksum)
        words = f"after {seen[at][2]}"
        return words if at + 1 == len(seen) else f"{words} and before {seen[at + 1][1]}"

    # optimizer

    def step(self, update, kernels, *args):
        rule = getattr(update, "__self__", None)
        name = type(rule).__name__
        place = self._places.here()
        w, g = args[:2]
        if holds(g):
            raise FloatingPointError(
                story(f"{name}.step: a gradient of {g.size} values is not finite", place)
            )
        update(kernels, *args)
        if any(map(holds, w if isinstance(w, list) else [w])):
            raise FloatingPointError(
                story(
                    f"{name}.step: made weights that are not finite of finite gradients",
                    place,
                    ranges(["gradient"], [as_numpy(g)], None),
                    "lower the learning rate",
                )
            )
        self._steps.append((name, place))


# words


def story(what, place=None, inputs=(), hint=None):
    """The message: what happened, where, with which inputs, and what to do."""
    lines = [what]
    if place is None:
        lines.append("line: before debug() began")
    else:
        lines.append(f"line: {place}")
        if place.layer:
            lines.append(f"layer: {place.layer}")
    lines += inputs
    if hint:
        lines.append(f"advice: {hint}")
    return "\n  ".join(lines)


def ranges(names, arrays, index, shape=None):
    """A line for each array: dtype, shape, range; and its value at an index of the result."""
    return [
        f"{name}: {describe(array)}{value_at(array, index, shape)}"
        for name, array in zip(names, arrays, strict=True)
        if is_number(array)
    ]


def describe(array):
    array = np.asarray(array)
    if not array.size:
        return f"{array.dtype} {array.shape}, empty"
    if array.ndim == 0:
        return f"{array[()]}"
    words = f"{array.dtype} {array.shape}"
    fine = array[np.isfinite(array)]
    if fine.size:
        words += f", {fine.min():.4g} to {fine.max():.4g}"
    for count, what in (
        (array.size - np.count_nonzero(array), "zeros"),
        (np.isnan(array).sum(), "NaN"),
        (np.isinf(array).sum(), "infinite"),
    ):
        if count and is_float(array):
            words += f", {count} {what}"
    return words


def value_at(array, index, shape):
    """The array's value that meets an index of a result of that shape, if it does."""
    if index is None or np.ndim(array) == 0:
        return ""
    try:
        return f"; {float(np.broadcast_to(array, shape)[index]):.6g} there"
    except ValueError:  # it does not broadcast: a matrix product, a convolution
        return ""


# arrays


def holds(array):
    """Whether an array of floats holds anything that is not finite."""
    return is_float(array) and not bool(np.isfinite(array).all())


def is_float(array):
    return getattr(array, "dtype", np.dtype(bool)).kind == "f"


def is_number(array):
    return isinstance(array, int | float | np.ndarray | np.generic)


def as_numpy(a):
    """A Tensor or array on any device as a NumPy array; anything else as it is."""
    if isinstance(a, Tensor):
        return a.numpy()
    return a.get() if hasattr(a, "get") and hasattr(a, "dtype") else a


def first(mask):
    """The first index where a mask holds."""
    return tuple(int(i) for i in np.argwhere(mask)[0])


def checksum(array):
    return zlib.crc32(np.ascontiguousarray(as_numpy(array)))


def arrays_under(vjp):
    """The arrays that a vjp closes over, through tuples, lists, dicts and inner functions."""
    stack, seen = [vjp], set()
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, FunctionType):
            stack += contents(item)
            stack += item.__defaults__ or ()
        elif isinstance(item, functools.partial):
            stack += [item.func, *item.args, *item.keywords.values()]
        elif isinstance(item, tuple | list):
            stack += item
        elif isinstance(item, dict):
            stack += item.values()
        elif isinstance(item, Tensor):
            stack.append(item.data)
        elif hasattr(item, "strides") and not isinstance(item, np.generic):
            yield item


def contents(function):
    """What a function closes over; a cell may have no value yet."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):
            yield cell.cell_contents


def argument_names(fn, args):
    """The names of an op's data; of `*xs` they are numbered."""
    names = fn.__code__.co_varnames[1 : fn.__code__.co_argcount]
    return [names[i] if i < len(names) else f"argument {i}" for i in range(len(args))]


def cut(expression, depth):
    """An expression without what lies deeper, so that a long history is not kept."""
    if not isinstance(expression, tuple):
        return expression
    return (expression[0], *(cut(a, depth - 1) for a in expression[1:])) if depth else None


def remember(table, thing, value):
    """table[id(thing)] = (weak reference, value), for as long as the thing lives."""
    key = id(thing)

    def forget(reference):
        if table.get(key, (None,))[0] is reference:
            del table[key]

    table[key] = entry = (weakref.ref(thing, forget), value)
    return entry
