"""Who runs an op, and how that is checked and timed.

A place is a backend, or PyTorch in the form of one; a contender is a kernel there.
"""

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch_kernels
from operations import OPS

import tinygrad_zen as tz
from tinygrad_zen.check import work as formulas
from tinygrad_zen.check.ladders import choice, ladders, origin, style

TOLERANCE = 1e-4  # of the largest number of a result: float32 against float64
KINDS = {
    **{"numpy": "cpu", "numba": "cpu", "torch": "cpu"},
    **{"cupy": "gpu", "cuda": "gpu", "torch-cuda": "gpu", "cudasim": "sim"},
}


class Contender(NamedTuple):
    """A kernel at a place: a rung of a ladder, or the one kernel that there is."""

    backend: object
    name: str
    kernel: Callable
    default: bool


def contenders(op, where):
    """The kernels of a place (a name or a Backend) for an op, slowest rung first."""
    be = place(where)
    if be.name in torch_kernels.NAMES:
        kernel = getattr(be.kernels, op, None)  # what PyTorch does not have it is not asked for
        return [Contender(be, "PyTorch", kernel, True)] if kernel else []
    base = be.name.partition("[")[0]
    kernel, module = getattr(be.kernels, op), style(base)
    rungs, found = ladders(module).get(op, ()), []
    default = choice(op, module)[0] if rungs else []
    if kernel is not getattr(module, op):  # somebody's own, in place of ours
        found = [Contender(be, rung.__name__, as_kernel(op, rung), False) for rung in rungs]
        return [*found, Contender(be, getattr(kernel, "__name__", "custom"), kernel, True)]
    for rung in rungs:
        alone = default == [rung]
        found.append(Contender(be, rung.__name__, as_kernel(op, rung), alone))
    if len(default) != 1:  # no ladder, or a choice by size: that is timed as well
        name = "reference" if origin(module, op) == "reference" else op
        found.append(Contender(be, name, kernel, True))
    return found


def as_kernel(op, rung):
    """A rung with the arguments of its kernel. Softmax on CUDA has rungs that take rows alone."""
    if op == "softmax" and "log" in rung.__code__.co_varnames[: rung.__code__.co_argcount]:
        return lambda x, axis: rung(x)
    return rung


def place(name):
    """The backend of that name, or PyTorch in the form of one; a place is returned as it is."""
    if not isinstance(name, str):
        return name
    return torch_kernels.place(name) if name in torch_kernels.NAMES else tz.backend(name)


def places():
    """The names of all that can run here."""
    states = tz.backends()
    return [name for name in states if states[name] == "usable"] + torch_kernels.usable()


def kind(be):
    """Which list of sizes a place gets: "cpu", "gpu" or "sim"."""
    return KINDS[be.name.partition("[")[0]]


def device(be):
    """What a backend computes on, in words."""
    if kind(be) == "gpu":
        be = tz.backend("cupy")
        properties = be.xp.cuda.runtime.getDeviceProperties(be.xp.cuda.Device().id)
        return properties["name"].decode()
    return "simulator" if kind(be) == "sim" else "CPU"


def inputs(op, size, be, seed=0):
    """The arguments of a call on a backend: float32, the same numbers everywhere."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    return [be.array(a) if isinstance(a, np.ndarray) else a for a in op.arguments(normal, *size)]


def wait(be):
    """Until the device has done what was asked of it."""
    if be.name in torch_kernels.NAMES:
        be.wait()
    elif be.xp is not np:
        be.xp.cuda.Device().synchronize()


def outcome(kernel, arguments, be):
    """What a call leaves: its results, or for an update in place the arrays that it was given."""
    result = kernel(*arguments)
    if result is None:
        result = tuple(a for a in arguments if hasattr(a, "dtype"))
    return [be.numpy(a) for a in (result if isinstance(result, tuple) else (result,))]


@functools.cache
def work(name, size):
    """What a call needs at least, (floating-point operations, bytes), as tinygrad_zen.check.work says."""
    be = tz.backend("numpy")
    arguments = inputs(OPS[name], size, be)
    result = getattr(be.kernels, name)(*arguments)
    in_place = name.endswith("_")
    return formulas.flops(name, result, arguments), formulas.moved(result, arguments, in_place)


def expected(name, size):
    """The reference's results in float64 of the same float32 numbers."""
    be = tz.backend("numpy")
    arguments = [
        a.astype(np.float64) if isinstance(a, np.ndarray) else a
        for a in inputs(OPS[name], size, be)
    ]
    return outcome(getattr(be.kernels, name), arguments, be)


def error(contender, name, size, right):
    """The largest difference from the right results, over the largest number of each.

    PyTorch numbers the maxima of a window otherwise: of what it returns the first results count.
    """
    got = outcome(contender.kernel, inputs(OPS[name], size, contender.backend), contender.backend)
    worst = 0.0
    for a, b in zip(got, right[: len(got)], strict=True):
        scale = max(1.0, float(np.abs(b).max())) if b.dtype.kind == "f" else 1.0
        difference = np.abs(a.astype(np.float64) - b).max() / scale
        worst = max(worst, float(np.nan_to_num(difference, nan=math.inf)))
    return worst


def alternate(calls, rounds, seconds):
    """Seconds a call of {key: (call, wait)}: the median over rounds, blocks of about `seconds`."""
    blocks, times = {}, {key: [] for key in calls}
    for key, (call, finish) in calls.items():
        block(call, finish, 1)  # warm, since its check; this settles caches and clocks
        blocks[key] = max(1, min(10_000, int(seconds / block(call, finish, 1))))
    for _ in range(rounds):
        for key, (call, finish) in calls.items():
            times[key].append(block(call, finish, blocks[key]))
    return {key: statistics.median(t) for key, t in times.items()}


def block(call, finish, count):
    finish()
    start = time.perf_counter()
    for _ in range(count):
        call()
    finish()
    return (time.perf_counter() - start) / count


def measure(name, size, group, rounds, seconds):
    """Check and time contenders at one size; -> {contender: (seconds a call, error)}.

    Raises SystemExit if one is wrong: nothing is timed that is not right.
    """
    right, calls, errors = expected(name, size), {}, {}
    for c in group:
        errors[c] = error(c, name, size, right)
        if not errors[c] <= TOLERANCE:
            raise SystemExit(
                f"{name} {label(size)}: {c.name} on {c.backend.name} is wrong by {errors[c]:.1e} "
                f"of the largest number (allowed: {TOLERANCE:.0e})"
            )
        arguments = inputs(OPS[name], size, c.backend)
        calls[c] = functools.partial(c.kernel, *arguments), functools.partial(wait, c.backend)
    times = alternate(calls, rounds, seconds)
    return {c: (times[c], errors[c]) for c in group}


def label(size):
    return "x".join(map(str, size))
