"""tinygrad_zen.nn.init: distributions, seeds, fans, errors."""

import math

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn as nn
from tinygrad_zen.nn import init


def raises(kind, message):
    """Expect an error whose whole message matches the pattern."""
    return pytest.raises(kind, match=rf"\A{message}\Z")


def zeros(*shape, dtype="float32"):
    return tz.tensor(np.zeros(shape), dtype=dtype)


RANDOM = {
    "uniform": lambda t, **k: init.uniform_(t, -1, 3, **k),
    "normal": lambda t, **k: init.normal_(t, 1, 2, **k),
    "trunc_normal": lambda t, **k: init.trunc_normal_(t, **k),
    "xavier_uniform": lambda t, **k: init.xavier_uniform_(t, **k),
    "xavier_normal": lambda t, **k: init.xavier_normal_(t, **k),
    "kaiming_uniform": lambda t, **k: init.kaiming_uniform_(t, **k),
    "kaiming_normal": lambda t, **k: init.kaiming_normal_(t, **k),
    "orthogonal": lambda t, **k: init.orthogonal_(t, **k),
}


@pytest.mark.parametrize("name", RANDOM)
def test_seeds(name):
    fill = RANDOM[name]
    tz.seed(3)
    a = fill(zeros(4, 5)).numpy()
    second = fill(zeros(4, 5)).numpy()
    tz.seed(3)
    np.testing.assert_array_equal(fill(zeros(4, 5)).numpy(), a)
    assert not np.array_equal(second, a)
    own = fill(zeros(4, 5), rng=np.random.default_rng(3)).numpy()
    np.testing.assert_array_equal(own, a)
    # the same numbers in every dtype
    double = fill(zeros(4, 5, dtype="float64"), rng=np.random.default_rng(3)).numpy()
    np.testing.assert_array_equal(double.astype("float32"), a)


@pytest.mark.parametrize("name", RANDOM)
def test_in_place(name):
    t = zeros(4, 5)
    array = t.data
    assert RANDOM[name](t) is t and t.data is array and t.dtype == np.float32


# (name, shape, options, mean, standard deviation, largest element); fan in 24, fan out 40
MOMENTS = [
    ("uniform_", (200, 200), {"a": -1, "b": 3}, 1, 4 / math.sqrt(12), 3),
    ("normal_", (200, 200), {"mean": 1, "std": 2}, 1, 2, None),
    ("trunc_normal_", (200, 200), {}, 0, 0.8796, 2),
    ("xavier_uniform_", (40, 24), {}, 0, math.sqrt(2 / 64), math.sqrt(6 / 64)),
    (
        "xavier_uniform_",
        (10, 6, 2, 2),
        {"gain": 3},
        0,
        3 * math.sqrt(2 / 64),
        3 * math.sqrt(6 / 64),
    ),
    ("xavier_normal_", (10, 6, 2, 2), {}, 0, math.sqrt(2 / 64), None),
    ("kaiming_uniform_", (10, 6, 4), {}, 0, math.sqrt(2 / 24), math.sqrt(6 / 24)),
    ("kaiming_uniform_", (40, 24), {"mode": "fan_out"}, 0, math.sqrt(2 / 40), math.sqrt(6 / 40)),
    ("kaiming_uniform_", (40, 24), {"a": math.sqrt(5)}, 0, math.sqrt(1 / 72), math.sqrt(1 / 24)),
    ("kaiming_normal_", (40, 24), {"nonlinearity": "tanh"}, 0, 5 / 3 / math.sqrt(24), None),
    ("kaiming_normal_", (40, 24), {"nonlinearity": "relu"}, 0, math.sqrt(2 / 24), None),
]


@pytest.mark.parametrize(("name", "shape", "options", "mean", "std", "most"), MOMENTS)
def test_moments(name, shape, options, mean, std, most):
    rng = np.random.default_rng(0)
    draws = max(1, 40000 // math.prod(shape))
    x = np.stack(
        [getattr(init, name)(zeros(*shape), **options, rng=rng).numpy() for _ in range(draws)]
    )
    assert x.mean() == pytest.approx(mean, abs=4 * std / math.sqrt(x.size))
    assert x.std() == pytest.approx(std, rel=0.02)
    if most is not None:
        assert 0.99 * most < x.max() <= most


def normal_share(a, b):
    """The probability that a standard normal number lies in [a, b]."""
    return (math.erf(b / math.sqrt(2)) - math.erf(a / math.sqrt(2))) / 2


@pytest.mark.parametrize(("a", "b"), [(-2, 2), (0, 1), (1.5, 60), (-100, 100), (2, 2.1)])
def test_trunc_normal_against_its_distribution(a, b):
    x = init.trunc_normal_(zeros(40000), a=a, b=b, rng=np.random.default_rng(0)).numpy()
    assert a <= x.min() and x.max() <= b
    for part in (0.25, 0.5, 0.75):
        cut = np.quantile(x, part)
        assert normal_share(a, cut) / normal_share(a, b) == pytest.approx(part, abs=0.01)


def test_trunc_normal_scales():
    x = init.trunc_normal_(zeros(20000), mean=5, std=0.1, a=4.9, b=5.3).numpy()
    assert x.min() >= 4.9 - 1e-6 and x.max() <= 5.3 + 1e-6
    y = init.trunc_normal_(zeros(20000), a=-1, b=3).numpy()
    assert x.mean() == pytest.approx(5 + 0.1 * y.mean(), abs=0.005)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (6, 2, 2), (2, 3, 2, 2)])
def test_orthogonal(shape):
    w = init.orthogonal_(zeros(*shape, dtype="float64"), gain=2.0).numpy().reshape(shape[0], -1)
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    np.testing.assert_allclose(small, 4 * np.eye(len(small)), atol=1e-12)


def test_orthogonal_prefers_no_rotation():
    """Without the correction of signs, the diagonal of Q would be negative more often."""
    rng = np.random.default_rng(0)
    first = [init.orthogonal_(zeros(2, 2), rng=rng).numpy()[0, 0] for _ in range(2000)]
    assert np.mean(first) == pytest.approx(0, abs=0.06)


def test_constants():
    t = zeros(2, 3)
    assert (init.constant_(t, 0.3).numpy() == np.float32(0.3)).all()
    assert (init.ones_(t).numpy() == 1).all()
    assert (init.zeros_(t).numpy() == 0).all()


def test_parameters_are_filled_without_recording():
    w = nn.Parameter(np.zeros((2, 2), np.float32))
    assert init.normal_(w) is w and w.node is None and w.requires_grad


@pytest.mark.parametrize(
    "name", ["linear", "sigmoid", "tanh", "relu", "selu", "leaky_relu", "leaky_relu 0.2"]
)
def test_gain_against_torch(name):
    torch = pytest.importorskip("torch")
    name, *slope = name.split()
    slope = [float(s) for s in slope]
    expected = torch.nn.init.calculate_gain(name, *slope)
    assert init.calculate_gain(name, *slope) == pytest.approx(expected)


# Layers start as PyTorch's


LAYERS = {
    "Linear": (lambda n: n.Linear(300, 200)),
    "Conv1d": (lambda n: n.Conv1d(40, 60, 5)),
    "Conv2d": (lambda n: n.Conv2d(24, 60, (3, 5), groups=2)),
    "ConvTranspose1d": (lambda n: n.ConvTranspose1d(60, 40, 5)),
    "ConvTranspose2d": (lambda n: n.ConvTranspose2d(40, 24, (3, 5), groups=2)),
    "Embedding": (lambda n: n.Embedding(300, 50, padding_idx=3)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_start_as_in_torch(name):
    torch = pytest.importorskip("torch")
    tz.seed(0)
    torch.manual_seed(0)
    ours = LAYERS[name](nn).state_dict()
    theirs = {k: v.double().numpy() for k, v in LAYERS[name](torch.nn).state_dict().items()}
    for key, value in theirs.items():
        assert ours[key].dtype == np.float32
        x, std = ours[key].astype("float64"), value.std()
        assert x.mean() == pytest.approx(0, abs=4 * std / math.sqrt(x.size))
        assert x.std() == pytest.approx(std, rel=2 / math.sqrt(x.size))
        if name != "Embedding":  # evenly distributed: there is an edge
            assert abs(x).max() == pytest.approx(abs(value).max(), rel=0.1)


def test_seeded_layers():
    def make():
        tz.seed(1)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 4), nn.Embedding(5, 6)).state_dict()

    a, b = make(), make()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key])


# Errors


def test_errors():
    t = zeros(3)
    for name in ("xavier_uniform_", "xavier_normal_", "kaiming_uniform_", "kaiming_normal_"):
        with raises(
            ValueError,
            rf"{name}: fan in and fan out need at least 2 axes \(O, I, ...\); got shape \(3,\)",
        ):
            getattr(init, name)(t)
    with raises(ValueError, r"orthogonal_: at least 2 axes are needed; got shape \(3,\)"):
        init.orthogonal_(t)
    with raises(ValueError, r"uniform_: a must not exceed b; got 1 and 0"):
        init.uniform_(t, 1, 0)
    with raises(ValueError, r"normal_: std must be at least 0; got -1"):
        init.normal_(t, 0, -1)
    with raises(ValueError, r"trunc_normal_: std must be positive; got 0"):
        init.trunc_normal_(t, 0, 0)
    for a, b in [(1, 1), (2, -2), (20, 30)]:
        with raises(
            ValueError,
            r"trunc_normal_: \[a, b\] must hold a part of the distribution; "
            rf"got \[{a}, {b}\] for mean 0.0 and std 1.0",
        ):
            init.trunc_normal_(t, a=a, b=b)
    with raises(ValueError, r"kaiming_normal_: mode must be 'fan_in' or 'fan_out'; got 'fan'"):
        init.kaiming_normal_(zeros(2, 2), mode="fan")
    with raises(
        ValueError,
        r"calculate_gain: unknown nonlinearity 'gelu': choose from linear, sigmoid, tanh, relu, "
        r"selu, leaky_relu",
    ):
        init.calculate_gain("gelu")
