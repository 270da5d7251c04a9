"""Elementwise kernels from formulas for one number: one trip through memory, whatever the formula."""

import functools

from .. import reference
from ._arrays import empty, flat_alike, same_floats
from ._device import LINE, cover, device, jit, launch, mine


def elementwise(formula):
    """Decorator: a formula for one number, written for arrays, up to three, and perhaps a number behind.

    Constants in it take the type of an argument, type(x)(0.5): a bare 0.5 would be of 64 bits, and so
    would the arithmetic. Results lie in memory as the arrays do.
    """
    kernels = _kernels(device(formula))
    plain = getattr(reference, formula.__name__)

    @functools.wraps(formula)
    def run(*args):
        arrays = [a for a in args if hasattr(a, "dtype")]
        if not same_floats(*arrays):
            return plain(*args)
        numbers = [arrays[0].dtype.type(a) for a in args[len(arrays) :]]
        flat, undo = flat_alike(*arrays)
        out = empty(flat[0], flat[0].shape)
        launch(kernels[len(arrays), len(numbers)], cover(out.size), LINE, *flat, *numbers, out)
        return undo(out)

    return run


def _kernels(f):
    """Kernels of a formula by the number of arrays and of numbers behind them.

    In each, thread i computes elements i, i + threads of the grid, and so on: neighbouring threads stay
    on neighbouring numbers, and a grid that just fills the card serves arrays of any size.
    """

    @jit
    def one(x, out):
        for i in mine(out.size):
            out[i] = f(x[i])

    @jit
    def one_and_number(x, a, out):
        for i in mine(out.size):
            out[i] = f(x[i], a)

    @jit
    def two(x, y, out):
        for i in mine(out.size):
            out[i] = f(x[i], y[i])

    @jit
    def two_and_number(x, y, a, out):
        for i in mine(out.size):
            out[i] = f(x[i], y[i], a)

    @jit
    def three(x, y, z, out):
        for i in mine(out.size):
            out[i] = f(x[i], y[i], z[i])

    return {
        (1, 0): one,
        (1, 1): one_and_number,
        (2, 0): two,
        (2, 1): two_and_number,
        (3, 0): three,
    }
