"""Winograd's tiles: the matrices, all sizes, the errors of both tiles, and the setting that chooses."""

import pickle

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tinygrad_zen as tz
from tinygrad_zen import nn
from tinygrad_zen.kernels import reference

pytest.importorskip("numba")

from tinygrad_zen.kernels.cpu import _winograd, conv  # noqa: E402
from tinygrad_zen.kernels.cpu._tile import ROWS, SHORT, tile_cover  # noqa: E402

RUNGS = {
    2: (conv.conv2d_winograd, conv.conv2d_grad_x_winograd, conv.conv2d_grad_w_winograd),
    4: (conv.conv2d_winograd_4x4, conv.conv2d_grad_x_winograd_4x4, conv.conv2d_grad_w_winograd_4x4),
}
each_tile = pytest.mark.parametrize("m", RUNGS)


def convolved(functions, x, w, b, g, padding):
    """A convolution and its gradients: (y, gx, gw)."""
    options = (1, 1), padding, (1, 1), 1
    conv2d, grad_x, grad_w = functions
    return (
        conv2d(x, w, b, *options),
        grad_x(g, w, x.shape, *options),
        grad_w(g, x, w.shape, *options),
    )


def errors(got, expected):
    """The largest error of each array, over the largest number that is expected."""
    return [abs(a - b).max() / abs(b).max() for a, b in zip(got, expected, strict=True)]


REFERENCE = reference.conv2d, reference.conv2d_grad_x, reference.conv2d_grad_w


def numbers(rng, n, channels, size, filters, padding):
    x, w = rng.standard_normal((n, channels, *size)), rng.standard_normal((filters, channels, 3, 3))
    out = [s + 2 * p - 2 for s, p in zip(size, padding, strict=True)]
    return x, w, rng.standard_normal(filters), rng.standard_normal((n, filters, *out))


@each_tile
def test_the_matrices_convolve(m):
    A, B, G = _winograd.A[m], _winograd.B[m], _winograd.G[m]
    rng = np.random.default_rng(0)
    pixels, taps = rng.standard_normal((m + 2, m + 2)), rng.standard_normal((3, 3))
    y = A.T @ ((G @ taps @ G.T) * (B.T @ pixels @ B)) @ A
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (3, 3))
    np.testing.assert_allclose(y, (windows * taps).sum(axis=(2, 3)), atol=1e-13)
    for matrix in (A, B):  # what is done to pixels is exact but for its sums
        np.testing.assert_array_equal(matrix, matrix.astype(np.float32))


@each_tile
@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 20),
    channels=st.sampled_from([16, 32, 48]),
    filters=st.sampled_from([16, 48, 64]),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    padding=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    order=st.sampled_from(["first", "last", "cut", "broadcast"]),
    seed=st.integers(0, 99),
)
def test_tiles_are_convolution_at_every_size(m, n, channels, filters, size, padding, order, seed):
    assume(min(s + 2 * p for s, p in zip(size, padding, strict=True)) >= 3)
    x, w, b, g = numbers(np.random.default_rng(seed), n, channels, size, filters, padding)
    if order in ("last", "cut"):
        x, g = (np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2) for a in (x, g))
    if order == "cut":  # out of larger images, with NaN all around
        whole = np.full((n, size[0] + 1, size[1] + 2, channels), np.nan)
        whole[:, : size[0], : size[1]] = x.transpose(0, 2, 3, 1)
        x = whole.transpose(0, 3, 1, 2)[:, :, : size[0], : size[1]]
    if order == "broadcast":
        x, g = (np.broadcast_to(a[:1, :, :1], a.shape) for a in (x, g))
    expected = convolved(REFERENCE, x, w, b, g, padding)
    assert max(errors(convolved(RUNGS[m], x, w, b, g, padding), expected)) < 1e-13


LAYERS = [(64, 32, 13, 64), (32, 32, 15, 64), (32, 64, 6, 64)]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_errors_are_those_that_are_told(layer):
    """2 x 2 is about as precise as adding up directly; 4 x 4 within what kernels.cpu.conv.winograd says."""
    n, channels, size, filters = layer
    rng = np.random.default_rng(0)
    x, w, b, g = numbers(rng, n, channels, (size, size), filters, (0, 0))
    inputs = [a.astype(np.float32) for a in (np.maximum(x, 0), w, 0 * b, g)]
    expected = convolved(REFERENCE, *(a.astype(np.float64) for a in inputs), (0, 0))
    direct = conv.conv2d_direct, conv.conv2d_grad_x_direct, conv.conv2d_grad_w_direct
    plain, small, large = (
        errors(convolved(functions, *inputs, (0, 0)), expected)
        for functions in (direct, RUNGS[2], RUNGS[4])
    )
    assert all(a < 1.5 * b for a, b in zip(small, plain, strict=True))
    assert max(small) < 1e-6 and max(large) < 2.5e-6


@pytest.mark.parametrize("n", range(1, 60))
def test_rows_are_covered_as_by_tile_cover(n):
    covered = _winograd._heights.py_func(n)
    rows = covered[0] * ROWS + covered[1] * SHORT
    assert rows == len(tile_cover(n)[1]) >= n


def test_a_backend_with_larger_tiles(monkeypatch):
    called = []
    names = [f"conv2d{part}_winograd_4x4" for part in ("", "_grad_x", "_grad_w")]
    for ladder in ("CONV2DS", "CONV2D_GRAD_XS", "CONV2D_GRAD_WS"):
        monkeypatch.setattr(conv, ladder, tuple(map(watched(called), getattr(conv, ladder))))
    large, none = (tz.backend("numba").replace(**conv.winograd(m)) for m in (4, 0))
    x, w, _, g = numbers(np.random.default_rng(0), 3, 16, (6, 6), 32, (0, 0))
    for be in (large, none):
        k = be.kernels
        convolved((k.conv2d, k.conv2d_grad_x, k.conv2d_grad_w), x, w, None, g, (0, 0))
    assert called == [*names, *(name.replace("winograd_4x4", "direct") for name in names)]
    called.clear()
    large.kernels.conv2d(x[:, :, :4, :4], w, None, (1, 1), (0, 0), (1, 1), 1)
    assert called == ["conv2d_winograd"]  # four outputs: the smaller tile has fewer multiplications
    with pytest.raises(ValueError, match=r"winograd: tiles are 4 \(x 4\), 2 \(x 2\) or 0 .* got 3"):
        conv.winograd(3)


def watched(called):
    """A decorator: the call of a kernel leaves its name."""

    def decorate(kernel):
        def run(*args):
            called.append(kernel.__name__)
            return kernel(*args)

        return run

    return decorate


def test_the_setting_is_part_of_a_backend_s_name():
    be = tz.backend("numba[winograd=4]")
    assert be is tz.backend("numba[winograd=4]") and be.name == "numba[winograd=4]"
    assert be.kernels.conv2d is not tz.backend("numba").kernels.conv2d
    with tz.using("numba[winograd=4]"):
        layer = nn.Conv2d(16, 16, 3)
        x = tz.tensor(np.random.default_rng(0).standard_normal((2, 16, 8, 8)), requires_grad=True)
        layer(x).sum().backward()
    assert x.grad.backend is be and pickle.loads(pickle.dumps(x.detach())).backend is be
    y = layer.to("numpy")(tz.tensor(x.numpy(), backend="numpy")).numpy()
    np.testing.assert_allclose(layer.to(be)(x).numpy(), y, atol=1e-5)
    with pytest.raises(
        ValueError, match=r"unknown backend 'numba\[winograd=3\]': choose from numpy"
    ):
        tz.backend("numba[winograd=3]")
