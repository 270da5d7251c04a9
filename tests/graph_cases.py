"""Cases of steps captured as graphs, for a card and for its stand-in: functions of a backend."""

import numpy as np
import pytest

import tinygrad_zen as tz
from tinygrad_zen import nn, optim
from tinygrad_zen.backend import default_backend
from tinygrad_zen.nn import functional as F
from tinygrad_zen.replay.graph_recorder import recordable


class Run:
    """What some steps give, and leave: losses, weights and gradients as bytes."""

    def __init__(self, step, net, batches):
        self.step = step
        self.losses = [step(*batches[0]).numpy().tobytes()]
        with recordable(
            default_backend().xp
        ):  # as the captured step computes, from the second call on
            self.losses += [step(*b).numpy().tobytes() for b in batches[1:]]
        self.weights = {n: np.array(w).tobytes() for n, w in net.state_dict().items()}
        self.gradients = [
            None if p.grad is None else p.grad.numpy().tobytes() for p in net.parameters()
        ]
        self.generator = tz.default_generator().bit_generator.state

    def left(self):
        return self.losses, self.weights, self.gradients, self.generator


def both(build, batches):
    """The same steps by the engine and captured. build() -> (step, net)."""
    tz.seed(0)
    engine = Run(*build(), batches)
    tz.seed(0)
    step, net = build()
    captured = Run(tz.capture(step), net, batches)
    assert captured.left() == engine.left()
    assert captured.step.calls > 1
    return captured


def step_of(net, optimizer, loss_of=F.cross_entropy):
    def step(x, y):
        optimizer.zero_grad()
        loss = loss_of(net(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def small(*layers, optimizer=optim.Adam, **options):
    def build():
        more = [make() for make in layers]
        net = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), *more, nn.Linear(32, 5))
        options.setdefault("lr", 0.01)
        return step_of(net, optimizer(net.parameters(), **options)), net

    return build


def batches(count, n=16, seed=0):
    rng = np.random.default_rng(seed)
    pairs = [
        (rng.standard_normal((n, 12), dtype="float32"), rng.integers(0, 5, n)) for _ in range(count)
    ]
    return [(tz.tensor(x), tz.tensor(y)) for x, y in pairs]


def random_numbers_are_drawn_anew_in_the_same_order(backend):
    both(small(lambda: nn.Dropout(0.5)), batches(7))


def running_statistics(backend):
    both(small(lambda: nn.BatchNorm1d(32)), batches(7))


def learning_rates_and_weights_are_live(backend):
    def run(capture):
        tz.seed(0)
        net, seen = nn.Linear(12, 5), []
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        step = capture(step_of(net, optimizer))

        def numbered(x, y):
            seen.append(y)
            optimizer.param_groups[0]["lr"] = 0.1 / len(seen)
            if len(seen) == 6:
                net.weight.data[...] = 0.5
            return step(x, y)

        return Run(numbered, net, batches(8)).left()

    assert run(tz.capture) == run(lambda step: step)


def clipped_and_gathered_gradients(backend):
    def build():
        net = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 5))
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        def step(x, y):
            optimizer.zero_grad()
            for part in range(2):
                F.cross_entropy(net(x[part::2]), y[part::2], reduction="sum").backward()
            norm = optim.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
            return norm

        return step, net

    both(build, batches(7))


def gradients_gathered_over_calls(backend):
    def build():
        net = nn.Linear(12, 5)

        def step(x, y):
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            return loss

        return step, net

    both(build, batches(7))


def labels_computed_in_the_step_are_refused(backend):
    step = tz.capture(lambda x, y: F.cross_entropy(x[:, :5], y * 1))
    data = batches(2)
    step(*data[0])
    with pytest.raises(RuntimeError, match="computes labels or indices"):
        step(*data[1])


def arrays_of_the_host(backend):
    data = [(x.numpy(), y.numpy()) for x, y in batches(7)]
    both(small(), data)


def labels_that_are_wrong_are_refused_as_ever(backend):
    step, net = small()()
    run, data = tz.capture(step), batches(6)
    for b in data[:5]:
        run(*b)
    before = {n: np.array(w) for n, w in net.state_dict().items()}
    for wrong in (-3, 5):
        labels = data[5][1].numpy()
        labels[2] = wrong
        with pytest.raises(ValueError, match="labels must lie in 0..4"):
            run(data[5][0], tz.tensor(labels))
    after = {n: np.array(w) for n, w in net.state_dict().items()}
    assert all((before[n] == after[n]).all() for n in before)
    assert np.isfinite(float(run(*data[5])))


def other_shapes_and_values_are_refused(backend):
    step, _ = small()()
    run, data = tz.capture(step), batches(4)
    for b in data:
        run(*b)
    with pytest.raises(ValueError, match="argument 0 was Tensor float32"):
        run(*batches(1, 8)[0])
    with pytest.raises(ValueError, match="argument 0"):
        run(data[0][0].to("numpy"), data[0][1])


def an_array_that_nobody_holds_is_refused(backend):
    holder = {}

    def step(x, y):
        return (x * holder["table"].pop()).sum()

    class Table:
        def pop(self):
            return tz.Tensor(self.make(), backend)

        @staticmethod
        def make():
            return KEPT[0]

    KEPT = [backend.xp.ones(12, "float32")]
    hidden = KEPT
    Table.make = staticmethod(lambda: eval("KEPT[0]", {"KEPT": hidden}))
    holder["table"] = Table()
    run, data = tz.capture(step), batches(3)
    with pytest.raises(RuntimeError, match="neither an argument nor held"):
        for b in data:
            run(*b)


def numbers_of_the_host_that_change_are_refused(backend):
    def step(x, y):
        return (x * tz.tensor(np.random.random(12).astype("float32"))).sum()

    run, data = tz.capture(step), batches(3)
    with pytest.raises(RuntimeError, match="capture"):
        for b in data:
            run(*b)


CASES = [
    random_numbers_are_drawn_anew_in_the_same_order,
    running_statistics,
    learning_rates_and_weights_are_live,
    clipped_and_gathered_gradients,
    gradients_gathered_over_calls,
    labels_computed_in_the_step_are_refused,
    arrays_of_the_host,
    labels_that_are_wrong_are_refused_as_ever,
    other_shapes_and_values_are_refused,
    an_array_that_nobody_holds_is_refused,
    numbers_of_the_host_that_change_are_refused,
]
