"""Matrix products: a ladder of kernels from one thread an element to register blocking.

All take stacks of matrices, x (B or 1, M, K) and y (B or 1, K, N), where one matrix may serve a whole
stack, in any memory order; block z of the grid computes product z of the stack.
"""

import functools
import math

from numba import cuda

from .. import reference
from ._arrays import broadcast_batches, contiguous, empty, same_floats
from ._device import BUSY, SQUARE, blocks, int32, jit, launch
from ._tiles import LARGE, PAD, SMALL, bounds, carrier, patches, results, threads


def matmul(x, y):
    """(..., M, K) @ (..., K, N) -> (..., M, N); leading axes broadcast."""
    if not same_floats(x, y):
        return reference.matmul(x, y)
    if y.ndim == 1:  # a column, whose axis is dropped again; a vector on the left is a row
        return matmul(x, y[:, None])[..., 0]
    if x.ndim == 1:
        return matmul(x[None], y)[..., 0, :]
    return matmul_vectors(x, y)


def linear(x, w, b):
    """x @ w.T + b: (..., I), (O, I), (O,) or None -> (..., O)."""
    if not same_floats(x, w):
        return reference.linear(x, w, b)
    rows = x.reshape((1, math.prod(x.shape[:-1]), x.shape[-1]))
    return _multiply(rows, w.T[None], b).reshape((*x.shape[:-1], len(w)))


def linear_grad(g, x):
    """The gradients of linear for w and b: g (..., O), x (..., I) -> (O, I), (O,)."""
    g, x = g.reshape((-1, g.shape[-1])), x.reshape((-1, x.shape[-1]))
    return matmul(g.T, x), g.sum(axis=0)


def matmul_naive(x, y):
    """One thread an element: the definition, with neighbouring threads on neighbouring rows."""
    x, y, out, shape = _operands(x, y)
    grid = blocks(out.shape[1], SQUARE[0]), blocks(out.shape[2], SQUARE[1]), len(out)
    launch(_naive, grid, SQUARE, x, y, out)
    return out.reshape(shape)


def matmul_coalesced(x, y):
    """Neighbouring threads on neighbouring columns: a warp reads and writes whole lines of memory."""
    x, y, out, shape = _operands(x, y)
    launch(_coalesced, _grid(out, *SQUARE), SQUARE, x, y, out)
    return out.reshape(shape)


def matmul_tiled(x, y):
    """Tiles in shared memory: each number is read from global memory once for a whole row of threads."""
    x, y, out, shape = _operands(x, y)
    launch(_tiled, _grid(out, SIDE, SIDE), (SIDE, SIDE), x, y, out)
    return out.reshape(shape)


def matmul_registers(x, y):
    """A patch of 4 x 4 results a thread, in registers: eight reads from shared memory for 16 products."""
    x, y, out, shape = _operands(x, y)
    launch(_registers, _grid(out, SIDE * PATCH, SIDE * PATCH), (SIDE, SIDE), x, y, out)
    return out.reshape(shape)


def matmul_vectors(x, y):
    """Patches of 8 x 8, memory in pieces of 16 bytes, the next panel under way during the products."""
    x, y, shape = broadcast_batches(x, y)
    return _multiply(x, y, None).reshape(shape)


MATMULS = matmul_naive, matmul_coalesced, matmul_tiled, matmul_registers, matmul_vectors


def _operands(x, y):
    """x and y as stacks of matrices, an array for their products, and the shape to give it at last."""
    x, y, shape = broadcast_batches(x, y)
    return x, y, empty(x, (max(len(x), len(y)), x.shape[1], y.shape[2])), shape


def _grid(out, columns, rows):
    """Blocks that cover each matrix of a stack, columns first: x is the axis of neighbouring threads."""
    return blocks(out.shape[2], columns), blocks(out.shape[1], rows), len(out)


@jit
def _naive(x, y, out):
    """Thread (x, y) of the grid computes out[b, x, y].

    The 32 threads of a warp differ in the row: each reads of another row of x, at addresses K apart, 32
    lines of memory for 32 numbers.
    """
    i, j = cuda.grid(2)
    b = cuda.blockIdx.z
    bx, by = min(b, x.shape[0] - 1), min(b, y.shape[0] - 1)
    if i < out.shape[1] and j < out.shape[2]:
        acc = out.dtype.type(0)
        for k in range(x.shape[2]):
            acc += x[bx, i, k] * y[by, k, j]
        out[b, i, j] = acc


@jit
def _coalesced(x, y, out):
    """Thread (x, y) of the grid computes out[b, y, x].

    Now a warp shares a row of x, which is one read for all its threads, and its 32 numbers of y are
    neighbours: one or two lines of memory.
    """
    j, i = cuda.grid(2)
    b = cuda.blockIdx.z
    bx, by = min(b, x.shape[0] - 1), min(b, y.shape[0] - 1)
    if i < out.shape[1] and j < out.shape[2]:
        acc = out.dtype.type(0)
        for k in range(x.shape[2]):
            acc += x[bx, i, k] * y[by, k, j]
        out[b, i, j] = acc


SIDE = SQUARE[0]


@jit
def _tiled(x, y, out):
    """A block computes a tile of SIDE x SIDE results, thread (tx, ty) the one in row ty, column tx.

    The block walks along K by tiles. Each thread brings one number of each tile; then every one of
    them is read SIDE times, from shared memory.
    """
    xs = cuda.shared.array((SIDE, SIDE), x.dtype)
    ys = cuda.shared.array((SIDE, SIDE), y.dtype)
    tx, ty, b = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.z
    bx, by = min(b, x.shape[0] - 1), min(b, y.shape[0] - 1)
    i, j = cuda.blockIdx.y * SIDE + ty, cuda.blockIdx.x * SIDE + tx
    m, k, n = x.shape[1], x.shape[2], y.shape[2]
    zero = out.dtype.type(0)
    acc = zero
    for k0 in range(0, k, SIDE):
        # threads beyond the edge bring zeros, and must come along to the barriers
        xs[ty, tx] = x[bx, i, k0 + tx] if i < m and k0 + tx < k else zero
        ys[ty, tx] = y[by, k0 + ty, j] if k0 + ty < k and j < n else zero
        cuda.syncthreads()  # the tiles are whole
        for l in range(SIDE):
            acc += xs[ty, l] * ys[l, tx]
        cuda.syncthreads()  # all have read them: the next may come
    if i < m and j < n:
        out[b, i, j] = acc


PATCH = 4
TILE = SIDE * PATCH
ROW = (
    TILE + 1
)  # of xs: with TILE, the numbers that a warp writes into a column would share one bank


@jit
def _registers(x, y, out):
    """A block computes TILE x TILE results, each thread PATCH x PATCH of them, SIDE apart.

    Results that lie SIDE apart in a thread lie side by side in neighbouring threads, so reads of ys
    and writes of out stay coalesced. acc lives in registers since its loops have constant bounds and
    are unrolled.
    """
    xs = cuda.shared.array((SIDE, ROW), x.dtype)
    ys = cuda.shared.array((SIDE, TILE), y.dtype)
    acc = cuda.local.array((PATCH, PATCH), out.dtype)
    a = cuda.local.array(PATCH, x.dtype)
    b = cuda.local.array(PATCH, y.dtype)
    tx, ty, z = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.z
    bx, by = min(z, x.shape[0] - 1), min(z, y.shape[0] - 1)
    i0, j0 = cuda.blockIdx.y * TILE, cuda.blockIdx.x * TILE
    m, k, n = x.shape[1], x.shape[2], y.shape[2]
    zero = out.dtype.type(0)
    for p in range(PATCH):
        for q in range(PATCH):
            acc[p, q] = zero
    for k0 in range(0, k, SIDE):
        for p in range(PATCH):
            i, j = i0 + ty + p * SIDE, j0 + tx + p * SIDE
            # xs is kept turned, so that a step below reads one row of xs and one of ys
            xs[tx, ty + p * SIDE] = x[bx, i, k0 + tx] if i < m and k0 + tx < k else zero
            ys[ty, tx + p * SIDE] = y[by, k0 + ty, j] if k0 + ty < k and j < n else zero
        cuda.syncthreads()  # the tiles are whole
        for l in range(SIDE):
            for p in range(PATCH):
                a[p] = xs[l, ty + p * SIDE]
            for q in range(PATCH):
                b[q] = ys[l, tx + q * SIDE]
            for p in range(PATCH):
                for q in range(PATCH):
                    acc[p, q] += a[p] * b[q]
        cuda.syncthreads()  # all have read them: the next may come
    for p in range(PATCH):
        for q in range(PATCH):
            i, j = i0 + ty + p * SIDE, j0 + tx + q * SIDE
            if i < m and j < n:
                out[z, i, j] = acc[p, q]


def _multiply(x, y, bias):
    """x (B or 1, M, K) @ y (B or 1, K, N), plus bias (N,) if there is one -> (B, M, N)."""
    m, k, n = x.shape[1], x.shape[2], y.shape[2]
    count = max(len(x), len(y))
    if max(count * m * n, x.size, y.size) >= 2**31:  # the kernel counts in 32 bits
        out = reference.matmul(x, y)
        return out if bias is None else out + bias
    x, x_turned = _flat(x)
    y, y_turned = _flat(y)
    out = empty(x, (count, m, n))
    # 16-byte pieces need rows that begin at multiples of 4 numbers
    wide = (m if x_turned else k) % 4 == 0, (k if y_turned else n) % 4 == 0, n % 4 == 0
    # large tiles only where they make blocks enough for every multiprocessor
    tile = LARGE if blocks(m, LARGE.rows) * blocks(n, LARGE.columns) * count >= BUSY else SMALL
    kernel = vectors_kernel(x.dtype, tile, x_turned, y_turned, wide, bias is not None)
    grid = blocks(m, tile.rows), blocks(n, tile.columns)
    each_x, each_y = m * k if x.size > m * k else 0, k * n if y.size > k * n else 0
    flat, bias = out.reshape(-1), out.reshape(-1) if bias is None else contiguous(bias)
    for start in range(0, count, 65535):  # as many as the grid's third axis can be long
        depth = min(count - start, 65535)
        sizes = m, n, k, each_x, each_y, start
        launch(kernel, (*grid, depth), threads(tile), x, y, bias, flat, *sizes)
    return out


def _flat(x):
    """A stack of matrices as a flat array, and whether it holds their transposes."""
    turned = not x.flags.c_contiguous and x.swapaxes(1, 2).flags.c_contiguous
    return contiguous(x.swapaxes(1, 2) if turned else x).reshape(-1), turned


@functools.cache
def vectors_kernel(dtype, tile, x_turned, y_turned, wide, biased):
    """The kernel of matmul_vectors for matrices as they lie in memory; everything here is constant.

    wide: whether the rows of x, of y and of the result begin at multiples of 16 bytes.
    """
    rows, columns, depth, *patch = tile
    left_size, right_size = depth * (rows + PAD), depth * (columns + PAD)
    both_left, both_right = 2 * left_size, 2 * right_size
    sums = math.prod(patch)
    corner, multiply = patches(tile).corner, patches(tile).multiply
    begin, write = results(tile, biased, wide[2]).begin, results(tile, biased, wide[2]).write
    x_carrier = carrier(tile, rows, not x_turned, wide[0])
    y_carrier = carrier(tile, columns, y_turned, wide[1])
    x_fetch, x_stash, x_held = x_carrier.fetch, x_carrier.stash, x_carrier.held
    y_fetch, y_stash, y_held = y_carrier.fetch, y_carrier.stash, y_carrier.held

    @jit(**bounds(tile, dtype))
    def vectors(x, y, bias, out, m, n, k, each_x, each_y, start):
        """Block (i, j, z) computes tile (i, j) of product start + z; each thread a patch of it.

        All arrays are flat. each_x, each_y: how many numbers each product has its operands to itself.
        """
        left = cuda.shared.array(both_left, x.dtype)
        right = cuda.shared.array(both_right, y.dtype)
        acc = cuda.local.array(sums, x.dtype)
        x_in = cuda.local.array(x_held, x.dtype)
        y_in = cuda.local.array(y_held, x.dtype)
        t = int32(cuda.threadIdx.x)
        i0, j0 = int32(cuda.blockIdx.x * rows), int32(cuda.blockIdx.y * columns)
        z = int32(start + cuda.blockIdx.z)
        x_pitch, y_pitch = m if x_turned else k, k if y_turned else n
        l, r = corner(t)
        begin(acc, bias, int32(0), int32(j0 + r), n)
        x_base, y_base = int32(z * each_x), int32(z * each_y)
        x_fetch(x_in, x, x_base, x_pitch, i0, m, int32(0), k, t)
        y_fetch(y_in, y, y_base, y_pitch, j0, n, int32(0), k, t)
        half = int32(0)
        x_stash(left, 0, x_in, t)
        y_stash(right, 0, y_in, t)
        cuda.syncthreads()  # the first panels are whole
        for k0 in range(depth, k + depth, depth):
            if k0 < k:  # ask for the next panels: they arrive while we multiply
                x_fetch(x_in, x, x_base, x_pitch, i0, m, int32(k0), k, t)
                y_fetch(y_in, y, y_base, y_pitch, j0, n, int32(k0), k, t)
            multiply(acc, left, right, int32(l + half * left_size), int32(r + half * right_size))
            half = int32(1 - half)
            if k0 < k:
                x_stash(left, int32(half * left_size), x_in, t)
                y_stash(right, int32(half * right_size), y_in, t)
            cuda.syncthreads()  # one panel is read, the other whole: they change places
        write(acc, out, int32(z * m * n), n, int32(i0 + l), m, int32(j0 + r), n)

    return vectors
