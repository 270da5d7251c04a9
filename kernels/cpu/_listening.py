"""Hearing of every compiled function that Python calls: so a captured step learns what to replay."""

import contextlib
import inspect
import math
import sys
import threading

from numba.core.registry import CPUDispatcher

from . import _arrays, _blas
from ._compiled import threaded, written  # noqa: F401 (what the recorder asks)


class _Current(threading.local):
    """Who listens in this thread: a function (compiled function, arguments) -> its result."""

    listener = None


_current = _Current()


class _Heard(CPUDispatcher):
    """What compiled functions are for as long as somebody listens."""

    def __call__(self, *args):
        listener = _current.listener
        return unheard(self, args) if listener is None else listener(self, args)


def unheard(function, args):
    """The call itself."""
    return CPUDispatcher.__call__(function, *args)


def direct(function, args):
    """The machine code for arguments of these types, which spares the search for it at each call."""
    overload = function.overloads.get(tuple(map(function.typeof_pyval, args)))
    return function if overload is None else overload.entry_point


def blas_threads():
    """Functions that tell and set the threads of NumPy's BLAS; None where they cannot be set."""
    return _blas._thread_controls()


@contextlib.contextmanager
def listening(listener, namespaces):
    """Have listener(function, args) called in place of every compiled function, in this thread.

    namespaces: of kernels; of those that are not from here, the compiled functions that they name are
    heard as well. Calls from compiled code are not heard: they are part of it.
    """
    functions = set(_compiled(namespaces))
    before, _current.listener = _current.listener, listener
    try:
        for function in functions:
            function.__class__ = _Heard
        yield
    finally:
        for function in functions:
            function.__class__ = CPUDispatcher
        _current.listener = before


def _compiled(namespaces):
    """The compiled functions of this folder and of namespaces of kernels."""
    folder = __package__ + "."
    spaces = [vars(m) for name, m in sys.modules.items() if name.startswith(folder)]
    for kernels in namespaces:
        spaces.append(vars(kernels))
        for kernel in filter(inspect.isfunction, vars(kernels).values()):
            spaces += [kernel.__globals__, inspect.getclosurevars(kernel).nonlocals]
    for space in spaces:
        for value in space.values():
            if isinstance(value, threaded):
                yield from (value.serial, value.parallel)
            elif type(value) is CPUDispatcher:
                yield value


@contextlib.contextmanager
def fresh_memory():
    """Have arrays take memory of their own; blocks that earlier ones have left are freed."""
    before, _arrays.LARGE = _arrays.LARGE, math.inf
    _arrays._blocks.let_go()
    try:
        yield
    finally:
        _arrays.LARGE = before
