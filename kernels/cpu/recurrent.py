"""Recurrent layers: the whole sequence in one compiled function, forward and backward.

As array expressions, a step of an LSTM is some 30 calls on arrays that are too small to repay them.
Here it is one product by the micro-kernel (_tile), and one pass over what that wrote by functions that
fill vector registers (_scalars), while both lie in the nearest cache:

    z = [x_t | h] @ [W_ih | W_hh]^T + b      the projection of the input and of the state at once
    gates and new state, from z              in place

Sequences do not see each other, so a thread takes some of the batch through all steps. What sums over
steps and batch, the gradients of weights, is one product behind the loop. Numbers lie by gate, (gates,
L, N, units), the units padded with zeros to whole tiles; so a step of a cell is a plain loop.

Sums and functions have the errors of float32 (see _tile, _scalars), and over a sequence they grow as
PyTorch's do. float64 is for proofs and goes to the reference.
"""

import numba
import numpy as np
from numba import njit, prange

from .. import reference
from . import _scalars
from ._arrays import dense, empty
from ._compiled import INLINED, INNER, many, threaded
from ._product import product_of_rows
from ._tile import any_tile_add, any_tile_from, columns, tile_cover
from ._vectors import part

TANH, RELU, LSTM, GRU = range(4)  # cells

# What is kept of each step for the gradient, by cell. The first of it are products; GRU has the
# candidate's two parts, from x and from h, on both sides of the gates that see x and h.
KEPT = {
    TANH: ("h",),
    RELU: ("h",),
    LSTM: ("i", "f", "u", "o", "tanh(c)", "c before"),
    GRU: ("u", "r", "z", "W_hu h + b_hu", "h before"),
}


def rnn(x, h, w_ih, w_hh, b, lengths, reverse, relu):
    """h = tanh(W_ih x + W_hh h + b), or relu in place of tanh; b may be None. Elman 1990.

    Returns the states, and what the gradient needs: the states before each step.
    """
    if not _suit(x, h, w_ih, w_hh, b):
        return reference.rnn(x, h, w_ih, w_hh, b, lengths, reverse, relu)
    cell, depth = RELU if relu else TANH, x.shape[2] + h.shape[1]
    bias = _bias(b, w_hh)
    y, _, before = _forward(cell, [(0, 0, depth)], x, (h,), w_ih, w_hh, bias, lengths, reverse)
    return y, before[:, :, x.shape[2] :]


def rnn_grad(g, x, w_ih, w_hh, lengths, reverse, relu, states, before):
    """Gradients of rnn for x, h, w_ih, w_hh and b; states and before as the forward returned them."""
    if not _suit(g, x, w_ih, w_hh, states, before):
        return reference.rnn_grad(g, x, w_ih, w_hh, lengths, reverse, relu, states, before)
    steps, batch, size = before.shape
    kept = np.zeros((1, steps, batch, _whole(size, x.dtype)), x.dtype)
    kept[0, :, :, :size] = states[:steps]
    cell = RELU if relu else TANH
    gx, (gh,), gz, gb = _backward(cell, g, w_ih, w_hh, [0], [0], lengths, reverse, kept)
    return gx, gh, _weight_grad(gz, x, size), _weight_grad(gz, before, size), gb.reshape(-1)


def lstm(x, h, c, w_ih, w_hh, b, lengths, reverse):
    """c = f c + i u, h = o tanh(c), for i, f, o = sigmoid and u = tanh of W_ih x + W_hh h + b.

    The gates lie in the order i, f, u, o. Hochreiter & Schmidhuber 1997, Gers et al. 2000. Returns the
    states, and what the gradient needs: what is kept, and [x | h] before each step.
    """
    if not _suit(x, h, c, w_ih, w_hh, b):
        return reference.lstm(x, h, c, w_ih, w_hh, b, lengths, reverse)
    products = [(gate, 0, x.shape[2] + h.shape[1]) for gate in range(4)]
    bias = _bias(b, w_hh)
    y, *saved = _forward(LSTM, products, x, (h, c), w_ih, w_hh, bias, lengths, reverse)
    return y, tuple(saved)


def lstm_grad(g, x, w_ih, w_hh, lengths, reverse, saved):
    """Gradients of lstm for x, h, c, w_ih, w_hh and b; saved as the forward returned it."""
    if isinstance(saved, list):
        return reference.lstm_grad(g, x, w_ih, w_hh, lengths, reverse, saved)
    (kept, before), gates, features = saved, [0, 1, 2, 3], x.shape[2]
    gx, (gh, gc), gz, gb = _backward(LSTM, g, w_ih, w_hh, gates, gates, lengths, reverse, kept)
    gw = _weight_grad(gz, before, w_hh.shape[1])
    return gx, gh, gc, gw[:, :features], gw[:, features:], gb.reshape(-1)


def gru(x, h, w_ih, w_hh, b_ih, b_hh, lengths, reverse):
    """h = (1 - z) u + z h with u = tanh(W_iu x + b_iu + r (W_hu h + b_hu)); b_ih, b_hh may be None.

    r and z are sigmoids of W_ih x + b_ih + W_hh h + b_hh; the gates lie in the order r, z, u. Cho et al.
    2014, in the form that PyTorch and cuDNN have. Returns the states, and what the gradient needs: what
    is kept, and [x | h] before each step.
    """
    if not _suit(x, h, w_ih, w_hh, b_ih, b_hh):
        return reference.gru(x, h, w_ih, w_hh, b_ih, b_hh, lengths, reverse)
    features, size = x.shape[2], h.shape[1]
    r, z = (0, 0, features + size), (1, 0, features + size)
    products = [(2, 0, features), r, z, (2, features, size)]
    from_x, from_h = _bias(b_ih, w_hh), _bias(b_hh, w_hh)
    bias = np.stack([from_x[2], from_x[0] + from_h[0], from_x[1] + from_h[1], from_h[2]])
    y, *saved = _forward(GRU, products, x, (h,), w_ih, w_hh, bias, lengths, reverse)
    return y, tuple(saved)


def gru_grad(g, x, w_ih, w_hh, lengths, reverse, saved):
    """Gradients of gru for x, h, w_ih, w_hh, b_ih and b_hh; saved as the forward returned it."""
    if isinstance(saved, list):
        return reference.gru_grad(g, x, w_ih, w_hh, lengths, reverse, saved)
    (kept, before), features, size = saved, x.shape[2], w_hh.shape[1]
    u_first, u_last = np.roll(w_ih, size, axis=0), -size
    gx, (gh,), gz, gb = _backward(
        GRU, g, u_first, w_hh, [0, 1, 2], [1, 2, 3], lengths, reverse, kept
    )
    gw_ih = _weight_grad(gz[:3], before[:, :, :features], size)
    gw_hh = _weight_grad(gz[1:], before[:, :, features:], size)
    gb_ih, gb_hh = gb[:3].reshape(-1), gb[1:].reshape(-1)
    return gx, gh, np.roll(gw_ih, u_last, axis=0), gw_hh, np.roll(gb_ih, u_last), gb_hh


def _forward(cell, products, x, states, w_ih, w_hh, bias, lengths, reverse):
    """The states (L + 1 or 2, N, H), what is kept (K, L, N, units), and [x | h] before each step.

    products: for each (gate, first column of [x | h], number of columns); bias (products, units).
    """
    steps, batch, features = x.shape
    size = w_hh.shape[1]
    units = _whole(size, x.dtype)
    panels = _panels_by_gate(np.concatenate([w_ih, w_hh], axis=1), size)
    before = empty((steps, batch, features + size), x.dtype)
    before[:, :, :features] = x
    now = np.zeros((2, batch, units), x.dtype)
    y = empty((steps + len(states), batch, size), x.dtype)
    for state, given in zip(now, states, strict=False):
        state[:, :size] = given
    kept = empty((len(KEPT[cell]), steps, batch, units), x.dtype)
    tiles, rows = tile_cover(batch)
    threads, chunks = _threads(x, steps * before[0].size * len(products) * units, len(tiles))
    _steps(
        threads, chunks, cell, tiles, rows, _lengths(lengths, x), reverse,
        np.array(products), panels, bias, before, now.reshape(2, -1), y, kept.reshape(len(kept), -1),
    )  # fmt: skip
    for i in range(len(states)):
        y[steps + i] = now[i, :, :size]
    return y, kept, before


@threaded
def _steps(
    chunks, cell, tiles, rows, lengths, reverse, products, panels, bias, before, now, y, kept
):
    for chunk in prange(chunks):
        first, end = chunk * len(tiles) // chunks, (chunk + 1) * len(tiles) // chunks
        _chunk(cell, tiles[first:end], rows, lengths, reverse, products, panels, bias, before,
               now, y, kept)  # fmt: skip


@njit(**INNER)
def _chunk(cell, tiles, rows, lengths, reverse, products, panels, bias, before, now, y, kept):
    """Some tiles of the batch through all steps."""
    steps, batch, depth = before.shape
    size, units = y.shape[2], bias.shape[1]
    n_panels, width = units // panels.shape[2], panels.shape[2]
    before_rows, kept_rows = rows * depth, rows * units
    one_run = np.zeros(1, np.int64)
    for step in range(steps):
        t = steps - 1 - step if reverse else step
        for tile in range(len(tiles)):
            first, end, tall = tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]
            for n in range(first, end):
                at = (t * batch + n) * depth + depth - size
                _copy(part(now, n * units, size), part(before, at, size))
            for slot in range(len(products)):
                gate, left, length = products[slot]
                for panel in range(n_panels):
                    any_tile_from(
                        tall, bias, slot * units + panel * width,
                        kept, kept_rows, (slot * steps + t) * batch * units + panel * width,
                        before, before_rows, t * batch * depth + left, first, one_run, 1, length, 1,
                        panels, ((gate * n_panels + panel) * depth + left) * width, width,
                    )  # fmt: skip
            n = first
            while n < end:  # sequences that are not over, as many as lie together
                last = n
                while last < end and t < lengths[last]:
                    last += 1
                run = (last - n) * units
                h, c = part(now, n * units, run), part(now, (batch + n) * units, run)
                _cell(cell, kept, (t * batch + n) * units, h, c)
                for m in range(n, last):
                    _copy(part(now, m * units, size), part(y, (t * batch + m) * size, size))
                if last < end:
                    y[t, last, :] = 0
                n = last + 1


@njit(**INNER)
def _cell(cell, kept, at, h, c):
    """From the results of products, in kept, to gates and the new state. Plain loops, flat.

    at: where the numbers of these sequences begin in each of kept.
    """
    if cell == LSTM:
        i, f, u = _of(kept, 0, at, h), _of(kept, 1, at, h), _of(kept, 2, at, h)
        o, squashed = _of(kept, 3, at, h), _of(kept, 4, at, h)
        _copy(c, _of(kept, 5, at, h))
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
        u, r, z = _of(kept, 0, at, h), _of(kept, 1, at, h), _of(kept, 2, at, h)
        inner = _of(kept, 3, at, h)
        _copy(h, _of(kept, 4, at, h))
        _sigmoid(r)
        _sigmoid(z)
        for j in range(u.size):
            u[j] = _scalars.tanh(u[j] + r[j] * inner[j])
        for j in range(h.size):
            h[j] = u[j] + z[j] * (h[j] - u[j])
    else:
        new, zero = _of(kept, 0, at, h), h.dtype.type(0)
        if cell == TANH:
            _tanh(new)
        else:
            for j in range(new.size):
                new[j] = zero if new[j] <= zero else new[j]
        _copy(new, h)


@njit(**INLINED)
def _of(slots, slot, at, like):
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
def _copy(x, y):
    for j in range(x.size):
        y[j] = x[j]


def _backward(cell, g, w_ih, w_hh, from_x, from_h, lengths, reverse, kept):
    """Gradients for x, the states, the products (P, L, N, units) and their biases (P, H).

    from_x, from_h: which products have x in them, and which h, in the order of w_ih and of w_hh.
    """
    _, steps, batch, units = kept.shape
    size, features = w_hh.shape[1], w_ih.shape[1]
    n_states = len(g) - steps
    g = dense(g)
    now = np.zeros((2, batch, units), g.dtype)
    now[:n_states, :, :size] = g[steps:]
    tiles, rows = tile_cover(batch)
    gx = empty((steps, batch, _whole(features, g.dtype)), g.dtype)
    gz = empty((from_h[-1] + 1, steps, batch, units), g.dtype)
    sums = np.zeros((len(tiles), len(gz), units), g.dtype)
    threads, chunks = _threads(g, gz.size * (features + size), len(tiles))
    between = steps * batch * units
    _steps_grad(
        threads, chunks, cell, tiles, rows, _lengths(lengths, g), reverse,
        np.array(from_x) * between, np.array(from_h) * between,
        _panels_by_input(w_ih, size), _panels_by_input(w_hh, size),
        kept.reshape(len(kept), -1), g, now.reshape(2, -1), gx, gz.reshape(len(gz), -1), sums,
    )  # fmt: skip
    return gx[:, :, :features], now[:n_states, :, :size], gz, sums.sum(axis=0)[:, :size]


@threaded
def _steps_grad(
    chunks, cell, tiles, rows, lengths, reverse, from_x, from_h, panels_x, panels_h,
    kept, g, now, gx, gz, sums,
):  # fmt: skip
    for chunk in prange(chunks):
        first, end = chunk * len(tiles) // chunks, (chunk + 1) * len(tiles) // chunks
        _chunk_grad(cell, tiles[first:end], rows, lengths, reverse, from_x, from_h, panels_x,
                    panels_h, kept, g, now, gx, gz, sums[first:end])  # fmt: skip


@njit(**INNER)
def _chunk_grad(
    cell, tiles, rows, lengths, reverse, from_x, from_h, panels_x, panels_h,
    kept, g, now, gx, gz, sums,
):  # fmt: skip
    """Some tiles of the batch back through all steps; now: the gradients of the state, as it was."""
    steps, batch, features = gx.shape
    size, units, width = g.shape[2], sums.shape[2], panels_x.shape[2]
    gx_rows, rows_of_units = rows * features, rows * units
    zeros = np.zeros(width, gx.dtype)
    for step in range(steps):
        t = step if reverse else steps - 1 - step
        for tile in range(len(tiles)):
            first, end, tall = tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]
            at = t * batch * units
            n = first
            while n < end:
                last = n
                while last < end and t < lengths[last]:
                    _add(part(g, (t * batch + last) * size, size), part(now, last * units, size))
                    last += 1
                run = (last - n) * units
                gh, gc = part(now, n * units, run), part(now, (batch + n) * units, run)
                _cell_grad(cell, kept, gz, at + n * units, gh, gc)
                if last < end:
                    gz[:, at + last * units : at + (last + 1) * units] = 0
                n = last + 1
            for slot in range(len(gz)):
                for n in range(first, end):
                    total = part(sums, (tile * len(gz) + slot) * units, units)
                    _add(_of(gz, slot, at + n * units, total), total)
            for panel in range(len(panels_x)):
                any_tile_from(
                    tall, zeros, 0, gx, gx_rows, t * batch * features + panel * width,
                    gz, rows_of_units, at, first, from_x, len(from_x), units, 1,
                    panels_x, panel * panels_x.shape[1] * width, width,
                )  # fmt: skip
            for panel in range(len(panels_h)):
                any_tile_add(
                    tall, now, rows_of_units, panel * width,
                    gz, rows_of_units, at, first, from_h, len(from_h), units, 1,
                    panels_h, panel * panels_h.shape[1] * width, width,
                )  # fmt: skip


@njit(**INNER)
def _cell_grad(cell, kept, gz, at, gh, gc):
    """From the gradients of a new state to those of products, gz, and of the state before.

    What reaches h through the products is left for later. at: as in _cell, also in gz.
    """
    one = gh.dtype.type(1)
    if cell == LSTM:
        i, f, u = _of(kept, 0, at, gh), _of(kept, 1, at, gh), _of(kept, 2, at, gh)
        o, squashed, c = _of(kept, 3, at, gh), _of(kept, 4, at, gh), _of(kept, 5, at, gh)
        gi, gf, gu, go = (
            _of(gz, 0, at, gh),
            _of(gz, 1, at, gh),
            _of(gz, 2, at, gh),
            _of(gz, 3, at, gh),
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
        u, r, z = _of(kept, 0, at, gh), _of(kept, 1, at, gh), _of(kept, 2, at, gh)
        inner, h = _of(kept, 3, at, gh), _of(kept, 4, at, gh)
        gu, gr, gz_, gu_h = (
            _of(gz, 0, at, gh),
            _of(gz, 1, at, gh),
            _of(gz, 2, at, gh),
            _of(gz, 3, at, gh),
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
        y, gy, zero = _of(kept, 0, at, gh), _of(gz, 0, at, gh), gh.dtype.type(0)
        if cell == TANH:
            for j in range(gh.size):
                gy[j] = gh[j] * (one - y[j] * y[j])
        else:
            for j in range(gh.size):
                gy[j] = gh[j] if y[j] > zero else zero
        gh[:] = 0


@njit(**INNER)
def _add(x, y):
    for j in range(x.size):
        y[j] += x[j]


def _weight_grad(gz, x, size):
    """The sum over steps and batch: (P, L, N, units), (L, N, K) -> (P H, K)."""
    products, _, _, units = gz.shape
    x = x.reshape(-1, x.shape[2])
    rows = (np.arange(products) * len(x) * units).reshape(-1, 1) + np.arange(size)
    return product_of_rows(gz, rows.reshape(-1), units, x)


def _panels_by_gate(w, size):
    """w (gates H, K) for products x @ w.T: (gates P, K, COLUMNS), the columns being units of a gate."""
    padded = _by_gate(w, size)
    width = columns(w.dtype)
    return dense(padded.reshape(-1, width, w.shape[1]).swapaxes(1, 2))


def _panels_by_input(w, size):
    """w (gates H, K) for products g @ w: (P, gates units, COLUMNS), the columns being inputs."""
    by_gate, width = _by_gate(w, size), columns(w.dtype)
    padded = np.zeros((*by_gate.shape[:2], _whole(w.shape[1], w.dtype)), w.dtype)
    padded[:, :, : w.shape[1]] = by_gate
    return dense(padded.reshape(by_gate.shape[0] * by_gate.shape[1], -1, width).swapaxes(0, 1))


def _bias(b, w_hh):
    """b (gates H,), or zeros if there is none, as (gates, units)."""
    size = w_hh.shape[1]
    return _by_gate(np.zeros(len(w_hh), w_hh.dtype) if b is None else b, size)


def _by_gate(w, size):
    """(gates H, ...) as (gates, units, ...), with zeros for the units beyond H."""
    w = w.reshape(-1, size, *w.shape[1:])
    padded = np.zeros((len(w), _whole(size, w.dtype), *w.shape[2:]), w.dtype)
    padded[:, :size] = w
    return padded


def _whole(n, dtype):
    """n, rounded up to whole tiles."""
    return n + -n % columns(dtype)


def _lengths(lengths, x):
    """The number of steps of each sequence."""
    if lengths is None:
        return np.full(x.shape[1], len(x), np.int64)
    return dense(lengths.astype(np.int64))


def _threads(x, steps, n_tiles):
    """Whether threads pay, and into how many parts they cut the batch."""
    threads = many(x, steps)
    return threads, min(n_tiles, numba.get_num_threads()) if threads else 1


def _suit(x, *others):
    """All single, and not empty."""
    arrays = [x, *(o for o in others if o is not None)]
    return all(a.dtype == np.float32 and a.size > 0 for a in arrays)
