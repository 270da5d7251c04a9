"""Winograd's convolution F(2x2, 3x3): four outputs of a 3 x 3 filter for 16 multiplications, not 36.

In one dimension: two outputs of a filter w of three taps, from four inputs d, are

    y0 = d0 w0 + d1 w1 + d2 w2        m0 = (d0 - d2) w0                    y0 = m0 + m1 + m2
    y1 = d1 w0 + d2 w1 + d3 w2        m1 = (d1 + d2) (w0 + w1 + w2) / 2    y1 = m1 - m2 - m3
                                      m2 = (d2 - d1) (w0 - w1 + w2) / 2
                                      m3 = (d1 - d3) w2

six multiplications, or four: y = A.T @ ((G @ w) * (B.T @ d)) with the matrices below. In an image the
same is done down the columns and along the rows of a tile. B and A only add and subtract, and G @ w
is computed once for all images. What is left is the product in the middle, at each of the 16 places
of a tile; summed over channels, it is a product of matrices, (tiles, channels) @ (channels, filters).

The gradients take the same steps backwards, each transposed. Errors are as small as those of adding
up directly; larger tiles would save more, and lose digits. Lavin & Gray 2015.
"""

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

from ._arrays import dense
from ._compiled import COMPILED, INNER, threaded
from ._tile import ROWS, VECTORS, tile_add, tile_from
from ._vectors import VECTOR_BYTES, Vectors, pointers, repeat

B = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]).T
# G = [[1, 0, 0], [1/2, 1/2, 1/2], [1/2, -1/2, 1/2], [0, 0, 1]]
A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]]).T
PLACES = 16
TILE_BYTES = VECTORS * VECTOR_BYTES


def takes(dtype, channels, n_filters, kernel, stride, dilation):
    """Whether a convolution fits these kernels: 3 x 3, no gaps, whole vectors of channels."""
    lanes = VECTOR_BYTES // dtype.itemsize
    plain = tuple(kernel) == (3, 3) and tuple(stride) == tuple(dilation) == (1, 1)
    return plain and channels % lanes == 0 and n_filters % lanes == 0


def together(n, out, tiles):
    """How many of n images a part takes together: as many as give that many tiles, at least one."""
    rows, columns = (out[0] + 1) // 2, (out[1] + 1) // 2
    return min(-(-n // PARTS), max(1, tiles // (rows * columns)))


def transformed(w):
    """Filters w (K, C, 3, 3) at their places, G @ w @ G.T, as panels: (16, P, C, COLUMNS)."""
    width = TILE_BYTES // w.itemsize
    panels = np.zeros((PLACES, -(-len(w) // width), w.shape[1], width), w.dtype)
    _transform_filters(dense(w), panels)
    return panels


@njit(**COMPILED)
def _transform_filters(w, panels):
    half = w.dtype.type(0.5)
    width = panels.shape[3]
    down = np.empty((4, 3), w.dtype)
    for k in range(w.shape[0]):
        for c in range(w.shape[1]):
            for j in range(3):
                outer, inner = w[k, c, 0, j] + w[k, c, 2, j], w[k, c, 1, j]
                down[0, j], down[3, j] = w[k, c, 0, j], w[k, c, 2, j]
                down[1, j], down[2, j] = (outer + inner) * half, (outer - inner) * half
            for i in range(4):
                outer, inner = down[i, 0] + down[i, 2], down[i, 1]
                panel, column = k // width, k % width
                panels[4 * i, panel, c, column] = down[i, 0]
                panels[4 * i + 1, panel, c, column] = (outer + inner) * half
                panels[4 * i + 2, panel, c, column] = (outer - inner) * half
                panels[4 * i + 3, panel, c, column] = down[i, 2]


def transformed_back(sums, w_shape):
    """The adjoint: gradients in parts, at places (PARTS, 16, C', K') -> w_shape (K, C, 3, 3)."""
    gw = np.empty(w_shape, sums.dtype)
    _transform_filters_back(sums.reshape(PARTS, -1), sums[0], gw)
    return gw


@njit(**COMPILED)
def _transform_filters_back(sums, places, gw):
    """places are the first of the sums, to which the others are added."""
    for part in range(1, len(sums)):
        for i in range(sums.shape[1]):
            sums[0, i] += sums[part, i]
    half = gw.dtype.type(0.5)
    down = np.empty((3, 4), gw.dtype)
    for k in range(gw.shape[0]):
        for c in range(gw.shape[1]):
            for j in range(4):
                first, second = places[4 + j, c, k] * half, places[8 + j, c, k] * half
                down[0, j] = places[j, c, k] + first + second
                down[1, j] = first - second
                down[2, j] = first + second + places[12 + j, c, k]
            for i in range(3):
                first, second = down[i, 1] * half, down[i, 2] * half
                gw[k, c, i, 0] = down[i, 0] + first + second
                gw[k, c, i, 1] = first - second
                gw[k, c, i, 2] = first + second + down[i, 3]


def _transform(matrix, finish):
    """A function that transforms a tile, for all channels: matrix @ tile @ matrix.T.

    finish: "set" writes the result, "add" adds it to what is there, "start" adds a row of numbers.
    """

    @intrinsic
    def transform(
        typingctx, start, out, out_at, out_row, out_column, x, x_at, x_row, x_column, channels
    ):
        at = types.intp
        signature = types.void(start, out, at, at, at, x, at, at, at, at)

        def write(context, builder, signature, args):
            args = pointers(context, builder, signature, args)
            _write_transform(Vectors(builder, x.dtype), matrix, finish, args)
            return context.get_dummy_value()

        return signature, write

    return transform


def _write_transform(v, matrix, finish, args):
    start, out, out_at, out_row, out_column, x, x_at, x_row, x_column, channels = args
    n_in = range(matrix.shape[1])
    x, out = v.at(x, x_at), v.at(out, out_at)
    sources = [[v.at(x, v.place(x_row, i, x_column, j)) for i in n_in] for j in n_in]

    def one_vector(i, _):
        channel = v.times(i, v.lanes)
        down = [
            _combine(v, matrix, [v.load(v.at(source, channel)) for source in column])
            for column in sources
        ]
        along = [_combine(v, matrix, row) for row in zip(*down, strict=True)]
        for i, row in enumerate(along):
            for j, value in enumerate(row):
                to = v.at(v.at(out, v.place(out_row, i, out_column, j)), channel)
                if finish == "add":
                    value = v.plus(value, v.load(to))
                elif finish == "start":
                    value = v.plus(value, v.load(v.at(start, channel)))
                v.store(value, to)
        return []

    repeat(v.builder, v.divided(channels, v.lanes), [], one_vector)


def _combine(v, matrix, values):
    """matrix @ values for a matrix of 0, 1 and -1: sums and differences of vectors."""
    results = []
    for row in matrix:
        positive = [value for value, factor in zip(values, row, strict=True) if factor == 1]
        negative = [value for value, factor in zip(values, row, strict=True) if factor == -1]
        total = positive[0] if positive else v.zero()
        for value in positive[1:]:
            total = v.plus(total, value)
        for value in negative:
            total = v.minus(total, value)
        results.append(total)
    return results


_to_places = _transform(B.T, "set")  # 4 x 4 pixels of an image to 16 places
_to_outputs = _transform(A.T, "start")  # 16 places to 2 x 2 pixels of the result, with the bias
_from_outputs = _transform(A, "set")  # 2 x 2 pixels of the gradient to 16 places
_from_places = _transform(B, "add")  # 16 places to 4 x 4 pixels; tiles overlap, so they add up


# Images are taken some at a time, together, by parts of the batch, of which there are as many whatever
# the number of threads. A part has room of its own for what lies between the steps, and uses it for all
# its images: memory that the system has just handed out is slow when first touched.
PARTS = 8


@threaded
def forward(x, size, top, left, together, filters, start, y):
    """x (N, H', W', C), filters (16, P, C, COLUMNS), start (P * COLUMNS,) -> y (N, OH, OW, K).

    size: the height and width of the upper left part of x that is convolved.
    """
    for part in prange(PARTS):
        _forward(*_part(len(x), part), x, size, top, left, together, filters, start, y.reshape(-1),
                 y.shape)  # fmt: skip


@njit(**INNER)
def _forward(begin, end, x, size, top, left, together, filters, start, y, y_shape):
    """Images of x from `begin` to `end`, as many as are taken together, into y, flat."""
    _, oh, ow, n_filters = y_shape
    rows, columns = (oh + 1) // 2, (ow + 1) // 2
    places, results = _room(together * rows * columns, filters, x.shape[3])
    _, place, width = results.shape
    place *= width
    edge = np.empty(4 * n_filters, x.dtype)
    for first in range(begin, end, together):
        last = min(first + together, end)
        _at_places(x, size, first, last, top, left, rows, columns, 2, places)
        _products(places, filters, results)
        at = 0
        for i in range(first, last):
            for r in range(rows):
                for s in range(columns):
                    inside = 2 * r + 1 < oh and 2 * s + 1 < ow
                    to = ((i * oh + 2 * r) * ow + 2 * s) * n_filters
                    _to_outputs(
                        start, y if inside else edge, to if inside else 0,
                        (ow if inside else 2) * n_filters, n_filters,
                        results, at, 4 * place, place, n_filters,
                    )  # fmt: skip
                    at += width
                    if not inside:  # of the tile, only the first row or column exists
                        for a in range(min(2, oh - 2 * r)):
                            for b in range(min(2, ow - 2 * s) * n_filters):
                                y[to + a * ow * n_filters + b] = edge[a * 2 * n_filters + b]


@threaded
def gradient_x(g, top, left, together, filters, gx):
    """g (N, OH, OW, K), filters (16, P, K, COLUMNS) -> gx (N, H, W, C)."""
    for part in prange(PARTS):
        _gradient_x(*_part(len(g), part), g, top, left, together, filters, gx)


@njit(**INNER)
def _gradient_x(begin, end, g, top, left, together, filters, gx):
    """Images of g from `begin` to `end`, as many as are taken together, into gx."""
    _, height, width, channels = gx.shape
    rows, columns = (g.shape[1] + 1) // 2, (g.shape[2] + 1) // 2
    places, results = _room(together * rows * columns, filters, g.shape[3])
    _, place, depth = results.shape
    place *= depth
    # the canvas holds the tiles, and the image with its padding
    row = max(2 * columns + 2, left + width) * channels
    canvas = np.empty(max(2 * rows + 2, top + height) * row, g.dtype)
    for first in range(begin, end, together):
        last = min(first + together, end)
        _at_places(g, g.shape[1:3], first, last, 0, 0, rows, columns, 0, places)
        _products(places, filters, results)
        at = 0
        for i in range(first, last):
            _clear(canvas)
            for r in range(rows):
                for s in range(columns):
                    _from_places(
                        canvas, canvas, 2 * r * row + 2 * s * channels, row, channels,
                        results, at, 4 * place, place, channels,
                    )  # fmt: skip
                    at += depth
            for r in range(height):
                for s in range(width):
                    source = (top + r) * row + (left + s) * channels
                    _copy(canvas[source : source + channels], gx[i, r, s])


@threaded
def gradient_w(x, size, top, left, g, together, sums):
    """Adds up the parts of x (N, H', W', C), g (N, OH, OW, K) in sums (PARTS, 16, C', K').

    size: of x, as in forward. C' and K' are C and K, rounded up to whole tiles of the micro-kernel.
    """
    for part in prange(PARTS):
        _gradient_w(*_part(len(x), part), x, size, top, left, g, together, part, sums)


@njit(**INNER)
def _gradient_w(begin, end, x, size, top, left, g, together, part, sums):
    """Adds the images from `begin` to `end`, as many as are taken together, to one part of the sums."""
    rows, columns = (g.shape[1] + 1) // 2, (g.shape[2] + 1) // 2
    _, _, n_rows, n_columns = sums.shape
    _clear(sums[part].reshape(-1))
    n_tiles = together * rows * columns
    from_x = np.empty((PLACES, n_tiles, n_rows), x.dtype)
    from_g = np.empty((PLACES, n_tiles, n_columns), x.dtype)
    steps, one_run = np.arange(ROWS), np.zeros(1, np.int64)
    out_rows = steps * n_columns
    for first in range(begin, end, together):
        last = min(first + together, end)
        length = (last - first) * rows * columns
        _at_places(x, size, first, last, top, left, rows, columns, 2, from_x)
        _at_places(g, g.shape[1:3], first, last, 0, 0, rows, columns, 0, from_g)
        for place in range(PLACES):
            for row in range(0, n_rows, ROWS):
                for column in range(0, n_columns, TILE_BYTES // x.itemsize):
                    at = ((part * PLACES + place) * n_rows + row) * n_columns + column
                    tile_add(
                        sums, out_rows, at,
                        from_x, steps, place * n_tiles * n_rows + row, 0, one_run, 1, length, n_rows,
                        from_g, place * n_tiles * n_columns + column, n_columns,
                    )  # fmt: skip


@njit(**INNER)
def _part(n, part):
    """Where a part of n images begins and ends."""
    return part * n // PARTS, (part + 1) * n // PARTS


@njit(**INNER)
def _room(n_tiles, filters, depth):
    """Arrays for tiles at their places, and for the products with filters (16, P, C, COLUMNS)."""
    _, n_panels, _, width = filters.shape
    n_tiles = (n_tiles + ROWS - 1) // ROWS * ROWS  # whole tiles of the micro-kernel
    places = np.empty((PLACES, n_tiles, depth), filters.dtype)
    return places, np.empty((PLACES, n_tiles, n_panels * width), filters.dtype)


@njit(**INNER)
def _at_places(images, size, first, end, top, left, rows, columns, border, places):
    """Cuts images (N, H', W', C) into tiles and transforms them -> places (16, tiles, at least C).

    size: the height and width of the upper left part that is taken of each image.
    border: 2 for images, whose tiles are 4 x 4 pixels, of which neighbours share two; 0 for gradients,
    whose tiles are 2 x 2. What hangs over the edge is zero, and so is what `places` holds beyond.
    """
    (height, width), channels = size, images.shape[3]
    _, n_tiles, depth = places.shape
    row = (2 * columns + border) * channels
    canvas = np.empty((2 * rows + border) * row, images.dtype)
    _clear(canvas)
    to = 0
    for i in range(first, end):
        for r in range(height):
            for s in range(width):
                at = (top + r) * row + (left + s) * channels
                _copy(images[i, r, s], canvas[at : at + channels])
        for r in range(rows):
            for s in range(columns):
                at = 2 * r * row + 2 * s * channels
                if border:
                    _to_places(canvas, places, to, 4 * n_tiles * depth, n_tiles * depth,
                               canvas, at, row, channels, channels)  # fmt: skip
                else:
                    _from_outputs(canvas, places, to, 4 * n_tiles * depth, n_tiles * depth,
                                  canvas, at, row, channels, channels)  # fmt: skip
                to += depth
    for place in range(PLACES):
        for tile in range(n_tiles):
            _clear(places[place, tile, channels if tile * depth < to else 0 :])


@njit(**INNER)
def _products(places, filters, results):
    """places (16, T, C) @ filters (16, P, C, COLUMNS) -> results (16, T, P * COLUMNS)."""
    _, n_tiles, depth = places.shape
    _, n_panels, _, width = filters.shape
    steps, one_run = np.arange(ROWS), np.zeros(1, np.int64)
    rows, out_rows = steps * depth, steps * (n_panels * width)
    start = np.zeros(width, places.dtype)
    for place in range(PLACES):
        for panel in range(n_panels):
            for first in range(place * n_tiles, (place + 1) * n_tiles, ROWS):
                tile_from(
                    start, 0, results, out_rows, (first * n_panels + panel) * width,
                    places, rows, first * depth, 0, one_run, 1, depth, 1,
                    filters, (place * n_panels + panel) * depth * width, width,
                )  # fmt: skip


@njit(**INNER)
def _copy(x, y):
    for i in range(x.size):
        y[i] = x[i]


@njit(**INNER)
def _clear(x):
    for i in range(x.size):
        x[i] = 0
