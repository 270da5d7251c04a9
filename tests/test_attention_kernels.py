"""The CPU's attention kernels: odd sizes, masks, memory orders, threads; against the reference in float64."""

import numpy as np
import pytest

pytest.importorskip("numba")

from tinygrad_zen.kernels import cpu, reference  # noqa: E402
from tinygrad_zen.kernels.cpu import _compiled  # noqa: E402

# leading axes, queries, keys, features, values: single ones, more than a block, not whole tiles, whole
SIZES = [
    ((), 1, 1, 1, 1),
    ((3,), 5, 7, 4, 6),
    ((2, 3), 150, 33, 32, 32),
    ((2, 2), 7, 130, 33, 65),
    ((1, 2, 3), 20, 20, 8, 8),
]
MASKS = {
    "none": lambda rng, lead, n, s: None,
    "whole": lambda rng, lead, n, s: rng.standard_normal((*lead, n, s), np.float32),
    "keys": lambda rng, lead, n, s: rng.standard_normal(s, np.float32),
    "bools": lambda rng, lead, n, s: rng.random((n, s)) < 0.6,
    "queries": lambda rng, lead, n, s: rng.random((n, 1)) < 0.7,
}


def arguments(lead, n, s, e, v, mask="none", dropped=False):
    """g, q, k, v, mask, keep."""
    rng = np.random.default_rng(0)
    shapes = ((n, v), (n, e), (s, e), (s, v))
    arrays = [rng.standard_normal((*lead, *shape), np.float32) for shape in shapes]
    keep = None
    if dropped:
        keep = (rng.random((*lead, n, s)) < 0.7).astype(np.float32) / np.float32(0.7)
    return [*arrays, MASKS[mask](rng, lead, n, s), keep]


def side_by_side(x):
    """The same numbers, with what belongs to one query of all heads together in memory."""
    return np.ascontiguousarray(x.swapaxes(-2, -3)).swapaxes(-2, -3) if x.ndim > 2 else x


def results(kernels, args, causal):
    g, q, k, v, mask, keep = args
    options = mask, keep, causal, 0.6
    y, weights = kernels.attention(q, k, v, *options)
    return y, weights, *kernels.attention_grad(g, q, k, v, *options, weights)


def assert_close(args, causal, tolerance=3e-6):
    exact = [a.astype(np.float64) if a is not None and a.dtype.kind == "f" else a for a in args]
    together = zip(results(cpu, args, causal), results(reference, exact, causal), strict=True)
    for i, (got, expected) in enumerate(together):
        assert got.shape == expected.shape and got.dtype == np.float32, f"result {i}"
        error = np.abs(got - expected).max() / max(1, np.abs(expected).max())
        assert error <= tolerance, f"result {i}"


@pytest.fixture(params=[False, True], ids=["", "threads"], autouse=True)
def threads(request, monkeypatch):
    monkeypatch.setattr(_compiled, "PARALLEL_FROM", 0 if request.param else 1 << 62)


@pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
@pytest.mark.parametrize("dropped", [False, True], ids=["", "dropped"])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_the_reference_in_float64(size, mask, dropped, causal):
    assert_close(arguments(*size, mask, dropped), causal)


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_in_any_memory_order(size):
    args = arguments(*size, "keys")
    for change in (side_by_side, np.asfortranarray, read_only, backwards):
        assert_close([a if a is None else change(a) for a in args], False)
    expanded = [np.broadcast_to(a[..., :1, :], a.shape) for a in args[:4]]
    assert_close([*expanded, *args[4:]], False, 1e-5)  # equal keys: what is left is rounding


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def backwards(x):
    return x[..., ::-1].copy()[..., ::-1]


def test_heads_side_by_side_stay_so():
    g, q, k, v = (side_by_side(a) for a in arguments((2, 3), 9, 9, 4, 4)[:4])
    y, weights = cpu.attention(q, k, v, None, None, False, 0.5)
    grads = cpu.attention_grad(g, q, k, v, None, None, False, 0.5, weights)
    assert all(a.swapaxes(1, 2).flags.c_contiguous for a in (y, *grads))


def test_queries_that_see_nothing_get_nothing():
    g, q, k, v, _, _ = arguments((2,), 6, 6, 4, 4)
    mask = np.ones((6, 6), bool)
    mask[2] = False
    y, weights = cpu.attention(q, k, v, mask, None, False, 0.5)
    assert not y[:, 2].any() and not weights[:, 2].any()
    gq, gk, gv = cpu.attention_grad(g, q, k, v, mask, None, False, 0.5, weights)
    assert not gq[:, 2].any() and np.isfinite(gk).all() and np.isfinite(gv).all()


def test_nan_is_not_lost():
    _, q, k, v, _, _ = arguments((2,), 6, 6, 4, 4)
    q[0, 1, 2] = np.nan
    y, _ = cpu.attention(q, k, v, None, None, False, 0.5)
    assert np.isnan(y[0, 1]).all() and np.isfinite(y[1]).all()
