"""The CPU's recurrent kernels: odd sizes, padding, direction, threads; against the reference in float64."""

import numpy as np
import pytest

pytest.importorskip("numba")

from tinygrad_zen.kernels import cpu, reference  # noqa: E402
from tinygrad_zen.kernels.cpu import _compiled  # noqa: E402
from tinygrad_zen.kernels.cpu._tile import ROWS, SHORT, tile_cover  # noqa: E402

# steps, batch, features, hidden: single ones, less than a tile, one more, whole tiles, several pieces
# and more steps than are collected at a time
SIZES = [(1, 1, 1, 1), (5, 3, 4, 3), (4, ROWS + SHORT + 1, 33, 65), (6, 32, 32, 64), (37, 45, 5, 6)]
KINDS = {"rnn": 1, "rnn relu": 1, "lstm": 4, "gru": 3}


def arguments(kind, steps, batch, features, size, dtype="float32"):
    """Inputs, states, weights and biases of a layer, and the gradient of its result."""
    rng = np.random.default_rng(0)
    rows, n_states = KINDS[kind] * size, 2 if kind == "lstm" else 1
    x = rng.standard_normal((batch, steps, features)).swapaxes(0, 1)  # as batch_first gives it
    shapes = [(batch, size)] * n_states + [(rows, features), (rows, size), (rows,), (rows,)]
    others = [rng.standard_normal(s) / (1 if s[0] == batch else size**0.5) for s in shapes]
    g = rng.standard_normal((steps + n_states, batch, size))
    return [a.astype(dtype) for a in (x, *others, g)]


def results(kernels, kind, arrays, lengths, reverse, biased=True):
    """The states and all gradients."""
    x, *states, w_ih, w_hh, b_ih, b_hh, g = arrays
    name, _, relu = kind.partition(" ")
    end = (lengths, reverse) + ((bool(relu),) if name == "rnn" else ())
    biases = (b_ih, b_hh) if name == "gru" else (b_ih,)
    biases = biases if biased else (None,) * len(biases)
    y, saved = getattr(kernels, name)(x, *states, w_ih, w_hh, *biases, *end)
    saved = (y, saved) if name == "rnn" else (saved,)
    return y, *getattr(kernels, f"{name}_grad")(g, x, w_ih, w_hh, *end, *saved)


def assert_close(got, expected, tolerance=3e-6):
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        assert a.shape == b.shape, f"result {i}"
        assert np.abs(a - b).max() <= tolerance * max(1, np.abs(b).max()), f"result {i}"


@pytest.mark.parametrize("threads", [False, True], ids=["", "threads"])
@pytest.mark.parametrize("reverse", [False, True], ids=["", "reverse"])
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_reference_in_float64(monkeypatch, kind, size, padded, reverse, threads):
    monkeypatch.setattr(_compiled, "PARALLEL_FROM", 0 if threads else 1 << 62)
    steps, batch = size[:2]
    lengths = np.random.default_rng(1).integers(0, steps + 1, batch) if padded else None
    arrays = arguments(kind, *size)
    got = results(cpu, kind, arrays, lengths, reverse)
    assert all(a.dtype == np.float32 for a in got)
    assert_close(
        got, results(reference, kind, [a.astype("float64") for a in arrays], lengths, reverse)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_without_biases_and_from_any_memory_order(kind):
    arrays = arguments(kind, 5, 9, 4, 7)
    expected = results(reference, kind, [a.astype("float64") for a in arrays], None, False, False)
    for change in (np.ascontiguousarray, np.asfortranarray, read_only):
        assert_close(results(cpu, kind, [change(a) for a in arrays], None, False, False), expected)


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_float64_and_nothing_go_to_the_reference(kind):
    arrays = arguments(kind, 5, 3, 4, 7, "float64")
    assert_close(
        results(cpu, kind, arrays, None, False), results(reference, kind, arrays, None, False), 0
    )
    empty = arguments(kind, 5, 0, 4, 7)
    assert results(cpu, kind, empty, None, False)[1].shape == (5, 0, 4)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_saturated_gates_stay_finite(kind):
    arrays = [100 * a for a in arguments(kind, 5, 3, 4, 7)]
    assert all(np.isfinite(a).all() for a in results(cpu, kind, arrays, None, False))


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_saved_stays_as_it_was(kind):
    """A graph that is kept may be walked again."""
    x, *states, w_ih, w_hh, b_ih, b_hh, g = arguments(kind, 5, 3, 4, 7)
    name, _, relu = kind.partition(" ")
    end = (None, False) + ((bool(relu),) if name == "rnn" else ())
    biases = (b_ih, b_hh) if name == "gru" else (b_ih,)
    y, saved = getattr(cpu, name)(x, *states, w_ih, w_hh, *biases, *end)
    saved = (y, saved) if name == "rnn" else (saved,)
    grad = getattr(cpu, f"{name}_grad")
    once, again = (grad(g, x, w_ih, w_hh, *end, *saved) for _ in range(2))
    for a, b in zip(once, again, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_threads(monkeypatch, kind):
    arrays = arguments(kind, 9, 70, 5, 6)
    both = []
    for steps in (0, 1 << 62):
        monkeypatch.setattr(_compiled, "PARALLEL_FROM", steps)
        both.append(results(cpu, kind, arrays, None, False))
    for a, b in zip(*both, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("n", [1, SHORT, ROWS, ROWS + 1, 32, 64, 100])
def test_tiles_cover_each_row_once(n):
    tiles, rows = tile_cover(n)
    assert [r for first, end, _ in tiles for r in range(first, end)] == list(range(n))
    last = tiles[-1]
    assert len(rows) == last[0] + (ROWS if last[2] else SHORT)
    assert len(rows) - n < SHORT


def test_weights_gradients_over_long_sequences_round_little():
    """One sum that went on over all 2,400 steps and sequences is off by 7e-7, sums of blocks by 8e-8."""
    arrays = arguments("lstm", 200, 12, 32, 64)
    arrays[0] = np.abs(arrays[0])  # what is added is of one sign, so that sums grow
    arrays[-1] = np.abs(arrays[-1])
    got = results(cpu, "lstm", arrays, None, False)[4]
    expected = results(reference, "lstm", [a.astype("float64") for a in arrays], None, False)[4]
    assert np.linalg.norm(got - expected) < 1.5e-7 * np.linalg.norm(expected)
