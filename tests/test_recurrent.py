"""Recurrent layers: PyTorch's weights give PyTorch's results; padding has no influence; what is refused."""

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import nn, ops

LAYERS = ["RNN", "LSTM", "GRU"]
LENGTHS = np.array([5, 2, 4])


def pair(name, **options):
    """The same layer here and in PyTorch, in float64, with the same weights."""
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn, name)(4, 3, **options).double()
    ours = getattr(nn, name)(4, 3, **options).to("float64")
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return ours, theirs


def as_tuple(state):
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
@pytest.mark.parametrize("started", [False, True], ids=["", "started"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"bias": False, "bidirectional": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", [*LAYERS, "RNN relu"])
def test_equals_pytorch(backend, name, options, started, padded):
    """Outputs, last states, and the gradients of inputs, initial states and every weight."""
    torch = pytest.importorskip("torch")
    name, _, relu = name.partition(" ")
    options = options | ({"nonlinearity": "relu"} if relu else {})
    ours, theirs = pair(name, **options)
    rng = np.random.default_rng(0)
    batch_first = options.get("batch_first", False)
    x = rng.standard_normal((3, 5, 4) if batch_first else (5, 3, 4))
    layers = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    states = [rng.standard_normal((layers, 3, 3)) for _ in ours.states]
    xs = [tz.tensor(a, requires_grad=True) for a in (x, *states)]
    ts = [torch.tensor(a, requires_grad=True) for a in (x, *states)]

    def hx(tensors):
        return None if not started else tuple(tensors) if len(tensors) > 1 else tensors[0]

    y, last = ours(xs[0], hx(xs[1:]), *([LENGTHS] if padded else []))
    utils = torch.nn.utils.rnn
    given = ts[0]
    if padded:
        given = utils.pack_padded_sequence(given, LENGTHS, batch_first, enforce_sorted=False)
    u, their_last = theirs(given, hx(ts[1:]))
    if padded:
        u, _ = utils.pad_packed_sequence(u, batch_first, total_length=5)

    pairs = list(zip((y, *as_tuple(last)), (u, *as_tuple(their_last)), strict=True))
    seeds = [rng.standard_normal(a.shape) for a, _ in pairs]
    sum((a * s).sum() for (a, _), s in zip(pairs, seeds, strict=True)).backward()
    sum((b * torch.tensor(s)).sum() for (_, b), s in zip(pairs, seeds, strict=True)).backward()
    pairs += [(a.grad, b.grad) for a, b in zip(xs, ts, strict=True) if b.grad is not None]
    weights = dict(theirs.named_parameters())
    assert list(weights) == [n for n, _ in ours.named_parameters()]
    pairs += [(p.grad, weights[n].grad) for n, p in ours.named_parameters()]
    for a, b in pairs:
        np.testing.assert_allclose(a.numpy(), b.detach().numpy(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_what_lies_behind_the_end_has_no_influence(backend, name):
    """Each sequence gives what it gives alone, without padding."""
    layer = getattr(nn, name)(4, 6, num_layers=2, bidirectional=True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 3, 4)).astype(np.float32)
    for i, n in enumerate(LENGTHS):
        x[n:, i] = 1e3
    x = tz.tensor(x, requires_grad=True)
    y, last = layer(x, lengths=LENGTHS)
    (y.sum() + sum(s.sum() for s in as_tuple(last))).backward()
    for i, n in enumerate(LENGTHS):
        alone, alone_last = layer(x[:n, i : i + 1])
        np.testing.assert_allclose(y.numpy()[:n, i], alone.numpy()[:, 0], rtol=1e-5, atol=1e-6)
        assert not y.numpy()[n:, i].any() and not x.grad.numpy()[n:, i].any()
        for s, t in zip(as_tuple(last), as_tuple(alone_last), strict=True):
            np.testing.assert_allclose(s.numpy()[:, i], t.numpy()[:, 0], rtol=1e-5, atol=1e-6)


def test_a_sequence_in_two_parts_is_the_whole(backend):
    layer = nn.LSTM(4, 3, num_layers=2)
    x = tz.tensor(np.random.default_rng(0).standard_normal((6, 2, 4)))
    layer.to("float64")
    y, last = layer(x)
    first, between = layer(x[:4])
    second, end = layer(x[4:], between)
    np.testing.assert_allclose(y.numpy(), ops.concat([first, second]).numpy(), rtol=1e-12)
    for a, b in zip(last, end, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12)


@pytest.mark.parametrize("name", LAYERS)
def test_shapes_and_names(name):
    layer = getattr(nn, name)(4, 3, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)
    y, last = layer(tz.tensor(np.ones((2, 5, 4), np.float32)))
    assert y.shape == (2, 5, 6) and y.dtype == np.float32
    assert all(s.shape == (4, 2, 3) for s in as_tuple(last))
    assert repr(layer) == (
        f"{name}(4, 3, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)"
    )
    assert layer.weight_ih_l1_reverse.shape == (layer.gates * 3, 6)
    bound = 1 / np.sqrt(3)
    assert all(np.abs(p.numpy()).max() <= bound for p in layer.parameters())


def test_dropout_lies_between_the_layers_in_training_alone():
    layer = nn.GRU(4, 50, num_layers=2, dropout=0.9)
    x = tz.tensor(np.ones((3, 2, 4), np.float32))
    training, again = layer(x)[0].numpy(), layer(x)[0].numpy()
    assert (training != again).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].numpy(), layer(x)[0].numpy())
    single = nn.GRU(4, 50, dropout=0.9)  # nothing lies behind the last layer
    np.testing.assert_array_equal(single(x)[0].numpy(), single(x)[0].numpy())


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_what_the_ops_refuse(cell):
    k = {"rnn": 1, "lstm": 4, "gru": 3}[cell]
    states = ["h", "c"] if cell == "lstm" else ["h"]
    good = {"x": (5, 2, 4)} | dict.fromkeys(states, (2, 3))
    good |= {"w_ih": (k * 3, 4), "w_hh": (k * 3, 3), "b_ih": (k * 3,), "b_hh": (k * 3,)}

    def call(lengths=None, **changed):
        arrays = [np.ones(shape, np.float32) for shape in (good | changed).values()]
        return getattr(ops, cell)(*arrays, lengths)

    call(np.array([5, 0]))
    wrong = [
        ({"x": (5, 4)}, rf"{cell}: x must be \(L, N, I\) with at least one step; got \(5, 4\)"),
        ({"x": (0, 2, 4)}, f"{cell}: x must be .*; got .0, 2, 4."),
        ({"w_ih": (k * 3, 7)}, rf"{cell}: w_ih .* must fit x \(L, N, I\); got \({k * 3}, 7\)"),
        ({"w_hh": (k * 3 + 1, 3)}, f"{cell}: w_ih .* must fit"),
        ({"h": (1, 3)}, rf"{cell}: h must be \(N, H\) = \(2, 3\); got \(1, 3\)"),
        ({"b_hh": (k * 4,)}, rf"{cell}: b_hh must be \({k * 3},\); got \({k * 4},\)"),
        ({"lengths": np.array([1, 2, 3])}, rf"{cell}: lengths must be \(N,\) = \(2,\); got \(3,\)"),
        ({"lengths": np.array([1, 6])}, rf"{cell}: lengths must lie in 0..5; got 1..6"),
    ]
    for changed, words in wrong:
        with pytest.raises(ValueError, match=words):
            call(**changed)
    with pytest.raises(TypeError, match=f"{cell}: lengths must be integers; got float64"):
        call(np.array([1.0, 2.0]))


def test_what_the_layers_refuse():
    with pytest.raises(ValueError, match="LSTM: hidden_size must be at least 1; got 0"):
        nn.LSTM(4, 0)
    with pytest.raises(ValueError, match=r"GRU: dropout must lie in \[0, 1\); got 1.0"):
        nn.GRU(4, 3, dropout=1.0)
    with pytest.raises(ValueError, match="RNN: nonlinearity must be 'tanh' or 'relu'; got 'elu'"):
        nn.RNN(4, 3, nonlinearity="elu")
    layer, x = nn.LSTM(4, 3), tz.tensor(np.ones((5, 2, 4), np.float32))
    with pytest.raises(
        ValueError, match=r"LSTM: x must be \(L, N, I\) with I = 4; got \(5, 2, 3\)"
    ):
        layer(x[:, :, :3])
    zeros = tz.tensor(np.zeros((1, 2, 3), np.float32))
    with pytest.raises(ValueError, match=r"LSTM: hx must be \(h_0, c_0\); got 1 Tensors"):
        layer(x, zeros)
    with pytest.raises(ValueError, match=r"c_0 must be .* = \(1, 2, 3\); got \(1, 1, 3\)"):
        layer(x, (zeros, zeros[:, :1]))
