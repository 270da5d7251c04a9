"""Convolution of images (cross-correlation) without im2col: windows are read where they lie.

Images lie in memory as (N, H, W, C), "channels last". Then the window of an output pixel is KH runs
of KW * C numbers, and convolution is a product of matrices whose rows are windows:

    out[pixel, k] = sum over (i, j, c) of x[pixel's window, (i, j, c)] * w[(i, j, c), k]

im2col copies the windows out, KH * KW times the memory of the image, and calls BLAS. Here the
micro-kernel gets a table with the offset of each window instead, and one with the offsets of the
runs inside a window. Filters are packed into panels of COLUMNS filters, so that the vectors that the
micro-kernel reads one after another lie one after another.
"""

import math
from functools import lru_cache

import numpy as np
from numba import njit, prange

from .. import reference
from ..reference._windows import window_counts
from . import _winners, _winograd
from ._arrays import dense, empty
from ._compiled import COMPILED, INNER, many, threaded
from ._images import corner, images, padded, pixels
from ._tile import ROWS, VECTORS, columns, tile_add, tile_add_of, tile_from_of
from ._vectors import MULTIPLIED
from ._winograd import TILES
from .pool import is_2x2, relu_max_pool2d, relu_max_pool2d_grad, winners_2x2


def conv2d_loops(x, w, b, stride, padding, dilation, groups):
    """The definition: a loop for each of seven indices, one multiplication at a time."""
    out = window_counts(x.shape[2:], w.shape[2:], stride, padding, dilation)
    y = np.empty((len(x), len(w), *out), x.dtype)
    b = np.zeros(len(w), x.dtype) if b is None else b
    _loops(dense(x), dense(w), dense(b), y, *stride, *padding, *dilation, groups)
    return y


@njit(**COMPILED)
def _loops(x, w, b, y, sh, sw, ph, pw, dh, dw, groups):
    n_filters, group_channels, kh, kw = w.shape
    _, _, height, width = x.shape
    for n in range(y.shape[0]):
        for k in range(n_filters):
            first = k // (n_filters // groups) * group_channels
            for r in range(y.shape[2]):
                for s in range(y.shape[3]):
                    total = b[k]
                    for c in range(group_channels):
                        for i in range(kh):
                            for j in range(kw):
                                row = r * sh + i * dh - ph
                                column = s * sw + j * dw - pw
                                if 0 <= row < height and 0 <= column < width:
                                    total += x[n, first + c, row, column] * w[k, c, i, j]
                    y[n, k, r, s] = total


def conv2d_im2col(x, w, b, stride, padding, dilation, groups):
    """Copies the windows out, so that one call of BLAS does all the arithmetic."""
    return reference.conv2d(x, w, b, stride, padding, dilation, groups)


def conv2d_direct(x, w, b, stride, padding, dilation, groups):
    """Reads the windows where they lie, with the micro-kernel; images in parallel."""
    if groups > 1 or not _suit(x, w):
        return reference.conv2d(x, w, b, stride, padding, dilation, groups)
    x, out, prepared = _prepared(x, w, b, stride, padding, dilation)
    y = empty((len(x), *out, len(w)), x.dtype)
    _direct(many(x, y.size * w[0].size), x, *prepared, y)
    return images(y)


def _prepared(x, w, b, stride, padding, dilation):
    """x with its border, the size of what is computed of an image, and the tables for _direct_images."""
    n_filters, channels, *kernel = w.shape
    x = padded(x, padding)
    n, height, width, _ = x.shape
    out = window_counts((height, width), kernel, stride, (0, 0), dilation)
    panels = _panels(w.transpose(2, 3, 1, 0).reshape(-1, n_filters))
    start = _start(b, panels.shape[0] * panels.shape[2], x.dtype)
    together = _together(n, out)
    windows = _places((together, *out), _steps(height, width, channels, stride))
    runs, length = _runs(kernel, height, width, channels, dilation)
    rows = _places((len(windows),), (n_filters,))
    return x, out, (together, windows, runs, length, panels, start, n_filters, rows)


@threaded
def _direct(x, together, windows, runs, length, panels, start, n_filters, rows, y):
    """A thread takes some images at a time."""
    for first in prange((len(x) + together - 1) // together):
        n = first * together
        _direct_images(n, x, together, windows, runs, length, panels, start, n_filters, rows,
                       y.reshape(-1), n * (y.size // len(y)))  # fmt: skip


@threaded
def _direct_pooled(
    x, together, windows, runs, length, panels, start, n_filters, rows, out, y, argmax
):
    """The same, but what was computed is pooled before it leaves the second cache."""
    for first in prange((len(x) + together - 1) // together):
        n = first * together
        z = np.empty((together, out[0], out[1], n_filters), x.dtype)
        _direct_images(n, x, together, windows, runs, length, panels, start, n_filters, rows,
                       z.reshape(-1), 0)  # fmt: skip
        for i in range(min(together, len(x) - n)):
            winners_2x2(z[i], x.dtype.type(0), 4, y[n + i], argmax[n + i])


@njit(**INNER)
def _direct_images(n, x, together, windows, runs, length, panels, start, n_filters, rows, y, y_at):
    """Some images of x (N, H, W, C), from the n-th on, into y, flat, from y_at on: P * K numbers each.

    windows, rows: where the windows and the results of their pixels lie, from the first image on.
    """
    n_panels, depth, width = panels.shape
    n_pixels = min(together, len(x) - n) * (len(windows) // together)
    x_at = n * (x.size // len(x))
    edge, edge_windows, edge_rows = _edge(width, x.dtype)
    for panel in range(n_panels):
        n_columns = min(width, n_filters - panel * width)
        wide = n_columns > width // VECTORS
        whole = n_columns == (width if wide else width // VECTORS)
        for first in range(0, n_pixels, ROWS):
            n_rows = min(ROWS, n_pixels - first)
            # a tile that hangs over the edge is computed aside, and what exists of it is copied
            inside = n_rows == ROWS and whole
            if not inside:
                for m in range(ROWS):
                    edge_windows[m] = windows[first + min(m, n_rows - 1)]
            tile_from_of(
                wide, start, panel * width,
                y if inside else edge, rows if inside else edge_rows,
                y_at + panel * width if inside else 0,
                x, windows if inside else edge_windows, x_at, first if inside else 0,
                runs, len(runs), length, 1, panels, panel * depth * width, width,
            )  # fmt: skip
            if not inside:
                for m in range(n_rows):
                    at = y_at + rows[first + m] + panel * width
                    result, source = y[at : at + n_columns], edge[m * width : (m + 1) * width]
                    for i in range(n_columns):
                        result[i] = source[i]


def conv2d_winograd(x, w, b, stride, padding, dilation, groups):
    """3 x 3 filters with less than half of the multiplications (see _winograd); others as before."""
    return _conv2d_winograd(2, x, w, b, stride, padding, dilation, groups)


def conv2d_winograd_4x4(x, w, b, stride, padding, dilation, groups):
    """Larger tiles: a quarter of the multiplications, and errors some three times as large."""
    return _conv2d_winograd(4, x, w, b, stride, padding, dilation, groups)


def _conv2d_winograd(m, x, w, b, stride, padding, dilation, groups):
    if not _winograd_takes(x, w, w.shape, stride, dilation, groups):
        return conv2d_direct(x, w, b, stride, padding, dilation, groups)
    out, tile = window_counts(x.shape[2:], w.shape[2:], stride, padding, dilation), TILES[m]
    (x, size), filters = corner(x), _winograd.transformed(w, tile)
    start = _start(b, len(w), x.dtype)
    y = empty((len(x), *out, len(w)), x.dtype)
    _winograd.forward(
        many(x, y.size * w[0].size),
        _winograd.parts(tile, out, len(x)), tile, x, size, *padding, filters, start, y,
    )  # fmt: skip
    return images(y)


def conv2d_relu_max_pool2d(x, w, b, stride, padding, dilation, groups, pool_kernel, pool_stride):
    """relu_max_pool2d(conv2d(x, w, b)), for windows of pool_kernel that lie pool_stride apart.

    x (N, C, H, W), w (K, C/groups, KH, KW), b (K,) or None -> y, argmax (N, K, OH, OW). Windows of 2 x 2 are
    pooled some images at a time: what is between, four times as large as y, does not go through memory.
    """
    return _pooled(DEFAULT, x, w, b, stride, padding, dilation, groups, pool_kernel, pool_stride)


def _pooled(largest, x, w, b, stride, padding, dilation, groups, pool_kernel, pool_stride):
    out = window_counts(x.shape[2:], w.shape[2:], stride, padding, dilation)
    z_shape, size = (
        (len(x), len(w), *out),
        window_counts(out, pool_kernel, pool_stride, (0, 0), (1, 1)),
    )
    m = _best_tile(largest, out)
    window = pool_kernel, pool_stride, (0, 0), (1, 1)
    if groups > 1 or not _suit(x, w) or not is_2x2(z_shape, size, *window):
        rung = (conv2d_direct, None, conv2d_winograd, None, conv2d_winograd_4x4)[m]
        z = rung(x, w, b, stride, padding, dilation, groups)
        return relu_max_pool2d(z, *window, False)
    y = empty((len(x), *size, len(w)), x.dtype)
    argmax = empty(y.shape, np.uint8)
    threads = many(x, math.prod(z_shape) * w[0].size)
    if m and _winograd_takes(x, w, w.shape, stride, dilation, groups):
        (x, size), filters = corner(x), _winograd.transformed(w, TILES[m])
        _winograd.forward_pooled(
            threads, _winograd.parts(TILES[m], out, len(x)), TILES[m], x, size, *padding, filters,
            _start(b, len(w), x.dtype), out, y, argmax,
        )  # fmt: skip
    else:
        x, out, prepared = _prepared(x, w, b, stride, padding, dilation)
        _direct_pooled(threads, x, *prepared, out, y, argmax)
    return images(y), images(argmax)


CONV2DS = (conv2d_loops, conv2d_im2col, conv2d_direct, conv2d_winograd, conv2d_winograd_4x4)


def conv2d(x, w, b, stride, padding, dilation, groups):
    """Cross-correlate images with filters.

    x (N, C, H, W), w (K, C/groups, KH, KW), b (K,) or None -> (N, K, OH, OW)
    """
    out = window_counts(x.shape[2:], w.shape[2:], stride, padding, dilation)
    rung = conv2d_winograd if _winograd_pays(out) else conv2d_direct
    return rung(x, w, b, stride, padding, dilation, groups)


# The largest tiles whose errors are those of PyTorch's float32; none where multiplications are cheap:
# where 64 bytes are multiplied at once an earlier form was 0.7 to 1.2 times as fast as the direct one.
DEFAULT = 2 if MULTIPLIED < 64 else 0

TRANSFORMS = 1.3  # the time of products and transforms over that of the products alone


def _winograd_pays(out):
    """Whether it saves more multiplications than its transforms cost: 1.2 to 2.2 times as fast on Zen 4."""
    return _best_tile(DEFAULT, out) > 0


def _best_tile(largest, out):
    """The m of the tiles, up to the largest, that take the least time; 0 for the direct form.

    Products are as fast as in the direct form, so the tile with the fewest multiplications wins. Measured
    on Zen 4: 4 x 4 is 1.2 to 3.5 times as fast as the direct form where it is chosen.
    """
    best, fewest = 0, 9 * out[0] * out[1] / TRANSFORMS
    for m in TILES:
        multiplications = -(-out[0] // m) * -(-out[1] // m) * (m + 2) ** 2
        if m <= largest and multiplications < fewest:
            best, fewest = m, multiplications
    return best


def _winograd_takes(x, y, w_shape, stride, dilation, groups):
    n_filters, channels, *kernel = w_shape
    fits = _winograd.takes(x.dtype, channels, n_filters, kernel, stride, dilation)
    return groups == 1 and fits and _suit(x, y)


def conv2d_grad_w_im2col(g, x, w_shape, stride, padding, dilation, groups):
    """One product of BLAS with the windows, copied out."""
    return reference.conv2d_grad_w(g, x, w_shape, stride, padding, dilation, groups)


def conv2d_grad_w_direct(g, x, w_shape, stride, padding, dilation, groups):
    """The windows where they lie, as the transposed matrix; parts of the batch in parallel.

    gw[(i, j, c), k] = sum over pixels of x[pixel's window, (i, j, c)] * g[pixel, k]. The rows of a tile
    are taps, its steps are the pixels of some images. Each part of the batch has a sum of its own, and
    there are as many parts whatever the number of threads; so the rounding is always the same.
    """
    if groups > 1 or not _suit(g, x):
        return reference.conv2d_grad_w(g, x, w_shape, stride, padding, dilation, groups)
    n_filters, channels, *kernel = w_shape
    x, g = padded(x, padding), pixels(g)
    n, height, width, _ = x.shape
    out, panel = g.shape[1:3], columns(x.dtype)
    lanes = panel // VECTORS
    if n_filters % lanes:  # whole vectors
        g = np.pad(g, ((0, 0), (0, 0), (0, 0), (0, -n_filters % lanes)))
    image, row, column = _steps(height, width, channels, stride)
    taps = _places((*kernel, channels), (*_steps(height, width, channels, dilation)[1:], 1))
    n_taps = len(taps)
    taps = taps[np.minimum(np.arange(n_taps + -n_taps % ROWS), n_taps - 1)]  # whole tiles
    together = _together(n, out)
    runs = _places((together, out[0]), (image, row))
    parts = min(-(-n // together), GRAD_W_PARTS)
    sums = np.zeros((parts, -(-n_filters // panel), len(taps), panel), x.dtype)
    _grad_w(
        many(x, g.size * len(taps)),
        x, together, taps, runs, out[1], column, g, sums, _places((len(taps),), (panel,)),
    )  # fmt: skip
    total = sums.sum(axis=0).swapaxes(1, 2).reshape(-1, len(taps))
    gw = total[:n_filters, :n_taps].reshape(n_filters, *kernel, channels)
    return dense(gw.transpose(0, 3, 1, 2))


GRAD_W_PARTS = 8


@threaded
def _grad_w(x, together, taps, runs, length, step, g, sums, rows):
    """A thread takes a part of the batch at a time."""
    for part in prange(len(sums)):
        _grad_w_part(part, x, together, taps, runs, length, step, g, sums, rows)


@njit(**INNER)
def _grad_w_part(part, x, together, taps, runs, length, step, g, sums, rows):
    """Adds up one part of the images of x (N, H, W, C) and g (N, OH, OW, K).

    sums: (parts, panels, taps, COLUMNS). `runs` are the rows of g in some images.
    """
    parts, n_panels, n_taps, width = sums.shape
    n_images = len(x)
    end = (part + 1) * n_images // parts
    for n in range(part * n_images // parts, end, together):
        n_runs = min(together, end - n) * (len(runs) // together)
        x_at, g_at = n * (x.size // n_images), n * (g.size // n_images)
        for panel in range(n_panels):
            wide = g.shape[3] - panel * width > width // VECTORS
            for first in range(0, n_taps, ROWS):
                tile_add_of(
                    wide, sums, rows, (part * n_panels + panel) * n_taps * width,
                    x, taps, x_at, first, runs, n_runs, length, step,
                    g, g_at + panel * width, g.shape[3],
                )  # fmt: skip


def conv2d_grad_w_winograd(g, x, w_shape, stride, padding, dilation, groups):
    """The steps of conv2d_winograd backwards, each transposed; others as before."""
    return _grad_w_winograd(2, g, x, w_shape, stride, padding, dilation, groups)


def conv2d_grad_w_winograd_4x4(g, x, w_shape, stride, padding, dilation, groups):
    """Larger tiles, as in conv2d_winograd_4x4."""
    return _grad_w_winograd(4, g, x, w_shape, stride, padding, dilation, groups)


def _grad_w_winograd(m, g, x, w_shape, stride, padding, dilation, groups):
    if not _winograd_takes(g, x, w_shape, stride, dilation, groups):
        return conv2d_grad_w_direct(g, x, w_shape, stride, padding, dilation, groups)
    (x, size), g = corner(x), pixels(g)
    threads = many(x, g.size * w_shape[1] * 9)
    return _winograd.gradient_w(threads, TILES[m], x, size, *padding, g, w_shape)


CONV2D_GRAD_WS = (
    conv2d_grad_w_im2col,
    conv2d_grad_w_direct,
    conv2d_grad_w_winograd,
    conv2d_grad_w_winograd_4x4,
)


def conv2d_grad_w(g, x, w_shape, stride, padding, dilation, groups):
    """Gradient of conv2d for its filters: (N, K, OH, OW), (N, C, H, W) -> w_shape (K, C, KH, KW)."""
    rung = conv2d_grad_w_winograd if _winograd_pays(g.shape[2:]) else conv2d_grad_w_direct
    return rung(g, x, w_shape, stride, padding, dilation, groups)


def conv2d_grad_w_of_winners(
    sent,
    g,
    argmax,
    z_shape,
    x,
    w_shape,
    stride,
    padding,
    dilation,
    groups,
    pool_kernel,
    pool_stride,
):
    """Gradients of relu_max_pool2d(conv2d(x, w, b)) for w and b, given that of its result: g, argmax.

    sent: what relu_max_pool2d_grad gives of g and argmax, if it has been called, or None. z_shape
    (N, K, H', W'): of what is pooled, by windows of pool_kernel that lie pool_stride apart.
    g (N, K, OH, OW) -> w_shape (K, C/groups, KH, KW), (K,).
    The zeros between the winners are not written, or not multiplied, where that pays: see _winners.
    """
    convolution, pooling = (stride, padding, dilation, groups), (pool_kernel, pool_stride)
    return _w_of_winners(conv2d_grad_w, sent, g, argmax, z_shape, x, w_shape, convolution, pooling)


def _w_of_winners(otherwise, sent, g, argmax, z_shape, x, w_shape, convolution, pooling):
    stride, padding, dilation, groups = convolution
    way = _winners.takes(w_shape, dilation, *pooling, x.itemsize)
    if way is None or not _have_winners(g, argmax, x, groups):
        gz, gb = _before_pooling(sent, g, argmax, z_shape, *pooling)
        return otherwise(gz, x, w_shape, *convolution), gb
    threads = many(x, g.size * math.prod(w_shape[1:]))
    x = padded(x, padding) if any(padding) else corner(x)[0]
    gradients = _winners.gradient_w if way == "channels" else _winners.gradients_of_few
    return gradients(threads, pixels(g), pixels(argmax), x, w_shape, stride, dilation, pooling[0])


def _before_pooling(sent, g, argmax, z_shape, pool_kernel, pool_stride):
    """What relu_max_pool2d_grad gives, if it has not been called yet."""
    if sent is not None:
        return sent
    return relu_max_pool2d_grad(g, argmax, z_shape, pool_kernel, pool_stride, (0, 0), (1, 1))


def _have_winners(g, argmax, other, groups):
    """Whether arrays are as the kernels of _winners take them; argmax may be of somebody else."""
    return groups == 1 and argmax.dtype == np.uint8 and _suit(g, other)


def conv2d_grad_x_taps(g, w, x_shape, stride, padding, dilation, groups):
    """One product of BLAS for each tap, and the sum of all of them in memory."""
    return reference.conv2d_grad_x(g, w, x_shape, stride, padding, dilation, groups)


def conv2d_grad_x_direct(g, w, x_shape, stride, padding, dilation, groups):
    """Also a product for each tap, but added onto the image, where that tap had read, in registers.

    g[pixel, :] @ w[:, :, i, j] goes to the pixel's window, at (i, j). Some images at a time stay in
    the cache until all taps are done.
    """
    # a panel for 1 or 2 channels would be nearly empty
    if groups > 1 or w.shape[1] < 3 or not _suit(g, w):
        return reference.conv2d_grad_x(g, w, x_shape, stride, padding, dilation, groups)
    n, channels, height, width = x_shape
    n_filters, _, *kernel = w.shape
    (top, left), g = padding, pixels(g)
    out = g.shape[1:3]
    panels = _panels(w.transpose(2, 3, 0, 1).reshape(-1, channels))
    # a canvas holds some images with their padding, and whole panels of channels
    padded = height + 2 * top, width + 2 * left, panels.shape[0] * panels.shape[2]
    image, row, column = _steps(*padded, (1, 1))
    together = _together(n, out)
    positions = _places((together, *out), _steps(*padded, stride))
    taps = _places(kernel, _steps(*padded, dilation)[1:])
    gx = empty((n, height, width, channels), g.dtype)
    _grad_x(
        many(g, g.size * panels[0].size),
        g.reshape(n, -1, n_filters), together, _places((len(positions),), (n_filters,)), panels,
        positions, taps, image, row, top * row + left * column, gx,
    )  # fmt: skip
    return images(gx)


@threaded
def _grad_x(g, together, rows, panels, positions, taps, image, row, corner, gx):
    """A thread takes some images at a time."""
    for first in prange((len(g) + together - 1) // together):
        _grad_x_images(first * together, g, together, rows, panels, positions, taps, image, row,
                       corner, gx)  # fmt: skip


@njit(**INNER)
def _grad_x_images(n, g, together, rows, panels, positions, taps, image, row, corner, gx):
    """Some images of g (N, P, K), from the n-th on, into gx (N, H, W, C), by way of a canvas.

    image, row: the sizes of an image and of a row of it on the canvas; corner: where its inside
    begins; positions, taps: where the first tap of each pixel falls, and the others after it.
    """
    _, n_pixels, n_filters = g.shape
    n_panels, depth, width = panels.shape
    n_images = min(together, len(g) - n)
    canvas = np.empty(n_images * image, g.dtype)
    for i in range(len(canvas)):
        canvas[i] = 0
    one_run = np.zeros(1, np.int64)
    edge, edge_rows, edge_positions = _edge(width, g.dtype)
    for panel in range(n_panels):
        for tap in range(len(taps)):
            at = taps[tap] + panel * width
            for first in range(0, n_images * n_pixels, ROWS):
                n_rows = min(ROWS, n_images * n_pixels - first)
                inside = n_rows == ROWS
                if not inside:  # computed aside, as in _direct_images
                    for i in range(ROWS * width):
                        edge[i] = 0
                    for m in range(ROWS):
                        edge_rows[m] = rows[first + min(m, n_rows - 1)]
                tile_add(
                    canvas if inside else edge,
                    positions if inside else edge_positions, at if inside else 0,
                    g, rows if inside else edge_rows, n * n_pixels * n_filters,
                    first if inside else 0, one_run, 1, n_filters, 1,
                    panels, (panel * depth + tap * n_filters) * width, width,
                )  # fmt: skip
                if not inside:
                    for m in range(n_rows):
                        to = at + positions[first + m]
                        result, source = canvas[to : to + width], edge[m * width : (m + 1) * width]
                        for i in range(width):
                            result[i] += source[i]
    _, height, columns, channels = gx.shape
    for i in range(n_images):
        for r in range(height):
            for s in range(columns):
                at = i * image + corner + r * row + s * n_panels * width
                pixel, source = gx[n + i, r, s], canvas[at : at + channels]
                for c in range(channels):
                    pixel[c] = source[c]


def conv2d_grad_x_winograd(g, w, x_shape, stride, padding, dilation, groups):
    """The steps of conv2d_winograd backwards, each transposed; others as before."""
    return _grad_x_winograd(2, g, w, x_shape, stride, padding, dilation, groups)


def conv2d_grad_x_winograd_4x4(g, w, x_shape, stride, padding, dilation, groups):
    """Larger tiles, as in conv2d_winograd_4x4."""
    return _grad_x_winograd(4, g, w, x_shape, stride, padding, dilation, groups)


def _grad_x_winograd(m, g, w, x_shape, stride, padding, dilation, groups):
    if not _winograd_takes(g, w, w.shape, stride, dilation, groups):
        return conv2d_grad_x_direct(g, w, x_shape, stride, padding, dilation, groups)
    n, channels, height, width = x_shape
    g, tile = pixels(g), TILES[m]
    filters = _winograd.transformed(w.swapaxes(0, 1), tile)
    gx = empty((n, height, width, channels), g.dtype)
    _winograd.gradient_x(
        many(g, g.size * w[0].size),
        _winograd.parts(tile, g.shape[1:3], n), tile, g, *padding, filters, gx,
    )  # fmt: skip
    return images(gx)


CONV2D_GRAD_XS = (
    conv2d_grad_x_taps,
    conv2d_grad_x_direct,
    conv2d_grad_x_winograd,
    conv2d_grad_x_winograd_4x4,
)


def conv2d_grad_x(g, w, x_shape, stride, padding, dilation, groups):
    """Gradient of conv2d for its images: (N, K, OH, OW), (K, C, KH, KW) -> x_shape (N, C, H, W)."""
    rung = conv2d_grad_x_winograd if _winograd_pays(g.shape[2:]) else conv2d_grad_x_direct
    return rung(g, w, x_shape, stride, padding, dilation, groups)


def conv2d_grad_x_of_winners(
    sent,
    g,
    argmax,
    z_shape,
    w,
    x_shape,
    stride,
    padding,
    dilation,
    groups,
    pool_kernel,
    pool_stride,
):
    """Gradient of relu_max_pool2d(conv2d(x, w, b)) for x; and `sent`, made on the way or as it was.

    Arguments as of conv2d_grad_w_of_winners. g (N, K, OH, OW), w (K, C/groups, KH, KW) -> x_shape
    (N, C, H, W). Only winners are multiplied where that pays: in half of the time of Winograd's tiles.
    """
    convolution, pooling = (stride, padding, dilation, groups), (pool_kernel, pool_stride)
    return _x_of_winners(conv2d_grad_x, sent, g, argmax, z_shape, w, x_shape, convolution, pooling)


def _x_of_winners(otherwise, sent, g, argmax, z_shape, w, x_shape, convolution, pooling):
    stride, padding, dilation, groups = convolution
    pays = _winners.takes_x(w.shape, stride, dilation, *pooling, w.itemsize)
    if not pays or not _have_winners(g, argmax, w, groups):
        sent = _before_pooling(sent, g, argmax, z_shape, *pooling)
        return otherwise(sent[0], w, x_shape, *convolution), sent
    threads = many(g, g.size * w[0].size)
    gx = _winners.gradient_x(threads, pixels(g), pixels(argmax), w, x_shape, padding, pooling[0])
    return images(gx), sent


def winograd(largest):
    """conv2d and its gradients with larger tiles, or none, as {name: kernel}: for Backend.replace.

    largest: 4, 2 (as they are, on most processors) or 0 (the direct form). Convolutions with 3 x 3 filters,
    stride 1 and whole vectors of channels have the choice; each takes the tiles that cost least. Errors of
    float32 against float64, the largest over the largest number of the result (forward, gradient of x, of
    w, in units of 1e-7; Zen 4, the worst of four draws; PyTorch 2.13, of both memory orders the better):

        images -> filters               PyTorch          0                2                4
        64 x 32 x 13 x 13 -> 64      4.0  4.3  6.6    7.7   12  7.5    3.8  3.5  4.2     14   16  9.6
        32 x 32 x 15 x 15 -> 64      4.8  4.9  4.5    7.5   12  6.6    3.3  3.6  3.9     15   18  9.7
        32 x 64 x 6 x 6 -> 64        3.9  3.6  4.3     10  9.8  3.8    3.4  3.5  2.9     16   17   11

    Raises ValueError for another number.
    """
    if largest not in (0, *TILES):
        raise ValueError(f"winograd: tiles are 4 (x 4), 2 (x 2) or 0 (none); got {largest!r}")

    conv2ds = dict(zip((0, 2, 4), CONV2DS[2:], strict=True))
    grad_xs = dict(zip((0, 2, 4), CONV2D_GRAD_XS[1:], strict=True))
    grad_ws = dict(zip((0, 2, 4), CONV2D_GRAD_WS[1:], strict=True))

    def conv2d(x, w, b, stride, padding, dilation, groups):
        out = window_counts(x.shape[2:], w.shape[2:], stride, padding, dilation)
        rung = conv2ds[_best_tile(largest, out)]
        return rung(x, w, b, stride, padding, dilation, groups)

    def conv2d_relu_max_pool2d(x, w, b, *options):
        return _pooled(largest, x, w, b, *options)

    def conv2d_grad_x(g, w, x_shape, stride, padding, dilation, groups):
        rung = grad_xs[_best_tile(largest, g.shape[2:])]
        return rung(g, w, x_shape, stride, padding, dilation, groups)

    def conv2d_grad_w(g, x, w_shape, stride, padding, dilation, groups):
        rung = grad_ws[_best_tile(largest, g.shape[2:])]
        return rung(g, x, w_shape, stride, padding, dilation, groups)

    def conv2d_grad_w_of_winners(sent, g, argmax, z_shape, x, w_shape, *options):
        more = options[:4], options[4:]
        return _w_of_winners(conv2d_grad_w, sent, g, argmax, z_shape, x, w_shape, *more)

    def conv2d_grad_x_of_winners(sent, g, argmax, z_shape, w, x_shape, *options):
        more = options[:4], options[4:]
        return _x_of_winners(conv2d_grad_x, sent, g, argmax, z_shape, w, x_shape, *more)

    return {
        f.__name__: f
        for f in (
            conv2d,
            conv2d_relu_max_pool2d,
            conv2d_grad_x,
            conv2d_grad_x_of_winners,
            conv2d_grad_w,
            conv2d_grad_w_of_winners,
        )
    }


@njit(**INNER)
def _edge(width, dtype):
    """Room for a tile aside, flat; for a table of ROWS offsets; and the table of the tile's rows."""
    rows = np.empty(ROWS, np.int64)
    for m in range(ROWS):
        rows[m] = m * width
    return np.empty(ROWS * width, dtype), np.empty(ROWS, np.int64), rows


def _start(b, size, dtype):
    """What the sums start from: the bias, or zeros; and zeros up to a size."""
    start = np.zeros(size, dtype)
    if b is not None:
        start[: len(b)] = b
    return start


def _suit(x, y):
    """Whether the micro-kernel takes these arrays: one dtype, single or double; and not empty."""
    return x.dtype == y.dtype and x.dtype.char in "fd" and x.size > 0 and y.size > 0


def _panels(matrix):
    """Cut a matrix (D, K) into panels (P, D, COLUMNS), with zeros after the last column."""
    depth, n = matrix.shape
    width = columns(matrix.dtype)
    if n % width:
        matrix = np.pad(matrix, ((0, 0), (0, -n % width)))
    return np.ascontiguousarray(matrix.reshape(depth, -1, width).transpose(1, 0, 2))


def _together(n, out):
    """How many of n small images are treated as one, so that few tiles hang over an edge."""
    return min(n, max(1, int(10 * ROWS / (out[0] * out[1]))))


def _steps(height, width, channels, stride):
    """How far apart images lie, and windows: one row further down, one column further right."""
    row = width * channels
    return height * row, stride[0] * row, stride[1] * channels


def _runs(kernel, height, width, channels, dilation):
    """The parts of a window that are contiguous: their offsets and their length."""
    _, row, column = _steps(height, width, channels, dilation)
    if dilation[1] == 1:  # the taps of a row lie side by side
        return _places(kernel[:1], (row,)), kernel[1] * channels
    return _places(kernel, (row, column)), channels


def _places(sizes, steps):
    """Offsets of a grid of places, the last axis running fastest: the sums of index * step."""
    return _cached_places(tuple(sizes), tuple(steps))


@lru_cache(maxsize=128)  # they depend on shapes alone, and a network has few
def _cached_places(sizes, steps):
    index = np.indices(sizes).reshape(len(sizes), -1)
    return (index * np.reshape(steps, (-1, 1))).sum(axis=0)
