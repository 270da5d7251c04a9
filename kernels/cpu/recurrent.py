"""Recurrent layers: the whole sequence in one compiled function, forward and backward.

As array expressions, a step of an LSTM is some 30 calls on arrays that are too small to repay them.
Here it is one product by the micro-kernel (_tile), and one pass over what that wrote by functions that
fill vector registers (_cells), while both lie in the nearest cache:

    z = [x_t | h] @ [W_ih | W_hh]^T + b      the projection of the input and of the state at once
    gates and new state, from z              in place

Backward, the gradients gz of a few steps are kept together, and give those of the weights and of x as
soon as they are DEPTH rows, while they lie in the caches too:

    gz, gradient of the state before, from the gates;  gh += gz @ W_hh          for each step
    gW_ih += gz^T @ x;  gW_hh += gz^T @ h;  gx = gz @ W_ih                        for some of them

Sequences do not see each other. So the batch is cut into pieces, the same for any number of threads,
which take them through all steps; the gradients of weights are summed over pieces behind the loop.
Saved numbers lie by piece, step and sequence, those of the cells in slots by gate, (slots, rows *
units), the units padded with zeros to whole tiles.

Sums and functions have the errors of float32 (see _tile, _scalars), and over a sequence they grow as
PyTorch's do. float64 is for proofs and goes to the reference.
"""

import functools

import numpy as np
from numba import njit, prange

from .. import reference
from ._arrays import LINE, dense, empty, in_memory_order
from ._cells import GRU, KEPT, LSTM, RELU, TANH, add, copy, run_cell, run_cell_grad
from ._compiled import INNER, many, threaded
from ._tile import (
    ROWS,
    SHORT,
    TALL,
    any_tile_add,
    any_tile_from,
    columns,
    short_tile_add_transposed,
    tile_cover,
)
from ._vectors import fetch, part

WIDTH = columns(np.dtype(np.float32))  # of a tile
DEPTH = 128  # rows of gradients that are collected
PIECES = 16  # into which a batch is cut at most
# Numbers between two slots: without them, the same place of each slot goes to the same place of the
# nearest cache, which holds fewer than there are slots.
APART = 5 * LINE // 4


def rnn(x, h, w_ih, w_hh, b, lengths, reverse, relu):
    """h = tanh(W_ih x + W_hh h + b), or relu in place of tanh; b may be None. Elman 1990.

    Returns the states, and what the gradient needs: what is kept, and [x | h] before each step.
    """
    if not _suit(x, h, w_ih, w_hh, b):
        return reference.rnn(x, h, w_ih, w_hh, b, lengths, reverse, relu)
    cell, products = RELU if relu else TANH, [(0, 0, x.shape[2] + h.shape[1])]
    y, *saved = _forward(cell, products, x, (h,), w_ih, w_hh, _bias(b, w_hh), lengths, reverse)
    return y, tuple(saved)


def rnn_grad(g, x, w_ih, w_hh, lengths, reverse, relu, states, before):
    """Gradients of rnn for x, h, w_ih, w_hh and b; states and before as the forward returned them."""
    if not isinstance(before, tuple):
        return reference.rnn_grad(g, x, w_ih, w_hh, lengths, reverse, relu, states, before)
    cell = RELU if relu else TANH
    gx, gw_ih, gw_hh, gb, gh = _backward(cell, g, x, w_ih, w_hh, 0, lengths, reverse, *before)
    return gx, gh, gw_ih, gw_hh, gb


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
    gx, gw_ih, gw_hh, gb, gh, gc = _backward(LSTM, g, x, w_ih, w_hh, 0, lengths, reverse, *saved)
    return gx, gh, gc, gw_ih, gw_hh, gb


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
    size = w_hh.shape[1]
    u_first, u_last = np.roll(w_ih, size, axis=0), -size
    gx, gw_ih, gw_hh, gb, gh = _backward(GRU, g, x, u_first, w_hh, 1, lengths, reverse, *saved)
    gw_ih, gb_ih = np.roll(gw_ih, u_last, axis=0), np.roll(gb[: 3 * size], u_last)
    return gx, gh, gw_ih, gw_hh, gb_ih, gb[size:]


def _forward(cell, products, x, states, w_ih, w_hh, bias, lengths, reverse):
    """The states (L + 1 or 2, N, H), what is kept (K, rows * units), and [x | h] before each step.

    products: for each (gate, first column of [x | h], number of columns); bias (products, units).
    """
    steps, batch, features = x.shape
    size = w_hh.shape[1]
    units, depth = _whole(size), features + size
    panels = _panels_by_gate(np.concatenate([w_ih, w_hh], axis=1), size)
    numbers = in_memory_order(x) if x.strides[2] == x.itemsize and x.flags.writeable else None
    if numbers is None:
        x = np.array(x, order="C")
        numbers = x.reshape(-1)
    before = empty((steps * batch * depth + WIDTH,), x.dtype)
    before[-WIDTH:] = 0  # a panel may reach over the end
    now = np.zeros((2, batch, units), x.dtype)
    y = empty((steps + len(states), batch, size), x.dtype)
    for state, given in zip(now, states, strict=False):
        state[:, :size] = given
    kept = empty((len(KEPT[cell]), steps * batch * units + APART), x.dtype)
    _steps(
        many(x, steps * batch * depth * len(products) * units), cell, steps, *_pieces(batch),
        _lengths(lengths, x), reverse, np.array(products), panels, bias, numbers,
        np.array(x.strides) // x.itemsize, before, now.reshape(2, -1), y, kept,
    )  # fmt: skip
    for i in range(len(states)):
        y[steps + i] = now[i, :, :size]
    return y, kept, before


@threaded
def _steps(
    cell, steps, tiles, rows, pieces, lengths, reverse, products, panels, bias, x, x_strides, before,
    now, y, kept,
):  # fmt: skip
    for piece in prange(len(pieces)):
        _piece(cell, steps, tiles[pieces[piece, 0] : pieces[piece, 1]], rows, lengths, reverse, products,
               panels, bias, x, x_strides, before, now, y, kept)  # fmt: skip


@njit(**INNER)
def _piece(
    cell, steps, tiles, rows, lengths, reverse, products, panels, bias, x, x_strides, before, now, y,
    kept,
):  # fmt: skip
    """Some tiles of the batch through all steps."""
    _, batch, size = y.shape
    depth, width, units = panels.shape[1], panels.shape[2], bias.shape[1]
    n_panels, features = units // width, depth - size
    first, n, within = _rows_of(tiles, rows)
    before_rows, kept_rows = within * depth, within * units
    one_run = np.zeros(1, np.int64)
    for step in range(steps):
        t = steps - 1 - step if reverse else step
        row = first * steps + t * n  # of the saved ones
        for m in range(n):
            at = (row + m) * depth
            from_x = part(x, t * x_strides[0] + (first + m) * x_strides[1], features)
            copy(from_x, part(before, at, features))
            copy(part(now, (first + m) * units, size), part(before, at + features, size))
        for slot in range(len(products)):
            gate, left, length = products[slot]
            for panel in range(n_panels):
                for tile in range(len(tiles)):
                    any_tile_from(
                        tiles[tile, 2], bias, slot * units + panel * width,
                        kept, kept_rows, slot * kept.shape[1] + row * units + panel * width,
                        before, before_rows, row * depth + left, tiles[tile, 0] - first,
                        one_run, 1, length, 1,
                        panels, ((gate * n_panels + panel) * depth + left) * width, width,
                    )  # fmt: skip
        m = 0
        while m < n:  # sequences that are not over, as many as lie together
            last = m
            while last < n and t < lengths[first + last]:
                last += 1
            at, run = (first + m) * units, (last - m) * units
            h, c = part(now, at, run), part(now, batch * units + at, run)
            run_cell(cell, kept, (row + m) * units, h, c)
            for k in range(first + m, first + last):
                copy(part(now, k * units, size), part(y, (t * batch + k) * size, size))
            if last < n:
                y[t, first + last, :] = 0
            m = last + 1


def _backward(cell, g, x, w_ih, w_hh, h_from, lengths, reverse, kept, before):
    """The gradients for x, w_ih and w_hh, those of the products (P H,), summed up, and for the states.

    h_from: the first product with h in it, in the order of w_hh; x is in the first of them, as in w_ih.
    """
    steps, batch, features = x.shape
    size = w_hh.shape[1]
    units, n_states = _whole(size), len(g) - steps
    n_x, n_h = len(w_ih) // size, len(w_hh) // size
    g = dense(g)
    now = np.zeros((2, batch, units), g.dtype)
    now[:n_states, :, :size] = g[steps:]
    tiles, rows, pieces = _pieces(batch)
    if x.strides[0] < x.strides[1]:  # gx lies as x does, by sequences or by steps
        gx = empty((batch, steps, _whole(features)), g.dtype).swapaxes(0, 1)
    else:
        gx = empty((steps, batch, _whole(features)), g.dtype)
    sums = np.zeros((len(pieces), h_from + n_h, units), g.dtype)
    gw_ih = np.zeros((len(pieces), n_x * units, _whole(features)), g.dtype)
    gw_hh = np.zeros((len(pieces), n_h * units, units), g.dtype)
    _steps_grad(
        many(g, 2 * before.size * sums[0].size), cell, steps, tiles, rows, pieces,
        _lengths(lengths, x), reverse, h_from, _panels_by_input(w_ih, size),
        _panels_by_input(w_hh, size), kept, before, g, now.reshape(2, -1), in_memory_order(gx),
        np.array(gx.strides) // gx.itemsize, gw_ih, gw_hh, sums,
    )  # fmt: skip
    gw_ih = gw_ih.sum(axis=0).reshape(n_x, units, -1)[:, :size, :features]
    gw_hh = gw_hh.sum(axis=0).reshape(n_h, units, -1)[:, :size, :size]
    return (
        gx[:, :, :features],
        gw_ih.reshape(-1, features),
        gw_hh.reshape(-1, size),
        sums.sum(axis=0)[:, :size].reshape(-1),
        *now[:n_states, :, :size],
    )


@threaded
def _steps_grad(
    cell, steps, tiles, rows, pieces, lengths, reverse, h_from, panels_x, panels_h, kept, before,
    g, now, gx, gx_strides, gw_ih, gw_hh, sums,
):  # fmt: skip
    for piece in prange(len(pieces)):
        _piece_grad(
            cell, steps, tiles[pieces[piece, 0] : pieces[piece, 1]], rows, lengths, reverse, h_from,
            panels_x, panels_h, kept, before, g, now, gx, gx_strides, gw_ih[piece], gw_hh[piece],
            sums[piece],
        )  # fmt: skip


@njit(**INNER)
def _piece_grad(
    cell, steps, tiles, rows, lengths, reverse, h_from, panels_x, panels_h, kept, before,
    g, now, gx, gx_strides, gw_ih, gw_hh, sums,
):  # fmt: skip
    """Some tiles of the batch back through all steps; now: the gradients of the state, as it was."""
    _, batch, size = g.shape
    slots, units = sums.shape
    width = panels_h.shape[2]
    depth = (before.size - WIDTH) // (steps * batch)
    first, n, within = _rows_of(tiles, rows)
    together = min(steps, max(1, DEPTH // n))
    gz = np.empty((slots, together * n * units + APART), g.dtype)
    gz_rows, now_rows = within * units, (within + first) * units
    from_h = np.arange(h_from, slots) * gz.shape[1]
    for step in range(steps):
        t = step if reverse else steps - 1 - step
        row, at = first * steps + t * n, t % together * n * units
        m = 0
        while m < n:
            last = m
            while last < n and t < lengths[first + last]:
                k = first + last
                add(part(g, (t * batch + k) * size, size), part(now, k * units, size))
                last += 1
            state, run = (first + m) * units, (last - m) * units
            gh, gc = part(now, state, run), part(now, batch * units + state, run)
            run_cell_grad(cell, kept, (row + m) * units, gz, at + m * units, gh, gc)
            if last < n:
                gz[:, at + last * units : at + (last + 1) * units] = 0
            m = last + 1
        if step + 1 < steps:  # what the next step reads comes near while this one multiplies
            following = first * steps + (t + 1 if reverse else t - 1) * n
            for slot in range(len(kept)):
                _fetch(kept, slot * kept.shape[1] + following * units, n * units)
        for panel in range(len(panels_h)):
            for tile in range(len(tiles)):
                any_tile_add(
                    tiles[tile, 2], now, now_rows, panel * width,
                    gz, gz_rows, at, tiles[tile, 0] - first, from_h, len(from_h), units, 1,
                    panels_h, panel * panels_h.shape[1] * width, width,
                )  # fmt: skip
        begin = t - t % together
        if t == (min(steps, begin + together) - 1 if reverse else begin):
            _collect(
                min(together, steps - begin), first, n, begin, steps, size, depth, gz, h_from, panels_x,
                before, gx, gx_strides, gw_ih, gw_hh, sums,
            )  # fmt: skip


@njit(**INNER)
def _collect(
    together, first, n, begin, steps, size, depth, gz, h_from, panels_x, before, gx, gx_strides, gw_ih, gw_hh,
    sums,
):  # fmt: skip
    """From gz of so many steps, from `begin` on, to what does not wait for the step before."""
    slots, units = sums.shape
    length, width, n_x = together * n, panels_x.shape[2], len(gw_ih) // units
    for slot in range(slots):
        _add_rows(gz, slot * gz.shape[1], length, part(sums, slot * units, units))
    at = (first * steps + begin * n) * depth
    _add_weight_grad(gw_ih, gz, 0, before, at, depth, length, units)
    _add_weight_grad(gw_hh, gz, h_from, before, at + depth - size, depth, length, units)
    gz_rows, gx_rows = np.empty(length + ROWS, np.int64), np.empty(length + ROWS, np.int64)
    for i in range(gz_rows.size):  # a tile that hangs over repeats the last row
        row = min(i, length - 1)
        gz_rows[i] = row * units
        gx_rows[i] = row // n * gx_strides[0] + row % n * gx_strides[1]
    from_x = np.arange(n_x) * gz.shape[1]
    zeros = np.zeros(width, gz.dtype)
    gx_at = begin * gx_strides[0] + first * gx_strides[1]
    for panel in range(len(panels_x)):
        row = 0
        while row < length:
            tall = TALL and length - row > SHORT
            any_tile_from(
                tall, zeros, 0, gx, gx_rows, gx_at + panel * width, gz, gz_rows, 0, row,
                from_x, n_x, units, 1, panels_x, panel * panels_x.shape[1] * width, width,
            )  # fmt: skip
            row += ROWS if tall else SHORT


@njit(**INNER)
def _add_rows(x, at, n_rows, total):
    """total += the sum of rows of x from `at` on, four at a time: so total is read and written less often."""
    size = total.size
    whole = n_rows - n_rows % 4
    for row in range(0, whole, 4):
        first = at + row * size
        a, b = part(x, first, size), part(x, first + size, size)
        c, d = part(x, first + 2 * size, size), part(x, first + 3 * size, size)
        for j in range(size):
            total[j] += (a[j] + b[j]) + (c[j] + d[j])
    for row in range(whole, n_rows):
        add(part(x, at + row * size, size), total)


@njit(**INNER)
def _add_weight_grad(gw, gz, slot, before, at, depth, length, units):
    """gw (gates units, columns) += the sum over so many rows of gz, from a slot on, times rows of before."""
    n_columns = gw.shape[1]
    for left in range(0, n_columns, WIDTH):
        for unit in range(0, len(gw), SHORT):
            short_tile_add_transposed(
                gw, unit * n_columns + left, n_columns,
                gz, (slot + unit // units) * gz.shape[1] + unit % units, units,
                before, at + left, depth, length,
            )  # fmt: skip


@njit(**INNER)
def _fetch(x, at, size):
    """Ask the memory for so many numbers of x from `at` on."""
    for i in range(at, at + size, LINE // 4):
        fetch(x, i)


@functools.cache
def _pieces(batch):
    """Sequences as tiles (see tile_cover), and each piece's first tile and the one behind its last."""
    tiles, rows = tile_cover(batch, TALL)
    n_pieces = min(PIECES, (len(tiles) + 1) // 2)
    ends = np.arange(n_pieces + 1) * len(tiles) // n_pieces
    return tiles, rows, np.stack([ends[:-1], ends[1:]], axis=1)


@njit(**INNER)
def _rows_of(tiles, rows):
    """The first sequence of some tiles, how many they are, and where the tiles' rows lie among them."""
    first, end = tiles[0, 0], tiles[-1, 1]
    return first, end - first, rows[first : tiles[-1, 0] + ROWS] - first


def _panels_by_gate(w, size):
    """w (gates H, K) for products x @ w.T: (gates P, K, COLUMNS), the columns being units of a gate."""
    padded = _by_gate(w, size)
    return dense(padded.reshape(-1, WIDTH, w.shape[1]).swapaxes(1, 2))


def _panels_by_input(w, size):
    """w (gates H, K) for products g @ w: (P, gates units, COLUMNS), the columns being inputs."""
    by_gate, n_columns = _by_gate(w, size), _whole(w.shape[1])
    if n_columns > w.shape[1]:
        padded = np.zeros((*by_gate.shape[:2], n_columns), w.dtype)
        padded[:, :, : w.shape[1]] = by_gate
        by_gate = padded
    return dense(by_gate.reshape(-1, n_columns // WIDTH, WIDTH).swapaxes(0, 1))


def _bias(b, w_hh):
    """b (gates H,), or zeros if there is none, as (gates, units)."""
    size = w_hh.shape[1]
    return _by_gate(np.zeros(len(w_hh), w_hh.dtype) if b is None else b, size)


def _by_gate(w, size):
    """(gates H, ...) as (gates, units, ...), with zeros for the units beyond H."""
    w = w.reshape(-1, size, *w.shape[1:])
    if size == _whole(size):
        return dense(w)
    padded = np.zeros((len(w), _whole(size), *w.shape[2:]), w.dtype)
    padded[:, :size] = w
    return padded


def _whole(n):
    """n, rounded up to whole tiles."""
    return n + -n % WIDTH


def _lengths(lengths, x):
    """The number of steps of each sequence."""
    if lengths is None:
        return np.full(x.shape[1], len(x), np.int64)
    return dense(lengths.astype(np.int64))


def _suit(x, *others):
    """All single, and not empty."""
    arrays = [x, *(o for o in others if o is not None)]
    return all(a.dtype == np.float32 and a.size > 0 for a in arrays)
