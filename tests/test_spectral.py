"""Spectral normalisation against PyTorch's, and against the singular values themselves."""

import copy
import pickle

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import nn

LAYERS = {
    "linear": (lambda nn: nn.Linear(5, 4), (3, 5)),
    "conv": (lambda nn: nn.Conv2d(2, 3, 3), (2, 2, 4, 5)),
    "transposed": (lambda nn: nn.ConvTranspose2d(2, 3, 3), (2, 2, 4, 5)),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_equals_pytorch(backend, name, training):
    torch = pytest.importorskip("torch")
    make, shape = LAYERS[name]
    theirs = torch.nn.utils.spectral_norm(make(torch.nn)).double().train(training)
    ours = nn.spectral_norm(make(nn)).to("float64").train(training)
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(0).standard_normal(shape)
    for _ in range(2):  # the second call goes on from the vectors that the first one left
        y, u = ours(tz.tensor(x)), theirs(torch.tensor(x))
        np.testing.assert_allclose(y.numpy(), u.detach().numpy(), rtol=1e-10, atol=1e-12)
    (y * y).sum().backward(), (u * u).sum().backward()
    weights = dict(theirs.named_parameters())
    for n, p in ours.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), weights[n].grad.numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", LAYERS)
def test_the_largest_singular_value_becomes_one(name):
    make, shape = LAYERS[name]
    layer = nn.spectral_norm(make(nn))
    seen = []
    layer.register_forward_hook(lambda m, args, y: seen.append(y))
    layer(tz.tensor(np.ones(shape, np.float32)))
    weight = layer.weight_orig.numpy()
    matrix = weight.swapaxes(0, 1) if name == "transposed" else weight
    largest = np.linalg.svd(matrix.reshape(len(matrix), -1), compute_uv=False)[0]
    plain = make(nn)
    plain.load_state_dict({"weight": weight / largest, "bias": layer.bias.numpy()})
    expected = plain(tz.tensor(np.ones(shape, np.float32))).numpy()
    np.testing.assert_allclose(seen[0].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_state_copies_and_pickles():
    layer = nn.spectral_norm(nn.Linear(5, 4))
    x = tz.tensor(np.ones((2, 5), np.float32))
    with tz.no_grad():
        y = layer(x).numpy()
    assert set(layer.state_dict()) == {"weight_orig", "weight_u", "weight_v", "bias"}
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        other.weight_orig.data *= 3  # divided away again, and none of the first layer's business
        np.testing.assert_allclose(other.eval()(x).numpy(), y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer.eval()(x).numpy(), y, rtol=1e-5, atol=1e-6)


def test_what_it_refuses():
    with pytest.raises(
        ValueError, match="spectral_norm: ReLU has no parameter 'weight' of two axes"
    ):
        nn.spectral_norm(nn.ReLU())
    with pytest.raises(
        ValueError, match="spectral_norm: LayerNorm has no parameter 'weight' of two"
    ):
        nn.spectral_norm(nn.LayerNorm(3))
    with pytest.raises(ValueError, match="n_power_iterations must be at least 1; got 0"):
        nn.spectral_norm(nn.Linear(3, 2), n_power_iterations=0)
