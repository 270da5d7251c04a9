"""Small matrices applied to the rows and columns of a tile of pixels, for all channels at once.

matrix @ tile @ matrix.T, where each element of the tile is a vector of channels: the numbers of the
matrix are known while the kernel compiles, so it becomes a fixed list of vector instructions.
"""

from itertools import combinations

import numpy as np
from numba import types
from numba.extending import intrinsic

from ._vectors import Vectors, pointers, repeat


def transform(matrices, finish):
    """A function that transforms a tile: transform(tile, start, out, out_at, out_row, out_column,
    x, x_at, x_row, x_column, channels).

    matrices: {m: matrix}; m is the length of the tuple `tile`. The tile is read at x[x_at + i * x_row +
    j * x_column + (0 .. channels)], and the result written to out in the same way. Offsets count elements
    as they lie in memory; channels fill whole vectors. Nothing is checked.
    finish: "set" writes the result, "add" adds it to what is there, "start" adds start[0 .. channels].
    """

    @intrinsic
    def transform(
        typingctx, tile, start, out, out_at, out_row, out_column, x, x_at, x_row, x_column, channels
    ):
        at = types.intp
        signature = types.void(tile, start, out, at, at, at, x, at, at, at, at)

        def write(context, builder, signature, args):
            args = pointers(context, builder, signature, args)
            _write(Vectors(builder, x.dtype), matrices[len(tile)], finish, args[1:])
            return context.get_dummy_value()

        return signature, write

    return transform


def _write(v, matrix, finish, args):
    """Write the instructions: a loop over vectors of channels, of one tile each."""
    start, out, out_at, out_row, out_column, x, x_at, x_row, x_column, channels = args
    n_in = range(matrix.shape[1])
    x, out = v.at(x, x_at), v.at(out, out_at)
    sources = [[v.at(x, v.place(x_row, i, x_column, j)) for i in n_in] for j in n_in]

    def one_vector(i, _):
        channel = v.times(i, v.lanes)
        down = [
            combine(v, matrix, [v.load(v.at(source, channel)) for source in column])
            for column in sources
        ]
        along = [combine(v, matrix, row) for row in zip(*down, strict=True)]
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


def combine(v, matrix, values):
    """matrix @ values, vector by vector, with the work shared that rows or columns have in common.

    Columns, and rows, often differ in signs only, as polynomials at a point and at its opposite do. Of
    two such columns the values are added and subtracted once, for all rows; of two such rows the sum of
    the equal terms and that of the others are computed once, and added and subtracted.
    """
    matrix, values = np.array(matrix, float), list(values)
    for i, j in _alike(matrix.T):
        same = matrix[:, i] == matrix[:, j]
        values[i], values[j] = v.plus(values[i], values[j]), v.minus(values[i], values[j])
        matrix[:, j] = np.where(same, 0, matrix[:, i])
        matrix[:, i] = np.where(same, matrix[:, i], 0)
    results = [None] * len(matrix)
    for i, j in _alike(matrix):
        same = matrix[i] == matrix[j]
        equal, opposite = (_sum(v, np.where(w, matrix[i], 0), values) for w in (same, ~same))
        results[i], results[j] = v.plus(equal, opposite), v.minus(equal, opposite)
    return [
        _sum(v, row, values) if result is None else result
        for row, result in zip(matrix, results, strict=True)
    ]


def _alike(rows):
    """Pairs of rows, each in one pair at most, that differ in some signs, but not in all."""
    taken = set()
    for i, j in combinations(range(len(rows)), 2):
        differ = (rows[i] != rows[j]).sum()
        saves = 0 < differ < np.count_nonzero(rows[i])
        if saves and np.array_equal(abs(rows[i]), abs(rows[j])) and not {i, j} & taken:
            taken |= {i, j}
            yield i, j


def _sum(v, factors, values):
    """The sum of factors * values, those of factor 1 first."""
    terms = sorted(zip(factors, values, strict=True), key=lambda term: term[0] != 1)
    (factor, value), *rest = [term for term in terms if term[0]]
    total = value if factor == 1 else v.multiply(value, v.constant(factor))
    for factor, value in rest:
        if factor in (1, -1):
            total = v.plus(total, value) if factor == 1 else v.minus(total, value)
        else:
            total = v.multiply_add(value, v.constant(factor), total)
    return total
