"""The CUDA kernels on a card: the only tests that need one."""

import itertools

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("cupy", reason="needs CuPy and a CUDA device")

import cupy
from cuda_calls import calls

from tinygrad_zen.kernels import cuda


def no_device():
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as e:
        return f"no CUDA device or driver ({e})"


pytestmark = pytest.mark.skipif(no_device() is not None, reason=str(no_device()))

TOLERANCE = {"float64": 1e-10, "float32": 5e-5}

# one test a call, so that they can be spread over processes: compiling is what takes the time
CALLS = [] if no_device() else [call[1].__name__ for call in calls("float32")]
every_call = pytest.mark.parametrize(
    "number", range(len(CALLS)), ids=[f"{i}-{name}" for i, name in enumerate(CALLS)]
)


def call(dtype, number):
    return next(itertools.islice(calls(dtype), number, None))


def moved(argument, to):
    if isinstance(argument, tuple):
        return tuple(moved(a, to) for a in argument)
    return to(argument) if hasattr(argument, "strides") else argument


def on_card(a):
    """A copy on the card in the same order of memory: asarray keeps only the plain orders."""
    order = sorted(range(a.ndim), key=lambda axis: -a.strides[axis])
    return cupy.asarray(a.transpose(order)).transpose(np.argsort(order))


def arrays(results):
    """All arrays in nested tuples."""
    if isinstance(results, tuple | list):
        return [a for r in results for a in arrays(r)]
    return [results] if hasattr(results, "strides") else []


@every_call
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_kernel_equals_the_reference(dtype, number):
    expected, function, *arguments = call(dtype, number)
    given = [moved(a, on_card) for a in arguments]
    ours = function(*given)
    copies = [moved(a, np.copy) for a in arguments]
    theirs = expected(*copies)
    # what was changed in place counts as a result
    pairs = zip(arrays((ours, tuple(given))), arrays((theirs, tuple(copies))), strict=True)
    for a, b in pairs:
        assert a.shape == b.shape and a.dtype == b.dtype
        size = np.abs(b).max(initial=1)
        tolerance = TOLERANCE[dtype]
        np.testing.assert_allclose(a.get(), b, rtol=tolerance, atol=tolerance * size)


@every_call
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_sums_are_the_same_bits_every_time(dtype, number):
    _, function, *arguments = call(dtype, number)
    if "atomic" in function.__name__:
        pytest.skip("atomic additions come in any order: this rung is there to show it")
    runs = [function(*(moved(a, on_card) for a in arguments)) for _ in range(2)]
    for a, b in zip(*map(arrays, runs), strict=True):
        assert (a == b).all()


def test_kernels_run_in_the_order_of_the_current_stream():
    x = cupy.random.default_rng(0).standard_normal((2048, 2048), dtype="float32")
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        y = x
        for _ in range(5):  # each result is made by the library and used by a kernel, and back
            y = cuda.matmul(y + 0.0, x) * cupy.float32(0.02)
        stream.synchronize()
    expected = x
    for _ in range(5):
        expected = cupy.matmul(expected, x) * cupy.float32(0.02)
    cupy.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3 * float(abs(expected).max()))


def test_arrays_that_begin_between_16_byte_addresses():
    flat = cupy.arange(8 * 8 + 1, dtype="float32")
    x = flat[1:].reshape(8, 8)
    cupy.testing.assert_allclose(cuda.matmul(x, x), x @ x, rtol=1e-5)
    w, g, m, v = (cupy.ones(9, "float32")[1:] for _ in range(4))
    cuda.adam_(w, g, m, v, None, 1, 0.1, 0.9, 0.99, 1e-8, 0.0, False)
    assert w.size == 8 and (w != 1).all()
