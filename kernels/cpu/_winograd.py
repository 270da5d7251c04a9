"""Winograd's convolution F(m x m, 3 x 3): m^2 outputs of a 3 x 3 filter for (m + 2)^2 multiplications.

In one dimension, two outputs of a filter w of three taps, from four inputs d, take four
multiplications instead of six (m = 2):

    y0 = d0 w0 + d1 w1 + d2 w2        m0 = (d2 - d0) -w0                   y0 = m0 + m1 + m2
    y1 = d1 w0 + d2 w1 + d3 w2        m1 = (d1 + d2) (w0 + w1 + w2) / 2    y1 = m1 - m2 + m3
                                      m2 = (d2 - d1) (w0 - w1 + w2) / 2
                                      m3 = (d3 - d1) w2

in matrices: y = A.T @ ((G @ w) * (B.T @ d)). Why: the gradient of this for d is the product of two
polynomials, with the coefficients y and w. A and G evaluate both at m + 1 points and at infinity; there
the values are multiplied; and B finds the polynomial that has them. In an image the same is done down
the columns and along the rows of a tile of (m + 2)^2 pixels, and G @ w @ G.T is computed once for all
images. What is left is the product in the middle, at each of the (m + 2)^2 places of a tile; summed
over channels, it is a product of matrices, (tiles, channels) @ (channels, filters).

The gradients take the same steps backwards, each transposed. Tiles of m = 4 take 2.25 multiplications
an output instead of 4 (and of 9 without Winograd), but errors grow: see conv.winograd. Their points have
the smallest errors among 0, -a, a, -b, b for multiples of 1/16; with the usual 0, -1, 1, -2, 2 errors are
two to four times as large. Lavin & Gray 2015; on points, Barabasz et al. 2020.
"""

import numpy as np
from numba import njit, prange

from ._arrays import empty
from ._compiled import COMPILED, INNER, threaded
from ._tile import (
    ROWS,
    SHORT,
    VECTORS,
    any_tile_add_transposed,
    any_tile_from,
    narrow_tile_from,
    tile_cover,
)
from ._transform import transform
from ._vectors import VECTOR_BYTES, part
from .pool import winners_2x2

POINTS = {2: (0, 1, -1), 4: (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)}
TILE_BYTES = VECTORS * VECTOR_BYTES


def _matrices(outputs, points):
    """A (m + 2, m), B (m + 2, m + 2) and G (m + 2, 3)."""
    points = np.array(points, float)
    infinity = len(points)

    def evaluate(n):  # polynomials of n coefficients; at infinity the last of them is left
        return np.vstack([np.vander(points, n, increasing=True), np.eye(n)[-1]])

    G, B = evaluate(3), np.zeros((infinity + 1, infinity + 1))
    for i, point in enumerate(points):  # a polynomial that is 0 at all points but one
        others = np.delete(points, i)
        B[:infinity, i] = np.poly(others)[::-1]
        G[i] /= np.prod(point - others)
    B[:, infinity] = np.poly(points)[::-1]
    return evaluate(outputs), B, G


A, B, G = (
    dict(zip(POINTS, matrices, strict=True))
    for matrices in zip(*(_matrices(m, points) for m, points in POINTS.items()), strict=True)
)


def _transposed(matrices):
    return {m: matrix.T for m, matrix in matrices.items()}


_filter_to_places = transform(G, "set")  # 3 x 3 taps
_filter_from_places = transform(_transposed(G), "set")
_to_places = transform(_transposed(B), "set")  # pixels of an image, m + 2 each way
_from_places = transform(B, "add")  # tiles overlap, so they add up
_to_outputs = transform(_transposed(A), "start")  # m x m pixels of the result, with the bias
_from_outputs = transform(A, "set")  # m x m pixels of the gradient


def takes(dtype, channels, n_filters, kernel, stride, dilation):
    """Whether a convolution fits these kernels: 3 x 3, no gaps, whole vectors of channels."""
    lanes = VECTOR_BYTES // dtype.itemsize
    plain = tuple(kernel) == (3, 3) and tuple(stride) == tuple(dilation) == (1, 1)
    return plain and channels % lanes == 0 and n_filters % lanes == 0


# Numba compiles each kernel anew for each m: `tile` is a tuple of that many zeros, whose length is part
# of its type.
TILES = {m: (0,) * m for m in POINTS}

# So many tiles are taken together that their numbers at all places, of one channel, are no more than
# this: so they stay in the second cache from one step to the next.
NUMBERS = 2048

# Images are taken some at a time by parts of the batch, of which there are as many whatever the number
# of threads: up to PARTS, each with LEAST tiles or more. A part has room of its own for what lies between
# the steps, and uses it for all its images: memory that the system has just handed out is slow when first
# touched.
PARTS, LEAST = 8, 32


def transformed(w, tile):
    """Filters w (K, C, 3, 3) at their places, G @ w @ G.T, as panels: (PLACES, P * C or more, COLUMNS)."""
    n_filters, channels = w.shape[:2]
    width, places = TILE_BYTES // w.itemsize, (len(tile) + 2) ** 2
    n_panels = -(-n_filters // width)
    taps = empty((channels, 3, 3, n_panels * width), w.dtype)
    taps[..., :n_filters] = w.transpose(1, 2, 3, 0)
    taps[..., n_filters:] = 0
    panels = empty((places, n_panels * channels | 1, width), w.dtype)  # see _odd
    _transform_filters(tile, taps, panels)
    return panels


@njit(**COMPILED)
def _transform_filters(tile, taps, panels):
    side = len(tile) + 2
    (channels, _, _, tap), (_, rows, width) = taps.shape, panels.shape
    n_panels, place = tap // width, rows * width
    for c in range(channels):
        for panel in range(n_panels):
            _filter_to_places(
                tile, taps, panels, (panel * channels + c) * width, side * place, place,
                taps, 9 * c * tap + panel * width, 3 * tap, tap, width,
            )  # fmt: skip


@threaded
def _transform_filters_back(tile, sums, gw):
    """The adjoint: gradients in parts, at places, (parts, PLACES, C', K') -> gw (K, C, 3, 3)."""
    for c in prange(gw.shape[1]):
        _transform_filter_back(np.int64(c), tile, sums, gw)


@njit(**INNER)
def _transform_filter_back(c, tile, sums, gw):
    """The filters' taps for one channel: its sums over the parts, then back from the places."""
    side = len(tile) + 2
    n_parts, n_places, _, n_filters = sums.shape
    places, taps = np.empty((n_places, n_filters), gw.dtype), np.empty((9, n_filters), gw.dtype)
    for place in range(n_places):
        total = places[place]
        _copy(sums[0, place, c], total)
        for piece in range(1, n_parts):
            more = sums[piece, place, c]
            for k in range(n_filters):
                total[k] += more[k]
    _filter_from_places(
        tile, taps, taps, 0, 3 * n_filters, n_filters,
        places, 0, side * n_filters, n_filters, n_filters,
    )  # fmt: skip
    for k in range(gw.shape[0]):
        for tap in range(9):
            gw[k, c, tap // 3, tap % 3] = taps[tap, k]


def parts(tile, out, n):
    """Into how many parts n images are divided, whose results have OH x OW pixels."""
    rows, columns = (-(-size // len(tile)) for size in out)
    return max(1, min(PARTS, n, n * rows * columns // LEAST))


@threaded
def forward(parts, tile, x, size, top, left, filters, start, y):
    """x (N, H', W', C), filters as of transformed, start (K,) -> y (N, OH, OW, K).

    size: the height and width of the upper left part of x that is convolved.
    """
    for i in prange(parts):
        _forward(*_split(0, len(x), i, parts), tile, x, size, top, left, filters, start, y)


@threaded
def forward_pooled(parts, tile, x, size, top, left, filters, start, out, y, argmax):
    """As forward, of which images of a size out, (OH, OW), are pooled before they leave the second cache.

    y, argmax (N, OH // 2, OW // 2, K): as of relu_max_pool2d for windows of 2 x 2.
    """
    for i in prange(parts):
        _forward_pooled(
            *_split(0, len(x), i, parts), tile, x, size, top, left, filters, start, out, y, argmax
        )


@njit(**INNER)
def _forward(begin, end, tile, x, size, top, left, filters, start, y):
    """Images of x from `begin` to `end`, a group at a time, into y."""
    rows, columns, n_groups = _tiling(tile, y.shape[1], y.shape[2], end - begin)
    n_tiles = _at_most(end - begin, n_groups) * rows * columns
    room = _room(tile, n_tiles, x.shape[3], filters)
    for group in range(n_groups):
        first, last = _split(begin, end, group, n_groups)
        _forward_group(first, last, tile, x, size, top, left, filters, start, room, y[first:last])


@njit(**INNER)
def _forward_pooled(begin, end, tile, x, size, top, left, filters, start, out, y, argmax):
    rows, columns, n_groups = _tiling(tile, out[0], out[1], end - begin)
    together = _at_most(end - begin, n_groups)
    room = _room(tile, together * rows * columns, x.shape[3], filters)
    z = np.empty((together, out[0], out[1], y.shape[3]), x.dtype)
    for group in range(n_groups):
        first, last = _split(begin, end, group, n_groups)
        _forward_group(first, last, tile, x, size, top, left, filters, start, room, z)
        for i in range(first, last):
            winners_2x2(z[i - first], x.dtype.type(0), 4, y[i], argmax[i])


@njit(**INNER)
def _forward_group(first, last, tile, x, size, top, left, filters, start, room, y):
    """Images of x from `first` to `last` into y; room: what _room gave for their tiles."""
    _, oh, ow, n_filters = y.shape
    m, side = len(tile), len(tile) + 2
    rows, columns, _ = _tiling(tile, oh, ow, last - first)
    places, results = room
    width, place = filters.shape[2], results.shape[1] * filters.shape[2]
    edge, flat = np.empty(m * m * width, x.dtype), y.reshape(-1)
    n_tiles = (last - first) * rows * columns
    _at_places(tile, x, size, first, last, top, left, rows, columns, side, places)
    for panel in range((n_filters + width - 1) // width):
        k = panel * width
        n_columns = min(width, n_filters - k)
        _product(places, n_tiles, filters, panel, n_columns, results)
        bias = part(start, k, width)
        for number in range(n_tiles):
            i, r, s = _where(number, rows, columns)
            r, s = r * m, s * m
            inside = r + m <= oh and s + m <= ow
            to = ((i * oh + r) * ow + s) * n_filters + k
            _to_outputs(
                tile, bias, flat if inside else edge, to if inside else 0,
                ow * n_filters if inside else m * width, n_filters if inside else width,
                results, number * width, side * place, place, n_columns,
            )  # fmt: skip
            if not inside:  # of the tile, only the first rows or columns exist
                for a in range(min(m, oh - r)):
                    for b in range(min(m, ow - s)):
                        at = to + (a * ow + b) * n_filters
                        _copy(part(edge, (a * m + b) * width, n_columns), part(y, at, n_columns))


@threaded
def gradient_x(parts, tile, g, top, left, filters, gx):
    """g (N, OH, OW, K), filters as of transformed -> gx (N, H, W, C)."""
    for i in prange(parts):
        _gradient_x(*_split(0, len(g), i, parts), tile, g, top, left, filters, gx)


@njit(**INNER)
def _gradient_x(begin, end, tile, g, top, left, filters, gx):
    """Images of g from `begin` to `end`, a group at a time, into gx."""
    _, height, width, channels = gx.shape
    m, side = len(tile), len(tile) + 2
    rows, columns, n_groups = _tiling(tile, g.shape[1], g.shape[2], end - begin)
    n_tiles = _at_most(end - begin, n_groups) * rows * columns
    places, results = _room(tile, n_tiles, g.shape[3], filters)
    wide = filters.shape[2]
    place = results.shape[1] * wide
    edge, flat = np.empty(side * side * wide, g.dtype), gx.reshape(-1)
    for group in range(n_groups):
        first, last = _split(begin, end, group, n_groups)
        n_tiles = (last - first) * rows * columns
        _at_places(tile, g, g.shape[1:3], first, last, 0, 0, rows, columns, m, places)
        _clear(gx[first:last].reshape(-1))
        for panel in range((channels + wide - 1) // wide):
            c = panel * wide
            n_columns = min(wide, channels - c)
            _product(places, n_tiles, filters, panel, n_columns, results)
            for number in range(n_tiles):
                i, r, s = _where(number, rows, columns)
                i, r, s = first + i, r * m - top, s * m - left
                inside = min(r, s) >= 0 and r + side <= height and s + side <= width
                if not inside:
                    _clear(edge)
                to = ((i * height + r) * width + s) * channels + c
                _from_places(
                    tile, edge, flat if inside else edge, to if inside else 0,
                    width * channels if inside else side * wide, channels if inside else wide,
                    results, number * wide, side * place, place, n_columns,
                )  # fmt: skip
                if not inside:
                    for a in range(max(0, -r), min(side, height - r)):
                        for b in range(max(0, -s), min(side, width - s)):
                            pixel = part(gx, to + (a * width + b) * channels, n_columns)
                            more = part(edge, (a * side + b) * wide, n_columns)
                            for j in range(n_columns):
                                pixel[j] += more[j]


def gradient_w(many, tile, x, size, top, left, g, w_shape):
    """x (N, H', W', C), g (N, OH, OW, K) -> the gradient of filters, w_shape (K, C, 3, 3).

    size: of x, as in forward.
    """
    n_filters, channels = w_shape[:2]
    width = TILE_BYTES // x.itemsize
    matrix = len(tile_cover(channels)[1]), -(-n_filters // width) * width
    sums = empty((parts(tile, g.shape[1:3], len(g)), (len(tile) + 2) ** 2, *matrix), x.dtype)
    gw = np.empty(w_shape, x.dtype)
    _sum_gradient_w(many, tile, x, size, top, left, g, sums)
    _transform_filters_back(many, tile, sums, gw)
    return gw


@threaded
def _sum_gradient_w(tile, x, size, top, left, g, sums):
    """Sums for each part of the batch, at places, (parts, PLACES, C', K').

    C' and K' are C and K, rounded up to whole tiles of the micro-kernel.
    """
    for i in prange(len(sums)):
        _gradient_w(*_split(0, len(x), i, len(sums)), tile, x, size, top, left, g, i, sums)


@njit(**INNER)
def _gradient_w(begin, end, tile, x, size, top, left, g, piece, sums):
    """Adds the images from `begin` to `end`, a group at a time, to one part of the sums."""
    m, side = len(tile), len(tile) + 2
    rows, columns, n_groups = _tiling(tile, g.shape[1], g.shape[2], end - begin)
    _, n_places, n_rows, n_columns = sums.shape
    _clear(sums[piece].reshape(-1))
    n_tiles = _odd(_at_most(end - begin, n_groups) * rows * columns)
    from_x = np.zeros((n_places, n_tiles, n_rows), x.dtype)
    from_g = np.zeros((n_places, n_tiles, n_columns), x.dtype)
    tall, short = _heights(x.shape[3])
    for group in range(n_groups):
        first, last = _split(begin, end, group, n_groups)
        length = (last - first) * rows * columns
        _at_places(tile, x, size, first, last, top, left, rows, columns, side, from_x)
        _at_places(tile, g, g.shape[1:3], first, last, 0, 0, rows, columns, m, from_g)
        for place in range(n_places):
            for column in range(0, n_columns, TILE_BYTES // x.itemsize):
                row = 0
                for i in range(tall + short):
                    any_tile_add_transposed(
                        i < tall,
                        sums, ((piece * n_places + place) * n_rows + row) * n_columns + column, n_columns,
                        from_x, place * n_tiles * n_rows + row, n_rows,
                        from_g, place * n_tiles * n_columns + column, n_columns, length,
                    )  # fmt: skip
                    row += ROWS if i < tall else SHORT


@njit(**INNER)
def _split(begin, end, i, n):
    """Where the i-th of n nearly equal pieces of what lies between begin and end begins and ends."""
    i = np.int64(i)
    return begin + i * (end - begin) // n, begin + (i + 1) * (end - begin) // n


@njit(**INNER)
def _at_most(n, pieces):
    """The size of the largest of so many nearly equal pieces."""
    return (n + pieces - 1) // max(pieces, 1)


@njit(**INNER)
def _tiling(tile, oh, ow, n_images):
    """How many tiles an image has, down and across, and into how many groups n images are split."""
    m = len(tile)
    rows, columns = (oh + m - 1) // m, (ow + m - 1) // m
    together = max(1, NUMBERS // ((m + 2) ** 2 * rows * columns))
    return rows, columns, (n_images + together - 1) // together


@njit(**INNER)
def _where(number, rows, columns):
    """The image, row and column of a tile."""
    return number // (rows * columns), number // columns % rows, number % columns


@njit(**INNER)
def _heights(n):
    """How many tiles of ROWS rows, and how many of SHORT, make the best cover: see tile_cover."""
    least, best = n + ROWS, (0, 0)
    for tall in range((n + ROWS - 1) // ROWS + 1):
        short = max(0, (n - tall * ROWS + SHORT - 1) // SHORT)
        if tall * ROWS + short * SHORT <= least:
            least, best = tall * ROWS + short * SHORT, (tall, short)
    return best


@njit(**INNER)
def _room(tile, n_tiles, depth, filters):
    """Arrays for tiles at their places, and for their products with one panel of filters.

    A tile of the micro-kernel may hang over the last row: there is room for it, and no NaN.
    """
    n_places, n_rows = (len(tile) + 2) ** 2, _odd(n_tiles + ROWS)
    places = np.empty((n_places, n_rows, depth), filters.dtype)
    for place in range(n_places):
        _clear(places[place, n_tiles:].reshape(-1))
    return places, np.empty((n_places, n_rows, filters.shape[2]), filters.dtype)


@njit(**INNER)
def _odd(n):
    """The next odd number of rows: numbers of a tile that lie 4096 bytes apart push each other out of
    the first cache.
    """
    return n | 1


@njit(**INNER)
def _at_places(tile, images, size, first, end, top, left, rows, columns, side, places):
    """Cuts images (N, H', W', C) into tiles and transforms them -> places (PLACES, tiles, at least C).

    size: the height and width of the upper left part that is taken of each image.
    side: m + 2 pixels for tiles of images, of which neighbours share two; m for those of gradients.
    What hangs over the edge is zero.
    """
    (height, width), channels = size, images.shape[3]
    m, between = len(tile), len(tile) + 2
    _, n_tiles, depth = places.shape
    row = images.shape[2] * channels
    flat, edge = images.reshape(-1), np.empty(side * side * channels, images.dtype)
    to = 0
    for i in range(first, end):
        for r in range(-top, rows * m - top, m):
            for s in range(-left, columns * m - left, m):
                inside = min(r, s) >= 0 and r + side <= height and s + side <= width
                if not inside:
                    _clear(edge)
                    b, n_numbers = max(0, -s), (min(side, width - s) - max(0, -s)) * channels
                    for a in range(max(0, -r), min(side, height - r)):
                        at = ((i * images.shape[1] + r + a) * images.shape[2] + s + b) * channels
                        _copy(
                            part(images, at, n_numbers),
                            part(edge, (a * side + b) * channels, n_numbers),
                        )
                at = ((i * images.shape[1] + r) * images.shape[2] + s) * channels
                source, at = (flat, at) if inside else (edge, 0)
                source_row = row if inside else side * channels
                if side > m:
                    _to_places(tile, edge, places, to, between * n_tiles * depth, n_tiles * depth,
                               source, at, source_row, channels, channels)  # fmt: skip
                else:
                    _from_outputs(tile, edge, places, to, between * n_tiles * depth, n_tiles * depth,
                                  source, at, source_row, channels, channels)  # fmt: skip
                to += depth


@njit(**INNER)
def _product(places, n_tiles, filters, panel, n_columns, results):
    """places (PLACES, T, C) @ a panel of filters -> results (PLACES, T, COLUMNS), as many as exist."""
    n_places, room, depth = places.shape
    _, filter_rows, width = filters.shape
    steps, one_run = np.arange(ROWS), np.zeros(1, np.int64)
    rows, out_rows = steps * depth, steps * width
    start = np.zeros(width, places.dtype)
    wide = n_columns > width // VECTORS
    tall, short = _heights(n_tiles) if wide else (0, 0)
    for place in range(n_places):
        at = place * room
        for row in range(0, 0 if wide else n_tiles, ROWS):  # half a panel
            narrow_tile_from(
                start, 0, results, out_rows, (at + row) * width,
                places, rows, (at + row) * depth, 0, one_run, 1, depth, 1,
                filters, (place * filter_rows + panel * depth) * width, width,
            )  # fmt: skip
        for i in range(tall + short):
            any_tile_from(
                i < tall, start, 0, results, out_rows, at * width,
                places, rows, at * depth, 0, one_run, 1, depth, 1,
                filters, (place * filter_rows + panel * depth) * width, width,
            )  # fmt: skip
            at += ROWS if i < tall else SHORT


@njit(**INNER)
def _copy(x, y):
    for i in range(x.size):
        y[i] = x[i]


@njit(**INNER)
def _clear(x):
    for i in range(x.size):
        x[i] = 0
