"""Views and rearrangements: nothing is computed, elements only change their place."""

import math
import operator

from ..autograd import op
from .reduce import fold


@op
def reshape(be, x, *, shape):
    """The elements in logical (C) order under another shape; one entry may be -1."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    known = math.prod(n for n in shape if n != -1)
    free = shape.count(-1)
    if free > 1 or any(n < -1 for n in shape):
        raise ValueError(f"reshape: one entry at most may be -1 and none below; got {shape}")
    if (free == 0 and known != x.size) or (free and (known == 0 or x.size % known)):
        raise ValueError(f"reshape: {x.size} elements of shape {x.shape} do not fill {shape}")
    return x.reshape(shape), (lambda g: g.reshape(x.shape),)


def flatten(x, start_axis=0):
    """Axes from start_axis on as one, in logical (C) order."""
    if not -x.ndim <= start_axis <= max(x.ndim - 1, 0):
        raise ValueError(f"flatten: start_axis {start_axis} is out of range for shape {x.shape}")
    start = start_axis % x.ndim if x.ndim else 0
    return reshape(x, shape=(*x.shape[:start], math.prod(x.shape[start:])))


@op
def transpose(be, x, *, axes=None):
    """The axes in another order, reversed by default."""
    axes = tuple(reversed(range(x.ndim))) if axes is None else tuple(axes)
    if sorted(a % x.ndim if -x.ndim <= a < x.ndim else -1 for a in axes) != list(range(x.ndim)):
        raise ValueError(f"transpose: axes {axes} do not name each axis of shape {x.shape} once")
    axes = tuple(a % x.ndim for a in axes)
    inverse = tuple(axes.index(i) for i in range(x.ndim))
    return x.transpose(axes), (lambda g: g.transpose(inverse),)


def swapaxes(x, axis1, axis2):
    """Two axes exchanged."""
    axes = list(range(x.ndim))
    for a in (axis1, axis2):
        if not -x.ndim <= a < x.ndim:
            raise ValueError(f"swapaxes: axis {a} is out of range for shape {x.shape}")
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return transpose(x, axes=axes)


def moveaxis(x, source, destination):
    """One axis moved to another place, the others in their order."""
    for a in (source, destination):
        if not -x.ndim <= a < x.ndim:
            raise ValueError(f"moveaxis: axis {a} is out of range for shape {x.shape}")
    axes = [a for a in range(x.ndim) if a != source % x.ndim]
    axes.insert(destination % x.ndim, source % x.ndim)
    return transpose(x, axes=axes)


@op
def expand(be, x, *, shape):
    """x stretched to a shape as broadcasting would, without a copy; -1 keeps an axis."""
    shape = tuple(shape)
    lead = len(shape) - x.ndim
    full = tuple(x.shape[i - lead] if n == -1 and i >= lead else n for i, n in enumerate(shape))
    if (
        lead < 0
        or min(full, default=0) < 0
        or any(m not in (1, n) for m, n in zip(x.shape, full[lead:], strict=True))
    ):
        raise ValueError(f"expand: shape {x.shape} does not stretch to {shape}")
    return be.xp.broadcast_to(x, full), (lambda g: g,)  # the engine sums over what was stretched


@op
def squeeze(be, x, *, axis=None):
    """Axes of size 1 removed: all of them, or those named."""
    if axis is None:
        gone = {i for i, n in enumerate(x.shape) if n == 1}
    else:
        gone = {axis} if isinstance(axis, int) else set(axis)
        if any(not -x.ndim <= a < x.ndim or x.shape[a] != 1 for a in gone):
            raise ValueError(f"squeeze: axis {axis} of shape {x.shape} is not of size 1")
        gone = {a % x.ndim for a in gone}
    out = x.reshape(tuple(n for i, n in enumerate(x.shape) if i not in gone))
    return out, (lambda g: g.reshape(x.shape),)


@op
def expand_dims(be, x, *, axis):
    """A new axis of size 1 at that place."""
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise ValueError(f"expand_dims: axis {axis} is out of range for shape {x.shape}")
    at = axis % (x.ndim + 1)
    return x.reshape((*x.shape[:at], 1, *x.shape[at:])), (lambda g: g.reshape(x.shape),)


@op
def _concat(be, *xs, axis):
    ends = []
    for x in xs:
        ends.append((ends[-1] if ends else 0) + x.shape[axis])

    def grads(g):
        starts = [0, *ends[:-1]]
        lead = (slice(None),) * axis
        return tuple(g[(*lead, slice(a, b))] for a, b in zip(starts, ends, strict=True))

    return be.xp.concatenate(xs, axis=axis), grads


def concat(tensors, axis=0):
    """Tensors one behind the other along an axis; the other axes must agree."""
    tensors = list(tensors)
    if not tensors:
        raise ValueError("concat: at least one Tensor is needed; got none")
    first = tensors[0].shape
    if not -len(first) <= axis < len(first):
        raise ValueError(f"concat: axis {axis} is out of range for shape {first}")
    at = axis % len(first)
    for t in tensors[1:]:
        if t.ndim != len(first) or any(
            m != n for i, (m, n) in enumerate(zip(first, t.shape, strict=True)) if i != at
        ):
            raise ValueError(
                f"concat: all axes but axis {axis} must agree; got {[t.shape for t in tensors]}"
            )
    return _concat(*tensors, axis=at)


def stack(tensors, axis=0):
    """Tensors of one shape side by side along a new axis."""
    tensors = list(tensors)
    if len({t.shape for t in tensors}) != 1:
        raise ValueError(
            f"stack: Tensors of one shape are needed; got {[t.shape for t in tensors]}"
        )
    return concat([expand_dims(t, axis=axis) for t in tensors], axis=axis)


def split(x, sections, axis=0):
    """x cut along an axis into pieces of a size (an int, the last may be smaller) or of given sizes."""
    if not -x.ndim <= axis < x.ndim:
        raise ValueError(f"split: axis {axis} is out of range for shape {x.shape}")
    at, n = axis % x.ndim, x.shape[axis]
    if isinstance(sections, int):
        if sections < 1:
            raise ValueError(f"split: the size of a piece must be at least 1; got {sections}")
        sections = [min(sections, n - i) for i in range(0, n, sections)]
    if sum(sections) != n:
        raise ValueError(f"split: sizes {list(sections)} do not add up to {n} along axis {axis}")
    pieces, start = [], 0
    for size in sections:
        pieces.append(x[(slice(None),) * at + (slice(start, start + size),)])
        start += size
    return pieces


@op
def pad(be, x, *, widths, value=0.0):
    """x with `value` around it; widths: a (before, after) pair for each axis."""
    widths = tuple((int(a), int(b)) for a, b in widths)
    if len(widths) != x.ndim or any(w < 0 for pair in widths for w in pair):
        raise ValueError(
            f"pad: one pair of sizes >= 0 for each axis of shape {x.shape} is needed; got {widths}"
        )
    inner = tuple(slice(a, a + n) for (a, _), n in zip(widths, x.shape, strict=True))
    return be.xp.pad(x, widths, constant_values=value), (lambda g: g[inner],)


@op
def flip(be, x, *, axis=None):
    """The elements in reverse along an axis, several, or all."""
    fold("flip", x, axis)
    return be.xp.flip(x, axis=axis), (lambda g: be.xp.flip(g, axis=axis),)


@op
def roll(be, x, *, shift, axis):
    """The elements moved along an axis (or several), what leaves at the end enters at the front."""
    fold("roll", x, axis)
    back = tuple(-s for s in shift) if isinstance(shift, tuple) else -shift
    return be.xp.roll(x, shift, axis=axis), (lambda g: be.xp.roll(g, back, axis=axis),)


@op
def repeat(be, x, *, repeats, axis=None):
    """Each element `repeats` times in a row along an axis; None flattens first."""
    if not isinstance(repeats, int) or repeats < 0:
        raise ValueError(f"repeat: repeats must be a whole number >= 0; got {repeats!r}")
    if axis is not None and not -x.ndim <= axis < x.ndim:
        raise ValueError(f"repeat: axis {axis} is out of range for shape {x.shape}")
    at = 0 if axis is None else axis % x.ndim
    base = (x.size,) if axis is None else x.shape

    def grad_x(g):
        return (
            g.reshape((*base[: at + 1], repeats, *base[at + 1 :])).sum(axis=at + 1).reshape(x.shape)
        )

    return be.xp.repeat(x, repeats, axis=axis), (grad_x,)


def tile(x, reps):
    """The whole of x `reps[i]` times along axis i."""
    reps = (reps,) if isinstance(reps, int) else tuple(reps)
    if len(reps) != x.ndim or any(operator.index(r) < 1 for r in reps):
        raise ValueError(f"tile: one number >= 1 for each axis of shape {x.shape}; got {reps}")
    doubled = reshape(x, shape=tuple(m for n in x.shape for m in (1, n)))
    wide = expand(
        doubled, shape=tuple(m for r, n in zip(reps, x.shape, strict=True) for m in (r, n))
    )
    return reshape(wide, shape=tuple(r * n for r, n in zip(reps, x.shape, strict=True)))


@op
def tril(be, x, *, k=0):
    """The lower triangle of the last two axes, zeros above diagonal k."""
    return be.xp.tril(x, k), (lambda g: be.xp.tril(g, k),)


@op
def triu(be, x, *, k=0):
    """The upper triangle of the last two axes, zeros below diagonal k."""
    return be.xp.triu(x, k), (lambda g: be.xp.triu(g, k),)
