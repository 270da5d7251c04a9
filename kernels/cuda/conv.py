"""Convolution of images and its two gradients: ladders from one thread a result to implicit GEMM.

Shapes are (N, C, H, W) in any memory order. All but the first rung compute on images that lie as
(N, H, W, C), "channels last", and return such; other orders are copied once. Filters (K, C/groups,
KH, KW) are copied to (KH, KW, C/groups, K), so that neighbouring threads read neighbouring filters.
kernel, stride, padding and dilation are (height, width).

Implicit GEMM: convolution is the product of a matrix with one row for each output pixel and one column
for each tap and channel, by the filters. That matrix is never built (it would be KH * KW times the
images): a block collects the panels of it that it needs from the images, straight into shared memory.
"""

import functools
import math

import numpy as np
from numba import cuda

from .. import reference
from ..reference._arrays import namespace
from ..reference._windows import window_counts
from ._arrays import contiguous, empty, same_floats
from ._device import BUSY, LINE, SQUARE, blocks, cover, device, int32, jit, launch, mine
from ._instructions import copy4, load, quotient, split, store
from ._tiles import LARGE, PAD, SMALL, bounds, carrier, patches, results, threads


def conv2d(x, w, b, stride, padding, dilation, groups):
    """Cross-correlate images with filters.

    x (N, C, H, W), w (K, C/groups, KH, KW), b (K,) or None -> (N, K, OH, OW)
    """
    size = len(x) * len(w) * math.prod(_windows(x, w, stride, padding, dilation))
    if not same_floats(x, w, *(() if b is None else (b,))) or _uncountable(x.size, size):
        return reference.conv2d(x, w, b, stride, padding, dilation, groups)
    run = conv2d_channels_last if _thin(w, groups) else conv2d_registers
    return run(x, w, b, stride, padding, dilation, groups)


def conv2d_grad_x(g, w, x_shape, stride, padding, dilation, groups):
    """Gradient of conv2d with respect to its images; also the forward of transposed convolution.

    g (N, K, OH, OW), w (K, C/groups, KH, KW) -> x_shape (N, C, H, W)
    """
    if not same_floats(g, w) or _uncountable(g.size, math.prod(x_shape)):
        return reference.conv2d_grad_x(g, w, x_shape, stride, padding, dilation, groups)
    run = conv2d_grad_x_direct if _thin(w, groups) else conv2d_grad_x_registers
    return run(g, w, x_shape, stride, padding, dilation, groups)


def conv2d_grad_w(g, x, w_shape, stride, padding, dilation, groups):
    """Gradient of conv2d with respect to its filters, given the gradient g of its output.

    g (N, K, OH, OW), x (N, C, H, W) -> w_shape (K, C/groups, KH, KW)
    """
    if not same_floats(g, x) or _uncountable(g.size, x.size):
        return reference.conv2d_grad_w(g, x, w_shape, stride, padding, dilation, groups)
    thin = groups > 1 and w_shape[0] // groups < 16
    run = conv2d_grad_w_direct if thin else conv2d_grad_w_registers
    return run(g, x, w_shape, stride, padding, dilation, groups)


def _uncountable(*sizes):
    """Whether arrays are too large for the kernels, which count in 32 bits; the library takes those."""
    return max(sizes) >= 2**31


def _thin(w, groups):
    """Whether the groups have so few channels that a tile would be mostly empty."""
    return groups > 1 and min(len(w) // groups, w.shape[1]) < 16


# --- forward -----------------------------------------------------------------------------------------


def conv2d_direct(x, w, b, stride, padding, dilation, groups):
    """One thread an output: the definition, on images as they lie."""
    out = _windows(x, w, stride, padding, dilation)
    y = empty(x, (len(x), len(w), *out))
    bias = w.reshape(-1) if b is None else b
    geometry = (*stride, *padding, *dilation, groups)
    launch(_direct, cover(y.size), LINE, x, w, bias, b is not None, y, geometry)
    return y


def conv2d_channels_last(x, w, b, stride, padding, dilation, groups):
    """Neighbouring threads on neighbouring filters: they share a pixel and read whole lines of w."""
    x, w, y, bias = _prepare(x, w, b, stride, padding, dilation)
    geometry = (*stride, *padding, *dilation, groups)
    launch(_channels_last, cover(y.size), LINE, x, w, bias, b is not None, y, geometry)
    return _first(y)


def conv2d_tiled(x, w, b, stride, padding, dilation, groups):
    """Implicit GEMM, tiles in shared memory: each pixel is read once for a whole row of threads."""
    x, w, y, bias = _prepare(x, w, b, stride, padding, dilation)
    geometry = (*stride, *padding, *dilation, groups)
    pixels, filters = y.size // y.shape[3], y.shape[3] // groups
    grid = blocks(pixels, SIDE), blocks(filters, SIDE), groups
    launch(_tiled, grid, SQUARE, x, w, bias, b is not None, y, geometry)
    return _first(y)


def conv2d_registers(x, w, b, stride, padding, dilation, groups):
    """Implicit GEMM with a patch of 8 x 8 results a thread and 16-byte loads, as in matmul_vectors."""
    n, c, *size = x.shape
    k, _, *kernel = w.shape
    out = _windows(x, w, stride, padding, dilation)
    y = empty(x, (n, *out, k))
    # source row = (row * stride - padding + tap * dilation) / 1, columns likewise
    steps = _steps(stride, [-p for p in padding], dilation, (1, 1))
    matrix = contiguous(w.transpose(2, 3, 1, 0)).reshape(-1)
    _implicit(_last(x), matrix, b, y, n, size, c, out, k, kernel, steps, groups)
    return _first(y)


CONVS = conv2d_direct, conv2d_channels_last, conv2d_tiled, conv2d_registers


def _windows(x, w, stride, padding, dilation):
    return window_counts(x.shape[2:], w.shape[2:], stride, padding, dilation)


def _last(x):
    """Images (N, C, H, W) as (N, H, W, C) in memory: a view, or a copy if they lie otherwise."""
    return contiguous(x.transpose(0, 2, 3, 1))


def _first(y):
    """The inverse of _last, a view."""
    return y.transpose(0, 3, 1, 2)


def _prepare(x, w, b, stride, padding, dilation):
    """For the channels-last rungs: images (N, H, W, C), filters (KH, KW, C/groups, K), room for the result
    (N, OH, OW, K), and the bias, or any array in its place."""
    y = empty(x, (len(x), *_windows(x, w, stride, padding, dilation), len(w)))
    return _last(x), contiguous(w.transpose(2, 3, 1, 0)), y, w.reshape(-1) if b is None else b


@jit
def _direct(x, w, bias, biased, y, geometry):
    """Thread i of the grid computes number i of y, (N, K, OH, OW) in row-major order."""
    sh, sw, ph, pw, dh, dw, groups = geometry
    for i in mine(y.size):
        n_k, oh, ow = y.shape[1], y.shape[2], y.shape[3]
        rest, column = split(i, ow)
        rest, row = split(rest, oh)
        n, k = split(rest, n_k)
        channels = w.shape[1]
        first = quotient(k, quotient(n_k, groups)) * channels
        acc = y.dtype.type(0)
        for c in range(channels):
            for p in range(w.shape[2]):
                iy = row * sh - ph + p * dh
                if 0 <= iy and iy < x.shape[2]:
                    for q in range(w.shape[3]):
                        ix = column * sw - pw + q * dw
                        if 0 <= ix and ix < x.shape[3]:
                            acc += x[n, first + c, iy, ix] * w[k, c, p, q]
        if biased:
            acc += bias[k]
        y[n, k, row, column] = acc


@jit
def _channels_last(x, w, bias, biased, y, geometry):
    """Thread i of the grid computes number i of y, (N, OH, OW, K) in row-major order.

    x (N, H, W, C), w (KH, KW, C/groups, K). A warp reads the same number of x, which costs one read, and
    32 neighbours of w.
    """
    sh, sw, ph, pw, dh, dw, groups = geometry
    for i in mine(y.size):
        oh, ow, n_k = y.shape[1], y.shape[2], y.shape[3]
        rest, k = split(i, n_k)
        rest, column = split(rest, ow)
        n, row = split(rest, oh)
        channels = w.shape[2]
        first = quotient(k, quotient(n_k, groups)) * channels
        acc = y.dtype.type(0)
        for p in range(w.shape[0]):
            iy = row * sh - ph + p * dh
            if 0 <= iy and iy < x.shape[1]:
                for q in range(w.shape[1]):
                    ix = column * sw - pw + q * dw
                    if 0 <= ix and ix < x.shape[2]:
                        for c in range(channels):
                            acc += x[n, iy, ix, first + c] * w[p, q, c, k]
        if biased:
            acc += bias[k]
        y[n, row, column, k] = acc


SIDE = SQUARE[0]


@jit
def _tiled(x, w, bias, biased, y, geometry):
    """A block computes SIDE pixels x SIDE filters of a group: thread (tx, ty) filter tx of pixel ty.

    The summed axis is tap and channel in one, the channels last; the block walks along it by tiles.
    x (N, H, W, C), w (KH, KW, C/groups, K), y (N, OH, OW, K).
    """
    xs = cuda.shared.array((SIDE, SIDE), x.dtype)
    ws = cuda.shared.array((SIDE, SIDE), w.dtype)
    sh, sw, ph, pw, dh, dw, groups = geometry
    tx, ty, group = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockIdx.z
    oh, ow = y.shape[1], y.shape[2]
    kernel_width, channels = w.shape[1], w.shape[2]
    filters = quotient(y.shape[3], groups)
    m, k = cuda.blockIdx.x * SIDE + ty, cuda.blockIdx.y * SIDE + tx
    rest, column = split(m, ow)
    n, row = split(rest, oh)
    zero = y.dtype.type(0)
    acc = zero
    depth = w.shape[0] * kernel_width * channels
    for d0 in range(0, depth, SIDE):
        # this thread brings one number of the pixel's window ...
        d = d0 + tx
        tap, c = split(d, channels)
        p, q = split(tap, kernel_width)
        iy, ix = row * sh - ph + p * dh, column * sw - pw + q * dw
        inside = 0 <= iy and iy < x.shape[1] and 0 <= ix and ix < x.shape[2]
        if n < x.shape[0] and d < depth and inside:
            xs[ty, tx] = x[n, iy, ix, group * channels + c]
        else:
            xs[ty, tx] = zero
        # ... and one of the filter
        d = d0 + ty
        tap, c = split(d, channels)
        p, q = split(tap, kernel_width)
        ws[ty, tx] = w[p, q, c, group * filters + k] if d < depth and k < filters else zero
        cuda.syncthreads()  # the tiles are whole
        for l in range(SIDE):
            acc += xs[ty, l] * ws[l, tx]
        cuda.syncthreads()  # all have read them: the next may come
    if n < x.shape[0] and k < filters:
        if biased:
            acc += bias[group * filters + k]
        y[n, row, column, group * filters + k] = acc


def _steps(stride, shift, tap, divide):
    """From a pixel of the result to its source: (pixel * stride + shift + tap number * tap) / divide,
    rows, then columns; pixels with a remainder have no source at that tap."""
    return (*stride, *shift, *tap, *divide)


def _implicit(source, matrix, bias, out, n, source_size, c, out_size, k, kernel, steps, groups):
    """Forward and gradient of the images alike: source (N, H, W, C) by matrix -> out (N, OH, OW, K).

    matrix: flat, a row of K numbers for each tap and channel of a group.
    """
    m, channels, filters = n * out_size[0] * out_size[1], c // groups, k // groups
    wide = channels % 4 == 0, filters % 4 == 0
    large_ones = blocks(m, LARGE.rows) * blocks(filters, LARGE.columns) * groups
    tile = LARGE if large_ones >= BUSY else SMALL
    run = implicit_kernel(source.dtype, tile, *wide, steps[6:] != (1, 1), bias is not None)
    grid = blocks(m, tile.rows), blocks(filters, tile.columns), groups
    sizes = (m, *source_size, c, *out_size, k, *kernel, channels, filters)
    source, out = source.reshape(-1), out.reshape(-1)
    bias = out if bias is None else contiguous(bias)
    launch(run, grid, threads(tile), source, matrix, bias, out, sizes, steps)


@functools.cache
def implicit_kernel(dtype, tile, wide_in, wide_out, strided, biased):
    """The kernel of conv2d_registers and conv2d_grad_x_registers; everything here is constant.

    wide_in, wide_out: whether the channels, and the filters, of a group come in fours. strided: whether a
    division is needed on the way from a pixel to its source (the gradient of a convolution with a
    stride).
    """
    rows, columns, depth, *patch = tile
    left_size, right_size = depth * (rows + PAD), depth * (columns + PAD)
    both_left, both_right = 2 * left_size, 2 * right_size
    sums = math.prod(patch)
    corner, multiply = patches(tile).corner, patches(tile).multiply
    begin, write = results(tile, biased, wide_out).begin, results(tile, biased, wide_out).write
    x_carrier = carrier(tile, rows, True, wide_in)
    w_carrier = carrier(tile, columns, False, wide_out)
    place, x_stash, x_held = x_carrier.place, x_carrier.stash, x_carrier.held
    w_fetch, w_stash, w_held = w_carrier.fetch, w_carrier.stash, w_carrier.held
    pieces = x_held // 4

    @device
    def find(image, top, left, d, sizes, steps):
        """Where in the source number d of a window lies: its index, or -1 in the border."""
        m, h, w, c, oh, ow, k, kh, kw, channels, filters = sizes
        tap, channel = split(d, channels)
        p, q = split(tap, kw)
        if p >= kh:
            return int32(-1)
        y, x = int32(top + p * steps[4]), int32(left + q * steps[5])
        if strided:
            if y < 0 or x < 0:
                return int32(-1)
            y, y_rest = split(y, steps[6])
            x, x_rest = split(x, steps[7])
            if y_rest > 0 or x_rest > 0:
                return int32(-1)
        if 0 <= y and y < h and 0 <= x and x < w:
            return int32(((image * h + y) * w + x) * c + channel)
        return int32(-1)

    @device
    def x_fetch(held, x, base, images, tops, lefts, d0, t, sizes, steps):
        for s in range(pieces):
            dk, dw = place(t, s)
            d = int32(d0 + dk)
            image, top, left = load(images, s), load(tops, s), load(lefts, s)
            if wide_in:  # the four lie in one pixel
                found = find(image, top, left, d, sizes, steps)
                if found >= 0:
                    copy4(held, s * 4, x, int32(base + found))
                else:
                    for e in range(4):
                        store(held, s * 4 + e, 0)
            else:
                for e in range(4):
                    found = find(image, top, left, int32(d + e), sizes, steps)
                    if found >= 0:
                        store(held, s * 4 + e, load(x, int32(base + found)))
                    else:
                        store(held, s * 4 + e, 0)

    @jit(**bounds(tile, dtype))
    def implicit(x, w, bias, y, sizes, steps):
        """Block (i, j, g) computes tile (i, j) of group g: pixels by filters; each thread a patch.

        All arrays are flat. sizes: pixels of the result, source H, W, C, result H, W, K, taps KH, KW,
        channels and filters of a group. steps: see _steps.
        """
        left = cuda.shared.array(both_left, x.dtype)
        right = cuda.shared.array(both_right, x.dtype)
        acc = cuda.local.array(sums, x.dtype)
        x_in = cuda.local.array(x_held, x.dtype)
        w_in = cuda.local.array(w_held, x.dtype)
        images = cuda.local.array(pieces, np.int32)
        tops = cuda.local.array(pieces, np.int32)
        lefts = cuda.local.array(pieces, np.int32)
        m, h, width, c, oh, ow, k, kh, kw, channels, filters = sizes
        t = int32(cuda.threadIdx.x)
        i0, j0 = int32(cuda.blockIdx.x * rows), int32(cuda.blockIdx.y * columns)
        group = int32(cuda.blockIdx.z)
        x_base, w_base = int32(group * channels), int32(group * filters)
        length = int32(kh * kw * channels)
        for s in range(pieces):  # the pixels whose windows this thread collects: found once
            dk, dw = place(t, s)
            pixel = int32(i0 + dw)
            line, x_at = split(pixel, ow)
            image, y_at = split(line, oh)
            store(images, s, image)
            top = int32(y_at * steps[0] + steps[2])
            store(tops, s, top if pixel < m else int32(-(2**30)))
            store(lefts, s, int32(x_at * steps[1] + steps[3]))
        l, r = corner(t)
        begin(acc, bias, w_base, int32(j0 + r), filters)
        x_fetch(x_in, x, x_base, images, tops, lefts, int32(0), t, sizes, steps)
        w_fetch(w_in, w, w_base, k, j0, filters, int32(0), length, t)
        half = int32(0)
        x_stash(left, 0, x_in, t)
        w_stash(right, 0, w_in, t)
        cuda.syncthreads()  # the first panels are whole
        for d0 in range(depth, length + depth, depth):
            if d0 < length:  # ask for the next panels: they arrive while we multiply
                x_fetch(x_in, x, x_base, images, tops, lefts, int32(d0), t, sizes, steps)
                w_fetch(w_in, w, w_base, k, j0, filters, int32(d0), length, t)
            multiply(acc, left, right, int32(l + half * left_size), int32(r + half * right_size))
            half = int32(1 - half)
            if d0 < length:
                x_stash(left, int32(half * left_size), x_in, t)
                w_stash(right, int32(half * right_size), w_in, t)
            cuda.syncthreads()  # one panel is read, the other whole: they change places
        write(acc, y, w_base, k, int32(i0 + l), m, int32(j0 + r), filters)

    return implicit


# --- gradient of the images --------------------------------------------------------------------------


def conv2d_grad_x_direct(g, w, x_shape, stride, padding, dilation, groups):
    """One thread an element: it adds up all the windows that it stood in. No two write one place."""
    n, c, *size = x_shape
    g, w = _last(g), contiguous(w.transpose(2, 3, 0, 1))
    gx = empty(g, (n, *size, c))
    geometry = (*stride, *padding, *dilation, groups)
    launch(_grad_x_direct, cover(gx.size), LINE, g, w, gx, geometry)
    return _first(gx)


def conv2d_grad_x_registers(g, w, x_shape, stride, padding, dilation, groups):
    """The same kernel as conv2d_registers, with the taps walked backwards over g.

    With a stride only one in stride * stride taps finds a source; the others multiply zeros.
    """
    (n, c, *size), (k, channels, *kernel), out = x_shape, w.shape, g.shape[2:]
    gx = empty(g, (n, *size, c))
    # output row = (row + padding - tap * dilation) / stride, columns likewise
    steps = _steps((1, 1), padding, [-d for d in dilation], stride)
    matrices = w.reshape(groups, k // groups, channels, *kernel).transpose(3, 4, 1, 0, 2)
    matrix = contiguous(matrices).reshape(-1)
    _implicit(_last(g), matrix, None, gx, n, out, k, size, c, kernel, steps, groups)
    return _first(gx)


CONV_GRAD_XS = conv2d_grad_x_direct, conv2d_grad_x_registers


@jit
def _grad_x_direct(g, w, gx, geometry):
    """Thread i of the grid computes number i of gx, (N, H, W, C) in row-major order.

    g (N, OH, OW, K), w (KH, KW, K, C/groups). A warp reads the same number of g and neighbours of w.
    """
    sh, sw, ph, pw, dh, dw, groups = geometry
    for i in mine(gx.size):
        h, width, n_c = gx.shape[1], gx.shape[2], gx.shape[3]
        rest, c = split(i, n_c)
        rest, column = split(rest, width)
        n, row = split(rest, h)
        filters = quotient(g.shape[3], groups)
        group, c_in_group = split(c, w.shape[3])
        acc = gx.dtype.type(0)
        for p in range(w.shape[0]):
            y = row + ph - p * dh
            oy, y_rest = split(y, sh)
            if y >= 0 and y_rest == 0 and oy < g.shape[1]:
                for q in range(w.shape[1]):
                    x = column + pw - q * dw
                    ox, x_rest = split(x, sw)
                    if x >= 0 and x_rest == 0 and ox < g.shape[2]:
                        for k in range(group * filters, group * filters + filters):
                            acc += g[n, oy, ox, k] * w[p, q, k, c_in_group]
        gx[n, row, column, c] = acc


# --- gradient of the filters -------------------------------------------------------------------------


def conv2d_grad_w_direct(g, x, w_shape, stride, padding, dilation, groups):
    """One thread a weight and stretch of pixels: sums of stretches, added up in a second pass."""
    k, channels, *kernel = w_shape
    g, x = _last(g), _last(x)
    pixels = g.size // k
    stretches = _stretches(pixels, blocks(k * channels * kernel[0] * kernel[1], LINE))
    parts = empty(g, (stretches, *kernel, channels, k))
    geometry = (*stride, *padding, *dilation, groups)
    length = blocks(pixels, stretches)
    launch(
        _grad_w_direct,
        (blocks(parts[0].size, LINE), stretches),
        LINE,
        g,
        x,
        parts,
        length,
        geometry,
    )
    return _as_filters(parts)


def conv2d_grad_w_registers(g, x, w_shape, stride, padding, dilation, groups):
    """Implicit GEMM with 8 x 8 results a thread: taps and channels by filters, summed over the pixels.

    The result is small and the sum long, so the pixels are cut into stretches, one block each, to keep
    the card busy; their sums are added up in a second pass, always in the same order.
    """
    (k, channels, *kernel), (n, c, *size), out = w_shape, x.shape, g.shape[2:]
    pixels, rows, filters = n * out[0] * out[1], kernel[0] * kernel[1] * channels, k // groups
    wide = channels % 4 == 0, filters % 4 == 0
    tile = LARGE if rows >= LARGE.rows and filters >= LARGE.columns else SMALL
    grid = blocks(rows, tile.rows), blocks(filters, tile.columns)
    stretches = _stretches(pixels, grid[0] * grid[1] * groups)
    length = blocks(blocks(pixels, stretches), tile.depth) * tile.depth
    parts = empty(x, (stretches, *kernel, channels, k))
    sizes = (pixels, *size, c, *out, k, *kernel, channels, filters)
    steps = _steps(stride, [-p for p in padding], dilation, (1, 1))
    flat = _last(g).reshape(-1), _last(x).reshape(-1), parts.reshape(-1)
    grid = (*grid, stretches * groups)
    launch(
        grad_w_kernel(x.dtype, tile, *wide),
        grid,
        threads(tile),
        *flat,
        length,
        stretches,
        sizes,
        steps,
    )
    return _as_filters(parts)


CONV_GRAD_WS = conv2d_grad_w_direct, conv2d_grad_w_registers


def _stretches(pixels, n_blocks):
    """Into how many stretches to cut the pixels so that the card is busy, of at least 64 each."""
    return max(1, min(BUSY // max(n_blocks, 1), pixels // 64))


def _as_filters(parts):
    """Sums of stretches (S, KH, KW, C/groups, K) -> (K, C/groups, KH, KW)."""
    whole = parts[0] if len(parts) == 1 else parts.sum(axis=0)
    return namespace(whole).ascontiguousarray(whole.transpose(3, 2, 0, 1))


@jit
def _grad_w_direct(g, x, parts, length, geometry):
    """Thread (i, s) of the grid computes number i of parts[s], (KH, KW, C/groups, K) in row-major order.

    g (N, OH, OW, K), x (N, H, W, C). A warp reads neighbours of g and the same number of x.
    """
    sh, sw, ph, pw, dh, dw, groups = geometry
    i, s = cuda.grid(2)
    kernel_width, channels, n_k = parts.shape[2], parts.shape[3], parts.shape[4]
    if i < parts.shape[1] * kernel_width * channels * n_k:
        rest, k = split(i, n_k)
        tap, c = split(rest, channels)
        p, q = split(tap, kernel_width)
        c_in_x = quotient(k, quotient(n_k, groups)) * channels + c
        oh, ow = g.shape[1], g.shape[2]
        acc = parts.dtype.type(0)
        for m in range(s * length, min(s * length + length, g.shape[0] * oh * ow)):
            rest, column = split(m, ow)
            n, row = split(rest, oh)
            iy, ix = row * sh - ph + p * dh, column * sw - pw + q * dw
            if 0 <= iy and iy < x.shape[1] and 0 <= ix and ix < x.shape[2]:
                acc += x[n, iy, ix, c_in_x] * g[n, row, column, k]
        parts[s, p, q, c, k] = acc


@functools.cache
def grad_w_kernel(dtype, tile, wide_in, wide_out):
    """The kernel of conv2d_grad_w_registers; everything here is constant.

    wide_in, wide_out: whether the channels, and the filters, of a group come in fours.
    """
    rows, columns, depth, *patch = tile
    left_size, right_size = depth * (rows + PAD), depth * (columns + PAD)
    both_left, both_right = 2 * left_size, 2 * right_size
    sums = math.prod(patch)
    corner, multiply = patches(tile).corner, patches(tile).multiply
    begin, write = results(tile, False, wide_out).begin, results(tile, False, wide_out).write
    x_carrier = carrier(tile, rows, False, wide_in)
    g_carrier = carrier(tile, columns, False, wide_out)
    place, x_stash, x_held = x_carrier.place, x_carrier.stash, x_carrier.held
    g_fetch, g_stash, g_held = g_carrier.fetch, g_carrier.stash, g_carrier.held
    pieces = x_held // 4

    @device
    def find(pixel, end, row, sizes, steps):
        """Where in the images the number lies that weight `row` (tap and channel) meets at a pixel of the
        result: its index, or -1 in the border."""
        m, h, w, c, oh, ow, k, kh, kw, channels, filters = sizes
        tap, channel = split(row, channels)
        p, q = split(tap, kw)
        if p >= kh or pixel >= end:
            return int32(-1)
        line, column = split(pixel, ow)
        image, line = split(line, oh)
        y = int32(line * steps[0] + steps[2] + p * steps[4])
        x = int32(column * steps[1] + steps[3] + q * steps[5])
        if 0 <= y and y < h and 0 <= x and x < w:
            return int32(((image * h + y) * w + x) * c + channel)
        return int32(-1)

    @device
    def x_fetch(held, x, base, i0, d0, end, t, sizes, steps):
        for s in range(pieces):
            dk, dw = place(t, s)
            pixel, row = int32(d0 + dk), int32(i0 + dw)
            if wide_in:  # the four are channels of one tap
                found = find(pixel, end, row, sizes, steps)
                if found >= 0:
                    copy4(held, s * 4, x, int32(base + found))
                else:
                    for e in range(4):
                        store(held, s * 4 + e, 0)
            else:
                for e in range(4):
                    found = find(pixel, end, int32(row + e), sizes, steps)
                    if found >= 0:
                        store(held, s * 4 + e, load(x, int32(base + found)))
                    else:
                        store(held, s * 4 + e, 0)

    @jit(**bounds(tile, dtype))
    def grad_w(g, x, parts, length, stretches, sizes, steps):
        """Block (i, j, z) computes tile (i, j) of a group: weights by filters; each thread a patch.

        z counts the stretches of pixels within the groups. All arrays are flat, sizes and steps as in
        implicit_kernel. Neither panel needs turning: channels and filters lie side by side already.
        """
        left = cuda.shared.array(both_left, x.dtype)
        right = cuda.shared.array(both_right, x.dtype)
        acc = cuda.local.array(sums, x.dtype)
        x_in = cuda.local.array(x_held, x.dtype)
        g_in = cuda.local.array(g_held, x.dtype)
        m, h, width, c, oh, ow, k, kh, kw, channels, filters = sizes
        t = int32(cuda.threadIdx.x)
        i0, j0 = int32(cuda.blockIdx.x * rows), int32(cuda.blockIdx.y * columns)
        group = quotient(int32(cuda.blockIdx.z), stretches)
        stretch = int32(cuda.blockIdx.z - group * stretches)
        x_base, g_base = int32(group * channels), int32(group * filters)
        weights = int32(kh * kw * channels)
        first = int32(stretch * length)
        end = int32(min(m, first + length))
        l, r = corner(t)
        begin(acc, g, int32(0), int32(j0 + r), filters)
        x_fetch(x_in, x, x_base, i0, first, end, t, sizes, steps)
        g_fetch(g_in, g, g_base, k, j0, filters, first, end, t)
        half = int32(0)
        x_stash(left, 0, x_in, t)
        g_stash(right, 0, g_in, t)
        cuda.syncthreads()  # the first panels are whole
        for d0 in range(first + depth, end + depth, depth):
            if d0 < end:  # ask for the next panels: they arrive while we multiply
                x_fetch(x_in, x, x_base, i0, int32(d0), end, t, sizes, steps)
                g_fetch(g_in, g, g_base, k, j0, filters, int32(d0), end, t)
            multiply(acc, left, right, int32(l + half * left_size), int32(r + half * right_size))
            half = int32(1 - half)
            if d0 < end:
                x_stash(left, int32(half * left_size), x_in, t)
                g_stash(right, int32(half * right_size), g_in, t)
            cuda.syncthreads()  # one panel is read, the other whole: they change places
        base = int32(stretch * weights * k + g_base)
        write(acc, parts, base, k, int32(i0 + l), weights, int32(j0 + r), filters)

    return grad_w
