"""One step of the recurrent cells, and its gradient: plain loops over what the products have written.

The numbers of a gate lie side by side, those of the units of one sequence after those of another; so a
loop runs over all of them and fills vector registers (_scalars).
"""

from numba import njit

from . import _scalars
from ._compiled import INLINED, INNER
from ._vectors import part

TANH, RELU, LSTM, GRU = range(4)

# What is kept of each step for the gradient, by cell. The first of it are products; GRU has the
# candidate's two parts, from x and from h, on both sides of the gates that see x and h.
KEPT = {
    TANH: ("h",),
    RELU: ("h",),
    LSTM: ("i", "f", "u", "o", "tanh(c)", "c before"),
    GRU: ("u", "r", "z", "W_hu h + b_hu", "h before"),
}


@njit(**INNER)
def run_cell(cell, kept, at, h, c):
    """From the results of products, in kept, to gates and the new state. Plain loops, flat.

    at: where the numbers of these sequences begin in each of kept.
    """
    if cell == LSTM:
        i, f, u = slot_of(kept, 0, at, h), slot_of(kept, 1, at, h), slot_of(kept, 2, at, h)
        o, squashed = slot_of(kept, 3, at, h), slot_of(kept, 4, at, h)
        copy(c, slot_of(kept, 5, at, h))
        _sigmoid(i)
        _sigmoid(f)
        _tanh(u)
        _sigmoid(o)
        for j in range(c.size):
            c[j] = f[j] * c[j] + i[j] * u[j]
        for j in range(c.size):
            squashed[j] = _scalars.tanh(c[j])
        for j in range(h.size):
            h[j] = o[j] * squashed[j]
    elif cell == GRU:
        u, r, z = slot_of(kept, 0, at, h), slot_of(kept, 1, at, h), slot_of(kept, 2, at, h)
        inner = slot_of(kept, 3, at, h)
        copy(h, slot_of(kept, 4, at, h))
        _sigmoid(r)
        _sigmoid(z)
        for j in range(u.size):
            u[j] = _scalars.tanh(u[j] + r[j] * inner[j])
        for j in range(h.size):
            h[j] = u[j] + z[j] * (h[j] - u[j])
    else:
        new, zero = slot_of(kept, 0, at, h), h.dtype.type(0)
        if cell == TANH:
            _tanh(new)
        else:
            for j in range(new.size):
                new[j] = zero if new[j] <= zero else new[j]
        copy(new, h)


@njit(**INLINED)
def slot_of(slots, slot, at, like):
    """The numbers of some sequences in a slot: as many as `like` has."""
    return part(slots, slot * slots.shape[1] + at, like.size)


@njit(**INNER)
def _sigmoid(x):
    for j in range(x.size):
        x[j] = _scalars.sigmoid(x[j])


@njit(**INNER)
def _tanh(x):
    for j in range(x.size):
        x[j] = _scalars.tanh(x[j])


@njit(**INNER)
def copy(x, y):
    for j in range(x.size):
        y[j] = x[j]


@njit(**INNER)
def run_cell_grad(cell, kept, at, gz, gz_at, gh, gc):
    """From the gradients of a new state to those of products, gz, and of the state before.

    What reaches h through the products is left for later. at, gz_at: where the numbers of these
    sequences begin in each of kept and of gz.
    """
    one = gh.dtype.type(1)
    if cell == LSTM:
        i, f, u = slot_of(kept, 0, at, gh), slot_of(kept, 1, at, gh), slot_of(kept, 2, at, gh)
        o, squashed, c = (
            slot_of(kept, 3, at, gh),
            slot_of(kept, 4, at, gh),
            slot_of(kept, 5, at, gh),
        )
        gi, gf, gu, go = (
            slot_of(gz, 0, gz_at, gh),
            slot_of(gz, 1, gz_at, gh),
            slot_of(gz, 2, gz_at, gh),
            slot_of(gz, 3, gz_at, gh),
        )
        for j in range(gh.size):
            gc[j] += gh[j] * o[j] * (one - squashed[j] * squashed[j])
            go[j] = gh[j] * squashed[j] * (o[j] * (one - o[j]))
        for j in range(gh.size):
            gi[j] = gc[j] * u[j] * (i[j] * (one - i[j]))
            gu[j] = gc[j] * i[j] * (one - u[j] * u[j])
        for j in range(gh.size):
            gf[j] = gc[j] * c[j] * (f[j] * (one - f[j]))
            gc[j] *= f[j]
        gh[:] = 0
    elif cell == GRU:
        u, r, z = slot_of(kept, 0, at, gh), slot_of(kept, 1, at, gh), slot_of(kept, 2, at, gh)
        inner, h = slot_of(kept, 3, at, gh), slot_of(kept, 4, at, gh)
        gu, gr, gz_, gu_h = (
            slot_of(gz, 0, gz_at, gh),
            slot_of(gz, 1, gz_at, gh),
            slot_of(gz, 2, gz_at, gh),
            slot_of(gz, 3, gz_at, gh),
        )
        for j in range(gh.size):
            gu[j] = gh[j] * (one - z[j]) * (one - u[j] * u[j])
            gz_[j] = gh[j] * (h[j] - u[j]) * (z[j] * (one - z[j]))
        for j in range(gh.size):
            gr[j] = gu[j] * inner[j] * (r[j] * (one - r[j]))
            gu_h[j] = gu[j] * r[j]
        for j in range(gh.size):
            gh[j] *= z[j]
    else:
        y, gy, zero = slot_of(kept, 0, at, gh), slot_of(gz, 0, gz_at, gh), gh.dtype.type(0)
        if cell == TANH:
            for j in range(gh.size):
                gy[j] = gh[j] * (one - y[j] * y[j])
        else:
            for j in range(gh.size):
                gy[j] = gh[j] if y[j] > zero else zero
        gh[:] = 0


@njit(**INNER)
def add(x, y):
    for j in range(x.size):
        y[j] += x[j]
