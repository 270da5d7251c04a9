"""Convolution and pooling for any size, kernel, stride, padding, dilation and groups, by hypothesis.

The judge of values is NumPy's view of all sliding windows; gradients are held against adjointness:
for a linear map A, <A u, v> = <u, A' v>.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from test_properties import assert_same, leaf, numbers, on_each_backend, seeds

import tinygrad_zen as tz
from tinygrad_zen import ops

some = settings(max_examples=40)
pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def geometries(draw, least=0, dilated=True):
    """(size, kernel, stride, padding, dilation) of images, each (down, across), that fit together."""
    kernel, stride = draw(pairs), draw(pairs)
    dilation = draw(pairs) if dilated else (1, 1)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw(st.integers(0, min(r // 2, 2))) for r in reach)
    size = tuple(
        draw(st.integers(max(r - 2 * p, 1), r + 5)) for r, p in zip(reach, padding, strict=True)
    )
    return size, kernel, stride, padding, dilation


def windows(x, kernel, stride, padding, dilation, value=0.0):
    """All windows of padded images: (N, C, H, W) -> (N, C, OH, OW, KH, KW)."""
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=value)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    every = sliding_window_view(x, reach, axis=(2, 3))
    return every[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def assert_adjoint(f, x, y, v, at):
    """<f(u), v> = <u, gradient> along a random u, for f linear in the Tensor x; y = f(x) on its record."""
    (g,) = tz.grad(y, [x], v, retain_graph=True)
    u = numbers(x.shape, at)
    pushed = f(tz.tensor(u)).numpy()
    assert np.vdot(pushed, v) == pytest.approx(np.vdot(u, g.numpy()), rel=1e-9, abs=1e-9)


@on_each_backend
@some
@given(geometries(), st.integers(0, 2), pairs, st.integers(1, 2), seeds)
def test_conv2d_is_a_product_with_every_window(where, geometry, n, channels, groups, seed):
    size, kernel, stride, padding, dilation = geometry
    c, k = channels[0] * groups, channels[1] * groups
    a, filters = numbers((n, c, *size), seed), numbers((k, c // groups, *kernel), seed + 1)
    bias = numbers((k,), seed + 2)
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    with tz.using(where):
        x, w, b = leaf(a), leaf(filters), leaf(bias)
        y = ops.conv2d(x, w, b, **options)
        parts = np.split(windows(a, kernel, stride, padding, dilation), groups, axis=1)
        expected = [
            np.einsum("ncijkl,ockl->noij", part, f)
            for part, f in zip(parts, np.split(filters, groups), strict=True)
        ]
        assert_same(y, np.concatenate(expected, axis=1) + bias[:, None, None], 1e-11)
        v = numbers(y.shape, seed + 3)
        assert_adjoint(lambda u: ops.conv2d(u, filters, **options), x, y, v, seed + 4)
        assert_adjoint(lambda u: ops.conv2d(tz.tensor(a), u, **options), w, y, v, seed + 5)
        assert_same(tz.grad(y, [b], v)[0], v.sum(axis=(0, 2, 3)), 1e-11)


@on_each_backend
@some
@given(geometries(), pairs, st.integers(1, 2), st.data(), seeds)
def test_transposed_convolution_is_the_adjoint(where, geometry, channels, groups, data, seed):
    size, kernel, stride, padding, dilation = geometry
    c, k = channels[0] * groups, channels[1] * groups
    w = numbers((k, c // groups, *kernel), seed)
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    with tz.using(where):
        x = tz.tensor(numbers((2, c, *size), seed + 1))
        y = ops.conv2d(x, tz.tensor(w), **options)
        v = leaf(numbers(y.shape, seed + 2))
        # what conv2d left over at the end is the output_padding
        rest = tuple(
            (n + 2 * p - d * (m - 1) - 1) % s
            for n, p, d, m, s in zip(size, padding, dilation, kernel, stride, strict=True)
        )
        back = ops.conv_transpose2d(v, tz.tensor(w), output_padding=rest, **options)
        assert back.shape == x.shape
        assert np.vdot(y.numpy(), v.numpy()) == pytest.approx(
            np.vdot(x.numpy(), back.numpy()), rel=1e-9, abs=1e-9
        )
        # and the gradient of that is convolution again
        assert_same(tz.grad(back, [v], x.numpy())[0], y.numpy(), 1e-11)


@on_each_backend
@some
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(6, 12), seeds)
def test_convolution_follows_a_shift(where, kernel, stride, dilation, length, seed):
    """Without padding: what moves by a stride comes out one place further."""
    a, w = numbers((2, 3, length), seed), numbers((4, 3, kernel), seed + 1)
    assume(length - stride >= dilation * (kernel - 1) + 1)
    with tz.using(where):
        whole = ops.conv1d(tz.tensor(a), tz.tensor(w), stride=stride, dilation=dilation)
        moved = ops.conv1d(
            tz.tensor(a[..., stride:]), tz.tensor(w), stride=stride, dilation=dilation
        )
        assert_same(moved, whole.numpy()[..., 1:], 1e-11)


@on_each_backend
@some
@given(geometries(), seeds)
def test_max_pooling_takes_the_largest_of_every_window(where, geometry, seed):
    size, kernel, stride, padding, dilation = geometry
    a = numbers((2, 2, *size), seed)
    with tz.using(where):
        x = leaf(a)
        y = ops.max_pool2d(x, kernel_size=kernel, stride=stride, padding=padding, dilation=dilation)
        every = windows(a, kernel, stride, padding, dilation, -np.inf)
        assert_same(y, every.max(axis=(4, 5)))
        v = numbers(y.shape, seed + 1)
        (g,) = tz.grad(y, [x], v)
        winners = [(a == m) * p for m, p in zip(y.numpy().ravel(), v.ravel(), strict=True)]
        assert_same(g, np.sum(winners, axis=0), 1e-11)  # numbers that are drawn are all different


@on_each_backend
@some
@given(geometries(dilated=False), st.booleans(), seeds)
def test_average_pooling_takes_the_mean_of_every_window(where, geometry, counted, seed):
    size, kernel, stride, padding, _ = geometry
    a = numbers((2, 2, *size), seed)
    options = dict(kernel_size=kernel, stride=stride, padding=padding, count_include_pad=counted)
    with tz.using(where):
        x = leaf(a)
        assume(all(2 * p <= k for p, k in zip(padding, kernel, strict=True)))
        y = ops.avg_pool2d(x, **options)
        every = windows(a, kernel, stride, padding, (1, 1))
        inside = windows(np.ones_like(a), kernel, stride, padding, (1, 1)).sum(axis=(4, 5))
        count = np.prod(kernel) if counted else inside
        assert_same(y, every.sum(axis=(4, 5)) / count, 1e-11)
        v = numbers(y.shape, seed + 1)
        assert_adjoint(lambda u: ops.avg_pool2d(u, **options), x, y, v, seed + 2)


@on_each_backend
@some
@given(st.tuples(*[st.integers(1, 7)] * 2), st.data(), seeds)
def test_adaptive_pools_cover_the_image(where, size, data, seed):
    out = tuple(data.draw(st.integers(1, n)) for n in size)
    a = numbers((2, 2, *size), seed)

    def bounds(n, count):
        return [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]

    def of_each(fold):
        rows = [
            [fold(a[:, :, r:s, p:q], axis=(2, 3)) for p, q in bounds(size[1], out[1])]
            for r, s in bounds(size[0], out[0])
        ]
        return np.moveaxis(np.array(rows), (0, 1), (2, 3))

    with tz.using(where):
        x = leaf(a)
        assert_same(ops.adaptive_max_pool2d(x, output_size=out), of_each(np.max))
        y = ops.adaptive_avg_pool2d(x, output_size=out)
        assert_same(y, of_each(np.mean), 1e-11)
        v = numbers(y.shape, seed + 1)
        assert_adjoint(lambda u: ops.adaptive_avg_pool2d(u, output_size=out), x, y, v, seed + 2)


@on_each_backend
@some
@given(geometries(), seeds)
def test_memory_order_and_strides_change_nothing(where, geometry, seed):
    size, kernel, stride, padding, dilation = geometry
    options = dict(stride=stride, padding=padding, dilation=dilation)
    a, w = numbers((2, 3, *size), seed), numbers((2, 3, *kernel), seed + 1)
    big = np.zeros((2, 3, 2 * size[0], size[1]))
    big[:, :, ::2] = a
    last = a.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    with tz.using(where):
        results = []
        for same in (a, last, big[:, :, ::2], a[..., ::-1].copy()[..., ::-1]):
            x = leaf(same)
            y = ops.conv2d(x, w, **options)
            z = ops.max_pool2d(x, kernel_size=kernel, **options)
            g = tz.grad([y, z], [x], [numbers(y.shape, 1), numbers(z.shape, 2)])[0]
            results.append((y, z, g))
        for other in results[1:]:
            for one, first in zip(other, results[0], strict=True):
                assert_same(one, first.numpy(), 1e-11)
