"""How the kernels of this folder are compiled, and when they use more than one thread."""

from importlib import import_module
from importlib.util import find_spec
from types import FunctionType

import numba
import numpy as np
from numba import njit


def _spare_scipy():
    """Load Numba's functions of arrays without SciPy's linear algebra: 16 MB and a tenth of a second.

    Numba imports it there to find out whether it is installed. What computes with it (np.dot in a
    compiled function, none of ours) imports it again, and then gets it.
    """
    linalg = import_module("numba.np.linalg")
    usual = getattr(linalg, "ensure_blas", None)
    if usual is None or find_spec("scipy.linalg") is None:
        return
    linalg.ensure_blas = lambda: None
    try:
        import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = usual


_spare_scipy()

# The machine code is kept on disk (cache), and runs without Python's lock (nogil). Of fastmath only
# what keeps NaN, infinity and the order of sums: a product and a sum may become one instruction.
COMPILED = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",  # 1 / 0 is inf, as in NumPy, not an exception
    "fastmath": {"contract", "nsz"},
    "no_cfunc_wrapper": True,  # no entry from C, which compiles faster
}
# For what only other kernels call: no entry from Python either.
INNER = COMPILED | {"no_cpython_wrapper": True}
# Copied into whoever calls it: one number of a loop over vectors, or a call too short for its arguments.
INLINED = INNER | {"forceinline": True}
# Sums in any order, fixed when compiling: then they fill vector registers, with many partial sums.
REORDERED = INNER | {"fastmath": {"contract", "nsz", "reassoc"}}

# To wake another thread takes about 5 us on a quiet machine, and much longer on a busy one. Below
# this many elementary steps (a multiply-add, a number moved) one thread is faster.
PARALLEL_FROM = 200_000


class threaded:
    """Decorator: compile a function with prange loops twice, for one thread and for many.

    `kernel(many, ...)` runs one of the two; each is compiled when it is first called. Both do the same
    work in the same pieces, so results do not depend on the number of threads.
    """

    def __init__(self, function):
        self.__doc__ = function.__doc__
        # Numba's cache tells functions apart by name, so the second needs its own
        name = f"{function.__qualname__}_parallel"
        twin = FunctionType(function.__code__, function.__globals__, name)
        twin.__qualname__, twin.__module__ = name, function.__module__
        self.serial = njit(**COMPILED)(function)
        self.parallel = njit(**COMPILED, parallel=True)(twin)

    def __call__(self, many, *args):
        return (self.parallel if many else self.serial)(*args)


def many(x, steps):
    """Whether threads pay for a kernel that takes so many elementary steps on x.

    Only in float32: float64 is for proofs, and the second version would have to be compiled as well.
    """
    return steps >= PARALLEL_FROM and x.dtype == np.float32 and numba.get_num_threads() > 1


def reading(*names):
    """Decorator: a compiled function only reads the arrays of these names, and writes into the others.

    A captured step asks: what may be written it must be able to undo.
    """

    def noted(kernel):
        functions = (kernel.serial, kernel.parallel) if isinstance(kernel, threaded) else (kernel,)
        for function in functions:
            function.py_func.reads = frozenset(names)
        return kernel

    return noted


def written(function, args):
    """Those of the arguments of a compiled function that it may write into."""
    reads = getattr(function.py_func, "reads", ())
    names = function.py_func.__code__.co_varnames
    return [arg for name, arg in zip(names, args, strict=False) if name not in reads]
