"""Around the loop: penalties, gathered and clipped gradients, weights of samples, generators, parts of
networks, and files that follow a training."""

import csv
import json
import re
import subprocess
import sys

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn.functional as F
from tinygrad_zen import nn, optim
from tinygrad_zen.train import (
    L1,
    L2,
    Callback,
    Checkpoint,
    CSVLogger,
    LearningRate,
    Model,
    TensorBoard,
    load,
)
from tinygrad_zen.train.losses import LOSSES, Loss


def raises(kind, message):
    return pytest.raises(kind, match=rf"\A{re.escape(message)}\Z")


def samples(n=24, outputs=2):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 3))
    return x, x @ rng.normal(size=(3, outputs))


def network(outputs=2):
    tz.seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, outputs)).to("float64")


def trained(x, y=None, compile=None, outputs=2, **options):
    """A small model after a fit, with plain gradient descent unless told otherwise."""
    model = Model(network(outputs))
    settings = {"optimizer": "sgd", "loss": "mse", "learning_rate": 0.1}
    model.compile(**settings | (compile or {}))
    model.fit(x, y, **{"verbose": 0, "seed": 0, "shuffle": False, "batch_size": 8} | options)
    return model


def weights(model):
    return np.concatenate([p.numpy().reshape(-1) for p in model.net.parameters()])


# penalties


def test_penalties_by_the_plain_loop():
    x, y = samples()
    penalties = [L2(0.1), L1(0.01, "0.*")]
    model = trained(x, y, {"penalties": penalties}, epochs=2)
    net = network()
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        for i in range(0, 24, 8):
            optimizer.zero_grad()
            loss = F.mse_loss(net(tz.tensor(x[i : i + 8])), tz.tensor(y[i : i + 8]))
            l2 = (net[0].weight ** 2).sum() + (net[2].weight ** 2).sum()
            l1 = abs(net[0].weight).sum() + abs(net[0].bias).sum()
            (loss + 0.1 * l2 + 0.01 * l1).backward()
            optimizer.step()
    np.testing.assert_allclose(weights(model), weights(Model(net)), rtol=1e-12)
    # losses are reported without penalties
    held = trained(x, y, {"penalties": penalties, "learning_rate": 0.0})
    bare = trained(x, y, {"learning_rate": 0.0})
    assert held.history.history["loss"] == bare.history.history["loss"]
    assert held.evaluate(x, y) == bare.evaluate(x, y)


def test_l1_makes_weights_small_and_frozen_ones_do_not_count():
    x, y = samples()
    strong = trained(x, y, {"penalties": L1(0.3)}, epochs=60)
    assert abs(strong.net[0].weight.numpy()).max() < 0.05  # wanders about 0
    net = network()
    net.requires_grad_(False, "0.*")
    assert L2(2.0)(net).item() == pytest.approx(2 * (net[2].weight.numpy() ** 2).sum())
    net.requires_grad_(False)
    with raises(ValueError, "L2: no parameter that is trained has a name like '*weight'"):
        L2(1e-3)(net)
    with raises(ValueError, "L1: strength must be at least 0; got -1"):
        L1(-1)


# gathering and clipping


def test_accumulated_batches_are_one_large_batch():
    """Also where the last batch is smaller, and the last step of an epoch of fewer batches."""
    x, y = samples(22)
    adam = {"optimizer": "adam", "learning_rate": 0.01}
    parts = trained(x, y, adam | {"accumulate": 3}, epochs=3, batch_size=4)
    whole = trained(x, y, adam, epochs=3, batch_size=12)
    np.testing.assert_allclose(weights(parts), weights(whole), rtol=1e-10)
    assert parts.optimizer.state_dict()["state"][0]["step"] == 6


def test_gathering_is_resumed_in_the_middle(tmp_path):
    x, y = samples(20)
    path = tmp_path / "run"

    class Stop(Callback):
        def on_settled(self, epoch, batch):
            if (epoch, batch) == (1, 4):  # 2 batches after a step
                raise KeyboardInterrupt

    settings = {"accumulate": 3, "optimizer": "adam"}
    options = {"epochs": 3, "batch_size": 3, "shuffle": True}
    straight = trained(x, y, settings, **options)
    with pytest.raises(KeyboardInterrupt):
        trained(x, y, settings, **options, callbacks=[Checkpoint(path, every=1), Stop()])
    again = trained(
        x,
        y,
        settings,
        **options,
        callbacks=Checkpoint(path),
        resume=path,
    )
    np.testing.assert_array_equal(weights(again), weights(straight))
    assert again.history.history["loss"] == straight.history.history["loss"]


def test_clipping():
    x, y = samples(8)
    start = weights(Model(network()))
    free = start - weights(trained(x, y))  # 0.1 times the gradient
    clipped = start - weights(trained(x, y, {"clip_norm": 0.5}))
    assert np.linalg.norm(free) > 0.05
    np.testing.assert_allclose(np.linalg.norm(clipped), 0.05, rtol=1e-5)
    np.testing.assert_allclose(clipped / 0.05, free / np.linalg.norm(free), atol=1e-5)
    clipped = start - weights(trained(x, y, {"clip_value": 0.2}))
    np.testing.assert_allclose(clipped, free.clip(-0.02, 0.02), atol=1e-12)


def test_options_of_compile_are_checked_and_kept(tmp_path):
    model = Model(network())
    for options, message in (
        ({"accumulate": 0}, "accumulate must be at least 1 batch; got 0"),
        ({"clip_norm": 0}, "clip_norm must be positive; got 0"),
        ({"clip_value": -1.0}, "clip_value must be positive; got -1.0"),
    ):
        with raises(ValueError, f"compile: {message}"):
            model.compile("sgd", "mse", **options)
    model.compile("sgd", "mse", penalties=[L1(0.1), L2(0.2, "0.*")], accumulate=2, clip_norm=1.0)
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert [(type(p), p.strength, p.names) for p in again.penalties] == [
        (L1, 0.1, "*weight"),
        (L2, 0.2, "0.*"),
    ]
    assert (again.update.accumulate, again.update.clip_norm, again.update.clip_value) == (
        2,
        1.0,
        None,
    )
    model.compile("sgd", "mse", penalties=L2(0.1, lambda name: True))
    model.save(tmp_path / "m")  # a function is the user's own: the file names no settings
    assert load(tmp_path / "m").loss is None


# weights of samples


@pytest.mark.parametrize("name", LOSSES)
def test_sample_weights(name):
    """Weight 0 leaves a sample out, weight 2 counts it twice, for every loss."""
    rng = np.random.default_rng(0)
    output = tz.tensor(rng.uniform(0.1, 0.9, (4, 3)), dtype="float64")
    target = {
        "classes": np.array([0, 2, 1, 1]),
        "yes or no": np.array([[1, 0, 1]] * 4),
        "values": rng.uniform(0.1, 0.9, (4, 3)),
    }[Loss(name).holds]
    if name == "hinge":
        target = 2 * target - 1
    loss = Loss(name)
    each = [loss(output[i : i + 1], target[i : i + 1]).item() for i in range(4)]
    weight = np.array([0.0, 1.0, 2.0, 0.5])
    weighed = loss(output, target, sample_weight=weight).item()
    assert weighed == pytest.approx((each * weight).mean(), rel=1e-12)


def test_sample_weights_in_fit():
    x, y = samples()
    twice = np.r_[np.full(12, 2.0), np.zeros(12)]
    weighted = trained(x, y, sample_weight=twice, batch_size=24, epochs=3)
    half = trained(x[:12], y[:12], batch_size=12, epochs=3)
    np.testing.assert_allclose(weights(weighted), weights(half), rtol=1e-10)
    # they follow their samples through the shuffle, and stay out of validation
    options = {"batch_size": 5, "epochs": 2, "shuffle": True, "validation_split": 0.25}
    ones = trained(x, y, sample_weight=np.ones(24), **options).history.history
    plain = trained(x, y, **options).history.history
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(ones[name], plain[name], rtol=1e-12)
    lone = np.eye(24)[7]
    shuffled = trained(x, y, {"learning_rate": 0.0}, sample_weight=lone, shuffle=True)
    model = trained(x[7:8], y[7:8], {"learning_rate": 0.0})
    (own,) = model.history.history["loss"]
    assert shuffled.history.history["loss"][0] == pytest.approx(own / 24, rel=1e-10)


def test_class_and_sample_weights_multiply():
    x, _ = samples()
    labels = np.arange(24) % 2
    settings = {"loss": "cross_entropy", "learning_rate": 0.0}
    both = trained(x, labels, settings, class_weight={1: 3.0}, sample_weight=np.full(24, 0.5))
    one = trained(x, labels, settings, sample_weight=np.where(labels == 1, 1.5, 0.5))
    assert both.history.history["loss"] == pytest.approx(one.history.history["loss"])


def test_errors_of_sample_weights():
    x, y = samples()
    for given, message in (
        (np.ones(23), "sample_weight must be 24 numbers; got float64 (23,)"),
        (np.ones((24, 1)), "sample_weight must be 24 numbers; got float64 (24, 1)"),
        (-np.ones(24), "sample_weight must be finite and not negative"),
    ):
        with raises(ValueError, f"fit: {message}"):
            trained(x, y, sample_weight=given)
    with raises(ValueError, "fit: sample_weight needs arrays x and y, not batches"):
        trained([(x, y)], sample_weight=np.ones(24))
    with raises(
        ValueError, f"fit: sample_weight needs one of the losses {', '.join(LOSSES)}, by name"
    ):
        trained(x, y, {"loss": lambda a, b: F.mse_loss(a, b)}, sample_weight=np.ones(24))


# generators


def endless(x, y, size=8, start=0):
    while True:
        for i in range(start, len(x), size):
            yield x[i : i + size], y[i : i + size]


def test_a_generator_with_steps():
    x, y = samples()
    lines = trained(x, y, epochs=4)
    steps = trained(endless(x, y), epochs=4, steps_per_epoch=3)
    np.testing.assert_array_equal(weights(steps), weights(lines))
    long = trained(endless(x, y), epochs=2, steps_per_epoch=6)
    np.testing.assert_array_equal(weights(long), weights(lines))
    assert len(long.history.epoch) == 2


def test_a_generator_is_resumed(tmp_path):
    x, y = samples()
    path = tmp_path / "run"
    straight = trained(endless(x, y), epochs=4, steps_per_epoch=2)
    trained(endless(x, y), epochs=2, steps_per_epoch=2, callbacks=Checkpoint(path))
    again = trained(
        endless(x, y), epochs=4, steps_per_epoch=2, callbacks=Checkpoint(path), resume=path
    )
    np.testing.assert_array_equal(weights(again), weights(straight))


def test_errors_of_steps():
    x, y = samples()
    words = "fit: steps_per_epoch must be at least 1 and goes with an iterator of batches; got"
    for given, steps, got in (
        ((x, y), 3, "3 with samples"),
        (([(x, y)],), 3, "3 with list"),
        ((endless(x, y),), 0, "0 with generator"),
    ):
        with raises(ValueError, f"{words} {got}"):
            trained(*given, steps_per_epoch=steps)
    message = "fit: epoch 2: the batches ended after 1 of 2, which steps_per_epoch asks for"
    with raises(ValueError, message):
        trained(iter([(x, y)] * 3), epochs=2, steps_per_epoch=2)


# parts of networks


def test_frozen_parts_stay():
    x, y = samples()
    model = Model(network())
    before = model.net.state_dict()
    model.net.requires_grad_(False, "0.*")
    model.compile("adam", "mse")
    model.fit(x, y, epochs=2, verbose=0)
    after = model.net.state_dict()
    same = {name: bool((before[name] == after[name]).all()) for name in before}
    assert same == {"0.weight": True, "0.bias": True, "2.weight": False, "2.bias": False}
    model.net.requires_grad_(True, ["0.bias", "9.*"])
    assert model.net[0].bias.requires_grad and not model.net[0].weight.requires_grad
    with raises(ValueError, "requires_grad_: no parameter has a name like 'encoder.*'"):
        model.net.requires_grad_(False, "encoder.*")


def test_weights_are_loaded_in_part(tmp_path):
    x, y = samples()
    old = trained(x, y)
    old.save(tmp_path / "old")
    new = Model(network(outputs=4))
    fresh = new.net.state_dict()
    with pytest.raises(ValueError, match="mismatched: 2.weight must be float64"):
        new.load_weights(tmp_path / "old", strict=False)
    result = new.load_weights(tmp_path / "old", names="0.*")
    assert result == ([], [])
    loaded = new.net.state_dict()
    for name in ("0.weight", "0.bias"):
        np.testing.assert_array_equal(loaded[name], old.net.state_dict()[name])
    for name in ("2.weight", "2.bias"):
        np.testing.assert_array_equal(loaded[name], fresh[name])
    head = new.load_weights(tmp_path / "old", strict=False, names=lambda name: name[0] in "0 3")
    assert head == ([], [])
    with pytest.raises(ValueError, match="missing: 2.weight, 2.bias"):
        net = network()
        net.load_state_dict({"0.weight": fresh["0.weight"], "0.bias": fresh["0.bias"]})
    result = net.load_state_dict(
        {"0.weight": fresh["0.weight"], "x": x}, strict=False, names="[0x]*"
    )
    assert result == (["0.bias"], ["x"])


# files that follow a training


def test_csv_log(tmp_path):
    x, y = samples()
    path, run = tmp_path / "log.csv", tmp_path / "run"
    callbacks = [CSVLogger(path), Checkpoint(run)]
    options = {"validation_split": 0.25, "shuffle": True}
    trained(x, y, epochs=2, callbacks=callbacks, **options)
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"] and set(rows[0]) >= {"loss", "val_loss"}
    model = trained(x, y, epochs=3, callbacks=callbacks, resume=run, **options)
    again = list(csv.DictReader(path.read_text().splitlines()))
    assert again[:2] == rows and len(again) == 3
    assert [float(row["loss"]) for row in again] == model.history.history["loss"]
    trained(x, y, callbacks=CSVLogger(tmp_path / "log.json"))
    assert json.loads((tmp_path / "log.json").read_text())["epoch"] == [0]


def events(folder):
    """tag -> [(step, value)] as TensorBoard reads a folder."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    files = reader.EventAccumulator(str(folder))
    files.Reload()
    return {
        tag: [(e.step, e.tensor_proto.float_val[0]) for e in files.Tensors(tag)]
        for tag in files.Tags()["tensors"]
    }


def test_tensorboard_reads_what_was_written(tmp_path):
    pytest.importorskip("tensorboard")
    x, y = samples()
    model = Model(network())
    model.compile("sgd", "mse", metrics=["mae"], learning_rate=0.1)
    schedule = optim.StepLR(model.optimizer, 1, gamma=0.5)
    model.fit(
        *(x, y),
        epochs=3,
        batch_size=6,
        validation_split=0.25,
        callbacks=[LearningRate(schedule), TensorBoard(tmp_path / "logs", every=2)],
        verbose=0,
    )
    history = model.history.history
    train, validation = events(tmp_path / "logs/train"), events(tmp_path / "logs/validation")
    assert set(train) == {"loss", "mae", "time", "learning_rate", "batch_loss"}
    assert set(validation) == {"loss", "mae"}
    for tags, prefix in ((train, ""), (validation, "val_")):
        for tag in ("loss", "mae"):
            assert tags[tag] == list(enumerate(np.float32(history[prefix + tag])))
    assert train["learning_rate"] == list(enumerate(np.float32([0.1, 0.05, 0.025])))
    assert [step for step, _ in train["batch_loss"]] == [2, 4, 6, 8]


def test_tensorboard_goes_on(tmp_path):
    pytest.importorskip("tensorboard")
    x, y = samples()
    run = tmp_path / "run"
    for epochs, resume in ((1, None), (2, run)):
        callbacks = [TensorBoard(tmp_path / "logs", every=3), Checkpoint(run)]
        trained(x, y, epochs=epochs, callbacks=callbacks, resume=resume)
    assert [step for step, _ in events(tmp_path / "logs/train")["batch_loss"]] == [3, 6]
    with raises(ValueError, "TensorBoard: every must be at least 1 batch; got 0"):
        TensorBoard(tmp_path, every=0)


def test_without_the_package_tensorboard():
    code = (
        "import sys; sys.modules['tensorboard.summary'] = None\n"
        "from tinygrad_zen.train import TensorBoard\n"
        "try: TensorBoard('logs')\n"
        "except ImportError as e: print(e)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = 'TensorBoard: the package is missing: pip install "tinygrad-zen[tensorboard]"\n'
    assert out.stdout == expected, out.stderr
