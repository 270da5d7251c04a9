"""Backends side by side: the same training, moving between them, kernels of one's own, and what is said
where one cannot be used."""

import functools
import itertools
import json
import os
import subprocess
import sys
import types
import warnings

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import nn, optim
from tinygrad_zen.nn import functional as F
from tinygrad_zen.ops import matmul

backend_module = sys.modules["tinygrad_zen.backend"]  # tz.backend is its function
NEEDS_NUMBA = pytest.mark.skipif(tz.backends()["numba"] != "usable", reason="needs Numba")


def digits_training(batch=2):
    """A network for handwritten digits, its optimizer, and a function that makes a step; -> its loss."""
    tz.seed(0)
    (x, y), _ = tz.data.digits()
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    optimizer = optim.Adam(net.parameters(), lr=3e-3)
    batches = itertools.cycle(range(0, 5 * batch, batch))

    def step():
        i = next(batches)
        place = next(iter(net.parameters())).backend
        optimizer.zero_grad()
        loss = F.cross_entropy(net(tz.tensor(x[i : i + batch], backend=place)), y[i : i + batch])
        loss.backward()
        optimizer.step()
        return loss.item()

    return net, optimizer, step


def losses(backend):
    with tz.using(backend):
        step = digits_training()[2]
        return [step() for _ in range(20)]


# the same training on all of them


@NEEDS_NUMBA
def test_twenty_steps_on_numpy_numba_and_the_simulator():
    expected = losses("numpy")
    assert expected[-1] < 0.6 * expected[0] and len(expected) == 20
    np.testing.assert_allclose(losses("numba"), expected, rtol=0, atol=1e-5)
    # the simulator is switched on before Numba is first imported: hence a process of its own
    program = "import json, test_backends as t; print(json.dumps(t.losses('cudasim')))"
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=os.path.dirname(__file__),
        env=os.environ | {"NUMBA_ENABLE_CUDASIM": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    np.testing.assert_allclose(json.loads(run.stdout), expected, rtol=0, atol=1e-5)


def test_the_digits_recipe_learns_alike(backend):
    """Batch norm, dropout and two convolutions as well; twenty steps of 32 images.

    Not to 1e-5: the gradient of a bias before batch norm is nothing but rounding, and Adam makes steps
    of full size from it.
    """
    from tinygrad_zen.recipes import digits

    def train(place):
        with tz.using(place):
            tz.seed(0)
            (x, y), _ = tz.data.digits()
            net = digits.network()
            optimizer = optim.Adam(net.parameters())
            for i in range(0, 20 * 32, 32):
                optimizer.zero_grad()
                loss = F.cross_entropy(net(tz.tensor(x[i : i + 32])), y[i : i + 32])
                loss.backward()
                optimizer.step()
                yield loss.item()

    np.testing.assert_allclose(list(train(backend)), list(train("numpy")), rtol=0, atol=2e-4)


# from one to another in the middle of a training


def copies(net, optimizer):
    """Weights and the optimizer's state as NumPy arrays, and the numbers of steps."""
    state = optimizer.state_dict()["state"].values()
    arrays = [p.numpy().copy() for p in net.parameters()]
    arrays += [kept[name] for kept in state for name in ("exp_avg", "exp_avg_sq")]
    return arrays, [kept["step"] for kept in state]


@NEEDS_NUMBA
def test_a_model_that_moves_in_the_middle_goes_on():
    """numpy -> numba -> numpy: the move changes no bit, and the losses are those of staying."""
    expected = losses("numpy")
    net, optimizer, step = digits_training()
    net.to("numpy")
    found = []
    for place, steps in ("numpy", 7), ("numba", 7), ("numpy", 6):
        before, counts = copies(net, optimizer)
        net.to(place)
        after, counts_after = copies(net, optimizer)
        assert counts_after == counts and all(c == len(found) for c in counts)
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)
        found += [step() for _ in range(steps)]
        assert all(p.backend.name == p.grad.backend.name == place for p in net.parameters())
    assert found[:8] == pytest.approx(expected[:8], abs=0, rel=1e-6)
    assert found[:7] == expected[:7]  # the same bits, as nothing has moved yet
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_moving_without_a_change_of_kernels_is_bit_for_bit():
    """To a backend with the same functions under another name and back: as if nothing happened."""
    plain = tz.backend("numpy")
    twin = plain.replace(relu=lambda x: plain.kernels.relu(x))
    expected = losses("numpy")
    net, _, step = digits_training()
    net.to("numpy")
    found = []
    for place in (plain, twin, plain, twin):
        net.to(place)
        found += [step() for _ in range(5)]
    assert found == expected


# a kernel of one's own


def my_matmul(x, y):
    return np.einsum("...ij,...jk->...ik", x, y)


def my_matmul_transposed(x, y):
    return np.einsum("...ij,...kj->...ik", x, y)


def draw(*shape, backend, seed=0):
    a = np.random.default_rng(seed).normal(size=shape)
    return tz.tensor(a, requires_grad=True, dtype="float64", backend=backend)


def test_a_kernel_of_ones_own_is_proved_and_trained_on(backend):
    mine = backend.replace(matmul=my_matmul)
    x, y = draw(3, 3, backend=mine), draw(3, 3, backend=mine, seed=1)
    assert tz.check.gradcheck(lambda x, y: x @ y, x, y, order=2) < 1e-6
    difference = tz.check.parity(matmul, [x, y], [mine])[mine.name]
    assert max(difference) < 1e-12
    net = nn.Linear(4, 1).to(mine)
    optimizer = optim.Adam(net.parameters(), lr=0.05)
    inputs = draw(16, 4, backend=mine).detach().to("float32")
    target = tz.tensor(inputs.numpy() @ np.array([[1], [2], [0], [-1]], "float32"), backend=mine)
    first = None
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.mse_loss(net(inputs), target)
        loss.backward()
        optimizer.step()
        first = first or loss.item()
    assert loss.item() < first / 4 and net.weight.backend is mine


def test_a_wrong_kernel_of_ones_own_is_found(backend):
    wrong = backend.replace(matmul=my_matmul_transposed)
    x, y = draw(3, 3, backend=wrong), draw(3, 3, backend=wrong, seed=1)
    with pytest.raises(tz.check.ParityError, match=r"matmul on \w+\[matmul=my_matmul_transposed\]"):
        tz.check.parity(matmul, [x, y], [wrong])
    with pytest.raises(tz.check.GradientError):
        tz.check.gradcheck(lambda x, y: x @ y, x, y)


# which one is the default


def default_in(**variables):
    """The default backend's name in a new process, or its error and warnings."""
    program = "import tinygrad_zen as tz; print(tz.tensor([1.0]).backend.name)"
    environment = {k: v for k, v in os.environ.items() if k != "TINYGRAD_ZEN_BACKEND"}
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=environment | variables,
    )
    return run.stdout.strip() or run.stderr


def test_the_default_is_numba_where_it_is_and_the_variable_overrides():
    usual = "numba" if tz.backends()["numba"] == "usable" else "numpy"
    assert default_in() == default_in(TINYGRAD_ZEN_BACKEND="") == usual
    assert default_in(TINYGRAD_ZEN_BACKEND="numpy") == "numpy"
    assert "unknown backend 'tpu': choose from numpy" in default_in(TINYGRAD_ZEN_BACKEND="tpu")


@pytest.fixture
def no_default(monkeypatch):
    """Nothing chosen and nothing loaded yet, as in a new process."""
    monkeypatch.setattr(backend_module, "_process_default", None)
    monkeypatch.delenv("TINYGRAD_ZEN_BACKEND", raising=False)
    monkeypatch.setattr(backend_module, "_load", functools.cache(backend_module._load.__wrapped__))


def failing(error):
    """importlib.import_module where Numba cannot be imported."""
    real = backend_module.importlib.import_module

    def load(name):
        if name == "numba":
            raise error
        return real(name)

    return load


def test_without_numba_it_is_numpy(monkeypatch, no_default):
    missing = ModuleNotFoundError("No module named 'numba'")
    monkeypatch.setattr(backend_module.importlib, "import_module", failing(missing))
    monkeypatch.setattr(backend_module.importlib.util, "find_spec", lambda name: None)
    assert tz.tensor([1.0]).backend.name == "numpy"


def test_a_broken_numba_is_told_once(monkeypatch, no_default):
    broken = SystemError("initialization of _internal failed")
    monkeypatch.setattr(backend_module.importlib, "import_module", failing(broken))
    monkeypatch.setattr(backend_module.importlib.util, "find_spec", lambda name: object())
    told = r"new Tensors go to numpy: numba cannot be imported \(initialization .*pip install"
    with pytest.warns(UserWarning, match=told):
        assert tz.tensor([1.0]).backend.name == "numpy"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert tz.tensor([1.0]).backend.name == "numpy"


# what is said where one cannot be used


class CUDARuntimeError(RuntimeError):
    """As CuPy's, which says what CUDA says."""


def cupy_without(count):
    """A CuPy that finds so many devices, or raises this error while it looks."""

    def get_device_count():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = types.SimpleNamespace(
        getDeviceCount=get_device_count, CUDARuntimeError=CUDARuntimeError
    )
    return types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))


@pytest.mark.parametrize(
    "cupy, why",
    [
        (None, 'CuPy cannot be imported .*`pip install "tinygrad-zen\\[cuda13\\]"` or .*cuda12'),
        (
            cupy_without(CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")),
            "no usable CUDA device, or a driver too old \\(cudaErrorNoDevice",
        ),
        (
            cupy_without(CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is")),
            "a driver too old \\(cudaErrorInsufficientDriver",
        ),
        (cupy_without(0), "this machine has no CUDA device"),
    ],
)
@pytest.mark.parametrize("name", ["cupy", "cuda"])
def test_no_gpu(monkeypatch, no_default, name, cupy, why):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(tz.BackendUnavailable, match=f"^{name}: .*{why}.*; usable here: numpy"):
        tz.backend(name)
    with pytest.raises(tz.BackendUnavailable, match=why):
        tz.tensor([1.0], backend=name)
    assert tz.backends()[name] != "usable"


def test_the_simulator_says_how_it_is_switched_on(monkeypatch, no_default):
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    with pytest.raises(tz.BackendUnavailable, match="^cudasim: .*NUMBA_ENABLE_CUDASIM=1 from the"):
        tz.backend("cudasim")


def test_without_numba_its_backends_name_the_extra(monkeypatch, no_default):
    monkeypatch.setitem(sys.modules, "numba", None)
    told = 'numba: numba cannot be imported .*`pip install "tinygrad-zen\\[numba\\]"`; usable here: numpy$'
    with pytest.raises(tz.BackendUnavailable, match=told):
        tz.backend("numba")
