"""Recording a step: everything that it does runs as usual and is written into a Trace."""

import contextlib
import sys
import threading

import numpy as np

from ..autograd import Watcher, watching
from ..backend import default_backend, default_generator, drawing_from
from ..tensor import Tensor
from .recorded import fresh_memory, gradients_spied, listening_module
from .trace import Trace, observed, tracing
from .traced import creators_traced, current, paused, plain

one_at_a_time = threading.RLock()  # while a step is recorded, NumPy's functions are others
USABLE = ("numpy", "numba")


class Recorder(Watcher):
    """What recording a step keeps: the Trace, and what lies outside of it.

    buckets: the optimizers' buckets that made a step, {id: bucket}; steps: how many each of their
    parameters had made before, [(state, number)]. gradients: {id(array): the Tensor over it}.
    """

    def __init__(self, surroundings):
        self.surroundings = surroundings
        self._kernels = listening_module()
        self.trace = Trace(self._kernels and self._kernels.blas_threads())
        self.buckets, self.steps, self._gradients = {}, [], {}
        self.leaves = [t for t in surroundings.tensors.values() if t.requires_grad]
        self.looked_at = []  # (leaf, memory of its gradient) of leaves whose gradient the step finds

    def record(self, function, args, options):
        """function(*args, **options), recorded; returns what it returns."""
        check_backend(default_backend())
        tensors = self.surroundings.tensors
        for tensor in tensors.values():
            check_backend(tensor.backend)
        places = [(t, t.data, name) for name, t in tensors.items()]
        generator = default_generator()
        with one_at_a_time, contextlib.ExitStack() as stack:
            if self._kernels is not None:
                spaces = {id(b.kernels): b.kernels for b in self._backends()}
                stack.enter_context(self._kernels.listening(self._hear, list(spaces.values())))
                stack.enter_context(fresh_memory())
            stack.enter_context(drawing_from(TracedGenerator(generator)))
            stack.callback(self._back_in_place, places)
            for tensor, array, _ in places:
                tensor.data = observed(array)
            stack.enter_context(gradients_spied(self.leaves, self._hold, self.looked_at))
            stack.enter_context(creators_traced())
            stack.enter_context(watching(self))
            stack.enter_context(tracing(self.trace))
            result = function(*args, **options)
            self._moved_home(places)
            return result

    def _backends(self):
        return [default_backend(), *(t.backend for t in self.surroundings.tensors.values())]

    def _hold(self, gradient):
        """A gradient that the step finds, in memory of its own: that, and the Tensor over it."""
        buffer = plain(gradient.data).copy()
        self.trace.inputs[id(buffer)] = self.trace.made[id(buffer)] = buffer
        return buffer, Tensor(observed(buffer), gradient.backend)

    def _moved_home(self, places):
        """What the step put in the place of an array (`p.data = p.data - g`) is copied into it."""
        for tensor, array, name in places:
            new = plain(tensor.data)
            if new.shape != array.shape or new.dtype != array.dtype:
                raise RuntimeError(
                    f"capture: the step changed {name} from {array.dtype} {array.shape} to {new.dtype} "
                    f"{new.shape}"
                )
            if new.ctypes.data != array.ctypes.data:
                self.trace.in_place(np.copyto, (array, new), {})

    @staticmethod
    def _back_in_place(places):
        for tensor, array, _ in places:
            tensor.data = array

    def _hear(self, function, args):
        """A compiled function is called."""
        call = self._kernels.unheard
        if current.trace is None:
            return call(function, plain(args))
        self.trace.note_tables(args, sys._getframe(2))
        run = _Compiled(function, call)
        written = self._kernels.written(function, args)
        return self.trace.compiled(
            run, args, written, lambda args: self._kernels.direct(function, args)
        )

    # what the engine calls

    def call(self, fn, backend, arrays, options):
        check_backend(backend)
        return fn(backend, *map(self.trace.enter, arrays), **self.trace.enter(options))

    def optimize(self, bucket, update, group):
        if id(bucket) not in self.buckets:
            self.buckets[id(bucket)] = bucket, update.__self__
            self.steps += [(kept, kept["step"]) for kept in bucket.states]
            self.trace.touch([*bucket.arrays.values(), *(plain(p.data) for p in bucket.params)])
        gradients = [(p, self.gradient(p)) for p in bucket.params]
        places = [(p, p.data) for p in bucket.params]
        for (p, g), (_, data) in zip(gradients, places, strict=True):
            p.grad, p.data = g, plain(data)
        with paused(), watching(None):
            bucket.step(update, group)
        for p, data in places:
            p.data = data
        self.trace.updates.append(len(self.trace.calls))
        written = [plain(p.data) for p in bucket.params] + list(bucket.arrays.values())
        self.trace.note(_optimize, (gradients, bucket, update, group), written)

    def owners(self):
        """(bucket, its optimizer) of every bucket that made a step."""
        return list(self.buckets.values())

    def gradient(self, leaf):
        """The gradient of a leaf as a Tensor over the plain array: what code outside will see."""
        if leaf.grad is None:
            return None
        array = plain(leaf.grad.data)
        key = array.ctypes.data, array.shape, array.strides
        if key not in self._gradients:
            self._gradients[key] = Tensor(array, leaf.grad.backend)
        return self._gradients[key]


def _optimize(gradients, bucket, update, group):
    """A replayed step of a bucket, in Python: so it counts, and sees learning rates as they are."""
    for p, g in gradients:
        p.grad = g
    bucket.step(update, group)


class _Compiled:
    """A compiled function, to be called unheard."""

    def __init__(self, function, call):
        self.function, self.call = function, call
        self.__name__ = function.py_func.__name__

    def __call__(self, *args):
        return self.call(self.function, args)


class TracedGenerator:
    """The engine's random generator during a recording: what it draws is drawn anew in replays."""

    def __init__(self, generator):
        self._generator = generator

    def __getattr__(self, name):
        method = getattr(self._generator, name)
        if not callable(method):
            return method

        def draw(*args, **options):
            trace = current.trace
            if trace is None:
                return method(*plain(args), **plain(options))
            args, options = plain(args), plain(options)
            result = trace.run(method, args, options)
            if not isinstance(result, np.ndarray):
                raise RuntimeError(
                    f"capture: {name}() drew the number {result!r}, which would be the same in every "
                    "replay; draw an array"
                )
            return trace.draw(_draw, (name, args, options), result)

        return draw


def _draw(name, args, options):
    return getattr(default_generator(), name)(*args, **options)


def check_backend(backend):
    """Raise ValueError for a backend whose steps cannot be recorded."""
    if backend.name.partition("[")[0] not in USABLE:
        raise ValueError(
            f"capture: steps on {backend.name} cannot be recorded, only those on {' and '.join(USABLE)}"
        )
