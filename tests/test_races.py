"""The race checker: it finds every planted fault, and none in our kernels as they would run on a card."""

import os

import numpy as np
import pytest

pytest.importorskip("numba")
if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    pytest.skip("checks the kernels in their form for the card", allow_module_level=True)

from numba import cuda as numba_cuda

from tinygrad_zen.check.races import races
from tinygrad_zen.kernels import cuda as kernels
from tinygrad_zen.kernels.cuda import _device
from tinygrad_zen.kernels.cuda.activation import SOFTMAX_GRADS, SOFTMAXES
from tinygrad_zen.kernels.cuda.conv import CONV_GRAD_WS, CONV_GRAD_XS, CONVS
from tinygrad_zen.kernels.cuda.embedding import EMBEDDING_GRADS
from tinygrad_zen.kernels.cuda.linear import MATMULS
from tinygrad_zen.kernels.cuda.loss import CROSS_ENTROPIES

cuda = numba_cuda  # the name that kernels use; the checker puts its own in its place
SIDE = 4

# --- planted faults ------------------------------------------------------------------------------------


def tiled(before_reading, after_reading):
    """A tiled product of matrices, with or without its two barriers."""

    def kernel(x, y, out):
        xs = cuda.shared.array((SIDE, SIDE), x.dtype)
        ys = cuda.shared.array((SIDE, SIDE), y.dtype)
        tx, ty = cuda.threadIdx.x, cuda.threadIdx.y
        j, i = cuda.grid(2)
        acc = x.dtype.type(0)
        for k in range(0, x.shape[1], SIDE):
            xs[ty, tx] = x[i, k + tx]
            ys[ty, tx] = y[k + ty, j]
            if before_reading:
                cuda.syncthreads()
            for l in range(SIDE):
                acc += xs[ty, l] * ys[l, tx]
            if after_reading:
                cuda.syncthreads()
        out[i, j] = acc

    return kernel


def product(kernel):
    x = np.arange(64, dtype="float32").reshape(8, 8)
    return races(kernel, (2, 2), (SIDE, SIDE), x, x, np.zeros((8, 8), "float32"))


def test_a_right_kernel_is_clean_and_leaves_its_arguments_alone():
    x, out = np.ones((8, 8)), np.full((8, 8), 7.0)
    assert races(tiled(True, True), (2, 2), (SIDE, SIDE), x, x, out) == []
    assert (out == 7).all() and (x == 1).all()


@pytest.mark.parametrize("barriers", [(False, True), (True, False), (False, False)])
def test_a_missing_barrier_is_found_every_time(barriers):
    for _ in range(3):
        found = product(tiled(*barriers))
        assert {f.kind for f in found} == {"race"}
        assert {f.where[:22] for f in found} == {"for shared array of li"}
        for f in found:
            assert {f.first.deed, f.second.deed} == {"reads", "writes"}
            lines = {str(a).split(": ", 1)[1] for a in (f.first, f.second)}
            assert "acc += xs[ty, l] * ys[l, tx]" in lines and len(lines) == 2


def test_a_last_tile_needs_no_barrier_behind_it():
    x = np.ones((4, 4), "float32")
    assert races(tiled(True, False), 1, (SIDE, SIDE), x, x, np.zeros((4, 4), "float32")) == []


def test_two_threads_writing_one_output():
    def kernel(x, out):
        out[cuda.grid(1) // 2] = x[cuda.grid(1)]

    (found,) = races(kernel, 2, 4, np.ones(8), np.zeros(4))
    assert found.where == "for out[0]"
    assert found.first.deed == found.second.deed == "writes"
    assert {found.first.thread, found.second.thread} == {(0, 0, 0), (1, 0, 0)}
    assert "out[cuda.grid(1) // 2] = x[cuda.grid(1)]" in str(found)


def test_blocks_are_never_ordered():
    def kernel(x, out):
        if cuda.blockIdx.x == 0:
            out[0] = x[0]
        cuda.syncthreads()
        if cuda.blockIdx.x == 1:
            x[1] = out[0]

    (found,) = races(kernel, 2, 1, np.ones(2), np.zeros(1))
    assert {found.first.block, found.second.block} == {(0, 0, 0), (1, 0, 0)}


def test_atomics_race_with_everything_but_atomics():
    def histogram(x, out):
        cuda.atomic.add(out, x[cuda.grid(1)], 1)

    x = np.array([0, 1, 1, 0])
    assert races(histogram, 2, 2, x, np.zeros(2, int)) == []

    def careless(x, out):
        i = cuda.grid(1)
        cuda.atomic.add(out, x[i], 1)
        if i == 0:
            out[1] += 1

    found = races(careless, 2, 2, x, np.zeros(2, int))
    assert {"changes atomically"} < {a.deed for f in found for a in (f.first, f.second)}


def test_a_barrier_that_some_never_reach():
    def leaves_early(x):
        t = cuda.threadIdx.x
        if t >= x.size:
            return
        x[t] = t
        cuda.syncthreads()

    (found,) = races(leaves_early, 1, 4, np.zeros(3))
    assert found.kind == "barrier" and "has ended" in str(found)


def test_a_barrier_in_two_branches():
    def kernel(x):
        if cuda.threadIdx.x < 2:
            cuda.syncthreads()
        else:
            x[0] = 1
            cuda.syncthreads()

    found = races(kernel, 1, 3, np.zeros(1))
    assert [f.kind for f in found] == ["barrier"]
    assert found[0].first.line != found[0].second.line


def test_a_race_that_only_one_order_shows():
    def kernel(x, out):
        t = cuda.threadIdx.x
        if x[0] == 0:  # so only if thread 0 has not yet been there
            out[t] = 1
        if t == 0:
            x[0] = 1

    found = races(kernel, 1, 3, np.zeros(1), np.zeros(3))
    assert [f.where for f in found] == ["for x[0]"]


def test_warps_are_together_at_shuffles_and_syncwarp():
    def neighbours(x, out):
        shared = cuda.shared.array(64, x.dtype)
        t = cuda.threadIdx.x
        shared[t] = x[t]
        cuda.syncwarp()
        out[t] = shared[t ^ 1] + cuda.shfl_xor_sync(0xFFFFFFFF, x[t], 2)

    x = np.arange(64.0)
    assert races(neighbours, 1, 64, x, np.zeros(64)) == []

    def across_warps(x, out):
        shared = cuda.shared.array(64, x.dtype)
        t = cuda.threadIdx.x
        shared[t] = x[t]
        cuda.syncwarp()
        out[t] = shared[63 - t]

    assert len(races(across_warps, 1, 64, x, np.zeros(64))) == 1


def test_an_error_names_the_thread():
    def kernel(x):
        x[cuda.grid(1)] = 1

    with pytest.raises(
        RuntimeError, match=r"thread \(2, 0, 0\) of block \(0, 0, 0\) failed"
    ) as info:
        races(kernel, 1, 3, np.zeros(2))
    assert isinstance(info.value.__cause__, IndexError)


# --- our kernels -----------------------------------------------------------------------------------------


def calls():
    """Kernel functions on shapes as small as reach the edges of their tiles."""
    rng = np.random.default_rng(0)

    def a(*shape):
        return rng.normal(size=shape).astype("float32")

    one = (1, 1)
    yield from ((matmul, a(18, 17), a(17, 3)) for matmul in MATMULS)
    yield MATMULS[-1], a(4, 20), a(20, 8)
    x, w, y, options = a(1, 4, 3, 3), a(4, 4, 2, 2), a(1, 4, 4, 4), (one, one, one, 1)
    yield from ((conv2d, x, w, a(4), *options) for conv2d in CONVS)
    yield from ((grad, y, w, x.shape, *options) for grad in CONV_GRAD_XS)
    yield from ((grad, y, x, w.shape, *options) for grad in CONV_GRAD_WS)
    windows = (2, 2), one, (0, 0), one
    yield kernels.max_pool2d_grad, a(1, 4, 2, 2), np.zeros((1, 4, 2, 2), "uint8"), x.shape, *windows
    rows, labels = a(1, 40), np.array([3])
    yield from ((softmax, rows) for softmax in SOFTMAXES)
    yield from ((grad, rows, rows) for grad in SOFTMAX_GRADS)
    yield from ((loss, rows, labels, None, 0.1) for loss in CROSS_ENTROPIES)
    yield kernels.batch_norm, a(19, 3), a(3), a(3), 1e-5, None
    yield kernels.batch_norm_grad, a(19, 3), a(19, 3), a(3), a(3), a(3)
    yield kernels.layer_norm, a(1, 20), a(20), a(20), 1e-5
    yield kernels.layer_norm_grad, a(1, 20), a(1, 20), a(20), a(1, 1), a(1, 1)
    yield from ((grad, a(4, 3), np.array([1, 0, 1, 1]), (2, 3)) for grad in EMBEDDING_GRADS)
    weights = [np.abs(a(9)) for _ in range(4)]
    yield kernels.adam_, *weights, None, 1, 0.1, 0.9, 0.9, 1e-8, 0.0, False


# without shared memory only writes can race: a few such kernels, each of its kind
GATHERS = {"grad_w_direct", "to_winners", "add", "add_runs", "four_at_a_time"}


def launches():
    """{name: (kernel, grid, block, arguments)} of the launches that the calls lead to."""
    found = {}

    def catch(kernel, grid, block, args):
        name = kernel.py_func.__name__.strip("_")
        if name not in GATHERS and "shared" not in kernel.py_func.__code__.co_names:
            return
        number = sum(key.split("-")[0] == name for key in found)
        found[f"{name}-{number}" if number else name] = kernel, grid, block, args

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_device, "enqueue", catch)
        patch.setattr(np, "empty", np.zeros)  # results that a later kernel of a function reads
        for function, *arguments in calls():
            function(*arguments)
    return found


LAUNCHES = launches()


@pytest.mark.parametrize("name", LAUNCHES)
@pytest.mark.filterwarnings(
    "ignore::RuntimeWarning"
)  # caught launches left their results unwritten
def test_kernel_has_no_races(name):
    kernel, grid, block, arguments = LAUNCHES[name]
    found = races(kernel, grid, block, *arguments)
    assert not found, "\n".join(map(str, found))
