"""What a formula costs, counted while it runs: floating-point operations and bytes."""

import math
import types
from typing import NamedTuple

import numpy as np

NUMBER = 4  # bytes of a number in float32, in which networks are trained


class Cost(NamedTuple):
    """what: "value", or the argument whose gradient it is. flops: operations, an exponential one too.

    bytes: at least, in float32: what is taken is read once, the result written once. saved: of these,
    what a gradient needs of the way there, and so has to be kept.
    """

    what: str
    flops: int
    bytes: int
    saved: int


def counted(run, *values):
    """Call run(*values): (what it returned, a function that gives what was done since it was asked last).

    That is the number of operations, and the arrays that took part in any (by _root).
    """
    total, touched = 0, set()

    def since():
        nonlocal total
        done = total, set(touched)
        total = 0
        touched.clear()
        return done

    class Counted(np.ndarray):
        """An array whose operations are counted, and whose results are such arrays."""

        def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
            nonlocal total
            touched.update(_root(a) for a in inputs if isinstance(a, np.ndarray))
            inputs = [_plain(a) for a in inputs]
            if out is not None:
                options["out"] = tuple(_plain(a) for a in out)
            result = getattr(ufunc, method)(*inputs, **options)
            if method == "at":  # into the first, of the third
                total += np.size(inputs[2])
            elif method != "__call__":  # reduce, accumulate, reduceat
                total += np.size(inputs[0])
            elif ufunc is np.matmul:
                total += 2 * np.size(result) * inputs[0].shape[-1]
            else:
                total += np.size(result)
            return _counted(out[0] if out is not None else result)

        def __array_function__(self, function, kinds, args, options):
            nonlocal total
            result = super().__array_function__(function, kinds, args, options)
            if function is not np.zeros_like:
                _touch(args)
            if function is np.einsum:
                total += _products(args[0], args[1:])
            return _counted(result)

    def _counted(a):
        if isinstance(a, list | tuple):
            return type(a)(map(_counted, a))
        return a.view(Counted) if isinstance(a, np.ndarray) else a

    def _touch(args):
        for a in args:
            if isinstance(a, np.ndarray):
                touched.add(_root(a))
            elif isinstance(a, list | tuple):
                _touch(a)

    return run(*(_counted(v) for v in values)), since


def _root(a):
    """Which memory an array lies in: the identity of the array that owns it."""
    while isinstance(a.base, np.ndarray):
        a = a.base
    return id(a)


def _plain(a):
    return a.view(np.ndarray) if isinstance(a, np.ndarray) else a


def _products(subscripts, operands):
    """Operations of an einsum as its definition has it: each product, each addition."""
    names, _, out = subscripts.partition("->")
    sizes = {}
    for labels, x in zip(names.split(","), operands, strict=True):
        sizes.update(zip(labels, np.shape(x), strict=True))
    adds = set(sizes) - set(out) != set()
    return math.prod(sizes.values()) * (len(operands) - 1 + adds)


def size(*values, among=None):
    """Bytes of all arrays in what is given, each once: through lists, and what functions hold.

    among: the arrays that count (by _root); all if None.
    """
    found = {}
    for value in values:
        _collect(value, found)
    return sum(n for root, n in found.items() if among is None or root in among)


def _collect(value, found):
    if isinstance(value, np.ndarray | np.generic):
        each = NUMBER if value.dtype.kind == "f" else value.dtype.itemsize
        root = _root(value) if isinstance(value, np.ndarray) else id(value)
        found[root] = max(found.get(root, 0), each * value.size)
    elif isinstance(value, list | tuple):
        for item in value:
            _collect(item, found)
    elif isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            _collect(cell.cell_contents, found)
