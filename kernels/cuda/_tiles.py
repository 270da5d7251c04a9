"""Register blocking: the inner part of every product of large matrices, and so of convolution.

A block of threads computes one tile of the result, rows x columns, as a sum of outer products. It walks
along the axis that is summed over, `depth` steps at a time:

    global memory --16 bytes a load--> registers --> shared memory --> registers --> multiply-adds
                      fetch                  stash              multiply

A panel of the left matrix (depth x rows) and one of the right (depth x columns) lie in shared memory,
and every number of them is used by many threads. Each thread adds up a patch of the tile in registers,
patch_rows x patch_columns: for that it reads only one short column and one short row a step, so
multiply-adds outnumber the reads from shared memory, of 16 bytes each, by 16 to 1. Two copies of the
panels alternate: while one is multiplied, the next is on its way.
"""

import functools
from collections import namedtuple
from types import SimpleNamespace

from ._device import SIMULATOR, device, int32
from ._instructions import copy4, load, product_of_panels, store

Tile = namedtuple("Tile", "rows columns depth patch_rows patch_columns")

# LARGE feeds the card best; SMALL makes more blocks, so that small results keep it busy.
if SIMULATOR:
    LARGE = SMALL = Tile(32, 16, 16, 16, 8)  # few threads, for each of them is a thread of Python
    LANES = 2, 2
else:
    LARGE, SMALL = Tile(128, 128, 8, 8, 8), Tile(64, 64, 8, 8, 4)
    # The 32 threads of a warp stand as 4 x 8: it then reads 4 different pieces of the left panel and
    # 8 of the right in one go, the fewest bytes of all shapes.
    LANES = 4, 8

# Numbers left free after each row of a panel: else those that a warp stores when it turns a panel would
# fall into the same few memory banks, one after the other.
PAD = 4


def threads(tile):
    """Threads of a block: one for each patch."""
    return (tile.rows // tile.patch_rows) * (tile.columns // tile.patch_columns)


def bounds(tile, dtype):
    """Threads of a block, and how many blocks shall share a multiprocessor: as many as leave each thread
    the registers for its patch, 128 of them, or 255 if a number fills two."""
    return {"threads": threads(tile), "blocks": (8 if tile.rows > 64 else 16) // dtype.itemsize}


@functools.cache
def patches(tile):
    """What the threads do with the panels in shared memory, as functions for kernels.

    corner(t): row and column of the tile at which thread t begins. Its patch is in pieces of 4 x 4,
    spread over the tile so that a warp reads shared memory without gaps: row(i) and column(j) say how
    far behind the corner the patch's row i and column j lie.
    multiply(acc, left, right, l, r): one panel's worth of multiply-adds for the patch acc; the thread's
    part of the left panel begins at l, of the right one at r.
    """
    row_step = 4 * tile.rows // tile.patch_rows  # how far the pieces of a patch lie apart
    column_step = 4 * tile.columns // tile.patch_columns
    lanes_down, lanes_across = LANES
    lanes = lanes_down * lanes_across
    warps_across = tile.columns // tile.patch_columns // lanes_across

    @device
    def corner(t):
        warp, lane = int32(t // lanes), int32(t % lanes)
        down = int32(warp // warps_across * lanes_down + lane // lanes_across)
        across = int32(warp % warps_across * lanes_across + lane % lanes_across)
        return int32(down * 4), int32(across * 4)

    @device
    def row(i):
        return i // 4 * row_step + i % 4

    @device
    def column(j):
        return j // 4 * column_step + j % 4

    multiply = product_of_panels(
        tile.depth,
        [piece * row_step for piece in range(tile.patch_rows // 4)],
        tile.rows + PAD,
        [piece * column_step for piece in range(tile.patch_columns // 4)],
        tile.columns + PAD,
    )
    return SimpleNamespace(corner=corner, row=row, column=column, multiply=multiply)


@functools.cache
def carrier(tile, width, along, wide):
    """How the threads of a block carry a panel, depth x width, from a matrix into shared memory.

    along: whether the summed axis is the one that lies without gaps in memory; the panel is then turned
    on its way. wide: whether every row of the matrix begins at a multiple of 16 bytes.

    fetch(held, a, base, pitch, w, w_end, k, k_end, t): thread t reads its pieces of 4 numbers of the
    panel at (k, w) into registers `held`, zeros beyond the ends. The matrix begins at a[base]; pitch: how
    far apart its rows lie. stash(panel, base, held, t): and writes them to shared memory.
    """
    depth, n_threads, pitch_shared = tile.depth, threads(tile), width + PAD
    pieces = depth * width // 4 // n_threads
    across = (depth if along else width) // 4  # pieces side by side in a row of memory
    assert pieces * n_threads * 4 == depth * width

    @device
    def place(t, q):
        """Where piece q of thread t lies in the panel: (k, w). Neighbours are next to each other in
        memory, so that a warp reads whole lines of it."""
        piece = int32(t + q * n_threads)
        if along:
            return int32(piece % across * 4), int32(piece // across)
        return int32(piece // across), int32(piece % across * 4)

    @device
    def fetch(held, a, base, pitch, w, w_end, k, k_end, t):
        for q in range(pieces):
            dk, dw = place(t, q)
            ki, wi = int32(k + dk), int32(w + dw)
            at = int32(base + wi * pitch + ki) if along else int32(base + ki * pitch + wi)
            if wide:
                if ki < k_end and wi < w_end:
                    copy4(held, q * 4, a, at)
                else:
                    for e in range(4):
                        store(held, q * 4 + e, 0)
            else:
                for e in range(4):
                    ke, we = (int32(ki + e), wi) if along else (ki, int32(wi + e))
                    if ke < k_end and we < w_end:
                        store(held, q * 4 + e, load(a, int32(at + e)))
                    else:
                        store(held, q * 4 + e, 0)

    @device
    def stash(panel, base, held, t):
        for q in range(pieces):
            k, w = place(t, q)
            if along:
                for e in range(4):
                    store(panel, int32(base + (k + e) * pitch_shared + w), load(held, q * 4 + e))
            else:
                copy4(panel, int32(base + k * pitch_shared + w), held, q * 4)

    return SimpleNamespace(place=place, fetch=fetch, stash=stash, held=pieces * 4)


@functools.cache
def results(tile, biased, wide):
    """How a thread's patch begins and ends, as functions for kernels.

    begin(acc, bias, base, j, j_end): the sums of column j start at bias[base + j], or 0 unless biased.
    write(acc, out, base, pitch, i, i_end, j, j_end): the patch, its corner at (i, j), goes to a matrix
    whose rows begin at out[base] and lie `pitch` apart. wide: all at multiples of 16 bytes.
    """
    patch_rows, patch_columns, quads = tile.patch_rows, tile.patch_columns, tile.patch_columns // 4
    row, column = patches(tile).row, patches(tile).column

    @device
    def begin(acc, bias, base, j, j_end):
        for q in range(patch_columns):
            for p in range(patch_rows):
                store(acc, p * patch_columns + q, 0)
            if biased:
                jq = int32(j + column(q))
                if jq < j_end:
                    for p in range(patch_rows):
                        store(acc, p * patch_columns + q, load(bias, int32(base + jq)))

    @device
    def write(acc, out, base, pitch, i, i_end, j, j_end):
        for p in range(patch_rows):
            ip = int32(i + row(p))
            for q in range(quads):
                jq, at = int32(j + column(4 * q)), p * patch_columns + 4 * q
                to = int32(base + ip * pitch + jq)
                if wide:
                    if ip < i_end and jq < j_end:
                        copy4(out, to, acc, at)
                else:
                    for e in range(4):
                        if ip < i_end and jq + e < j_end:
                            store(out, int32(to + e), load(acc, at + e))

    return SimpleNamespace(begin=begin, write=write)
