"""PyTorch as the outside judge: values, gradients and second derivatives of every op it has."""

import numpy as np
import pytest
from samples import SAMPLES, TORCH

import tinygrad_zen as tz
from tinygrad_zen import ops

torch = pytest.importorskip("torch")
F = torch.nn.functional

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning"
)  # PyTorch's advice on its own options

JUDGED = [s for s in SAMPLES if TORCH.get(s.op) is not None]


def several(outputs):
    return list(outputs) if isinstance(outputs, tuple | list) else [outputs]


def floats(outputs):
    return [o for o in several(outputs) if o.requires_grad]


def torch_tensors(sample, arrays):
    draws = sample.draws()
    return [
        torch.tensor(a, requires_grad=d.differentiable) for a, d in zip(arrays, draws, strict=True)
    ]


def assert_equal(ours, theirs, tolerance=1e-10):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=tolerance, atol=tolerance)


def test_every_op_names_its_counterpart():
    missing = sorted({s.op for s in SAMPLES} - set(TORCH))
    assert not missing, (
        f"tests/samples.py says nothing about {missing}; None where PyTorch has none"
    )
    assert not set(TORCH) - {s.op for s in SAMPLES}


@pytest.mark.parametrize("sample", JUDGED, ids=str)
def test_values_and_gradients(sample):
    arrays = sample.arrays()
    xs, ts = sample.lift(arrays), torch_tensors(sample, arrays)
    ys, us = several(sample(*xs)), several(sample(*ts, function=TORCH[sample.op]))
    for y, u in zip(ys, us, strict=True):
        assert_equal(y, u)
    rng = np.random.default_rng(1)
    seeds = [rng.standard_normal(y.shape) for y in ys]
    wanted = [(x, t) for x, t in zip(xs, ts, strict=True) if t.requires_grad]
    ours = tz.grad(ys, [x for x, _ in wanted], seeds, allow_unused=True)
    theirs = torch.autograd.grad(
        us, [t for _, t in wanted], [torch.tensor(s) for s in seeds], allow_unused=True
    )
    for (x, _), g, h in zip(wanted, ours, theirs, strict=True):
        if g is None or h is None:  # an output that no element of this argument reaches
            g, h = (np.zeros(x.shape) if z is None else z.numpy() for z in (g, h))
            np.testing.assert_array_equal(g, h)
        else:
            assert_equal(g, h)


def rows(*ops_named):
    return [s for s in JUDGED if s.op in ops_named]


TWICE = rows(
    *("conv2d", "conv1d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "matmul", "linear"),
    *("einsum", "tanh", "sigmoid", "gelu", "silu", "softplus", "softmax", "log_softmax"),
    *("rnn", "lstm", "gru", "attention"),
    *("layer_norm", "batch_norm", "group_norm", "cross_entropy", "mse_loss", "prod", "std", "div"),
    *("binary_cross_entropy_with_logits", "logsumexp", "pow", "getitem"),
)


@pytest.mark.parametrize("sample", TWICE, ids=str)
def test_second_derivatives(sample):
    """The gradient of <J^T v, w> for random v and w, with respect to the inputs and to v."""
    arrays = sample.arrays()
    rng = np.random.default_rng(2)
    seeds = [rng.standard_normal(y.shape) for y in floats(sample(*sample.lift(arrays)))]
    weights = [rng.standard_normal(a.shape) for a in arrays]

    def twice(xs, ys, vs, grad):
        wanted = [(x, w) for x, w in zip(xs, weights, strict=True) if x.requires_grad]
        first = grad(floats(ys), [x for x, _ in wanted], vs, create_graph=True)
        # every v takes part, so that a gradient that depends on nothing has a derivative, too: 0
        total = sum((g * constant(w)).sum() for g, (_, w) in zip(first, wanted, strict=True))
        total = total + sum((v * 0.0).sum() for v in vs)
        return grad([total], [*(x for x, _ in wanted), *vs], allow_unused=True)

    def constant(w):
        return torch.tensor(w) if library is torch else w

    library = tz
    xs = sample.lift(arrays)
    ours = twice(xs, sample(*xs), [tz.tensor(v, True, backend="numpy") for v in seeds], tz.grad)
    library = torch
    ts = torch_tensors(sample, arrays)
    us = sample(*ts, function=TORCH[sample.op])
    theirs = twice(
        ts, us, [torch.tensor(v, requires_grad=True) for v in seeds], torch.autograd.grad
    )
    for g, h in zip(ours, theirs, strict=True):
        if g is None or h is None:  # one finds a path of zeros where the other finds none
            assert all(z is None or np.abs(z.numpy()).max(initial=0.0) < 1e-9 for z in (g, h))
        else:
            assert_equal(g, h, 1e-9)


LOGITS = [[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4], [1e4, 1e4, 1e4 - 1]]
STABLE = {
    "softmax": (lambda x: ops.softmax(x), lambda x: x.softmax(-1)),
    "log_softmax": (lambda x: ops.log_softmax(x), lambda x: x.log_softmax(-1)),
    "logsumexp": (lambda x: ops.logsumexp(x, axis=1), lambda x: x.logsumexp(1)),
    "sigmoid": (lambda x: ops.sigmoid(x), lambda x: x.sigmoid()),
    "logsigmoid": (lambda x: ops.logsigmoid(x), lambda x: F.logsigmoid(x)),
    "softplus": (lambda x: ops.softplus(x), lambda x: F.softplus(x)),
    "silu": (lambda x: ops.silu(x), lambda x: F.silu(x)),
    "tanh": (lambda x: ops.tanh(x), lambda x: x.tanh()),
    "elu": (lambda x: ops.elu(x), lambda x: F.elu(x)),
    "gelu": (lambda x: ops.gelu(x), lambda x: F.gelu(x)),
    "cross_entropy": (
        lambda x: ops.cross_entropy(x, np.array([1, 0, 2])),
        lambda x: F.cross_entropy(x, torch.tensor([1, 0, 2])),
    ),
    "cross_entropy smoothed": (
        lambda x: ops.cross_entropy(x, np.array([1, 0, 2]), label_smoothing=0.1),
        lambda x: F.cross_entropy(x, torch.tensor([1, 0, 2]), label_smoothing=0.1),
    ),
    "binary_cross_entropy_with_logits": (
        lambda x: ops.binary_cross_entropy_with_logits(x, np.float32(LOGITS) * 0 + 1),
        lambda x: F.binary_cross_entropy_with_logits(x, torch.ones(3, 3)),
    ),
    "huber_loss": (
        lambda x: ops.huber_loss(x, np.float32(LOGITS) * 0),
        lambda x: F.huber_loss(x, torch.zeros(3, 3)),
    ),
}


@pytest.mark.parametrize("name", STABLE)
def test_extreme_logits_stay_finite_in_float32(name):
    f, judge = STABLE[name]
    x, t = tz.tensor(LOGITS, requires_grad=True), torch.tensor(LOGITS, requires_grad=True)
    y, u = f(x), judge(t)
    g = np.linspace(0.5, 1.5, y.size, dtype=np.float32).reshape(y.shape)
    y.backward(g)
    u.backward(torch.tensor(g))
    for ours, theirs in ((y, u), (x.grad, t.grad)):
        assert np.isfinite(ours.numpy()).all() and ours.dtype == np.float32
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_classes_that_are_masked_out_do_not_disturb():
    """Scores of -inf: their classes have probability 0, and the loss of another stays finite."""
    scores = [[-np.inf, 0.5, 1.0], [2.0, -np.inf, 0.0]]
    for options in ({}, {"reduction": "none"}):
        x, t = tz.tensor(scores, requires_grad=True), torch.tensor(scores, requires_grad=True)
        ours = ops.cross_entropy(x, np.array([1, 0]), **options)
        theirs = F.cross_entropy(t, torch.tensor([1, 0]), **options)
        ours.sum().backward(), theirs.sum().backward()
        np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-6)
        np.testing.assert_allclose(x.grad.numpy(), t.grad.numpy(), rtol=1e-5, atol=1e-7)


def test_rows_of_minus_infinity_sum_to_it():
    x = tz.tensor([[-np.inf, -np.inf], [0.0, -np.inf]], requires_grad=True)
    y = ops.logsumexp(x, axis=1)
    assert y.tolist() == [-np.inf, 0]
    y[1].backward()
    assert x.grad.tolist() == [[0, 0], [1, 0]]


def test_probabilities_of_0_and_1_have_a_finite_loss():
    p, q = tz.tensor([0.0, 1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    t = [0.0, 1.0, 1.0, 0.0]
    p.requires_grad_(), q.requires_grad_()
    ours = ops.binary_cross_entropy(p, tz.tensor(t))
    theirs = F.binary_cross_entropy(q, torch.tensor(t))
    ours.backward(), theirs.backward()
    assert ours.item() == theirs.item() == 50.0
    np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy())


def test_padding_idx_keeps_its_row():
    index, w = np.array([[1, 2], [0, 1]]), np.random.default_rng(0).standard_normal((3, 2))
    ours = tz.tensor(w, requires_grad=True)
    theirs = torch.tensor(w, requires_grad=True)
    (ops.embedding(index, ours, padding_idx=1) ** 2).sum().backward()
    (F.embedding(torch.tensor(index), theirs, padding_idx=1) ** 2).sum().backward()
    assert_equal(ours.grad, theirs.grad)
    assert not ours.grad.numpy()[1].any() and ours.grad.numpy()[0].all()


def test_running_statistics_move_as_pytorchs():
    x = np.random.default_rng(0).standard_normal((4, 3, 2, 2))
    mean, var = np.zeros(3), np.ones(3)
    their_mean, their_var = torch.zeros(3, dtype=float), torch.ones(3, dtype=float)
    w, b = np.ones(3), np.zeros(3)
    for scale in (1, 2):
        ops.batch_norm(tz.tensor(scale * x), w, b, running=(mean, var, 0.1))
        F.batch_norm(torch.tensor(scale * x), their_mean, their_var, training=True, momentum=0.1)
    np.testing.assert_allclose(mean, their_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(var, their_var.numpy(), rtol=1e-12)


@pytest.mark.parametrize("op", ["max", "min"])
def test_equal_winners_share_the_gradient(op):
    x = np.array([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    x = x if op == "max" else -x
    ours, theirs = tz.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    (getattr(ours, op)(axis=1) * np.array([1.0, 2.0])).sum().backward()
    (getattr(theirs, "a" + op)(1) * torch.tensor([1.0, 2.0])).sum().backward()
    assert_equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("op", ["maximum", "minimum"])
def test_equal_arguments_share_the_gradient(op):
    a, b = np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])
    ours = [tz.tensor(z, requires_grad=True) for z in (a, b)]
    theirs = [torch.tensor(z, requires_grad=True) for z in (a, b)]
    getattr(ops, op)(*ours).sum().backward()
    getattr(torch, op)(*theirs).sum().backward()
    for x, t in zip(ours, theirs, strict=True):
        assert_equal(x.grad, t.grad)


def test_kinks_take_the_documented_gradient():
    for f, expected in (
        (ops.relu, 0.0),
        (ops.abs, 0.0),
        (ops.sign, 0.0),
        (lambda x: ops.leaky_relu(x, slope=0.2), 0.2),
        (lambda x: ops.hinge_loss(x + 1, np.ones(1), reduction="sum"), 0.0),
        (lambda x: ops.l1_loss(x, np.zeros(1), reduction="sum"), 0.0),
        (lambda x: x**0, 0.0),
        (lambda x: ops.std(x * np.ones(3)), 0.0),
    ):
        x = tz.tensor([0.0], requires_grad=True, dtype="float64")
        f(x).sum().backward()
        assert x.grad.item() == expected
