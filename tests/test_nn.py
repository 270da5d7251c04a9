"""tinygrad_zen.nn: modules, layers against PyTorch with its own state dicts, functional names."""

import copy
import inspect
import pickle

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn as nn
import tinygrad_zen.nn.functional as F


def raises(kind, message):
    """Expect an error whose whole message matches the pattern."""
    return pytest.raises(kind, match=rf"\A{message}\Z")


def tensor64(*shape, seed=0, requires_grad=False):
    values = np.random.default_rng(seed).normal(size=shape)
    return tz.tensor(values, dtype="float64", requires_grad=requires_grad)


# Layers against PyTorch: {name: (how either library makes it, shape of the input)}

LAYERS = {
    "Linear": (lambda n: n.Linear(5, 3), (4, 5)),
    "Linear deep": (lambda n: n.Linear(5, 3, bias=False), (2, 3, 4, 5)),
    "Identity": (lambda n: n.Identity(), (2, 3)),
    "Flatten": (lambda n: n.Flatten(), (2, 3, 4, 5)),
    "Flatten some": (lambda n: n.Flatten(1, -2), (2, 3, 4, 5)),
    "Conv1d": (lambda n: n.Conv1d(4, 6, 3), (2, 4, 9)),
    "Conv1d options": (
        lambda n: n.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2, bias=False),
        (2, 4, 9),
    ),
    "Conv1d reflect": (lambda n: n.Conv1d(4, 6, 3, padding=2, padding_mode="reflect"), (2, 4, 9)),
    "Conv2d": (lambda n: n.Conv2d(4, 6, 3), (2, 4, 7, 8)),
    "Conv2d options": (
        lambda n: n.Conv2d(4, 6, (3, 2), (2, 1), (2, 1), (1, 2), 2, False),
        (2, 4, 7, 8),
    ),
    "Conv2d same": (lambda n: n.Conv2d(4, 6, (3, 4), padding="same"), (2, 4, 7, 8)),
    "Conv2d valid": (lambda n: n.Conv2d(4, 6, 3, padding="valid"), (2, 4, 7, 8)),
    "Conv2d reflect": (
        lambda n: n.Conv2d(4, 6, 3, padding=(2, 1), padding_mode="reflect"),
        (2, 4, 7, 8),
    ),
    "Conv2d replicate": (
        lambda n: n.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="replicate"),
        (2, 4, 7, 8),
    ),
    "Conv2d circular same": (
        lambda n: n.Conv2d(4, 6, (2, 3), dilation=(1, 2), padding="same", padding_mode="circular"),
        (2, 4, 7, 8),
    ),
    "ConvTranspose1d": (lambda n: n.ConvTranspose1d(4, 6, 3, stride=2, padding=1), (2, 4, 5)),
    "ConvTranspose2d": (lambda n: n.ConvTranspose2d(4, 6, 3), (2, 4, 5, 6)),
    "ConvTranspose2d options": (
        lambda n: n.ConvTranspose2d(4, 6, (3, 2), 3, (1, 0), (2, 1), 2, False, (1, 2)),
        (2, 4, 5, 6),
    ),
    "MaxPool1d": (lambda n: n.MaxPool1d(3, 2, 1), (2, 3, 9)),
    "MaxPool2d": (lambda n: n.MaxPool2d(2), (2, 3, 8, 8)),
    "MaxPool2d options": (lambda n: n.MaxPool2d((3, 2), (2, 1), 1, ceil_mode=True), (2, 3, 8, 7)),
    "AvgPool1d": (lambda n: n.AvgPool1d(3, 2, 1), (2, 3, 9)),
    "AvgPool2d": (lambda n: n.AvgPool2d(2), (2, 3, 8, 8)),
    "AvgPool2d options": (lambda n: n.AvgPool2d((3, 2), 2, 1, True, False), (2, 3, 8, 7)),
    "AdaptiveAvgPool1d": (lambda n: n.AdaptiveAvgPool1d(4), (2, 3, 9)),
    "AdaptiveAvgPool2d": (lambda n: n.AdaptiveAvgPool2d((3, None)), (2, 3, 8, 7)),
    "AdaptiveMaxPool1d": (lambda n: n.AdaptiveMaxPool1d(4), (2, 3, 9)),
    "AdaptiveMaxPool2d": (lambda n: n.AdaptiveMaxPool2d(3), (2, 3, 8, 7)),
    "BatchNorm1d": (lambda n: n.BatchNorm1d(3), (5, 3)),
    "BatchNorm1d sequences": (lambda n: n.BatchNorm1d(3, eps=1e-2, momentum=0.3), (5, 3, 4)),
    "BatchNorm2d": (lambda n: n.BatchNorm2d(3), (5, 3, 4, 2)),
    "BatchNorm2d plain": (lambda n: n.BatchNorm2d(3, affine=False), (5, 3, 4, 2)),
    "BatchNorm2d untracked": (lambda n: n.BatchNorm2d(3, track_running_stats=False), (5, 3, 4, 2)),
    "BatchNorm2d average": (lambda n: n.BatchNorm2d(3, momentum=None), (5, 3, 4, 2)),
    "LayerNorm": (lambda n: n.LayerNorm(4), (2, 3, 4)),
    "LayerNorm two": (lambda n: n.LayerNorm((3, 4), eps=1e-2), (2, 3, 4)),
    "LayerNorm plain": (lambda n: n.LayerNorm(4, elementwise_affine=False), (2, 3, 4)),
    "LayerNorm unshifted": (lambda n: n.LayerNorm(4, bias=False), (2, 3, 4)),
    "GroupNorm": (lambda n: n.GroupNorm(2, 6), (2, 6, 3, 4)),
    "GroupNorm plain": (lambda n: n.GroupNorm(3, 6, affine=False), (2, 6, 5)),
    "InstanceNorm2d": (lambda n: n.InstanceNorm2d(3), (2, 3, 4, 5)),
    "InstanceNorm2d all": (
        lambda n: n.InstanceNorm2d(3, affine=True, track_running_stats=True),
        (2, 3, 4, 5),
    ),
    "ReLU": (lambda n: n.ReLU(), (3, 4)),
    "LeakyReLU": (lambda n: n.LeakyReLU(0.2), (3, 4)),
    "ELU": (lambda n: n.ELU(0.5), (3, 4)),
    "GELU": (lambda n: n.GELU(), (3, 4)),
    "GELU tanh": (lambda n: n.GELU(approximate="tanh"), (3, 4)),
    "SiLU": (lambda n: n.SiLU(), (3, 4)),
    "Sigmoid": (lambda n: n.Sigmoid(), (3, 4)),
    "Tanh": (lambda n: n.Tanh(), (3, 4)),
    "Softplus": (lambda n: n.Softplus(2.0), (3, 4)),
    "Softmax": (lambda n: n.Softmax(1), (3, 4, 2)),
    "LogSoftmax": (lambda n: n.LogSoftmax(1), (3, 4, 2)),
    "Dropout off": (lambda n: n.Dropout(0.0), (3, 4)),
    "net": (
        lambda n: n.Sequential(
            n.Conv2d(1, 4, 3, padding=1),
            n.BatchNorm2d(4),
            n.ReLU(),
            n.Sequential(n.MaxPool2d(2), n.Flatten()),
            n.Linear(64, 3),
        ),
        (2, 1, 8, 8),
    ),
}

SAME_REPR = (
    "Linear",
    "Conv",
    "MaxPool",
    "AvgPool2d",
    "Adaptive",
    "ReLU",
    "ELU",
    "LeakyReLU",
    "GELU",
)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even:UserWarning")  # torch's own
def test_layer_against_torch(name, backend):
    torch = pytest.importorskip("torch")
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    ours, theirs = make(nn).to("float64"), make(torch.nn).double()
    for p in theirs.parameters():  # off the ones and zeros that normalisation starts with
        p.data += 0.1 * torch.randn(p.shape, dtype=torch.float64)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    if name.startswith(SAME_REPR):
        assert repr(ours) == repr(theirs)
    for step, training in enumerate([True, True, False, True, False]):
        ours.train(training)
        theirs.train(training)
        ours.zero_grad()
        theirs.zero_grad()
        x = tensor64(*shape, seed=step, requires_grad=True)
        z = torch.tensor(x.numpy(), requires_grad=True)
        y, expected = ours(x), theirs(z)
        np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-11)
        g = tensor64(*y.shape, seed=9)
        y.backward(g)
        expected.backward(torch.tensor(g.numpy()))
        np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-8, atol=1e-10)
        judges = dict(theirs.named_parameters())
        assert [n for n, _ in ours.named_parameters()] == list(judges)
        for n, p in ours.named_parameters():
            np.testing.assert_allclose(
                p.grad.numpy(), judges[n].grad.numpy(), rtol=1e-8, atol=1e-10
            )
        state = theirs.state_dict()
        for n, value in ours.state_dict().items():
            if n != "num_batches_tracked" or "Instance" not in name:  # torch leaves that at 0
                np.testing.assert_allclose(value, state[n].numpy(), rtol=1e-10, err_msg=n)


@pytest.mark.parametrize("padding_idx", [None, 1, -1])
def test_embedding_against_torch(padding_idx):
    torch = pytest.importorskip("torch")
    ours = nn.Embedding(5, 3, padding_idx)
    theirs = torch.nn.Embedding(5, 3, padding_idx)
    assert repr(ours) == repr(theirs)
    if padding_idx is not None:
        np.testing.assert_array_equal(ours.weight.numpy()[padding_idx], 0)
    ours.load_state_dict(theirs.state_dict())
    index = np.array([[0, 1, 1], [4, 4, 2]])
    y, expected = ours(tz.tensor(index)), theirs(torch.tensor(index))
    np.testing.assert_array_equal(y.numpy(), expected.detach().numpy())
    y.sum().backward()
    expected.sum().backward()
    np.testing.assert_array_equal(ours.weight.grad.numpy(), theirs.weight.grad.numpy())


LOSSES = {
    "MSELoss": (lambda n: n.MSELoss(), "values"),
    "MSELoss sum": (lambda n: n.MSELoss(reduction="sum"), "values"),
    "L1Loss": (lambda n: n.L1Loss(reduction="none"), "values"),
    "HuberLoss": (lambda n: n.HuberLoss(delta=0.5), "values"),
    "BCELoss": (lambda n: n.BCELoss(), "probabilities"),
    "BCEWithLogitsLoss": (lambda n: n.BCEWithLogitsLoss(), "binary"),
    "CrossEntropyLoss": (lambda n: n.CrossEntropyLoss(), "classes"),
    "CrossEntropyLoss options": (
        lambda n: n.CrossEntropyLoss(ignore_index=2, reduction="sum", label_smoothing=0.1),
        "classes",
    ),
    "CrossEntropyLoss soft": (lambda n: n.CrossEntropyLoss(), "soft"),
    "NLLLoss": (lambda n: n.NLLLoss(ignore_index=2), "classes"),
    "KLDivLoss": (lambda n: n.KLDivLoss(reduction="batchmean"), "soft"),
    "KLDivLoss log": (lambda n: n.KLDivLoss(reduction="mean", log_target=True), "values"),
    "MultiMarginLoss": (lambda n: n.MultiMarginLoss(margin=0.5), "classes"),
}


def loss_inputs(kind):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4))
    soft = np.exp(rng.normal(size=(6, 4)))
    targets = {
        "values": rng.normal(size=(6, 4)),
        "probabilities": rng.random((6, 4)),
        "binary": rng.integers(0, 2, (6, 4)).astype("float64"),
        "classes": rng.integers(0, 4, 6),
        "soft": soft / soft.sum(axis=1, keepdims=True),
    }
    return rng.uniform(0.1, 0.9, (6, 4)) if kind == "probabilities" else x, targets[kind]


def compare_losses(torch, ours, theirs, x, target):
    p = tz.tensor(x, requires_grad=True)
    q = torch.tensor(x, requires_grad=True)
    loss, expected = ours(p, tz.tensor(target)), theirs(q, torch.tensor(target))
    np.testing.assert_allclose(loss.numpy(), expected.detach().numpy(), rtol=1e-12)
    loss.sum().backward()
    expected.sum().backward()
    np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore:(reduction|size_average):UserWarning")  # torch's KLDivLoss
def test_loss_against_torch(name):
    torch = pytest.importorskip("torch")
    make, kind = LOSSES[name]
    compare_losses(torch, make(nn), make(torch.nn), *loss_inputs(kind))


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "NLLLoss", "BCELoss", "BCEWithLogitsLoss"])
def test_weighted_loss_against_torch(name):
    torch = pytest.importorskip("torch")
    kind = {"BCELoss": "probabilities", "BCEWithLogitsLoss": "binary"}.get(name, "classes")
    weight = [0.5, 1.0, 2.0, 4.0]
    for reduction in ("mean", "sum", "none"):
        ours = getattr(nn, name)(weight, reduction=reduction)
        theirs = getattr(torch.nn, name)(torch.tensor(weight).double(), reduction=reduction)
        assert list(ours.state_dict()) == list(theirs.state_dict()) == ["weight"]
        compare_losses(torch, ours.to("float64"), theirs, *loss_inputs(kind))


def test_pos_weight_against_torch():
    torch = pytest.importorskip("torch")
    ours = nn.BCEWithLogitsLoss([1.0, 2.0, 3.0, 4.0], pos_weight=3.0).to("float64")
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    theirs = torch.nn.BCEWithLogitsLoss(weight, pos_weight=torch.tensor(3.0))
    compare_losses(torch, ours, theirs, *loss_inputs("binary"))


def test_hinge_loss():
    x = tz.tensor([0.5, 2.0, -1.0], dtype="float64")
    t = tz.tensor([1.0, 1.0, 1.0], dtype="float64")
    np.testing.assert_allclose(nn.HingeLoss(reduction="none")(x, t).numpy(), [0.5, 0, 2])
    assert nn.HingeLoss(margin=2.0)(x, t).item() == pytest.approx((1.5 + 0 + 3) / 3)


# Layers by themselves


def test_global_average():
    x = tensor64(2, 3, 4, 5)
    np.testing.assert_allclose(nn.GlobalAvgPool2d()(x).numpy(), x.numpy().mean(axis=(2, 3)))


def test_float32_stays():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(4),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.GroupNorm(2, 4),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Dropout2d(0.5),
        nn.ConvTranspose2d(4, 2, 2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(8),
        nn.Linear(8, 3),
        nn.Softmax(),
    )
    x = tz.tensor(np.ones((2, 1, 6, 6)), dtype="float32", requires_grad=True)
    y = net(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == np.float32
    assert {p.grad.dtype for p in net.parameters()} == {np.dtype("float32")}
    assert {b.dtype for b in net.buffers()} == {np.dtype("float32"), np.dtype("int64")}


def test_dropout():
    tz.seed(0)
    x = tz.tensor(np.ones((100, 50, 2, 2)), dtype="float32")
    for layer in (nn.Dropout(0.25), nn.Dropout2d(0.25)):
        y = layer(x).numpy()
        np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
        assert (y == 0).mean() == pytest.approx(0.25, abs=0.02)
        assert layer.eval()(x) is x
    channels = nn.Dropout2d(0.25)(x).numpy().reshape(5000, 4)
    assert (channels == channels[:, :1]).all()
    tz.seed(1)
    a = nn.Dropout(0.5)(x).numpy()
    tz.seed(1)
    np.testing.assert_array_equal(nn.Dropout(0.5)(x).numpy(), a)


def test_batch_norm_counts_only_in_training():
    layer = nn.BatchNorm1d(3)
    x = tz.tensor(np.ones((4, 3)), dtype="float32")
    layer(x)
    layer.eval()(x)
    assert layer.num_batches_tracked.item() == 1
    assert layer.num_batches_tracked.dtype == np.int64


def test_second_derivatives_leave_running_statistics_alone():
    layer = nn.BatchNorm1d(2)
    x = tz.tensor(np.arange(6.0).reshape(3, 2), dtype="float32", requires_grad=True)
    y = (layer(x) ** 3).sum()
    mean = layer.running_mean.numpy().copy()
    (g,) = tz.grad(y, [x], create_graph=True)
    (g * g).sum().backward()
    np.testing.assert_array_equal(layer.running_mean.numpy(), mean)


# What a module holds


class Odd(nn.Module):
    """Parameters, buffers and modules in every place where they may stand."""

    def __init__(self):
        self.last = nn.Linear(1, 2)
        self.first = nn.Parameter(np.zeros(2, np.float32))
        self.blocks = [nn.Linear(2, 2, bias=False), (nn.ReLU(), nn.Linear(2, 1))]
        self.heads = {"a": nn.Linear(3, 1, bias=False), 7: nn.Parameter(np.ones(1, np.float32))}
        self.mean = tz.tensor([1.0])
        self._cache = tz.tensor([2.0])
        self._parts = [tz.tensor([3.0]), nn.Linear(1, 1, bias=False)]
        self.result = self.first * 2
        self.number, self.name, self.nothing = 3, "odd", None


ODD_PARAMETERS = [
    "last.weight",
    "last.bias",
    "first",
    "blocks.0.weight",
    "blocks.1.1.weight",
    "blocks.1.1.bias",
    "heads.a.weight",
    "heads.7",
    "_parts.1.weight",
]


def test_walk_finds_all_in_order_of_definition():
    m = Odd()
    assert [n for n, _ in m.named_parameters()] == ODD_PARAMETERS
    assert [n for n, _ in m.named_buffers()] == ["mean"]
    assert sorted(m.state_dict()) == sorted([*ODD_PARAMETERS, "mean"])
    assert [n for n, _ in m.named_children()] == [
        "last",
        "blocks.0",
        "blocks.1.0",
        "blocks.1.1",
        "heads.a",
        "_parts.1",
    ]
    assert [n for n, _ in m.named_modules("net")][:3] == ["net", "net.last", "net.blocks.0"]
    assert [n for n, _ in m.named_parameters("net")][:2] == ["net.last.weight", "net.last.bias"]
    assert next(m.modules()) is m and len(list(m.modules())) == 7
    assert list(m.parameters())[2] is m.first
    assert list(m.buffers())[0] is m.mean
    assert all(isinstance(c, nn.Module) for c in m.children())


def test_shared_parameters_and_modules_come_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    net[2].weight = net[0].weight
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.bias"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    layer = nn.Linear(2, 2)
    twice = nn.Sequential(layer, nn.ReLU(), layer)
    assert [n for n, _ in twice.named_modules()] == ["", "0", "1"]
    assert [n for n, _ in twice.named_parameters()] == ["0.weight", "0.bias"]
    assert list(twice.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert twice(tz.tensor(np.ones((1, 2)), dtype="float32")).shape == (1, 2)


def test_modules_that_point_back():
    parent, child = nn.Sequential(nn.Linear(1, 1)), nn.Module()
    child.parent, child.own = [parent], nn.Parameter([1.0])
    parent.child = child
    assert [n for n, _ in parent.named_parameters()] == ["0.weight", "0.bias", "child.own"]
    assert len(list(parent.modules())) == 3
    assert list(parent.train(False).state_dict()) == [n for n, _ in parent.named_parameters()]


def test_parameter():
    p = nn.Parameter([1.0, 2.0])
    assert p.requires_grad and isinstance(p, tz.Tensor) and p.dtype == np.float32
    assert not nn.Parameter([1.0], requires_grad=False).requires_grad
    t = tz.tensor([1.0])
    assert nn.Parameter(t).data is t.data
    assert nn.Parameter([1], requires_grad=False).dtype == np.int64
    with pytest.raises(TypeError, match="requires_grad: only floating-point"):
        nn.Parameter([1])
    assert type(p * 2) is tz.Tensor


def test_plain_subclass_needs_no_super_init():
    class Net(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(2, 1)

        def forward(self, x, scale=1.0):
            return self.layer(x) * scale

    net = Net()
    x = tz.tensor(np.ones((3, 2)), dtype="float32")
    np.testing.assert_allclose(net(x, scale=2.0).numpy(), 2 * net(x).numpy())
    with raises(NotImplementedError, r"Module: define forward"):
        nn.Module()(x)


def test_modes():
    net = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2)))
    assert all(m.training for m in net.modules())
    assert net.eval() is net and not any(m.training for m in net.modules())
    net[1].train()
    assert [m.training for m in net.modules()] == [False, False, True, True]
    assert net.train() is net and all(m.training for m in net.modules())


def test_freezing_and_zero_grad():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    net[0].requires_grad_(False)
    net(tz.tensor(np.ones((1, 2)), dtype="float32")).sum().backward()
    assert [p.grad is None for p in net.parameters()] == [True, True, False, False]
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert net.requires_grad_() is net and all(p.requires_grad for p in net.parameters())


def test_apply_goes_from_the_inside_out():
    seen = []
    net = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Tanh())
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["ReLU", "Sequential", "Tanh", "Sequential"]


def test_forward_hooks():
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    x = tz.tensor(np.ones((1, 2)), dtype="float32")
    seen = []
    remove = net[0].register_forward_hook(lambda m, args, out: seen.append((m, args, out)))
    y = net(x)
    assert seen[0][0] is net[0] and seen[0][1] == (x,) and seen[0][2].shape == (1, 2)
    stop = net.register_forward_hook(lambda m, args, out: out * 0 + 5)
    assert (net(x).numpy() == 5).all()
    stop()
    remove()
    remove()  # twice is once
    np.testing.assert_array_equal(net(x).numpy(), y.numpy())
    assert len(seen) == 2


def test_to_keeps_parameters():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Embedding(3, 2))
    net[0].weight.grad = tz.tensor(np.ones((2, 2)), dtype="float32")
    before = list(net.parameters())
    assert net.to("float64") is net
    assert all(p is q for p, q in zip(net.parameters(), before, strict=True))
    assert all(p.requires_grad and p.node is None for p in net.parameters())
    assert net[0].weight.grad.dtype == np.float64
    assert net[1].running_mean.dtype == np.float64 and net[1].num_batches_tracked.dtype == np.int64
    other = tz.backend("numpy").replace(linear=tz.backend("numpy").kernels.linear)
    net.to(other)
    tensors = [*net.parameters(), *net.buffers(), net[0].weight.grad]
    assert all(t.backend is other for t in tensors)
    net.to("numpy")
    with raises(TypeError, r"to: parameters need a floating-point dtype; got int64"):
        net.to("int64")
    assert net[0].weight.dtype == np.float64


def test_layers_start_on_the_backend_in_force():
    other = tz.backend("numpy").replace(linear=tz.backend("numpy").kernels.linear)
    with tz.using(other):
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert all(t.backend is other for t in [*net.parameters(), *net.buffers()])


# Copies


def test_deepcopy_and_pickle():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    net[2].weight = net[0].weight
    net[0].bias.requires_grad_(False)
    net.eval()
    net.register_forward_hook(lambda *_: None)
    x = tz.tensor(np.ones((3, 2)), dtype="float32")
    net(x).sum().backward()
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(twin(x).numpy(), net(x).numpy())
        assert twin[2].weight is twin[0].weight is not net[0].weight
        assert isinstance(twin[0].weight, nn.Parameter) and not twin[0].bias.requires_grad
        assert not twin[1].training
        twin[0].weight.data += 1
        twin[1].running_mean.data += 1
        assert not np.array_equal(twin(x).numpy(), net(x).numpy())
    np.testing.assert_array_equal(
        copy.deepcopy(net)[0].weight.grad.numpy(), net[0].weight.grad.numpy()
    )


def test_only_leaves_are_copied():
    y = nn.Parameter([1.0]) * 2
    for name, copier in (("deepcopy", copy.deepcopy), ("pickle", pickle.dumps)):
        with raises(
            TypeError,
            rf"{name}: this Tensor hangs on the graph that made it \(op mul\); detach\(\) it first",
        ):
            copier(y)


def test_copies_of_a_replaced_backend():
    own = tz.backend("numpy").replace(linear=tz.backend("numpy").kernels.linear)
    net = nn.Linear(2, 1).to(own)
    assert copy.deepcopy(net).weight.backend is own


# Saved and loaded


def test_state_dict_copies():
    net = nn.Linear(2, 1)
    state = net.state_dict()
    state["weight"][...] = 7
    assert not (net.weight.numpy() == 7).any()
    assert all(type(v) is np.ndarray for v in state.values())


def test_load_keeps_arrays_and_dtype():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    arrays = [p.data for p in net.parameters()]
    state = {
        k: np.ones_like(v, dtype="float64" if v.dtype.kind == "f" else "int32")
        for k, v in net.state_dict().items()
    }
    state["0.bias"] = tz.tensor([3.0, 4.0])
    assert net.load_state_dict(state) == ([], [])
    assert all(
        p.data is a and a.dtype == np.float32 for p, a in zip(net.parameters(), arrays, strict=True)
    )
    np.testing.assert_array_equal(net[0].bias.numpy(), [3, 4])
    assert net[1].num_batches_tracked.item() == 1 and net[1].num_batches_tracked.dtype == np.int64


def test_load_errors_write_nothing():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = net.state_dict()
    good = {k: np.full_like(v, 7) for k, v in before.items()}
    bad = dict(good)
    del bad["0.bias"]
    bad |= {"2.weight": np.ones(1), "0.weight": np.ones((2, 3)), "1.running_var": np.ones(3, int)}
    with raises(
        ValueError,
        r"load_state_dict: Sequential\n"
        r"  missing: 0.bias\n"
        r"  unexpected: 2.weight\n"
        r"  mismatched: 0.weight must be float32 \(3, 2\); got float64 \(2, 3\)\n"
        r"  mismatched: 1.running_var must be float32 \(3,\); got int64 \(3,\)",
    ):
        net.load_state_dict(bad)
    with raises(
        ValueError,
        r"load_state_dict: Sequential\n"
        r"  mismatched: 0.weight must be float32 \(3, 2\); got float64 \(3,\)",
    ):
        net.load_state_dict({"0.weight": np.ones(3)}, strict=False)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_load_in_part():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    result = net.load_state_dict({"0.bias": np.ones(3), "head": np.ones(1)}, strict=False)
    assert result.missing_keys == ["0.weight", "1.weight", "1.bias"]
    assert result.unexpected_keys == ["head"]
    assert (net[0].bias.numpy() == 1).all()


def test_one_name_of_a_shared_parameter_is_enough():
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    net[1].weight = net[0].weight
    net.load_state_dict({"1.weight": np.full((2, 2), 5.0)})
    assert (net[0].weight.numpy() == 5).all()


def test_state_dict_round_trip_of_everything():
    a, b = Odd(), Odd()
    a.mean.data[...] = 9
    b.load_state_dict(a.state_dict())
    for key, value in b.state_dict().items():
        np.testing.assert_array_equal(value, a.state_dict()[key])


# Containers


def test_sequential():
    net = nn.Sequential({"in": nn.Linear(2, 3), "out": nn.Linear(3, 1)})
    assert list(net.state_dict()) == ["in.weight", "in.bias", "out.weight", "out.bias"]
    net = nn.Sequential(nn.Linear(2, 3)).append(nn.ReLU()).extend([nn.Linear(3, 1)])
    assert len(net) == 3 and net[-1] is net[2] and [type(m) for m in net][1] is nn.ReLU
    assert isinstance(net[:2], nn.Sequential) and net[:2][0] is net[0]
    net[1] = nn.Tanh()
    assert isinstance(net[1], nn.Tanh) and len(net) == 3
    x = tz.tensor(np.ones((1, 2)), dtype="float32")
    assert nn.Sequential()(x) is x
    with raises(TypeError, r"Sequential: entry 1 must be a Module; got function"):
        nn.Sequential(nn.ReLU(), lambda x: x)
    with raises(IndexError, r"Sequential: index 3 is out of range for 3 modules"):
        net[3]


def test_subclass_of_sequential_may_hold_more():
    class Net(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(1, 1))
            self.scale = nn.Parameter([1.0])

    assert [n for n, _ in Net().named_parameters()] == ["0.weight", "0.bias", "scale"]
    assert type(Net()[:1]) is nn.Sequential


def test_module_list():
    modules = nn.ModuleList([nn.Linear(1, 2)])
    modules.append(nn.ReLU()).extend([nn.Tanh()])
    modules.insert(1, nn.Sigmoid())
    assert [type(m).__name__ for m in modules] == ["Linear", "Sigmoid", "ReLU", "Tanh"]
    assert len(modules[1:]) == 3 and isinstance(modules[1:], nn.ModuleList)
    assert repr(modules) == (
        "ModuleList(\n  (0): Linear(in_features=1, out_features=2, bias=True)\n"
        "  (1): Sigmoid()\n  (2): ReLU()\n  (3): Tanh()\n)"
    )


def test_module_dict():
    modules = nn.ModuleDict({"a": nn.Linear(1, 2)})
    modules["b"] = nn.ReLU()
    modules.update({"c": nn.Tanh()})
    assert list(modules) == list(modules.keys()) == ["a", "b", "c"]
    assert "a" in modules and len(modules) == 3 and isinstance(modules["b"], nn.ReLU)
    del modules["b"]
    assert [k for k, _ in modules.items()] == ["a", "c"] and len(modules.values()) == 2
    assert list(modules.state_dict()) == ["a.weight", "a.bias"]
    with raises(TypeError, r"ModuleDict: names must be strings; got 3"):
        modules[3] = nn.ReLU()
    with raises(TypeError, r"ModuleDict: entry d must be a Module; got int"):
        modules["d"] = 3


# repr


def test_repr():
    class Block(nn.Module):
        def __init__(self):
            self.layers = [nn.Linear(2, 3, bias=False), nn.Dropout(0.1)]
            self.pool = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())

        def extra_repr(self):
            return "depth=2"

    assert repr(Block()) == (
        "Block(\n"
        "  depth=2\n"
        "  (layers.0): Linear(in_features=2, out_features=3, bias=False)\n"
        "  (layers.1): Dropout(p=0.1)\n"
        "  (pool): Sequential(\n"
        "    (0): AvgPool2d(kernel_size=2, stride=2, padding=0)\n"
        "    (1): Flatten(start_axis=1, end_axis=-1)\n"
        "  )\n"
        ")"
    )
    shown = {
        "Softmax(axis=-1)": nn.Softmax(),
        "LogSoftmax(axis=1)": nn.LogSoftmax(1),
        "Softplus(beta=1.0)": nn.Softplus(),
        "BatchNorm1d(3, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)": (
            nn.BatchNorm1d(3)
        ),
        "InstanceNorm2d(3, eps=1e-05, momentum=0.1, affine=False, track_running_stats=False)": (
            nn.InstanceNorm2d(3)
        ),
        "GroupNorm(2, 6, eps=1e-05, affine=True)": nn.GroupNorm(2, 6),
        "LayerNorm((4,), eps=1e-05, elementwise_affine=True)": nn.LayerNorm(4),
        "Sequential()": nn.Sequential(),
        "MaxPool1d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)": nn.MaxPool1d(
            2
        ),
    }
    for text, layer in shown.items():
        assert repr(layer) == text


def test_every_layer_has_words():
    for name, cls in vars(nn).items():
        if inspect.isclass(cls):
            assert cls.__doc__, name
    for name, f in vars(F).items():
        if inspect.isfunction(f) and not name.startswith("_"):
            assert f.__doc__, name


# functional


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("widths", [(1, 2), (2, 0, 1, 3)])
def test_pad_against_torch(mode, widths):
    torch = pytest.importorskip("torch")
    x = tensor64(2, 3, 4, 5, requires_grad=True)
    z = torch.tensor(x.numpy(), requires_grad=True)
    if len(widths) == 2:  # torch pads one axis in these modes only of sequences
        y = F.pad(x[:, :, 0], widths, mode)
        expected = torch.nn.functional.pad(z[:, :, 0], widths, mode)
    else:
        y, expected = F.pad(x, widths, mode), torch.nn.functional.pad(z, widths, mode)
    np.testing.assert_array_equal(y.numpy(), expected.detach().numpy())
    g = tensor64(*y.shape, seed=1)
    y.backward(g)
    expected.backward(torch.tensor(g.numpy()))
    np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), atol=1e-12)


def test_pad_value():
    x = tz.tensor([[1.0, 2.0]])
    np.testing.assert_array_equal(F.pad(x, (1, 0), value=-1.0).numpy(), [[-1, 1, 2]])


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, np.inf])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_normalize_against_torch(p, axis):
    torch = pytest.importorskip("torch")
    x = tensor64(3, 4, 2, requires_grad=True)
    z = torch.tensor(x.numpy(), requires_grad=True)
    y, expected = F.normalize(x, p, axis), torch.nn.functional.normalize(z, p, axis)
    np.testing.assert_allclose(y.numpy(), expected.detach().numpy(), rtol=1e-12)
    g = tensor64(3, 4, 2, seed=1)
    y.backward(g)
    expected.backward(torch.tensor(g.numpy()))
    np.testing.assert_allclose(x.grad.numpy(), z.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [1.0, 2.0, 5.0, np.inf])
def test_normalize_of_nothing_is_finite(p):
    x = tz.tensor(np.zeros((2, 3)), dtype="float32", requires_grad=True)
    y = F.normalize(x, p)
    y.sum().backward()
    assert (y.numpy() == 0).all() and np.isfinite(x.grad.numpy()).all()


def test_cosine_similarity_against_torch():
    torch = pytest.importorskip("torch")
    a, b = tensor64(3, 4), tensor64(3, 4, seed=1)
    y = F.cosine_similarity(a, b)
    z = torch.nn.functional.cosine_similarity(torch.tensor(a.numpy()), torch.tensor(b.numpy()))
    np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=1e-12)


def test_one_hot():
    y = F.one_hot(tz.tensor([[0, 2], [1, 1]]))
    np.testing.assert_array_equal(y.numpy(), np.eye(3)[[[0, 2], [1, 1]]])
    assert y.dtype == np.int64
    assert F.one_hot(tz.tensor([0]), 4).shape == (1, 4)
    assert F.one_hot(tz.tensor(np.zeros((2, 0), int)), 3).shape == (2, 0, 3)


POSITIONAL = [
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "max_pool1d",
    "max_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "leaky_relu",
    "elu",
    "gelu",
    "softplus",
    "softmax",
    "log_softmax",
    "dropout",
    "dropout2d",
    "embedding",
    "pad",
    "normalize",
    "cosine_similarity",
    "batch_norm",
    "layer_norm",
    "group_norm",
    "instance_norm",
    "linear",
    "relu",
    "sigmoid",
    "tanh",
]


@pytest.mark.parametrize("name", POSITIONAL)
def test_arguments_stand_as_in_torch(name):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn.functional, name)
    words = list(inspect_or_none(theirs) or ())
    if not words or words[0] == "args":  # a builtin, which says it in its docstring's first line
        line = next(s for s in theirs.__doc__.splitlines() if f"{name}(" in s)
        words = line[line.index("(") + 1 : line.rindex(")")].replace("*, ", "").split(",")
    expected = [w.split("=")[0].strip() for w in words]
    same = {"axis": "dim", "x": "input", "w": "weight", "b": "bias"}
    ours = [
        same.get(p.name, p.name)
        for p in inspect.signature(getattr(F, name)).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "be"
    ]
    assert ours == expected[: len(ours)]


def inspect_or_none(f):
    try:
        return inspect.signature(f).parameters
    except ValueError:
        return None


# Errors


LAYER_ERRORS = [
    (lambda: nn.Linear(0, 3), ValueError, r"Linear: in_features must be at least 1; got 0"),
    (lambda: nn.Linear(2, 1.5), TypeError, r"Linear: out_features must be an int; got 1.5"),
    (
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        ValueError,
        r"Conv2d: groups \(2\) must divide in_channels \(3\) and out_channels \(4\)",
    ),
    (
        lambda: nn.Conv1d(1, 1, 0),
        ValueError,
        r"Conv1d: kernel_size must be at least 1; got 0",
    ),
    (
        lambda: nn.Conv2d(1, 1, (3, 3, 3)),
        TypeError,
        r"Conv2d: kernel_size must be an int or a pair of ints; got \(3, 3, 3\)",
    ),
    (
        lambda: nn.Conv2d(1, 1, 3, padding="half"),
        ValueError,
        r"Conv2d: padding must be 'same', 'valid' or numbers; got 'half'",
    ),
    (
        lambda: nn.Conv2d(1, 1, 3, stride=2, padding="same"),
        ValueError,
        r"Conv2d: padding 'same' needs stride 1; got stride 2",
    ),
    (
        lambda: nn.Conv2d(1, 1, 3, padding_mode="mirror"),
        ValueError,
        r"Conv2d: unknown padding_mode 'mirror': choose from zeros, reflect, replicate, circular",
    ),
    (
        lambda: nn.ConvTranspose2d(1, 1, 3, padding="same"),
        ValueError,
        r"ConvTranspose2d: padding must be numbers; got 'same'",
    ),
    (
        lambda: nn.GroupNorm(4, 6),
        ValueError,
        r"GroupNorm: num_groups \(4\) must divide num_channels \(6\)",
    ),
    (
        lambda: nn.LayerNorm((3, 0)),
        ValueError,
        r"LayerNorm: normalized_shape must be at least 1; got 0",
    ),
    (
        lambda: nn.BatchNorm2d(0),
        ValueError,
        r"BatchNorm2d: num_features must be at least 1; got 0",
    ),
    (lambda: nn.Dropout(1.0), ValueError, r"Dropout: p must lie in \[0, 1\); got 1.0"),
    (lambda: nn.Dropout2d(-0.1), ValueError, r"Dropout2d: p must lie in \[0, 1\); got -0.1"),
    (
        lambda: nn.Embedding(5, 3, 5),
        ValueError,
        r"Embedding: padding_idx must name one of 5 rows; got 5",
    ),
    (
        lambda: nn.GELU("erf"),
        ValueError,
        r"GELU: approximate must be 'none' or 'tanh'; got 'erf'",
    ),
    (lambda: nn.Softplus(0), ValueError, r"Softplus: beta must be positive; got 0"),
    (lambda: nn.HuberLoss(delta=0), ValueError, r"HuberLoss: delta must be positive; got 0"),
    (
        lambda: nn.MSELoss("max"),
        ValueError,
        r"MSELoss: unknown reduction 'max': choose from mean, sum, none",
    ),
    (
        lambda: nn.KLDivLoss("max"),
        ValueError,
        r"KLDivLoss: unknown reduction 'max': choose from mean, sum, none, batchmean",
    ),
    (
        lambda: nn.CrossEntropyLoss(label_smoothing=1.0),
        ValueError,
        r"CrossEntropyLoss: label_smoothing must lie in \[0, 1\); got 1.0",
    ),
    (
        lambda: nn.BatchNorm2d(3)(tensor64(2, 3)),
        ValueError,
        r"BatchNorm2d: x must be \(N, C, H, W\) with C = 3; got \(2, 3\)",
    ),
    (
        lambda: nn.BatchNorm1d(3)(tensor64(2, 4)),
        ValueError,
        r"BatchNorm1d: x must be \(N, C\) or \(N, C, L\) with C = 3; got \(2, 4\)",
    ),
    (
        lambda: nn.InstanceNorm2d(3)(tensor64(3, 4, 4)),
        ValueError,
        r"InstanceNorm2d: x must be \(N, C, H, W\) with C = 3; got \(3, 4, 4\)",
    ),
    (
        lambda: nn.GlobalAvgPool2d()(tensor64(2, 3)),
        ValueError,
        r"GlobalAvgPool2d: x must be \(N, C, H, W\); got shape \(2, 3\)",
    ),
    (
        lambda: nn.Flatten(2)(tensor64(2, 3)),
        ValueError,
        r"Flatten: axis 2 is out of range for shape \(2, 3\)",
    ),
    (
        lambda: nn.Flatten(1, 0)(tensor64(2, 3)),
        ValueError,
        r"Flatten: start_axis 1 comes after end_axis 0",
    ),
    (
        lambda: F.batch_norm(tensor64(2, 3), None, None),
        ValueError,
        r"batch_norm: running_mean and running_var are needed except in training",
    ),
    (
        lambda: F.layer_norm(tensor64(2, 3, 4), 4, tensor64(3, 4)),
        ValueError,
        r"layer_norm: weight must have normalized_shape \(4,\); got \(3, 4\)",
    ),
    (
        lambda: F.normalize(tensor64(2, 3), p=0),
        ValueError,
        r"normalize: p must be positive; got 0",
    ),
    (
        lambda: F.embedding(tz.tensor([0]), tensor64(3, 2), 3),
        ValueError,
        r"embedding: padding_idx must name one of 3 rows; got 3",
    ),
    (
        lambda: F.one_hot(tensor64(2)),
        TypeError,
        r"one_hot: labels must be integers; got float64",
    ),
    (
        lambda: F.one_hot(tz.tensor([0, 3]), 3),
        ValueError,
        r"one_hot: labels must lie in 0..2; got 0..3",
    ),
    (
        lambda: F.pad(tensor64(2, 3), (1,)),
        ValueError,
        r"pad: a pair of sizes for each of at most 2 axes is needed; got \(1,\)",
    ),
    (
        lambda: F.pad(tensor64(2, 3), (1, 1), "mirror"),
        ValueError,
        r"pad: unknown mode 'mirror': choose from constant, reflect, replicate, circular",
    ),
    (
        lambda: F.pad(tensor64(2, 3), (1, 3), "reflect"),
        ValueError,
        r"pad: reflect along an axis of 3 can add 0 to 2 on each side; got \(1, 3\)",
    ),
    (
        lambda: F.binary_cross_entropy(tensor64(2), tensor64(2), tensor64(2), reduction="max"),
        ValueError,
        r"binary_cross_entropy: reduction must be 'mean', 'sum' or 'none'; got 'max'",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), LAYER_ERRORS, ids=lambda v: "")
def test_layer_errors(call, kind, message):
    with raises(kind, message), np.errstate(all="ignore"):
        call()


def test_a_sequential_fuses_layers_in_a_row_and_gives_the_same():
    def outcome(net, x):
        x = tz.tensor(x, requires_grad=True, dtype="float64")
        y = net.to("float64")(x)
        (y * y).sum().backward()
        return [y.node.name, y, x.grad, *(p.grad for p in net.parameters())]

    rng = np.random.default_rng(0)
    for conv, pool in [
        (nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)),
        (nn.Conv2d(3, 4, (2, 3), stride=2, padding=1, bias=False), nn.MaxPool2d(3, stride=2)),
        (nn.Conv2d(3, 4, 2, padding="same"), nn.MaxPool2d((2, 1))),
    ]:
        x = rng.standard_normal((2, 3, 11, 12))
        net = nn.Sequential(conv, nn.ReLU(), pool)
        name, *fused = outcome(net, x)
        assert name == "conv2d_relu_max_pool2d"
        for layer in net:
            net.zero_grad()
            remove = layer.register_forward_hook(lambda module, args, out: None)
            name, *plain = outcome(net, x)
            assert name == "max_pool2d"  # what a hook looks at must exist
            remove()
            for a, b in zip(fused, plain, strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-12)


def test_a_kernel_of_ones_own_serves_fused_layers_too(backend):
    """The backend's kernels for the whole would do without it."""
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2)).to(backend)
    x = np.random.default_rng(0).standard_normal((2, 3, 10, 8)).astype("float32")

    def outcome(where, wanted):
        net.to(where).zero_grad()
        t = tz.tensor(x, requires_grad=wanted, backend=where)
        (y := net(t)).sum().backward()
        return [y, *(p.grad for p in net.parameters()), *([t.grad] if wanted else [])]

    for name in (
        "conv2d",
        "relu_max_pool2d",
        "conv2d_grad_w",
        "relu_max_pool2d_grad",
        "conv2d_grad_x",
    ):
        called, usual = [], getattr(backend.kernels, name)

        def own(*args, usual=usual, called=called):
            called.append(usual)
            return usual(*args)

        for wanted in (False, True):
            called.clear()
            results = outcome(backend.replace(**{name: own}), wanted)
            assert len(called) == (name != "conv2d_grad_x" or wanted), name
            for ours, plain in zip(results, outcome(backend, wanted), strict=True):
                np.testing.assert_allclose(ours.numpy(), plain.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Conv2d(1, 2, 3), nn.ReLU()],
        [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2, padding=1)],
        [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)],
        [nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.ReLU(), nn.MaxPool2d(2)],
        [nn.Conv2d(1, 2, 3), nn.Tanh(), nn.MaxPool2d(2)],
    ],
    ids=str,
)
def test_a_sequential_does_not_fuse_what_it_does_not_know(layers):
    y = nn.Sequential(*layers)(tz.tensor(np.ones((1, 1, 8, 8))))
    assert y.node.name != "conv2d_relu_max_pool2d"


def by_itself(net, x):
    """What the layers of a Sequential give one after the other, none fused."""
    for layer in net:
        x = layer(x)
    return x


@pytest.mark.parametrize("shape", [(6, 3, 5, 4), (6, 3)], ids=str)
@pytest.mark.parametrize("options", [{}, {"momentum": None}, {"track_running_stats": False}])
def test_a_sequential_fuses_batch_norm_with_relu(shape, options):
    norm = {4: nn.BatchNorm2d, 2: nn.BatchNorm1d}[len(shape)]
    nets = [nn.Sequential(norm(3, **options), nn.ReLU()).to("float64") for _ in range(2)]
    results = []
    for net, call in zip(nets, (nn.Sequential.__call__, by_itself), strict=True):
        rng = np.random.default_rng(0)
        for _ in range(
            2
        ):  # the second time the running statistics are no longer those of a new layer
            x = tz.tensor(rng.standard_normal(shape), requires_grad=True)
            y = call(net, x)
            ((y - 1) ** 2).sum().backward()
        results.append([y, x.grad, *(p.grad for p in net.parameters()), *net.state_dict().values()])
        assert y.node.name == ("batch_norm_relu" if call is not by_itself else "relu")
    for fused, plain in zip(*results, strict=True):
        np.testing.assert_allclose(np.asarray(fused), np.asarray(plain), rtol=1e-12, atol=1e-12)
    x = tz.tensor(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"BatchNorm.d: x must be .* with C = 3; got \(2, 4\)"):
        nets[0](x)
    assert nn.Sequential(norm(3, affine=False), nn.ReLU()).to("float64")(y).node.name == "relu"


def test_second_derivatives_of_batch_norm_with_relu_leave_running_statistics_alone():
    net = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU())
    x = tz.tensor(np.arange(6.0).reshape(3, 2), dtype="float32", requires_grad=True)
    y = (net(x) ** 3).sum()
    mean = net[0].running_mean.numpy().copy()
    (g,) = tz.grad(y, [x], create_graph=True)
    (g * g).sum().backward()
    np.testing.assert_array_equal(net[0].running_mean.numpy(), mean)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", [1, "same"])
def test_in_evaluation_a_convolution_takes_over_the_batch_norm_behind_it(bias, padding):
    conv, norm = nn.Conv2d(2, 3, 3, padding=padding, bias=bias), nn.BatchNorm2d(3)
    net = nn.Sequential(conv, norm, nn.ReLU()).to("float64")
    rng = np.random.default_rng(0)
    net(tz.tensor(2 + rng.standard_normal((8, 2, 5, 5))))
    results, x = [], tz.tensor(rng.standard_normal((2, 2, 5, 5)), requires_grad=True)
    for call in (net.eval(), lambda x: by_itself(net, x)):
        net.zero_grad()
        y = call(x)
        results.append([y, *tz.grad((y * y).sum(), [x, *net.parameters()])])
    for fused, plain in zip(*results, strict=True):
        np.testing.assert_allclose(fused.numpy(), plain.numpy(), rtol=1e-11, atol=1e-12)
    for other in (nn.BatchNorm2d(3, track_running_stats=False), nn.BatchNorm2d(3, affine=False)):
        net = nn.Sequential(conv, other.to("float64")).eval()
        np.testing.assert_array_equal(net(x).numpy(), by_itself(net, x).numpy())


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.Tanh()], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_sequential_fuses_linear_with_its_activation(activation, bias):
    x = tz.tensor(np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32))
    net = nn.Sequential(nn.Linear(3, 4, bias=bias), activation)
    y = net(x)
    assert y.node.name == "linear_activation"
    np.testing.assert_allclose(y.numpy(), activation(net[0](x)).numpy(), rtol=1e-6)
    assert nn.Sequential(net[0], nn.SiLU())(x).node.name == "silu"


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Sigmoid(), nn.Tanh()], ids=str)
def test_a_sequential_computes_two_dense_layers_as_one_op(activation):
    def outcome(net):
        net.zero_grad()
        y = net(x)
        (y * y).sum().backward()
        return y.node.name, [y.numpy(), *(p.grad.numpy() for p in net.parameters())]

    rng = np.random.default_rng(0)
    x = tz.tensor(rng.standard_normal((5, 3)), dtype="float64")
    layers = [nn.Linear(3, 4), activation, nn.Linear(4, 2)]
    net = nn.Sequential(*layers).to("float64")
    name, fused = outcome(net)
    assert name == "feed_forward"
    for layer in layers:  # what a hook looks at must exist
        remove = layer.register_forward_hook(lambda module, args, out: None)
        name, plain = outcome(net)
        remove()
        assert name == "linear"
        for a, b in zip(fused, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    deep = nn.Sequential(*layers, nn.Tanh(), nn.Linear(2, 2)).to("float64")
    first = deep(x).node.parents[0]  # a layer with an activation of its own goes with that
    assert deep(x).node.name == "feed_forward" and first.node.name == "linear_activation"
    for first, last in (True, False), (False, True):
        layers = nn.Linear(3, 4, bias=first), activation, nn.Linear(4, 2, bias=last)
        assert nn.Sequential(*layers).to("float64")(x).node.name == "linear"


def test_two_dense_layers_compute_the_gradient_of_their_input_only_if_asked():
    asked = []
    plain = tz.backend("numpy")

    def spy(*args):
        asked.append(args[-1])
        return plain.kernels.feed_forward_grad(*args)

    with tz.using(plain.replace(feed_forward_grad=spy)):
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        for wanted in (False, True):
            x = tz.tensor(np.ones((5, 3), np.float32), requires_grad=wanted)
            net(x).sum().backward()
            assert (x.grad is not None) is wanted
    assert asked == [False, True]  # once each, for all five gradients


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_a_transformer_layer_computes_its_dense_network_as_one_op(activation):
    def outcome(layer):
        layer.zero_grad()
        y = layer.dense(x)
        (y * y).sum().backward()
        return [
            y.node.name,
            y.numpy(),
            *(p.grad.numpy() for p in layer.parameters() if p.grad is not None),
        ]

    x = tz.tensor(np.random.default_rng(0).standard_normal((2, 5, 8)), dtype="float64")
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, activation=activation).to("float64")
    assert outcome(layer)[0] == "linear"  # dropout stands between
    name, *fused = outcome(layer.eval())
    assert name == "feed_forward" and len(fused) == 5
    for part in (layer.linear1, layer.linear2, layer.dropout):
        remove = part.register_forward_hook(lambda module, args, out: None)
        name, *plain = outcome(layer)
        assert name == "linear"  # what a hook looks at must exist
        remove()
        for a, b in zip(fused, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    others = {"bias": False}, {"activation": nn.functional.silu}
    for options in others:
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, **options).to("float64")
        assert layer.dense(x).node.name == "linear"
