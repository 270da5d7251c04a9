"""The micro-kernel under matmul and convolution: one small tile of a matrix product, in registers.

A processor multiplies and adds far faster than it reads memory. So a fast product keeps a small tile
of the result in vector registers, and lets every number that it reads do many multiplications:

             b, COLUMNS wide: VECTORS registers                   AVX-512: 14 rows of 2 x 16 float32
           +---------+---------+                                  AVX2:     6 rows of 2 x 8
    a  x   |  acc    |  acc    |   ROWS x VECTORS accumulators    SSE:      6 rows of 2 x 4
    a  x   |  acc    |  acc    |                                  ARM:     14 rows of 2 x 4
    ...

In one step k it reads VECTORS vectors of b and ROWS single numbers of a, each spread over a whole
vector, and issues ROWS * VECTORS multiply-adds. None of them waits for another, so the processor can
keep all of its arithmetic units busy, which needs about 10 independent accumulators or more. The
accumulators, the vectors of b and one number of a must fit into the registers: that gives ROWS.

LLVM does not find this form in plain loops (it keeps the accumulators in memory: 10 times slower), so
its instructions are written here one by one, for any dtype, width and number of registers.

Where the rows of a and of the result lie is told by tables of offsets: so one tile serves matrix
products, and convolutions, whose rows are windows into an image.
"""

import functools

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from ._compiled import INLINED, INNER
from ._vectors import MULTIPLIED, REGISTERS, VECTOR_BYTES, Vectors, pointers, repeat

VECTORS = 2
ROWS = (REGISTERS - VECTORS - 1) // VECTORS  # one register for the number of a
SHORT = 8 if ROWS > 8 else 4  # of tiles for few rows: as fast on its own rows, with less to waste
# Where a processor takes vectors in halves, tiles of few rows keep it as busy, and pass sooner.
TALL = MULTIPLIED == VECTOR_BYTES


def columns(dtype):
    """How many numbers wide a tile is."""
    return VECTORS * VECTOR_BYTES // dtype.itemsize


def _tiles(height, vectors=VECTORS, apart=True):
    """tile_from, tile_add and tile_add_transposed for tiles of so many rows, so many vectors wide.

    apart: the sums of a tile_add begin at zero, and what out holds is added last: over many calls that rounds
    less than sums that go on. Of short sums it takes 3 % longer. tile_add_transposed always does so.
    """

    @intrinsic
    def tile_from(
        typingctx, start, start_at, out, out_rows, out_at, a, a_rows, a_at, first,
        runs, n_runs, length, step, b, b_at, b_stride,
    ):  # fmt: skip
        """out tile = start + a tile of a @ b. Row m of the tile, for m = 0 .. height - 1, is

            out[out_at + out_rows[first + m] + (0 .. COLUMNS)] = start[start_at + (0 .. COLUMNS)]
                + sum over r < n_runs, k < length of
                  a[a_at + a_rows[first + m] + runs[r] + k * step]
                  * b[b_at + (r * length + k) * b_stride + (0 .. COLUMNS)]

        Offsets count elements of the arrays as they lie in memory, whatever their shapes. Nothing is
        checked: the tables must hold `height` entries from `first`, and all that they name must exist.
        """
        at = types.intp
        signature = types.void(
            start, at, out, out_rows, at, a, a_rows, at, at, runs, at, at, at, b, at, at
        )  # fmt: skip

        def write(context, builder, signature, args):
            args = pointers(context, builder, signature, args)
            v = Vectors(builder, out.dtype)
            _write_tile(v, height, vectors, args[2:], start=v.at(args[0], args[1]))
            return context.get_dummy_value()

        return signature, write

    @intrinsic
    def tile_add(
        typingctx, out, out_rows, out_at, a, a_rows, a_at, first,
        runs, n_runs, length, step, b, b_at, b_stride,
    ):  # fmt: skip
        """out tile += a tile of a @ b: as tile_from, but added to what out holds."""
        at = types.intp
        signature = types.void(out, out_rows, at, a, a_rows, at, at, runs, at, at, at, b, at, at)

        def write(context, builder, signature, args):
            args = pointers(context, builder, signature, args)
            _write_tile(Vectors(builder, out.dtype), height, vectors, args, apart=apart)
            return context.get_dummy_value()

        return signature, write

    @intrinsic
    def tile_add_transposed(
        typingctx, out, out_at, out_row, a, a_at, a_stride, b, b_at, b_stride, length
    ):
        """out tile += a tile of a.T @ b. Row m of the tile, for m = 0 .. height - 1, is

            out[out_at + m * out_row + (0 .. COLUMNS)] += sum over k < length of
                a[a_at + k * a_stride + m] * b[b_at + k * b_stride + (0 .. COLUMNS)]

        No table says where the numbers of a lie: side by side they need one address, not one each, and
        there are fewer registers for addresses than rows.
        """
        at = types.intp
        signature = types.void(out, at, at, a, at, at, b, at, at, at)

        def write(context, builder, signature, args):
            args = pointers(context, builder, signature, args)
            out, out_at, out_row, a, a_at, a_stride, b, b_at, b_stride, length = args
            v = Vectors(builder, signature.args[0].dtype)
            a, b, out = v.at(a, a_at), v.at(b, b_at), v.at(out, out_at)
            out = [v.at(out, v.times(out_row, m)) for m in range(height)]

            def one_step(k, tile):
                row = v.at(a, builder.mul(k, a_stride))
                numbers = [v.at(row, k.type(m)) for m in range(height)]
                return _outer_product(v, vectors, numbers, v.at(b, builder.mul(k, b_stride)), tile)

            sums = repeat(builder, length, [v.constant(0.0)] * (height * vectors), one_step)
            _store_tile(v, vectors, _plus(v, vectors, sums, out), out)
            return context.get_dummy_value()

        return signature, write

    return tile_from, tile_add, tile_add_transposed


@functools.cache
def tile_cover(n, mixed=True):
    """Rows 0 .. n - 1 as tiles: (first, end, 1 if it has ROWS rows, 0 if SHORT) of each; and their rows.

    Of all mixtures of both heights that with the fewest rows, then the fewest tiles; not mixed,
    of SHORT alone. The last tile may hang over the end: there the list of rows repeats the last
    row, which is computed again.
    """
    most = -(-n // ROWS) if mixed else 0
    mixtures = [
        (tall, max(0, -(-(n - tall * ROWS) // SHORT)))
        for tall in range(max(0, most - SHORT), most + 1)
    ]
    tall, short = min(mixtures, key=lambda m: (m[0] * ROWS + m[1] * SHORT, sum(m)))
    kinds = np.repeat([1, 0], [tall, short])
    ends = np.cumsum(np.where(kinds, ROWS, SHORT))
    firsts = np.concatenate([[0], ends[:-1]])
    return np.stack([firsts, np.minimum(ends, n), kinds], axis=1), np.minimum(
        np.arange(ends[-1]), n - 1
    )


tile_from, tile_add_apart, tile_add_transposed = _tiles(ROWS)
short_tile_from, short_tile_add_apart, short_tile_add_transposed = _tiles(SHORT)
_, tile_add, _ = _tiles(ROWS, apart=False)
narrow_tile_from, narrow_tile_add, _ = _tiles(ROWS, 1, apart=False)


@njit(**INLINED)
def tile_from_of(
    wide, start, start_at, out, out_rows, out_at, a, a_rows, a_at, first,
    runs, n_runs, length, step, b, b_at, b_stride,
):  # fmt: skip
    """tile_from, COLUMNS wide, or one vector: for what a last panel holds if it is half empty."""
    if wide:
        tile_from(start, start_at, out, out_rows, out_at, a, a_rows, a_at, first,
                  runs, n_runs, length, step, b, b_at, b_stride)  # fmt: skip
    else:
        narrow_tile_from(start, start_at, out, out_rows, out_at, a, a_rows, a_at, first,
                         runs, n_runs, length, step, b, b_at, b_stride)  # fmt: skip


@njit(**INLINED)
def tile_add_of(
    wide, out, out_rows, out_at, a, a_rows, a_at, first,
    runs, n_runs, length, step, b, b_at, b_stride,
):  # fmt: skip
    """tile_add, COLUMNS wide, or one vector."""
    if wide:
        tile_add(out, out_rows, out_at, a, a_rows, a_at, first,
                 runs, n_runs, length, step, b, b_at, b_stride)  # fmt: skip
    else:
        narrow_tile_add(out, out_rows, out_at, a, a_rows, a_at, first,
                        runs, n_runs, length, step, b, b_at, b_stride)  # fmt: skip


@njit(**INLINED)
def any_tile_from(
    tall, start, start_at, out, out_rows, out_at, a, a_rows, a_at, first,
    runs, n_runs, length, step, b, b_at, b_stride,
):  # fmt: skip
    """tile_from with ROWS rows if tall, else with SHORT."""
    if tall:
        tile_from(start, start_at, out, out_rows, out_at, a, a_rows, a_at, first,
                  runs, n_runs, length, step, b, b_at, b_stride)  # fmt: skip
    else:
        short_tile_from(start, start_at, out, out_rows, out_at, a, a_rows, a_at, first,
                        runs, n_runs, length, step, b, b_at, b_stride)  # fmt: skip


@njit(**INLINED)
def any_tile_add(
    tall, out, out_rows, out_at, a, a_rows, a_at, first,
    runs, n_runs, length, step, b, b_at, b_stride,
):  # fmt: skip
    """tile_add_apart with ROWS rows if tall, else with SHORT."""
    if tall:
        tile_add_apart(out, out_rows, out_at, a, a_rows, a_at, first,
                       runs, n_runs, length, step, b, b_at, b_stride)  # fmt: skip
    else:
        short_tile_add_apart(out, out_rows, out_at, a, a_rows, a_at, first,
                             runs, n_runs, length, step, b, b_at, b_stride)  # fmt: skip


@njit(**INLINED)
def any_tile_add_transposed(
    tall, out, out_at, out_row, a, a_at, a_stride, b, b_at, b_stride, length
):
    """tile_add_transposed with ROWS rows if tall, else with SHORT."""
    if tall:
        tile_add_transposed(out, out_at, out_row, a, a_at, a_stride, b, b_at, b_stride, length)
    else:
        short_tile_add_transposed(
            out, out_at, out_row, a, a_at, a_stride, b, b_at, b_stride, length
        )


@intrinsic
def copy_columns(typingctx, out, out_at, source, source_at):
    """out[out_at + (0 .. COLUMNS)] = source[source_at + (0 .. COLUMNS)], as they lie in memory."""
    signature = types.void(out, types.intp, source, types.intp)

    def write(context, builder, signature, args):
        out, out_at, source, source_at = pointers(context, builder, signature, args)
        v = Vectors(builder, signature.args[0].dtype)
        for i in range(VECTORS):
            v.store(v.load(v.at(source, source_at), i), v.at(out, out_at), i)
        return context.get_dummy_value()

    return signature, write


@intrinsic
def turn_square(typingctx, out, out_at, out_row, source, source_at, source_row):
    """A square of numbers, as wide as a vector, transposed: for all k and j below LANES

    out[out_at + k * out_row + j] = source[source_at + j * source_row + k], as they lie in memory.
    """
    at = types.intp
    signature = types.void(out, at, at, source, at, at)

    def write(context, builder, signature, args):
        out, out_at, out_row, source, source_at, source_row = pointers(
            context, builder, signature, args
        )
        v = Vectors(builder, signature.args[0].dtype)
        out, source = v.at(out, out_at), v.at(source, source_at)
        rows = [v.load(v.at(source, v.times(source_row, j))) for j in range(v.lanes)]
        for k, column in enumerate(v.turned(rows)):
            v.store(column, v.at(out, v.times(out_row, k)))
        return context.get_dummy_value()

    return signature, write


@njit(**INNER)
def turn(x, out):
    """out (M, N) = x (N or more, M).T; the rows of x are a multiple of the numbers of a vector.

    In squares through registers, whose rows may go beyond those of out: what they put there, at the
    beginning of the next row, is overwritten by the next. Where there is none, number by number.
    """
    n_rows, n_columns = out.shape
    lanes = VECTOR_BYTES // out.itemsize
    last = (n_columns - 1) // lanes * lanes
    rest = 0
    while (rest + lanes - 1) * n_columns + last + lanes <= out.size:
        for left in range(last, -1, -lanes):
            turn_square(out, rest * n_columns + left, n_columns, x, left * n_rows + rest, n_rows)
        rest += lanes
    for r in range(rest, n_rows):
        for c in range(n_columns):
            out[r, c] = x[c, r]


def _write_tile(v, height, vectors, args, start=None, apart=False):
    """Write the instructions of tile_from, or of tile_add if there is no start; apart: see _tiles."""
    out, out_rows, out_at, a, a_rows, a_at, first, runs, n_runs, length, step, b, b_at, b_stride = (
        args
    )
    builder = v.builder
    numbers = [v.add(first, m) for m in range(height)]
    rows = [builder.load(v.at(a_rows, row)) for row in numbers]
    a, b, out = v.at(a, a_at), v.at(b, b_at), v.at(out, out_at)
    out = [v.at(out, builder.load(v.at(out_rows, row))) for row in numbers]

    def one_run(r, tile):
        run_a = v.at(a, builder.load(v.at(runs, r)))
        run_b = v.at(b, builder.mul(builder.mul(r, length), b_stride))

        def one_step(k, tile):
            step_a = v.at(run_a, builder.mul(k, step))
            step_b = v.at(run_b, builder.mul(k, b_stride))
            return _outer_product(v, vectors, [v.at(step_a, row) for row in rows], step_b, tile)

        return repeat(builder, length, tile, one_step)

    for row in out if start is not None else []:
        for i in range(vectors):
            v.fetch(row, i, write=True)
    if apart:
        tile = [v.constant(0.0)] * (height * vectors)
    else:
        sources = out if start is None else [start] * height
        tile = [v.load(row, i) for row in sources for i in range(vectors)]
    sums = repeat(builder, n_runs, tile, one_run)
    if apart:
        sums = _plus(v, vectors, sums, out)
    _store_tile(v, vectors, sums, out)


def _plus(v, vectors, sums, rows):
    """The sums of a tile added to what is in its rows."""
    return [v.plus(v.load(rows[i // vectors], i % vectors), total) for i, total in enumerate(sums)]


def _store_tile(v, vectors, tile, rows):
    """Write the accumulators to the rows of a tile."""
    for i, total in enumerate(tile):
        v.store(total, rows[i // vectors], i % vectors)


def _outer_product(v, vectors, a_rows, b, tile):
    """One step of the product: tile[m] += a[m] * b, for pointers to its numbers of a and to a row of b."""
    row_of_b = [v.load(b, i) for i in range(vectors)]
    sums = []
    for m, pointer in enumerate(a_rows):
        number = v.spread(pointer)
        for i in range(vectors):
            sums.append(v.multiply_add(number, row_of_b[i], tile[m * vectors + i]))
    return sums
