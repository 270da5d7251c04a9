"""Gradients of a convolution behind max pooling, from the winners of the windows alone.

    gw[k, tap, c] = sum over windows of g[window, k] * x[the winner's pixel, moved by the tap, c]
    gx[the winner's pixel, moved by the tap, c] += g[window, k] * w[k, tap, c]     for all windows, k, taps

Of the pixels that a window of KH x KW reads only one has a gradient, or none behind ReLU. For windows of
2 x 2 that leaves 9 multiplications for 4 pixels, fewer than Winograd's tiles take; but each filter has
winners of its own, so there is no product of matrices. Instead all taps of a filter, for a block of channels,
are sums in registers; winner after winner is spread over a vector and multiplied with the pixels around
it, which lie side by side in the nearest cache. For images it is the pixels under a window that are the
sums, and filter after filter that passes, sorted by the pixel that won.

The first convolution of a network sees few channels, less than a vector, but many pixels. There a vector
holds filters: g is taken once for each pixel of a window, zero in the lanes of filters that another pixel
won, and multiplied with the numbers around that pixel. These are as many multiplications as without
pooling. What is saved is the gradient before the pooling, four times as large as g, which is neither written
nor read: often nobody else asks for it, since images have no gradient.
"""

import math

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from ._arrays import empty, zeros
from ._compiled import INNER, threaded
from ._vectors import REGISTERS, VECTOR_BYTES, Vectors, part, pointers, repeat

MOST = REGISTERS - 4  # sums; the rest is for the winner's gradient and numbers on the way
NEAR = 64 << 10  # bytes of the pixels that are taken together
MOST_PIXELS = 9  # of a window, each with instructions of its own
WEIGHTS = 18 << 10  # bytes of weights that are taken together
PARTS = 8  # of the batch, each with sums of its own, however many threads there are


def takes(w_shape, dilation, pool_kernel, pool_stride, itemsize):
    """Whether one of both ways pays: "channels" or "filters" in a vector, or None.

    Windows must lie side by side, and all taps of a filter must have room in registers.
    """
    n_filters, channels, *kernel = w_shape
    lanes, taps, window = VECTOR_BYTES // itemsize, math.prod(kernel), math.prod(pool_kernel)
    if pool_kernel != pool_stride or window < 4:
        return None
    if channels % lanes == 0 and taps <= MOST:
        return "channels"
    few = channels * taps < MOST and window <= MOST_PIXELS and dilation[1] == 1
    return "filters" if few and n_filters % lanes == 0 else None


def takes_x(w_shape, stride, dilation, pool_kernel, pool_stride, itemsize):
    """Whether the gradient of images pays: whole vectors of channels, room for the pixels under a window."""
    _, channels, *kernel = w_shape
    pixels = math.prod(k + p - 1 for k, p in zip(kernel, pool_kernel, strict=True))
    plain = stride == dilation == (1, 1) and pool_kernel == pool_stride
    whole = channels % (VECTOR_BYTES // itemsize) == 0
    return plain and whole and math.prod(pool_kernel) >= 4 and pixels <= MOST


def _taps(channels, kernel, itemsize):
    """Tuples as long as a filter is high, wide, and deep in vectors of a block of channels.

    Their sizes are part of their types: a kernel is compiled for each.
    """
    deep = 2 * VECTOR_BYTES // itemsize
    vectors = 2 if channels % deep == 0 and 2 * math.prod(kernel) <= MOST else 1
    return (0,) * kernel[0], (0,) * kernel[1], (0,) * vectors


def gradient_w(many, g, argmax, x, w_shape, stride, dilation, pool_kernel):
    """g, argmax (N, OH, OW, K) of the pooling, x (N, H, W, C) with its border -> (K, C, KH, KW), (K,).

    The gradients of the filters and of the bias.
    """
    n_filters, channels, *kernel = w_shape
    n, height, width, _ = x.shape
    taps = _taps(channels, kernel, x.itemsize)
    row, column = width * channels, channels
    windows, offsets = _places(g.shape[1:3], stride, pool_kernel, row, column)
    offsets = np.append(offsets, 0)  # of a window without a winner
    strip = max(1, NEAR // (pool_kernel[0] * stride[0] * width * len(taps[2]) * VECTOR_BYTES))
    sums = zeros((min(n, PARTS), n_filters, kernel[0] * kernel[1], channels), x.dtype)
    steps = dilation[0] * row, dilation[1] * column
    biases = np.zeros((n, n_filters), x.dtype)
    _sum(many, *taps, g, argmax, x.reshape(n, -1), windows, offsets, steps, strip, sums, biases)
    gw = np.empty(w_shape, x.dtype)
    gw.reshape(n_filters, channels, -1)[...] = sums.sum(axis=0).transpose(0, 2, 1)
    return gw, biases.sum(axis=0)


def gradient_x(many, g, argmax, w, x_shape, padding, pool_kernel):
    """g, argmax (N, OH, OW, K) of the pooling, w (K, C, KH, KW) -> (N, H, W, C), for x_shape (N, C, H, W).

    For stride and dilation 1. What a window sends goes to few pixels, whose sums, of a vector of channels,
    stay in registers while its winners pass, those of each of its pixels together.
    """
    n_filters, channels, *kernel = w.shape
    n, _, height, width = x_shape
    lanes, row = VECTOR_BYTES // w.itemsize, (width + 2 * padding[1]) * channels
    sizes = tuple((0,) * size for size in (*kernel, *pool_kernel))  # see _taps
    windows, _ = _places(g.shape[1:3], (1, 1), pool_kernel, row, channels)
    weights = w.reshape(n_filters, channels // lanes, lanes, -1).transpose(1, 0, 3, 2)
    together = max(1, WEIGHTS // (math.prod(kernel) * VECTOR_BYTES))
    gx = empty((n, height, width, channels), w.dtype)
    _send(
        many, *sizes, g, argmax, np.ascontiguousarray(weights), windows, row, *padding, together, gx
    )
    return gx


@threaded
def _send(tall, wide, down, along, g, argmax, weights, windows, row, top, left, together, gx):
    """A thread takes an image at a time."""
    for image in prange(len(gx)):
        _send_image(
            np.int64(image), (tall, wide, down, along), g, argmax, weights, windows, row, top, left,
            together, gx,
        )  # fmt: skip


@njit(**INNER)
def _send_image(image, sizes, g, argmax, weights, windows, row, top, left, together, gx):
    """One image of g into one of gx, by way of a canvas if it has a border; some filters at a time."""
    _, oh, ow, n_filters = g.shape
    n_blocks, _, n_taps, lanes = weights.shape
    _, height, width, channels = gx.shape
    n_pixels = len(sizes[2]) * len(sizes[3])
    strip = max(1, NEAR // ((n_pixels + 1) * together * 8))  # windows
    order = np.empty((strip, n_pixels + 1, together), np.int64)
    counts = np.empty((strip, n_pixels + 1), np.int64)
    canvas = gx[image]
    if max(top, left) > 0:
        canvas = np.empty((height + 2 * top, width + 2 * left, channels), gx.dtype)
    flat = canvas.reshape(-1)
    for i in range(flat.size):
        flat[i] = 0
    for k in range(0, n_filters, together):
        size = min(together, n_filters - k)
        for first in range(0, len(windows), strip):
            at = (image * len(windows) + first) * n_filters + k
            some = windows[first : first + strip]
            for q in range(len(some)):
                _sort_winners(part(argmax, at + q * n_filters, size), order[q], counts[q])
            for block in range(n_blocks):
                for q in range(len(some)):
                    _send_window(
                        sizes, flat, some[q] + block * lanes, row, channels,
                        weights, (block * n_filters + k) * n_taps * lanes, g, at + q * n_filters,
                        order, q * (n_pixels + 1) * together, together, counts, q * (n_pixels + 1),
                    )  # fmt: skip
    if max(top, left) > 0:
        gx[image] = canvas[top : top + height, left : left + width]


@njit(**INNER)
def _sort_winners(argmax, order, counts):
    """The filters of a window by the pixel that won; behind the last pixel those without a winner."""
    counts[:] = 0
    for k in range(len(argmax)):
        p = argmax[k]
        order[p, counts[p]] = k
        counts[p] += 1


@intrinsic
def _send_window(
    typingctx, sizes, out, out_at, row, column, weights, weights_at, g, g_at, order, order_at, room,
    counts, counts_at,
):  # fmt: skip
    """Scaled weights added to the pixels under a window: for each of its pixels p = (down, along), those
    filters k that it won, and each tap (i, j),

        out[out_at + (down + i) * row + (along + j) * column + c] +=
            g[g_at + k] * weights[weights_at + (k * KH * KW + i * KW + j) * LANES + c]

    where c are the lanes of a vector, and k, from order[order_at + p * room] on, are as many as
    counts[counts_at + p] says. sizes: four tuples, as long as filter and window are high and wide.
    """
    at = types.intp
    signature = types.void(
        sizes, out, at, at, at, weights, at, g, at, order, at, at, counts, at
    )  # fmt: skip
    tall, wide, down, along = (range(len(size)) for size in sizes)

    def write(context, builder, signature, args):
        args = pointers(context, builder, signature, args)
        _, out, out_at, row, column, weights, weights_at, g, g_at, order, order_at, room, *rest = (
            args
        )
        v = Vectors(builder, signature.args[1].dtype)
        out, weights, g, counts = (
            v.at(out, out_at),
            v.at(weights, weights_at),
            v.at(g, g_at),
            v.at(*rest),
        )
        n_rows, n_columns = len(tall) + len(down) - 1, len(wide) + len(along) - 1
        pixels = [
            v.at(out, v.place(row, r, column, s)) for r in range(n_rows) for s in range(n_columns)
        ]
        sums = [v.load(pixel) for pixel in pixels]
        for p, (r, s) in enumerate((r, s) for r in down for s in along):
            filters = v.at(order, builder.add(order_at, v.times(room, p)))
            under = [(r + i) * n_columns + s + j for i in tall for j in wide]

            def one_winner(q, sums, filters=filters, under=under):
                k = builder.load(v.at(filters, q))
                numbers, value = (
                    v.at(weights, v.times(k, len(under) * v.lanes)),
                    v.spread(v.at(g, k)),
                )
                sums = list(sums)
                for tap, pixel in enumerate(under):
                    sums[pixel] = v.multiply_add(v.load(numbers, tap), value, sums[pixel])
                return sums

            count = builder.load(v.at(counts, ir.IntType(64)(p)))
            sums = repeat(builder, count, sums, one_winner, least=0)
        for total, pixel in zip(sums, pixels, strict=True):
            v.store(total, pixel)
        return context.get_dummy_value()

    return signature, write


def _places(out, stride, pool_kernel, row, column):
    """Where what a pixel reads begins: for the first pixel of each window, and for the others after it."""
    down, along = stride[0] * row, stride[1] * column  # to the next pixel of the convolution
    offsets = np.add.outer(np.arange(pool_kernel[0]) * down, np.arange(pool_kernel[1]) * along)
    rows, columns = (np.arange(size) for size in out)
    windows = np.add.outer(rows * pool_kernel[0] * down, columns * pool_kernel[1] * along)
    return windows.ravel(), offsets.ravel()


@threaded
def _sum(tall, wide, deep, g, argmax, x, windows, offsets, steps, strip, sums, biases):
    """A thread takes a part of the batch at a time. (Numba hands threads no tuple of tuples.)"""
    for i in prange(len(sums)):
        _sum_part(
            np.int64(i),
            (tall, wide, deep),
            g,
            argmax,
            x,
            windows,
            offsets,
            steps,
            strip,
            sums,
            biases,
        )


@njit(**INNER)
def _sum_part(i, taps, g, argmax, x, windows, offsets, steps, strip, sums, biases):
    """One part of the batch, image by image, some rows of windows at a time."""
    n, oh, ow, n_filters = g.shape
    _, _, n_taps, channels = sums.shape
    room = min(strip, oh) * ow
    places, values = np.empty((n_filters, room), np.int64), np.empty((n_filters, room), g.dtype)
    counts = np.empty(n_filters, np.int64)
    block = len(taps[2]) * VECTOR_BYTES // g.itemsize
    for image in range(i * n // len(sums), (i + 1) * n // len(sums)):
        for first in range(0, oh, strip):
            at, size = first * ow, min(strip, oh - first) * ow
            where = (image * oh * ow + at) * n_filters
            some, won = part(g, where, size * n_filters), part(argmax, where, size * n_filters)
            _list_winners(some, won, part(windows, at, size), offsets, places, values, counts)
            _add_winners(some, won, len(offsets) - 1, biases[image])
            for channel in range(0, channels, block):
                for k in range(n_filters):
                    if counts[k] > 0:
                        _add_windows(
                            taps, sums, (i * n_filters + k) * n_taps * channels + channel, channels,
                            x, image * x.shape[1] + channel, steps[0], steps[1],
                            places, values, k * room, counts[k],
                        )  # fmt: skip


@njit(**INNER)
def _list_winners(g, argmax, windows, offsets, places, values, counts):
    """Of each filter the places of the pixels that won, their gradients, and how many there are."""
    n_filters = len(counts)
    for k in range(n_filters):
        place, value, count = places[k], values[k], 0
        for q in range(len(windows)):  # written always, and kept if it counts: no branch to guess
            tap = argmax[q * n_filters + k]
            place[count] = windows[q] + offsets[tap]
            value[count] = g[q * n_filters + k]
            count += tap < len(offsets) - 1
        counts[k] = count


@njit(**INNER)
def _add_winners(g, argmax, none, total):
    """Adds up, for each filter, the numbers that have a winner."""
    zero = g.dtype.type(0)
    for first in range(0, g.size, total.size):
        row, won = part(g, first, total.size), part(argmax, first, total.size)
        for k in range(total.size):
            total[k] += row[k] if won[k] < none else zero


@intrinsic
def _add_windows(
    typingctx, taps, out, out_at, out_tap, x, x_at, row, column, places, values, first, count
):
    """Adds up windows of x, scaled: for each tap (i, j) and channel c of the block

        out[out_at + (i * KW + j) * out_tap + c] += sum over q < count of
            values[first + q] * x[x_at + places[first + q] + i * row + j * column + c]

    taps: three tuples, KH, KW and as many vectors of channels long as a block has. Offsets count elements
    as they lie in memory; count is at least 1; nothing is checked.
    """
    at = types.intp
    signature = types.void(taps, out, at, at, x, at, at, at, places, values, at, at)
    height, width, vectors = (range(len(size)) for size in taps)

    def write(context, builder, signature, args):
        args = pointers(context, builder, signature, args)
        _, out, out_at, out_tap, x, x_at, row, column, places, values, first, count = args
        v = Vectors(builder, signature.args[1].dtype)
        x, out = v.at(x, x_at), v.at(out, out_at)
        places, values = v.at(places, first), v.at(values, first)

        def one_winner(q, sums):
            window = v.at(x, builder.load(v.at(places, q)))
            value = v.spread(v.at(values, q))
            pixels = [v.at(window, v.place(row, i, column, j)) for i in height for j in width]
            numbers = [v.load(pixel, c) for pixel in pixels for c in vectors]
            return [v.multiply_add(value, *pair) for pair in zip(numbers, sums, strict=True)]

        zeros = [v.constant(0.0)] * (len(height) * len(width) * len(vectors))
        sums = repeat(builder, count, zeros, one_winner)
        for i, total in enumerate(sums):
            tap, c = divmod(i, len(vectors))
            to = v.at(out, v.times(out_tap, tap))
            v.store(v.plus(total, v.load(to, c)), to, c)
        return context.get_dummy_value()

    return signature, write


def gradients_of_few(many, g, argmax, x, w_shape, stride, dilation, pool_kernel):
    """As gradient_w, for few channels; and the gradient of the bias (K,)."""
    n_filters, channels, *kernel = w_shape
    n, _, width, _ = x.shape
    row = width * channels
    windows, offsets = _places(g.shape[1:3], stride, pool_kernel, row, channels)
    # the sizes of these tuples are part of their types: a kernel is compiled for each
    sizes = (0,) * kernel[0], (0,) * (kernel[1] * channels), (0,) * len(offsets)
    n_taps = channels * math.prod(kernel)
    sums = np.zeros((min(n, PARTS), n_taps + 1, n_filters), x.dtype)
    _sum_of_few(
        many, *sizes, g, argmax, x.reshape(n, -1), windows, offsets, dilation[0] * row, sums
    )
    total = sums.sum(axis=0)
    gw = np.empty(w_shape, x.dtype)
    gw[...] = total[:-1].T.reshape(n_filters, *kernel, channels).transpose(0, 3, 1, 2)
    return gw, total[-1]


@threaded
def _sum_of_few(tall, wide, pool, g, argmax, x, windows, offsets, step, sums):
    """A thread takes a part of the batch at a time."""
    for i in prange(len(sums)):
        _sum_part_of_few(
            np.int64(i), (tall, wide, pool), g, argmax, x, windows, offsets, step, sums
        )


@njit(**INNER)
def _sum_part_of_few(i, sizes, g, argmax, x, windows, offsets, step, sums):
    """One part of the batch, image by image: so no sum in registers goes on for long."""
    n, _, _, n_filters = g.shape
    _, rows, _ = sums.shape
    lanes = VECTOR_BYTES // g.itemsize
    for image in range(i * n // len(sums), (i + 1) * n // len(sums)):
        for k in range(0, n_filters, lanes):
            _add_masked(
                sizes, sums, i * rows * n_filters + k, n_filters, x, image * x.shape[1], step,
                g, argmax, image * len(windows) * n_filters + k, windows, offsets, len(windows),
            )  # fmt: skip


@intrinsic
def _add_masked(
    typingctx, sizes, out, out_at, out_tap, x, x_at, row, g, argmax, g_at, windows, offsets, count
):
    """Adds up windows of x, scaled, for a vector of filters k: for each tap (i, j),

        out[out_at + (i * J + j) * out_tap + k] += sum over q < count, p < P of
            [argmax[g_at + q * out_tap + k] = p] * g[g_at + q * out_tap + k]
            * x[x_at + windows[q] + offsets[p] + i * row + j]

    and behind the taps, as if x were 1. sizes: three tuples, as long as there are i, j (taps along a row,
    with their channels) and p. Offsets count elements as they lie in memory; count is at least 1; nothing
    is checked.
    """
    at = types.intp
    signature = types.void(
        sizes, out, at, at, x, at, at, g, argmax, at, windows, offsets, at
    )  # fmt: skip
    height, width, pool = (range(len(size)) for size in sizes)

    def write(context, builder, signature, args):
        args = pointers(context, builder, signature, args)
        _, out, out_at, out_tap, x, x_at, row, g, argmax, g_at, windows, offsets, count = args
        v = Vectors(builder, signature.args[1].dtype)
        x, out, g, argmax = v.at(x, x_at), v.at(out, out_at), v.at(g, g_at), v.at(argmax, g_at)
        offsets = [builder.load(v.at(offsets, ir.IntType(64)(p))) for p in pool]
        zero = v.constant(0.0)

        def one_window(q, sums):
            pixel = builder.mul(q, out_tap)
            value, winner = v.load(v.at(g, pixel)), v.load_bytes(v.at(argmax, pixel))
            window, sums = v.at(x, builder.load(v.at(windows, q))), list(sums)
            for p in pool:
                won = v.select(winner, p, value, zero)
                first = v.at(window, offsets[p])
                pixels = [v.at(first, v.add(v.times(row, i), j)) for i in height for j in width]
                for t, number in enumerate(pixels):
                    sums[t] = v.multiply_add(v.spread(number), won, sums[t])
                sums[-1] = v.plus(sums[-1], won)
            return sums

        n_sums = len(height) * len(width) + 1
        sums = repeat(builder, count, [zero] * n_sums, one_window)
        for t, total in enumerate(sums):
            to = v.at(out, v.times(out_tap, t))
            v.store(v.plus(total, v.load(to)), to)
        return context.get_dummy_value()

    return signature, write
