"""Steps captured as CUDA graphs, on a card."""

import gc
import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")
pytest.importorskip("cupy", reason="needs CuPy and a CUDA device")

import cupy
from graph_cases import CASES, batches, both, small, step_of

import tinygrad_zen as tz
from tinygrad_zen import nn, optim

NETWORKS = Path(__file__).parents[2] / "benchmarks" / "networks.py"
spec = importlib.util.spec_from_file_location("networks", NETWORKS)
networks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(networks)


def no_device():
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as e:
        return f"no CUDA device or driver ({e})"


pytestmark = pytest.mark.skipif(no_device() is not None, reason=str(no_device()))


@pytest.fixture(params=["cuda", "cupy"])
def backend(request):
    tz.seed(0)
    with tz.using(request.param) as backend:
        yield backend


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_every_network_trains_to_the_same_bits(backend, name):
    if (name, backend.name) == ("lstm", "cupy"):
        pytest.skip("its gradients for words are atomic additions: see the test of those")
    network = networks.find(name)
    weights = networks.weights(network)
    rng = np.random.default_rng(1)
    x, y = networks.batch(network)

    def build():
        step = networks.train_step(network, weights)
        cells = dict(zip(step.__code__.co_freevars, step.__closure__, strict=True))
        return step, cells["net"].cell_contents

    orders = [rng.permutation(len(x)) for _ in range(7)]
    both(build, [(tz.tensor(x[o]), tz.tensor(y[o])) for o in orders])


def test_the_engine_without_a_graph_is_as_near_as_rounding(backend):
    build, data = small(), batches(8)
    tz.seed(0)
    step, net = build()
    engine = [float(step(*b)) for b in data]
    tz.seed(0)
    step, net = build()
    step = tz.capture(step)
    np.testing.assert_allclose([float(step(*b)) for b in data], engine, rtol=1e-5)


@pytest.mark.parametrize(
    "optimizer", [optim.SGD, optim.AdamW, optim.RMSprop, optim.Adagrad], ids=lambda o: o.__name__
)
def test_every_optimizer(backend, optimizer):
    both(small(optimizer=optimizer), batches(6))


def test_words_whose_gradients_are_atomic_additions(backend):
    """On cupy the engine does not repeat its bits: the comparison with it is to a tolerance."""
    rng = np.random.default_rng(0)
    net = nn.Sequential(nn.Embedding(3, 32), nn.Flatten(), nn.Linear(32 * 50, 5))
    step = tz.capture(step_of(net, optim.SGD(net.parameters(), lr=0.1)))
    for _ in range(6):
        loss = step(tz.tensor(rng.integers(0, 3, (64, 50))), tz.tensor(rng.integers(0, 5, 64)))
    assert np.isfinite(float(loss)) and step.calls > 1


def test_another_stream(backend):
    expected = both(small(), batches(7))
    with cupy.cuda.Stream(non_blocking=True):
        assert both(small(), batches(7)).left() == expected.left()


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (lambda loss: loss.item(), "item"),
        (lambda loss: float(loss) > 1, "float"),
        (lambda loss: loss.numpy(), "the card"),
        (lambda loss: 1 if loss > 1 else 0, "truth"),
        (lambda loss: cupy.ones((8, 8), "float16") @ cupy.ones((8, 8), "float16"), "cuBLAS"),
        (lambda loss: cupy.arange(3)[[0, 2]], "from the host"),
    ],
)
def test_looks_and_copies_are_refused_and_leave_nothing(backend, look, words):
    step, net = small()()

    def looking(x, y):
        loss = step(x, y)
        look(loss)
        return loss

    run, data = tz.capture(looking), batches(4)
    run(*data[0])
    before = {n: np.array(w) for n, w in net.state_dict().items()}
    with pytest.raises(RuntimeError, match=words):
        run(*data[1])
    after = {n: np.array(w) for n, w in net.state_dict().items()}
    assert all((before[n] == after[n]).all() for n in before)
    step(*data[1])  # the process lives, the engine goes on
    assert np.isfinite(net.state_dict()["0.weight"]).all()


def test_graphs_go_with_the_step(backend):
    pool, data = cupy.get_default_memory_pool(), batches(4)
    free = []
    for _ in range(3):
        step, net = small()()
        run = tz.capture(step)
        for b in data:
            run(*b)
        del run, step, net
        gc.collect()
        pool.free_all_blocks()
        free.append(cupy.cuda.runtime.memGetInfo()[0])
    assert free[-1] >= free[0] - (8 << 20)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_case(backend, case):
    case(backend)
