"""What a recorded step is told, what it found around it, and what it gives back, wherever it computes."""

import contextlib
import hashlib
import importlib
import sys

import numpy as np

from ..autograd import recording
from ..backend import default_backend
from ..tensor import Tensor
from .surroundings import PACKAGE
from .trace import Diverged, arrays_in
from .traced import plain, root


class Recorded:
    """The base of recorded steps. first: what the step returned when it was recorded.

    Those derived from it record in their own __init__, and define `memory`, `seen` and `run`.
    """

    tolerance = 0  # how far a replay may be from the engine where that does not repeat its own bits

    def __init__(self, function, args, options, surroundings):
        self._function = function
        self.surroundings = surroundings
        self._inputs = []  # (name, memory, kind, backend), or (name, None, Python value, None)
        self._keys = len(args), tuple(options)
        self._args = tuple(self._input(a, f"argument {i}") for i, a in enumerate(args))
        self._options = {k: self._input(a, f"argument {k}") for k, a in options.items()}
        self._recording, self._backend = recording.on, default_backend()
        self._looked_at = []  # (leaf, what its gradient was, None or a copy in memory of the step)

    def memory(self, array):
        """Memory of the step's own for an argument, with what that holds."""
        raise NotImplementedError

    def seen(self, memory):
        """Such memory as the recorded step gets it."""
        return memory

    def run(self):
        """Replay; returns what the step returns."""
        raise NotImplementedError

    # before a replay

    def _input(self, value, name):
        """An argument as the recorded step gets it: arrays and Tensors on memory of their own."""
        if is_data(value):
            if isinstance(value, Tensor) and value.requires_grad:
                raise ValueError(f"capture: {name} requires a gradient; detach() it")
            backend = getattr(value, "backend", None)
            memory = self.memory(value if backend is None else value.data)
            self._inputs.append((name, memory, type(value), backend))
            seen = self.seen(memory)
            return seen if backend is None else Tensor(seen, backend)
        if isinstance(value, tuple | list | dict) and any(_holds_arrays(value)):
            raise TypeError(
                f"capture: {name} is a {type(value).__name__} of arrays; pass them one by one"
            )
        self._inputs.append((name, None, value, None))
        return value

    def take(self, args, options):
        """Copy arguments into place; raise ValueError where anything is not as it was recorded."""
        changed = self.surroundings.changed() or self._engine_changed()
        if changed:
            raise ValueError(f"capture: {changed}; step.reset() has the next call recorded anew")
        if (len(args), tuple(options)) != self._keys:
            raise ValueError(
                f"capture: the step was recorded with {self._keys[0]} arguments and {self._keys[1]}; got "
                f"{len(args)} and {tuple(options)}"
            )
        values = (*args, *options.values()) if options else args
        for i, (name, buffer, kind, backend) in enumerate(self._inputs):
            value = values[i]
            if buffer is None:
                if value is not kind and not (type(value) is type(kind) and value == kind):
                    raise ValueError(
                        f"capture: {name} was {kind!r:.60} at recording and is {value!r:.60}; the step runs "
                        "as it is with step.function(...), or capture one for each value"
                    )
                continue
            same = isinstance(value, kind)
            array = value if backend is None or not same else value.data
            if (
                not same
                or (backend is not None and value.backend is not backend)
                or array.shape != buffer.shape
                or (array.dtype is not buffer.dtype and array.dtype != buffer.dtype)
            ):
                raise ValueError(
                    f"capture: {name} was {kind.__name__} {buffer.dtype} {buffer.shape} at recording and is "
                    f"{_describe(value)}; run this one with step.function(...), or capture a step for "
                    "this shape as well"
                )
            if isinstance(buffer, np.ndarray) or not isinstance(array, np.ndarray):
                buffer[...] = array
            else:  # from the host to a card
                buffer.set(array)
        for leaf, before in self._looked_at:
            if (leaf.grad is None) is not (before is None):
                words = "there was none" if before is None else "there was one"
                raise ValueError(
                    f"capture: the step adds to the gradient of a parameter {leaf.shape}; at recording "
                    f"{words} at the beginning, now it is otherwise: call zero_grad() in the step, or "
                    "always before it"
                )
            if before is not None:
                before[...] = leaf.grad.data

    def _engine_changed(self):
        """In words, what of the engine and the optimizers is no longer as it was."""
        if recording.on is not self._recording:
            return f"gradients were {_switch(self._recording)} at recording"
        if default_backend() is not self._backend:
            return f"the default backend was {self._backend.name} at recording"
        for optimizer, number, plan in self._plans:
            plans = optimizer._plans
            if plans[number][1] is not plan or len(plans) != self._groups[optimizer]:
                return f"{optimizer.name} has got other state or groups since the recording"
        return None

    # comparisons

    def by_the_engine(self, args, options):
        """The step as it is; what it put in the place of arrays is copied into them."""
        result = self._function(*args, **options)
        for tensor, array in self.surroundings.places():
            if tensor.data is not array:
                array[...] = tensor.data
                tensor.data = array
        return result

    def compared(self, args, options):
        """A replay, which is undone, and the same step by the engine."""
        before, replayed = self._state(), None
        try:
            replayed = self.run()
            found = self._outcome(replayed)
        except Diverged:
            found = None
        finally:
            self._restore(before)
            self._gradients_back()
        if not self.tolerance:
            before = None  # and no block stays for later, which a step on top of its recording needs once
        with fresh_memory():
            result = self.by_the_engine(args, options)
        if found is None:
            return result
        self._compare(self._outcome(result), found, "the engine's step", before, args, options)
        return replayed

    def _gradients_back(self):
        """What the step adds to is as `take` found it: the same memory may have held it and the sum."""
        for leaf, before in self._looked_at:
            if before is not None:
                leaf.grad = Tensor(before.copy(), leaf.backend)

    def _compare(self, expected, found, what, before=None, args=(), options=None):
        """Raise RuntimeError unless a replay has left what is expected, bit for bit.

        Given the state `before` and arguments: where the engine itself leaves other bits when it makes
        the step once more, they must agree to the tolerance.
        """
        wrong = different(expected, found)
        if wrong and before is not None:
            left = self._state()
            self._restore(before)
            loose = different(expected, self._outcome(self.by_the_engine(args, options)))
            self._restore(left)
            wrong = [
                k
                for k in wrong
                if k not in loose or not _close(expected[k], found[k], self.tolerance)
            ]
        if wrong:
            raise RuntimeError(
                f"capture: the replay differs from {what} in {', '.join(sorted(wrong)[:5])}: the step does "
                "something that cannot be recorded, such as numbers drawn or computed without Tensors"
            )

    # results

    def _plan(self, value):
        """A result as something that can be made again: arrays and Tensors are copied each time."""
        if isinstance(value, Tensor):
            return Tensor, (plain(value.data), value.backend)
        if is_array(value):
            return np.ndarray, plain(value)
        if isinstance(value, tuple | list):
            return type(value), [self._plan(v) for v in value]
        if isinstance(value, dict):
            return dict, {k: self._plan(v) for k, v in value.items()}
        return None, value

    def _results(self):
        return again(*self._result)

    def _python_state(self):
        """What Python alone keeps: options of optimizers, epochs of schedules."""
        state = {
            name: [{k: v for k, v in group.items() if k != "params"} for group in o.param_groups]
            for name, o in self.surroundings.optimizers.items()
        }
        return state | {name: s.last_epoch for name, s in self.surroundings.schedules.items()}

    def _refuse_options(self, before):
        """Raise RuntimeError if the step changed what Python alone keeps. before: its _python_state()."""
        for name, after in self._python_state().items():
            if after != before[name]:
                raise RuntimeError(
                    f"capture: the step changes options of {name}, such as a learning rate; a replay would "
                    "not: call schedules after the captured step"
                )

    def _refuse_unknown(self, found):
        """Raise RuntimeError for arrays on the host that are neither named nor made by the step."""
        held = [*self.surroundings.arrays.values(), *_arrays_of_the_package()]
        held += [t.data for t in self.surroundings.tensors.values()]
        known = {id(root(array)) for array in held if isinstance(array, np.ndarray)}
        for array in found:
            if id(array) not in known:
                raise RuntimeError(
                    f"capture: the step uses an array {array.dtype} {array.shape} that is neither an "
                    "argument nor held by what the function names, such as one that it makes of random or "
                    "Python numbers: its values would be the same in every replay; pass it as an argument"
                )


def is_array(value):
    """Whether a value is an array of NumPy or on a card."""
    return isinstance(value, np.ndarray) or hasattr(type(value), "__cuda_array_interface__")


def digest(result):
    """What is compared of a result: of arrays not the bytes, which would take as much memory again."""
    if isinstance(result, Tensor):
        result = result.data
    if is_array(result):
        result = on_host(result)
        numbers = np.ascontiguousarray(result).reshape(-1).view(np.uint8)
        return result.dtype.str, result.shape, hashlib.blake2b(numbers).digest()
    if isinstance(result, tuple | list):
        return [digest(r) for r in result]
    if isinstance(result, dict):
        return {k: digest(v) for k, v in result.items()}
    return result


def on_host(array):
    """An array as a plain one of NumPy: itself, or a copy from a card."""
    return plain(array) if isinstance(array, np.ndarray) else array.get()


def again(kind, value):
    """A result anew, from its plan."""
    if kind is Tensor:
        return Tensor(value[0].copy(), value[1])
    if kind is np.ndarray:
        return value.copy()
    if kind is dict:
        return {k: again(*v) for k, v in value.items()}
    if kind is None:
        return value
    return kind(again(*v) for v in value)


def plan_of(bucket, optimizer):
    """(optimizer, number of the group, its buckets), which must be the same in a replay."""
    for number, (_, buckets) in enumerate(optimizer._plans):
        if any(b is bucket for b in buckets):
            return optimizer, number, buckets
    raise AssertionError("a bucket belongs to no plan")


@contextlib.contextmanager
def gradients_spied(leaves, hold, looked_at):
    """Note of which leaves a step looks at the gradient before it sets it, inside the block.

    What such a gradient was is an input of the step: hold(gradient) puts it into memory of its own and
    returns that and the Tensor that the step gets. looked_at: a list for (leaf, memory), None for memory
    where there was no gradient.
    """
    kinds, known = [(leaf, type(leaf)) for leaf in leaves], set()
    slot = Tensor.grad

    def look(leaf):
        found = slot.__get__(leaf)
        if id(leaf) not in known:
            known.add(id(leaf))
            memory = None
            if found is not None:
                memory, found = hold(found)
                slot.__set__(leaf, found)
            looked_at.append((leaf, memory))
        return found

    def put(leaf, gradient):
        known.add(id(leaf))
        slot.__set__(leaf, gradient)

    spy = {"__slots__": (), "grad": property(look, put)}
    try:
        for leaf, kind in kinds:
            leaf.__class__ = type(kind.__name__, (kind,), spy)
        yield
    finally:
        for leaf, kind in kinds:
            leaf.__class__ = kind


def is_data(value):
    return isinstance(value, Tensor) or is_array(value)


def _switch(on):
    return "on" if on else "off"


def _holds_arrays(value):
    values = value.values() if isinstance(value, dict) else value
    for item in values:
        if isinstance(item, tuple | list | dict):
            yield from _holds_arrays(item)
        else:
            yield is_data(item)


def _describe(value):
    if is_data(value):
        where = f" on {value.backend.name}" if isinstance(value, Tensor) else ""
        return f"{type(value).__name__} {value.dtype} {value.shape}{where}"
    return f"{value!r:.60}"


def different(expected, found):
    """The names of outcomes that are not the same bits."""
    missing = object()
    return [
        k
        for k in expected | found
        if digest(expected.get(k, missing)) != digest(found.get(k, missing))
    ]


def _close(expected, found, tolerance):
    """Whether arrays of floats differ by at most so much of the largest number."""
    arrays = isinstance(expected, np.ndarray) and isinstance(found, np.ndarray)
    if not arrays or expected.dtype.kind != "f" or expected.shape != found.shape:
        return False
    size = np.abs(expected).max(initial=0)
    return bool(np.abs(expected - found).max(initial=0) <= tolerance * size)


def _arrays_of_the_package():
    """Tables that modules of this package hold."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == PACKAGE:
            yield from arrays_in([v for v in vars(module).values() if not isinstance(v, list)])


def fresh_memory():
    """Have Numba's kernels keep no blocks of memory for arrays to come, and take none, inside of this."""
    kernels = listening_module()
    return kernels.fresh_memory() if kernels else contextlib.nullcontext()


def listening_module():
    """Numba's side of it, if anybody has loaded Numba."""
    if "numba" not in sys.modules:
        return None
    return importlib.import_module("tinygrad_zen.kernels.cpu._listening")
