"""Matrix products by the micro-kernel (_tile): the second factor is packed, the first read where it lies.

    out (M, N) = start (N,) + x (M, K) @ y (K, N)

A tile of the result reads a few rows of x a number at a time, from wherever they lie, and COLUMNS
columns of y a vector at a time. Those are far apart in memory, in places of the cache that displace
each other; so y is copied first into panels (P, K, COLUMNS), each in the order in which it is read. A
block of rows of x stays in the second cache, while one panel after the other passes through the first.
"""

import numba
import numpy as np
from numba import njit, prange

from ._arrays import empty
from ._compiled import COMPILED, INNER, many, reading, threaded
from ._tile import (
    ROWS,
    TALL,
    VECTORS,
    any_tile_add,
    any_tile_from,
    columns,
    copy_columns,
    tile_cover,
    turn_square,
)
from ._vectors import fetch

# Of the panels that are packed at a time. Each adds to sums of its own, since long ones round more.
DEPTH = 256
TOGETHER = 8  # tiles that make a block of rows
NEAREST = (
    32 << 10
)  # bytes of the nearest cache; a panel beyond it comes from the second, for many rows


def product(x, y, start=None, threads=True):
    """start + x @ y, for x (M, K) and y (K, N) in any memory order, start (N,) or None: a new (M, N)."""
    row, step = (stride // x.itemsize for stride in x.strides)
    return product_of_rows(x, np.arange(len(x)) * row, step, y, start, threads)


def product_of_rows(x, rows, step, y, start=None, threads=True):
    """As product, for an array x of any shape: rows (M,), where each row begins, and how far its
    numbers lie apart, count elements of x as they lie in memory.
    """
    depth, n_columns = y.shape
    if 0 in (len(rows), depth, n_columns):
        return np.zeros((len(rows), n_columns), x.dtype) + (0 if start is None else start)
    width = columns(x.dtype)
    n_panels = -(-n_columns // width)
    parts = -(-depth // DEPTH)
    depth_of_panels = depth if parts == 1 else -(-depth // (parts * width)) * width
    panels = empty((n_panels, depth_of_panels, width), x.dtype)
    first_sum = np.zeros(n_panels * width, x.dtype)
    if start is not None:
        first_sum[:n_columns] = start
    out = empty((len(rows), n_columns), x.dtype)
    tiles, tile_rows = tile_cover(len(rows), TALL or panels[0].nbytes > NEAREST)
    threads = threads and many(x, len(rows) * y.size)
    together = TOGETHER
    if threads:
        together = min(TOGETHER, -(-len(tiles) // numba.get_num_threads()))
    rows = rows[tile_rows]
    for k in range(0, depth, depth_of_panels):
        below = min(depth, k + depth_of_panels)
        pack(y[k:below], panels)
        _blocks(
            threads,
            tiles,
            together,
            x,
            rows + k * step,
            step,
            panels,
            below - k,
            first_sum,
            k > 0,
            out,
        )
    return out


@reading("y")
@njit(**COMPILED)
def pack(y, panels):
    """y (K, N) into panels (P, K or more, COLUMNS), with zeros beyond the last column."""
    depth, n_columns = y.shape
    width, size = panels.shape[2], panels.shape[1] * panels.shape[2]
    row, column = y.strides[0] // y.itemsize, y.strides[1] // y.itemsize
    for panel in range(len(panels)):
        left = panel * width
        right = min(width, n_columns - left)
        if column == 1 and right == width:
            for k in range(depth):
                copy_columns(panels, panel * size + k * width, y, k * row + left)
        elif row == 1 and column != 1:
            turn_panel(y, left, right, column, panels, panel)
        else:
            packed = panels[panel]
            for k in range(depth):
                for j in range(right):
                    packed[k, j] = y[k, left + j]
                for j in range(right, width):
                    packed[k, j] = 0


@njit(**INNER)
def turn_panel(y, left, right, column, panels, panel):
    """One panel of y whose columns are dense, so many elements apart, in squares through registers."""
    depth, width = len(y), panels.shape[2]
    lanes, at = width // VECTORS, panel * panels.shape[1] * panels.shape[2]
    whole = depth - depth % lanes if right == width else 0
    for k in range(0, whole, lanes):
        for j in range(width):  # the same of the next panel: columns in a row are no row of memory
            fetch(y, (left + width + j) * column + k)
        for j in range(0, width, lanes):
            turn_square(panels, at + k * width + j, width, y, (left + j) * column + k, column)
    if whole == depth:
        return
    # Squares that hang over an edge are turned aside and copied as far as they go. Where memory goes on,
    # their rows end with numbers of the next column; else they are completed with zeros.
    square, turned = np.empty((lanes, lanes), y.dtype), np.empty((lanes, width), y.dtype)
    end = (y.shape[1] - 1) * column + depth
    for k in range(whole, depth, lanes):
        below = min(depth - k, lanes)
        for j in range(0, width, lanes):
            first = (left + j) * column + k
            if first + (lanes - 1) * column + lanes <= end:
                turn_square(turned, j, width, y, first, column)
            else:
                square[:] = 0
                for c in range(min(right - j, lanes)):
                    for i in range(below):
                        square[c, i] = y[k + i, left + j + c]
                turn_square(turned, j, width, square, 0, lanes)
        for i in range(below):
            copy_columns(panels, at + (k + i) * width, turned, i * width)


@reading("tiles", "x", "x_rows", "panels", "start")
@threaded
def _blocks(tiles, together, x, x_rows, step, panels, depth, start, go_on, out):
    for part in prange((len(tiles) + together - 1) // together):
        some = tiles[part * together : (part + 1) * together]
        _block(some, x, x_rows, step, panels, depth, start, go_on, out)


@njit(**INNER)
def _block(tiles, x, x_rows, step, panels, depth, start, go_on, out):
    """Some tiles of out = start + the product; to go on, out += the product."""
    n_columns, width = out.shape[1], panels.shape[2]
    before = tiles[0, 0]
    x_rows = x_rows[before : tiles[-1, 0] + ROWS]
    # the last tile may repeat the last row
    out_rows = np.minimum(np.arange(before, before + len(x_rows)), len(out) - 1) * n_columns
    one_run = np.zeros(1, np.int64)
    # a tile that hangs over the right edge is computed aside, and what exists of it copied
    edge = np.empty((ROWS, width), x.dtype)
    edge_rows, edge_x_rows = np.arange(ROWS) * width, np.empty(ROWS, np.int64)
    for panel in range(len(panels)):
        left, panel_at = panel * width, panel * panels.shape[1] * width
        right = min(width, n_columns - left)
        whole = right == width
        for tile in range(len(tiles)):
            first, end, tall = tiles[tile, 0], tiles[tile, 1], tiles[tile, 2]
            row = first - before
            if panel == 0 and step != 1:
                if tile == 0:
                    _fetch(x, x_rows, step, depth)
                if tile + 1 < len(tiles):
                    _fetch(x, x_rows[end - before :], step, depth)
            if not whole:
                edge_x_rows[: len(x_rows) - row] = x_rows[row : row + ROWS]
                if go_on:
                    edge[: end - first, :right] = out[first:end, left:]
            target, target_rows = (out, out_rows) if whole else (edge, edge_rows)
            source_rows = x_rows if whole else edge_x_rows
            at, row = (left, row) if whole else (0, 0)
            if go_on:
                any_tile_add(tall, target, target_rows, at, x, source_rows, 0, row,
                             one_run, 1, depth, step, panels, panel_at, width)  # fmt: skip
            else:
                any_tile_from(tall, start, left, target, target_rows, at, x, source_rows, 0, row,
                              one_run, 1, depth, step, panels, panel_at, width)  # fmt: skip
            if not whole:
                out[first:end, left:] = edge[: end - first, :right]


@njit(**INNER)
def _fetch(x, rows, step, depth):
    """Ask the memory for the columns of x that are the next tile's rows; they may share cache lines."""
    for k in range(depth):
        fetch(x, rows[0] + k * step)
        fetch(x, rows[min(ROWS, len(rows)) - 1] + k * step)
