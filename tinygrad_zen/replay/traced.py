"""Arrays that write down what is done to them, while a step is recorded.

A Traced array is a view of a plain one. NumPy hands it every ufunc and function that touches it; its
methods that copy or look at values are overridden here. Each call is run on the plain arrays and told
to the Trace of this thread. Without a Trace, a Traced array behaves like a plain one.
"""

import contextlib
import sys
import threading

import numpy as np


class _Current(threading.local):
    """The Trace that this thread writes, if any."""

    trace = None


current = _Current()


@contextlib.contextmanager
def paused():
    """Record nothing inside."""
    before, current.trace = current.trace, None
    try:
        yield
    finally:
        current.trace = before


class Traced(np.ndarray):
    """An array under observation. whole: it stands for an array that owns its memory."""

    whole = False

    @property
    def base(self):
        """None for an array that owns its memory, as for the plain array that it stands for."""
        return None if self.whole else super().base

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        trace = current.trace
        if trace is not None:
            trace.note_tables(inputs, sys._getframe(1))
        inputs, out, options = plain(inputs), plain(out), plain(options)
        if trace is None:
            if out is not None:
                options["out"] = out
            return getattr(ufunc, method)(*inputs, **options)
        return trace.ufunc(ufunc, method, inputs, out, options)

    def __array_function__(self, function, types, args, options):
        trace = current.trace
        if trace is None:
            return function(*plain(args), **plain(options))
        trace.note_tables(args, sys._getframe(1))
        return trace.function(function, args, options)

    # what Python looks at decides what it does next: it is looked at again at each replay

    def __bool__(self):
        value = bool(plain(self))
        if current.trace is not None:
            current.trace.guard(bool, (plain(self),), value)
        return value

    def __float__(self):
        return self._number("float()").__float__()

    def __int__(self):
        return self._number("int()").__int__()

    def __index__(self):
        return self._number("an index").__index__()

    def __complex__(self):
        return self._number("complex()").__complex__()

    def item(self, *args):
        return self._number("item()").item(*args)

    def tolist(self):
        return self._number("tolist()").tolist()

    def tobytes(self, order="C"):
        return self._number("tobytes()").tobytes(order)

    def _number(self, what):
        """The plain array, if nobody records."""
        if current.trace is not None:
            raise RuntimeError(
                f"capture: {what} of a value computed in the step would be the same number in every "
                "replay; return the Tensor from the step, and take its number outside"
            )
        return plain(self)

    # methods that may copy, and methods that write

    def __getitem__(self, key):
        return _method("__getitem__", self, (key,), {})

    def __setitem__(self, key, value):
        _method("__setitem__", self, (key, value), {})


def _method(name, array, args, options):
    trace = current.trace
    if trace is None:
        return getattr(np.ndarray, name)(plain(array), *plain(args), **plain(options))
    trace.note_tables(args, sys._getframe(2))
    return trace.method(name, array, args, options)


def _traced_method(name):
    def method(self, *args, **options):
        return _method(name, self, args, options)

    method.__name__ = name
    method.__doc__ = f"ndarray.{name}, recorded."
    return method


COPYING = (
    "argmax argmin argpartition argsort astype byteswap choose compress copy cumprod cumsum diagonal dot "
    "flatten nonzero ravel repeat reshape round searchsorted take trace"
).split()
WRITING = "fill partition put sort".split()
for _name in COPYING + WRITING:
    setattr(Traced, _name, _traced_method(_name))


def plain(value):
    """Traced arrays in a value as plain views of the same memory, through tuples, lists and dicts."""
    kind = type(value)
    if kind is Traced:
        return np.ndarray.view(value, np.ndarray)
    if kind in (tuple, list):
        return kind(plain(v) for v in value)
    if kind is dict:
        return {k: plain(v) for k, v in value.items()}
    return value


_base = np.ndarray.base.__get__  # as NumPy has it: Traced.base answers for the array it stands for


def root(array):
    """The array that owns the memory of an array."""
    while (base := _base(array)) is not None:
        if not isinstance(base, np.ndarray):
            base = getattr(base, "base", None)  # as_strided puts something between
            if not isinstance(base, np.ndarray):
                break
        array = base
    return array


def _in_library(frame):
    return frame.f_globals.get("__name__", "").partition(".")[0] in ("numpy", "cupy")


# NumPy's functions that make arrays of what is no array: while a step is recorded they give Traced ones.
CREATORS = (
    "arange array asanyarray asarray ascontiguousarray empty eye full identity linspace ones tri zeros"
).split()


@contextlib.contextmanager
def creators_traced():
    """Have NumPy's creators tell the Trace of the thread that calls them, for the time inside."""
    originals = {name: getattr(np, name) for name in CREATORS}

    def traced(original):
        def create(*args, **options):
            trace = current.trace
            if trace is None or _in_library(sys._getframe(1)):
                return original(*plain(args), **plain(options))
            return trace.create(original, args, options)

        return create

    try:
        for name, original in originals.items():
            setattr(np, name, traced(original))
        yield
    finally:
        for name, original in originals.items():
            setattr(np, name, original)
