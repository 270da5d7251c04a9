"""tinygrad_zen.optim: update rules and schedules against PyTorch, groups, state, clipping."""

import copy
import math
import pickle

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn as nn
import tinygrad_zen.optim as optim
from tinygrad_zen.optim import optimizer as optimizer_module


def raises(kind, message):
    """Expect an error whose whole message matches the pattern."""
    return pytest.raises(kind, match=rf"\A{message}\Z")


SHAPES = [(4, 3), (4,), (1, 4), ()]


def leaves(dtype="float64", shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    return [tz.tensor(rng.normal(size=s), requires_grad=True, dtype=dtype) for s in shapes]


def gradients(step, params):
    """Gradients that differ from step to step and in size from element to element."""
    rng = np.random.default_rng(100 + step)
    return [rng.normal(size=p.shape) * np.exp(rng.normal(size=p.shape) * 2) for p in params]


def set_gradients(params, arrays):
    for p, g in zip(params, arrays, strict=True):
        p.grad = None if g is None else tz.tensor(g, dtype=p.dtype, backend=p.backend)


RULES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "eps": 1e-6, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("Adagrad", {}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.1, "weight_decay": 0.5, "amsgrad": True}),
]
ids = [f"{name}-{'-'.join(options)}" for name, options in RULES]


# Update rules


@pytest.mark.parametrize("packed_size", [0, 4096])
@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_rule_against_torch(rule, packed_size, backend, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(optimizer_module, "PACKED_SIZE", packed_size)
    name, options = rule
    ours = leaves()
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in ours]
    opt = getattr(optim, name)(ours, **options)
    judge = getattr(torch.optim, name)(theirs, **options)
    for step in range(60):
        arrays = gradients(step, ours)
        if step % 7 == 3:
            arrays[step % 4] = None  # skipped: neither moved nor counted
        set_gradients(ours, arrays)
        for q, g in zip(theirs, arrays, strict=True):
            q.grad = None if g is None else torch.tensor(g)
        opt.step()
        judge.step()
        for p, q in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-10, atol=1e-10)
    assert all(p.dtype == np.float64 for p in ours)


def test_adam_from_the_paper():
    """Algorithm 1 of Kingma & Ba, line by line, on one number."""
    w, m, v = 1.0, 0.0, 0.0
    p = tz.tensor([w], requires_grad=True, dtype="float64")
    opt = optim.Adam([p], lr=0.1, betas=(0.9, 0.999), eps=1e-8)
    for t in range(1, 6):
        g = 0.3 * t - 1
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        w -= 0.1 * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
        p.grad = tz.tensor([g], dtype="float64")
        opt.step()
        assert p.item() == pytest.approx(w, abs=1e-14)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
def test_float32_stays_near_float64(name):
    options = {"momentum": 0.9} if name == "SGD" else {}
    single, double = leaves("float32"), leaves("float64")
    for p, q in zip(single, double, strict=True):
        q.data[...] = p.data
    a = getattr(optim, name)(single, lr=1e-2, **options)
    b = getattr(optim, name)(double, lr=1e-2, **options)
    for step in range(200):
        arrays = [g.astype("float32") for g in gradients(step, single)]
        set_gradients(single, arrays)
        set_gradients(double, arrays)
        a.step()
        b.step()
    for p, q in zip(single, double, strict=True):
        assert p.dtype == np.float32
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=2e-5)


def test_centered_rmsprop_with_constant_gradients_stays_finite():
    """The variance is then 0, and rounding must not push it below."""
    p = tz.tensor(np.ones(1000), requires_grad=True, dtype="float32")
    opt = optim.RMSprop([p], lr=1e-6, alpha=0.5, centered=True)
    p.grad = tz.tensor(np.linspace(0.1, 3, 1000), dtype="float32")
    for _ in range(100):
        opt.step()
    assert np.isfinite(p.numpy()).all()


def test_memory_order_and_views_do_not_matter():
    rng = np.random.default_rng(0)
    values, grads = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 4, 5))
    backend = tz.backend("numpy")

    def last(x):  # channels last in memory
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)

    plain = tz.tensor(values, requires_grad=True, backend=backend)
    odd = tz.Tensor(last(values), backend, True)
    strided = tz.Tensor(np.repeat(values, 2, axis=3)[..., ::2], backend, True)
    for p, g in [(plain, grads), (odd, grads), (strided, last(grads))]:
        array = p.data
        opt = optim.Adam([p], lr=0.1)
        p.grad = tz.Tensor(g, backend)
        opt.step()
        opt.step()
        assert p.data is array
    np.testing.assert_array_equal(odd.numpy(), plain.numpy())
    np.testing.assert_array_equal(strided.numpy(), plain.numpy())

    packed = [tz.Tensor(last(values), backend, True), tz.Tensor(values.copy(), backend, True)]
    for p, g in zip(packed, [grads, last(grads)], strict=True):
        p.grad = tz.Tensor(g, backend)
    opt = optim.Adam(packed, lr=0.1)
    opt.step()
    opt.step()
    for p in packed:
        np.testing.assert_array_equal(p.numpy(), plain.numpy())


def test_parameters_that_share_an_array_are_both_stepped():
    whole = np.zeros((2, 3))
    backend = tz.backend("numpy")
    p, q = (tz.Tensor(a, backend, True) for a in (whole, whole.T))
    opt = optim.SGD([p, q, *leaves(shapes=[(2,)])], lr=1.0)
    p.grad, q.grad = tz.tensor(np.ones((2, 3))), tz.tensor(np.ones((3, 2)))
    opt.step()
    np.testing.assert_array_equal(whole, np.full((2, 3), -2.0))


# What every optimizer shares


def test_packing_changes_no_bit(monkeypatch):
    """Small parameters are updated together; each must fare as it would alone."""

    def run(packed_size):
        monkeypatch.setattr(optimizer_module, "PACKED_SIZE", packed_size)
        params = leaves("float32")
        opt = optim.Adam(params, lr=0.1, weight_decay=0.1)
        for step in range(10):
            arrays = gradients(step, params)
            arrays[1] = None if step < 3 else arrays[1]  # joins later, with a count of its own
            set_gradients(params, arrays)
            opt.step()
        return [p.numpy() for p in params], opt.state

    together, state = run(4096)
    alone, _ = run(0)
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_array_equal(a, b)
    assert [s["step"] for s in state] == [10, 7, 10, 10]


def test_parameters_keep_their_arrays_and_gradients():
    params = leaves()
    arrays = [p.data for p in params]
    opt = optim.SGD(params, lr=0.1, momentum=0.9, weight_decay=0.1)
    grads = gradients(0, params)
    set_gradients(params, grads)
    opt.step()
    opt.step()
    for p, array, g in zip(params, arrays, grads, strict=True):
        assert p.data is array
        np.testing.assert_array_equal(p.grad.numpy(), g)


def test_new_array_of_a_parameter_is_taken_up():
    p, q = leaves(shapes=[(2,), (3,)])
    opt = optim.SGD([p, q], lr=1.0)
    set_gradients([p, q], [np.ones(2), np.ones(3)])
    opt.step()
    p.data = np.zeros(2)
    opt.step()
    np.testing.assert_array_equal(p.numpy(), [-1, -1])


def test_changed_precision_takes_the_state_along():
    net = nn.Linear(3, 2)
    opt = optim.Adam(net.parameters())
    for dtype in ("float32", "float64", "float32"):
        net.to(dtype)
        net(tz.tensor(np.ones((1, 3)), dtype=dtype)).sum().backward()
        opt.step()
        assert net.weight.dtype == dtype and opt.state[0]["exp_avg"].dtype == dtype
    assert opt.state[0]["step"] == 3


def test_moved_module_goes_on_with_its_optimizer():
    calls = []
    plain = tz.backend("numpy")

    def counted(*args):
        calls.append(args[0].size)
        plain.kernels.sgd_(*args)

    other = plain.replace(sgd_=counted)
    net = nn.Linear(3, 2)
    opt = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(tz.tensor(np.ones((1, 3)), dtype="float32")).sum().backward()
    opt.step()
    net.to(other)
    assert net.weight.grad.backend is other
    opt.step()
    assert calls == [8]
    assert [s["step"] for s in opt.state] == [2, 2]


def test_groups():
    p, q = leaves(shapes=[(2,), (2,)])
    before = p.numpy().copy(), q.numpy().copy()
    opt = optim.SGD([{"params": [p], "lr": 1.0}, {"params": q}], lr=0.1)
    set_gradients([p, q], [np.ones(2), np.ones(2)])
    opt.step()
    np.testing.assert_allclose(p.numpy(), before[0] - 1.0)
    np.testing.assert_allclose(q.numpy(), before[1] - 0.1)
    opt.param_groups[1]["lr"] = 0.0
    r = leaves(shapes=[(3,)])[0]
    opt.add_param_group({"params": [r], "momentum": 0.9})
    assert [g["momentum"] for g in opt.param_groups] == [0.0, 0.0, 0.9]
    set_gradients([r], [np.ones(3)])
    opt.step()
    np.testing.assert_allclose(q.numpy(), before[1] - 0.1)
    assert opt.state[2]["momentum_buffer"].shape == (3,)


def test_options_may_change_between_steps():
    p = tz.tensor([1.0], requires_grad=True, dtype="float64")
    opt = optim.SGD([p], lr=1.0)
    p.grad = tz.tensor([1.0], dtype="float64")
    opt.step()
    opt.param_groups[0]["momentum"] = 0.5
    opt.step()
    opt.step()
    assert p.item() == pytest.approx(1 - 1 - 1 - 1.5)


def test_zero_grad():
    params = leaves()
    set_gradients(params, gradients(0, params))
    opt = optim.SGD(params)
    opt.zero_grad()
    assert all(p.grad is None for p in params)
    before = [p.numpy().copy() for p in params]
    opt.step()
    for p, b in zip(params, before, strict=True):
        np.testing.assert_array_equal(p.numpy(), b)
    assert opt.state == [{}, {}, {}, {}]


def test_a_shared_parameter_of_a_module_is_stepped_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    opt = optim.SGD(net.parameters(), lr=1.0)
    assert len(opt.param_groups[0]["params"]) == 3


def test_repr():
    assert repr(optim.SGD(leaves())) == (
        "SGD (\n  4 parameters: lr=0.001, momentum=0.0, dampening=0.0, weight_decay=0.0, "
        "nesterov=False\n)"
    )


# State


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_resumed_is_uninterrupted(rule):
    name, options = rule

    def train(params, opt, steps):
        for step in steps:
            arrays = gradients(step, params)
            arrays[2] = None if step in (2, 6) else arrays[2]
            set_gradients(params, arrays)
            opt.step()

    make = getattr(optim, name)
    straight = leaves("float32")
    train(straight, make(straight, **options), range(10))

    first = leaves("float32")
    opt = make(first, **options)
    train(first, opt, range(5))
    saved = pickle.loads(pickle.dumps(opt.state_dict()))
    second = [tz.tensor(p.numpy(), requires_grad=True) for p in first]
    resumed = make(second, lr=123.0)
    resumed.load_state_dict(saved)
    train(first, opt, range(5, 10))  # saving must not have disturbed it either
    train(second, resumed, range(5, 10))
    for a, b, c in zip(straight, first, second, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
        np.testing.assert_array_equal(a.numpy(), c.numpy())


def test_state_dict_is_a_copy_in_positions():
    params = leaves()
    opt = optim.Adam([{"params": params[:1]}, {"params": params[1:], "lr": 0.5}])
    set_gradients(params, [None, *gradients(0, params)[1:]])
    opt.step()
    state = opt.state_dict()
    assert [g["params"] for g in state["param_groups"]] == [[0], [1, 2, 3]]
    assert state["param_groups"][1]["lr"] == 0.5
    assert sorted(state["state"]) == [1, 2, 3]
    kept = state["state"][1]
    assert sorted(kept) == ["exp_avg", "exp_avg_sq", "step"] and kept["step"] == 1
    kept["exp_avg"][...] = 7
    assert not (opt.state[1]["exp_avg"] == 7).any()


def test_state_dict_through_json_like_formats():
    """Tuples become lists and numbers of steps become arrays; both are understood."""
    params = leaves()
    opt = optim.Adam(params)
    set_gradients(params, gradients(0, params))
    opt.step()
    state = opt.state_dict()
    state["param_groups"][0]["betas"] = [0.5, 0.9]
    state["state"] = {str(i): {**kept, "step": np.array(1)} for i, kept in state["state"].items()}
    opt.load_state_dict(state)
    assert opt.param_groups[0]["betas"] == (0.5, 0.9)
    assert opt.state[3]["step"] == 1


def test_copies_of_an_optimizer_with_its_net():
    def step(net, opt):
        opt.zero_grad()
        net(tz.tensor(np.ones((1, 3)), dtype="float32")).sum().backward()
        opt.step()

    net = nn.Linear(3, 2)
    opt = optim.Adam(net.parameters())
    step(net, opt)
    for twin, twin_opt in [copy.deepcopy((net, opt)), pickle.loads(pickle.dumps((net, opt)))]:
        assert twin_opt.param_groups[0]["params"][0] is twin.weight
        step(twin, twin_opt)
        step(twin, twin_opt)
        assert twin_opt.state_dict()["state"][0]["step"] == 3
        assert opt.state[0]["step"] == 1
        assert not (twin.weight.numpy() == net.weight.numpy()).any()
        # the copy's state is what its steps use
        assert not (twin_opt.state[0]["exp_avg"] == opt.state[0]["exp_avg"]).any()


# Clipping


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.1, 1e6])
def test_clip_grad_norm_against_torch(norm_type, max_norm):
    torch = pytest.importorskip("torch")
    params = leaves()
    arrays = [*gradients(0, params)[:3], None]
    set_gradients(params, arrays)
    theirs = [torch.nn.Parameter(torch.tensor(p.numpy())) for p in params]
    for q, g in zip(theirs, arrays, strict=True):
        q.grad = None if g is None else torch.tensor(g)
    norm = optim.clip_grad_norm_(params, max_norm, norm_type)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm, norm_type)
    assert norm.shape == () and norm.item() == pytest.approx(expected.item(), rel=1e-12)
    for p, q in zip(params[:3], theirs, strict=False):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-12)


def test_clip_grad_norm_keeps_float32_and_takes_one_tensor():
    p = leaves("float32", [(3,)])[0]
    p.grad = tz.tensor([3.0, 0.0, 4.0])
    assert optim.clip_grad_norm_(p, 1.0).item() == 5
    assert p.grad.dtype == np.float32
    np.testing.assert_allclose(p.grad.numpy(), [0.6, 0, 0.8], rtol=1e-6)


def test_clip_grad_norm_of_what_is_not_finite():
    p = leaves("float32", [(2,)])[0]
    p.grad = tz.tensor([np.nan, 1.0])
    message = r"clip_grad_norm_: the norm of the gradients is nan; nothing was changed"
    with raises(ValueError, message):
        optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
    assert p.grad.numpy()[1] == 1
    assert math.isnan(optim.clip_grad_norm_([p], 1.0).item())


def test_clip_grad_value():
    params = leaves(shapes=[(3,), (2,)])
    set_gradients(params, [np.array([-5.0, 0.5, 5.0]), None])
    optim.clip_grad_value_(params, 1.0)
    np.testing.assert_array_equal(params[0].grad.numpy(), [-1, 0.5, 1])


def test_clip_errors():
    tz.set_backend("numpy")
    p = leaves(shapes=[(2,)])[0]
    with raises(ValueError, r"clip_grad_norm_: none of the 1 parameters has a gradient"):
        optim.clip_grad_norm_([p], 1.0)
    with raises(ValueError, r"clip_grad_norm_: max_norm must be at least 0; got -1.0"):
        optim.clip_grad_norm_([p], -1.0)
    with raises(ValueError, r"clip_grad_norm_: norm_type must be positive; got 0"):
        optim.clip_grad_norm_([p], 1.0, 0)
    with raises(ValueError, r"clip_grad_value_: clip_value must be at least 0; got -1"):
        optim.clip_grad_value_([p], -1)
    other = tz.backend("numpy").replace(relu=np.abs)
    q = tz.tensor([1.0], requires_grad=True, backend=other)
    p.grad, q.grad = tz.tensor([1.0]), tz.tensor([1.0], backend=other)
    with raises(
        ValueError,
        r"clip_grad_value_: the gradients are on numpy and numpy\[relu=absolute\]; clip them apart",
    ):
        optim.clip_grad_value_([p, q], 1.0)


# Schedules


def make_schedules(module, opt):
    """Every schedule that both libraries have, on an optimizer with two groups."""
    return {
        "step": lambda: module.StepLR(opt, 7, gamma=0.5),
        "exponential": lambda: module.ExponentialLR(opt, 0.9),
        "cosine": lambda: module.CosineAnnealingLR(opt, 10, eta_min=0.01),
        "linear": lambda: module.LinearLR(opt, 0.1, total_iters=8),
        "linear down": lambda: module.LinearLR(opt, 1.0, 0.25, total_iters=20),
        "lambda": lambda: module.LambdaLR(opt, [lambda e: 0.9**e, lambda e: 1 / (1 + e)]),
        "one cycle": lambda: module.OneCycleLR(opt, 0.5, total_steps=31),
        "one cycle options": lambda: module.OneCycleLR(
            opt,
            [0.5, 0.2],
            epochs=4,
            steps_per_epoch=8,
            pct_start=0.25,
            anneal_strategy="linear",
            base_momentum=0.5,
            max_momentum=0.8,
            div_factor=10,
            final_div_factor=100,
        ),
        "one cycle without momentum": lambda: module.OneCycleLR(
            opt, 0.5, total_steps=31, cycle_momentum=False
        ),
        "warm-up, cosine": lambda: module.SequentialLR(
            opt, [module.LinearLR(opt, 0.1, total_iters=5), module.CosineAnnealingLR(opt, 25)], [5]
        ),
        "three": lambda: module.SequentialLR(
            opt,
            [module.LinearLR(opt, 0.1), module.StepLR(opt, 3), module.ExponentialLR(opt, 0.5)],
            [6, 20],
        ),
    }


def make_optimizer(module, kind, tensors):
    options = {"momentum": 0.9} if kind == "SGD" else {}
    groups = [{"params": [tensors[0]]}, {"params": [tensors[1]], "lr": 0.4}]
    return getattr(module, kind)(groups, lr=0.2, **options)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("name", make_schedules(optim, None))
@pytest.mark.filterwarnings("ignore:The epoch parameter:UserWarning")  # torch's own SequentialLR
def test_schedule_against_torch(name, kind):
    torch = pytest.importorskip("torch")
    opt = make_optimizer(optim, kind, leaves(shapes=[(2,), (3,)]))
    judge = make_optimizer(torch.optim, kind, [torch.nn.Parameter(torch.ones(2)) for _ in "ab"])
    schedule = make_schedules(optim, opt)[name]()
    expected = make_schedules(torch.optim.lr_scheduler, judge)[name]()
    for _ in range(31):
        for ours, theirs in zip(opt.param_groups, judge.param_groups, strict=True):
            assert ours["lr"] == pytest.approx(theirs["lr"], rel=1e-9, abs=1e-12)
            key = "momentum" if kind == "SGD" else "betas"
            assert ours[key] == pytest.approx(theirs[key], rel=1e-9)
        assert schedule.get_last_lr() == [g["lr"] for g in opt.param_groups]
        judge.step()
        if schedule.last_epoch < 30:
            schedule.step()
            expected.step()


PLATEAUS = [
    {"patience": 2},
    {"patience": 1, "cooldown": 3, "factor": 0.5},
    {"patience": 0, "mode": "max", "threshold": 0.1, "threshold_mode": "abs"},
    {"patience": 1, "mode": "max", "threshold": 0.1},
    {"patience": 1, "min_lr": [0.05, 0.3], "threshold_mode": "abs"},
]


@pytest.mark.parametrize("options", PLATEAUS, ids=[" ".join(o) for o in PLATEAUS])
def test_plateau_against_torch(options):
    torch = pytest.importorskip("torch")
    opt = make_optimizer(optim, "SGD", leaves(shapes=[(2,), (3,)]))
    judge = make_optimizer(torch.optim, "SGD", [torch.nn.Parameter(torch.ones(2)) for _ in "ab"])
    schedule = optim.ReduceLROnPlateau(opt, **options)
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(judge, **options)
    rng = np.random.default_rng(0)
    for epoch in range(40):
        measure = 1 + 1 / (1 + epoch) + 0.1 * rng.normal()
        schedule.step(tz.tensor(measure, dtype="float64"))
        expected.step(measure)
        assert schedule.get_last_lr() == pytest.approx([g["lr"] for g in judge.param_groups])


@pytest.mark.parametrize("name", make_schedules(optim, None))
def test_resumed_schedule(name):
    def rates(schedule, opt, steps):
        out = []
        for _ in range(steps):
            schedule.step()
            out.append([(g["lr"], g["momentum"]) for g in opt.param_groups])
        return out

    opt = make_optimizer(optim, "SGD", leaves(shapes=[(2,), (3,)]))
    schedule = make_schedules(optim, opt)[name]()
    rates(schedule, opt, 12)
    saved = schedule.state_dict(), opt.state_dict()
    other = make_optimizer(optim, "SGD", leaves(shapes=[(2,), (3,)]))
    other.param_groups[0]["lr"] = 7.0
    resumed = make_schedules(optim, other)[name]()
    other.load_state_dict(saved[1])
    resumed.load_state_dict(saved[0])
    assert resumed.last_epoch == 12 and resumed.get_last_lr() == schedule.get_last_lr()
    assert rates(resumed, other, 15) == rates(schedule, opt, 15)


def test_resumed_plateau():
    measures = [3, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    opt = make_optimizer(optim, "SGD", leaves(shapes=[(2,), (3,)]))
    schedule = optim.ReduceLROnPlateau(opt, patience=1)
    for m in measures[:4]:
        schedule.step(m)
    other = make_optimizer(optim, "SGD", leaves(shapes=[(2,), (3,)]))
    resumed = optim.ReduceLROnPlateau(other, patience=1)
    other.load_state_dict(opt.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    for m in measures[4:]:
        schedule.step(m)
        resumed.step(m)
        assert resumed.get_last_lr() == schedule.get_last_lr()
    assert resumed.state_dict() == schedule.state_dict()


def test_one_cycle_ends():
    opt = optim.SGD(leaves(), lr=0.1)
    schedule = optim.OneCycleLR(opt, 1.0, total_steps=4)
    for _ in range(4):
        schedule.step()
    assert schedule.get_last_lr() == pytest.approx([1 / 25 / 1e4])
    with raises(ValueError, r"OneCycleLR: step 5 lies beyond total_steps 4"):
        schedule.step()


# Errors


def test_optimizer_errors():
    p, q = leaves(shapes=[(2,), (3,)])
    with raises(ValueError, r"Adam: no parameters were given"):
        optim.Adam([])
    for wrong, kind in [(p, "Tensor"), (nn.Linear(2, 2), "Linear")]:
        with raises(
            TypeError,
            r"SGD: params must be a sequence of Tensors or of groups, such as net.parameters\(\); "
            rf"got {kind}",
        ):
            optim.SGD(wrong)
    with raises(TypeError, r"SGD: parameter 1 must be a Tensor; got str"):
        optim.SGD([p, "w"])
    with raises(ValueError, r"SGD: parameter 1 was computed by mul; give the leaf"):
        optim.SGD([p, p * 2])
    with raises(ValueError, r"SGD: parameter 2 of shape \(2,\) was given twice"):
        optim.SGD([p, q, p])
    with raises(ValueError, r"SGD: parameter 1 of shape \(2,\) was given twice"):
        optim.SGD([{"params": [p]}, {"params": [p]}])
    with raises(TypeError, r'SGD: a group must be a dict with "params"; got \[1\]'):
        optim.SGD([p]).add_param_group([1])
    with raises(
        TypeError,
        r"SGD: unknown option 'rate'; choose from lr, momentum, dampening, weight_decay, nesterov",
    ):
        optim.SGD([{"params": [p], "rate": 1}])
    p.grad = tz.tensor(np.ones(3))
    with raises(ValueError, r"SGD: parameter 0 has shape \(2,\) and its gradient \(3,\)"):
        optim.SGD([p]).step()


def test_parameter_that_changes_its_shape():
    p = leaves(shapes=[(2,)])[0]
    opt = optim.Adam([p])
    set_gradients([p], [np.ones(2)])
    opt.step()
    p.data = np.zeros(3)
    set_gradients([p], [np.ones(3)])
    with raises(ValueError, r"Adam: parameter 0 now has shape \(3,\); its exp_avg has \(2,\)"):
        opt.step()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SGD", {"lr": -1.0}, r"SGD: lr must be at least 0; got -1.0"),
        ("SGD", {"lr": math.nan}, r"SGD: lr must be at least 0; got nan"),
        ("SGD", {"momentum": -0.1}, r"SGD: momentum must be at least 0; got -0.1"),
        ("SGD", {"weight_decay": -0.1}, r"SGD: weight_decay must be at least 0; got -0.1"),
        (
            "SGD",
            {"nesterov": True},
            r"SGD: nesterov needs momentum above 0 and no dampening; got momentum 0.0 and "
            r"dampening 0.0",
        ),
        ("RMSprop", {"alpha": 1.0}, r"RMSprop: alpha must lie in \[0, 1\); got 1.0"),
        ("RMSprop", {"eps": -1}, r"RMSprop: eps must be at least 0; got -1"),
        ("Adagrad", {"lr_decay": -1}, r"Adagrad: lr_decay must be at least 0; got -1"),
        ("Adam", {"eps": -1}, r"Adam: eps must be at least 0; got -1"),
        (
            "Adam",
            {"betas": (0.9, 1.0)},
            r"Adam: betas must be two numbers in \[0, 1\); got \(0.9, 1.0\)",
        ),
        (
            "AdamW",
            {"betas": (0.9,)},
            r"AdamW: betas must be two numbers in \[0, 1\); got \(0.9,\)",
        ),
    ],
)
def test_option_errors(name, options, message):
    with raises(ValueError, message):
        getattr(optim, name)(leaves(), **options)


def test_load_state_errors():
    params = leaves(shapes=[(2,), (3,)])
    opt = optim.Adam(params)
    set_gradients(params, [np.ones(2), np.ones(3)])
    opt.step()

    def broken(change):
        state = opt.state_dict()
        change(state)
        return state

    def load(change):
        opt.load_state_dict(broken(change))

    before = opt.state_dict()
    with raises(ValueError, r"Adam: load_state_dict needs state and param_groups; got state"):
        load(lambda s: s.pop("param_groups"))
    with raises(ValueError, r"Adam: load_state_dict needs groups of \[2\] parameters; got \[1\]"):
        load(lambda s: s["param_groups"][0].update(params=[0]))
    with raises(ValueError, r"Adam: lr must be at least 0; got -1"):
        load(lambda s: s["param_groups"][0].update(lr=-1))
    with raises(TypeError, r"Adam: unknown option 'momentum'; choose from lr, .*"):
        load(lambda s: s["param_groups"][0].update(momentum=1))
    with raises(ValueError, r"Adam: load_state_dict has state for parameter 2 of 2"):
        load(lambda s: s["state"].update({2: s["state"][0]}))
    with raises(
        ValueError,
        r"Adam: the state of parameter 1 must hold exp_avg, exp_avg_sq, step; got exp_avg, step",
    ):
        load(lambda s: s["state"][1].pop("exp_avg_sq"))
    with raises(ValueError, r"Adam: exp_avg of parameter 1 must have shape \(3,\); got \(2,\)"):
        load(lambda s: s["state"][1].update(exp_avg=np.ones(2)))
    after = opt.state_dict()
    assert before["param_groups"] == after["param_groups"]
    np.testing.assert_equal(after["state"], before["state"])


def test_rules_must_be_defined():
    opt = optim.Optimizer
    with pytest.raises(NotImplementedError):
        opt(leaves())
    rule = optim.SGD(leaves())
    for call in (
        lambda: opt.initial_state(rule, {}),
        lambda: opt.update(rule, None, None, None, {}, 1, {}),
        lambda: optim.LRScheduler(rule),
    ):
        with pytest.raises(NotImplementedError):
            call()


def test_schedule_errors():
    opt = optim.Adagrad(leaves())
    cases = [
        (lambda: optim.StepLR(opt, 0), r"StepLR: step_size must be a whole number above 0; got 0"),
        (
            lambda: optim.CosineAnnealingLR(opt, 1.5),
            r"CosineAnnealingLR: T_max must be a whole number above 0; got 1.5",
        ),
        (
            lambda: optim.LinearLR(opt, total_iters=-1),
            r"LinearLR: total_iters must be a whole number above 0; got -1",
        ),
        (
            lambda: optim.LinearLR(opt, 0.0),
            r"LinearLR: start_factor must lie in \(0, 1\]; got 0.0",
        ),
        (
            lambda: optim.LinearLR(opt, 1.0, 2.0),
            r"LinearLR: end_factor must lie in \[0, 1\]; got 2.0",
        ),
        (
            lambda: optim.LambdaLR(opt, [float, float]),
            r"LambdaLR: 1 groups need a function each; got 2",
        ),
        (
            lambda: optim.OneCycleLR(opt, 1.0),
            r"OneCycleLR: total_steps, or epochs and steps_per_epoch, must be given",
        ),
        (
            lambda: optim.OneCycleLR(opt, 1.0, 10),
            r"OneCycleLR: Adagrad has no momentum; pass cycle_momentum=False",
        ),
        (
            lambda: optim.OneCycleLR(opt, 1.0, 0),
            r"OneCycleLR: total_steps must be a whole number above 0; got 0",
        ),
        (
            lambda: optim.OneCycleLR(opt, 1.0, 10, pct_start=2),
            r"OneCycleLR: pct_start must lie in \[0, 1\]; got 2",
        ),
        (
            lambda: optim.OneCycleLR(opt, 1.0, 10, anneal_strategy="sine"),
            r"OneCycleLR: anneal_strategy must be 'cos' or 'linear'; got 'sine'",
        ),
        (
            lambda: optim.OneCycleLR(opt, [1.0, 2.0], 10),
            r"OneCycleLR: 1 groups need a max_lr each; got 2",
        ),
        (
            lambda: optim.SequentialLR(opt, [optim.StepLR(opt, 1)], [5]),
            r"SequentialLR: 1 schedulers need 0 milestones between them; got 1",
        ),
        (
            lambda: optim.SequentialLR(opt, [optim.StepLR(opt, 1)] * 3, [5, 5]),
            r"SequentialLR: milestones must increase; got \[5, 5\]",
        ),
        (
            lambda: optim.SequentialLR(
                opt, [optim.StepLR(opt, 1), optim.StepLR(optim.SGD(leaves()), 1)], [5]
            ),
            r"SequentialLR: scheduler 1 belongs to another optimizer",
        ),
        (
            lambda: optim.ReduceLROnPlateau(opt, "least"),
            r"ReduceLROnPlateau: mode must be 'min' or 'max'; got 'least'",
        ),
        (
            lambda: optim.ReduceLROnPlateau(opt, threshold_mode="x"),
            r"ReduceLROnPlateau: threshold_mode must be 'rel' or 'abs'; got 'x'",
        ),
        (
            lambda: optim.ReduceLROnPlateau(opt, factor=1.0),
            r"ReduceLROnPlateau: factor must be below 1; got 1.0",
        ),
        (
            lambda: optim.ReduceLROnPlateau(opt, min_lr=[0, 0]),
            r"ReduceLROnPlateau: 1 groups need a min_lr each; got 2",
        ),
        (
            lambda: optim.StepLR(opt, 1).load_state_dict({"epoch": 1}),
            r"StepLR: the state must hold last_epoch; got epoch",
        ),
    ]
    for call, message in cases:
        with raises(ValueError, message):
            call()
    with raises(
        TypeError,
        r"SequentialLR: scheduler 0 must follow a formula of the epoch; got ReduceLROnPlateau",
    ):
        optim.SequentialLR(opt, [optim.ReduceLROnPlateau(opt)], [])
