"""One op on several backends: the same values, the same gradients."""

from typing import NamedTuple

import numpy as np

from ..autograd import grad
from ..backend import backend as find_backend
from ..tensor import Tensor

# relative to the largest value of the array; sums in another order cost a few bits
TOLERANCES = {"float64": 1e-10, "float32": 1e-5, "float16": 1e-2}


class ParityError(AssertionError):
    """A backend that disagrees with numpy."""


class Difference(NamedTuple):
    """The largest differences from numpy, relative to the largest value of the array."""

    forward: float
    gradient: float


def parity(op, inputs, backends, *, tolerance=None, seed=0, **options):
    """Run an op forward and backward on several backends and compare them with numpy.

    op: from Tensors to a Tensor or several. inputs: arrays, Tensors or numbers; floating-point arrays,
    and Tensors that require it, get gradients. backends: names or Backends. tolerance: by dtype if
    None (1e-10 for float64, 1e-5 for float32). seed: of the gradient that goes backward. Returns
    {backend's name: Difference(forward, gradient)}.

    Raises ParityError for the first disagreement: with op, backend, argument, index and both values.
    """
    name = getattr(op, "__name__", type(op).__name__)
    values, gradients = _run(op, inputs, find_backend("numpy"), options, seed)
    result = {}
    for where in map(find_backend, backends):
        theirs, their_gradients = _run(op, inputs, where, options, seed)
        result[where.name] = Difference(
            max(
                (
                    _compare(f"{name} on {where.name}: output {i}", a, b, tolerance)
                    for i, (a, b) in enumerate(zip(theirs, values, strict=True))
                ),
                default=0.0,
            ),
            max(
                (
                    _compare(
                        f"{name} on {where.name}: the gradient of argument {i}",
                        their_gradients[i],
                        gradients[i],
                        tolerance,
                    )
                    for i in gradients
                ),
                default=0.0,
            ),
        )
    return result


def _run(op, inputs, backend, options, seed):
    """Outputs as NumPy arrays, and {argument: gradient} for a random gradient of the outputs."""
    args = [_argument(x, backend) for x in inputs]
    outputs = op(*args, **options)
    outputs = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
    wanted = [i for i, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
    ends = [o for o in outputs if o.requires_grad]
    # a stream of its own: a gradient equal to the input would make normalisation layers degenerate
    rng = np.random.default_rng([seed, 0x9A71])
    seeds = [Tensor(backend.array(rng.standard_normal(o.shape), o.dtype), backend) for o in ends]
    found = [None] * len(wanted)
    if ends:
        found = grad(ends, [args[i] for i in wanted], seeds, allow_unused=True)
    gradients = {
        i: np.zeros(args[i].shape, args[i].dtype) if g is None else g.numpy()
        for i, g in zip(wanted, found, strict=True)
    }
    return [o.numpy() for o in outputs], gradients


def _argument(x, backend):
    """An array or Tensor as a leaf on the backend, in the memory order it has; anything else as it is."""
    if isinstance(x, Tensor):
        return Tensor(backend.array(x.numpy()), backend, x.requires_grad)
    if isinstance(x, np.ndarray):
        return Tensor(backend.array(x), backend, x.dtype.kind == "f")
    return x


def _compare(what, array, expected, tolerance):
    """The largest difference relative to the largest value; ParityError if above the tolerance."""
    if array.shape != expected.shape or array.dtype != expected.dtype:
        raise ParityError(
            f"{what} is {array.dtype} {array.shape}; numpy gives {expected.dtype} {expected.shape}"
        )
    if expected.size == 0:
        return 0.0
    exact = expected.dtype.kind != "f"
    gap = relative_gap(array, expected)
    limit = 0.0 if exact else TOLERANCES[expected.dtype.name] if tolerance is None else tolerance
    worst = float(gap.max())
    if worst > limit:
        index = tuple(int(i) for i in np.unravel_index(gap.argmax(), gap.shape))
        raise ParityError(
            f"{what} is {array[index]} at index {index}; numpy gives {expected[index]} "
            f"(relative difference {worst:.2g}, tolerated {limit:.2g})"
        )
    return worst


def relative_gap(array, expected):
    """|array - expected| over the largest finite |expected|, elementwise; shapes must agree.

    Infinities and NaN agree with their like only: the gap is infinite otherwise.
    """
    a, b = (x.astype(np.float64) for x in (array, expected))
    equal = (a == b) | (np.isnan(a) & np.isnan(b))
    scale = np.abs(b[np.isfinite(b)]).max(initial=0.0) or 1.0
    with np.errstate(invalid="ignore"):
        gap = np.where(equal, 0.0, np.abs(a - b) / scale)
    gap[np.isnan(gap)] = np.inf
    return gap
