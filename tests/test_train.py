"""tinygrad_zen.train: Model, the loop, callbacks, history, progress, saving."""

import csv
import io
import json
import sys

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn as nn
import tinygrad_zen.nn.functional as F
from tinygrad_zen import data, optim, train
from tinygrad_zen.train import History, Model, progress
from tinygrad_zen.train.losses import LOSSES, Loss


def raises(kind, message):
    return pytest.raises(kind, match=rf"\A{message}\Z")


def blobs(n=60, classes=3, features=4):
    """Separable samples: x (N, features) float64, y (N,) labels."""
    rng = np.random.default_rng(1)
    y = rng.integers(0, classes, n)
    return rng.normal(size=(n, features)) + 3 * np.eye(features)[y], y


def mlp(outputs=3, *last):
    tz.seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs), *last)


def compiled(net=None, loss="cross_entropy", metrics=("accuracy",), **options):
    model = Model(mlp() if net is None else net)
    model.compile(loss=loss, metrics=metrics, **{"learning_rate": 0.01} | options)
    return model


def fit(model, *data, **options):
    return model.fit(*data, **{"verbose": 0, "seed": 0} | options)


def same_weights(a, b):
    a, b = (m.net.state_dict() if isinstance(m, Model) else m for m in (a, b))
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) for k in a)


# the loop


def test_fit_learns_and_evaluate_agrees():
    x, y = blobs()
    model = compiled()
    history = fit(model, x, y, epochs=15, validation_split=0.2)
    assert history is model.history and history.epoch == list(range(15))
    names = ["loss", "accuracy", "val_loss", "val_accuracy", "time"]
    assert list(history.history) == names
    assert all(len(values) == 15 for values in history.history.values())
    assert history.history["accuracy"][-1] > 0.95
    assert model.evaluate(x[48:], y[48:]) == {
        "loss": history.history["val_loss"][-1],
        "accuracy": history.history["val_accuracy"][-1],
    }


def test_fit_is_the_plain_loop():
    x, y = blobs()
    model = compiled(learning_rate=0.01)
    fit(model, x, y, epochs=2, batch_size=16)

    net = mlp()
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    loader = data.DataLoader(x, y, batch_size=16, seed=0)
    for _ in range(2):
        for inputs, target in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(tz.tensor(inputs, dtype="float32")), tz.tensor(target))
            loss.backward()
            optimizer.step()
    assert same_weights(model, net.state_dict())


def test_values_are_over_samples_and_not_over_batches():
    x, y = blobs(n=50)
    model = compiled()
    expected = F.cross_entropy(model.net(tz.tensor(x, dtype="float32")), tz.tensor(y)).item()
    for batch_size in (7, 49, 50, 64):
        result = model.evaluate(x, y, batch_size=batch_size)
        assert result["loss"] == pytest.approx(expected, rel=1e-6)
        assert result["accuracy"] == (model.predict(x).argmax(axis=1) == y).mean()
    # with a learning rate of 0 the training values are those of evaluation
    frozen = compiled(optimizer=optim.SGD, learning_rate=0.0)
    history = fit(frozen, x, y, batch_size=49).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-6)
    assert history["accuracy"][0] == result["accuracy"]


def test_same_seed_same_bits():
    x, y = blobs()
    results = []
    for _ in range(2):
        model = compiled(nn.Sequential(mlp(8), nn.Dropout(0.5), nn.Linear(8, 3)))
        tz.seed(7)
        results.append((fit(model, x, y, epochs=3, seed=None).history["loss"], model))
    assert results[0][0] == results[1][0] and same_weights(results[0][1], results[1][1])


def test_batches_from_a_loader_or_a_list():
    x, y = blobs()
    by_arrays, by_loader, by_list = compiled(), compiled(), compiled()
    fit(by_arrays, x, y, epochs=2, batch_size=20)
    fit(by_loader, data.DataLoader(x, y, batch_size=20, seed=0), epochs=2)
    assert same_weights(by_arrays, by_loader)
    batches = [(x[:20], y[:20]), [x[20:], y[20:]]]
    history = fit(by_list, batches, epochs=2, validation_data=batches).history
    assert history["val_loss"][-1] == pytest.approx(by_list.evaluate(x, y)["loss"])
    assert by_list.evaluate(batches) == by_list.evaluate(iter(batches))
    fit(by_list, iter(batches), epochs=1)


def test_a_loader_goes_on_where_it_stood():
    x, y = blobs()
    loader = data.DataLoader(x, y, batch_size=20, seed=0)
    next(iter(loader))
    state = loader.state_dict()
    resumed = data.DataLoader(x, y, batch_size=20, seed=0)
    resumed.load_state_dict(state)
    fit(compiled(), resumed, epochs=2)
    assert (resumed.epoch, resumed.position) == (2, 0)


def test_validation_data_are_used_as_given():
    x, y = blobs()
    model = compiled()
    history = fit(model, x[:40], y[:40], validation_data=(x[40:], y[40:])).history
    assert history["val_loss"][-1] == model.evaluate(x[40:], y[40:])["loss"]


def test_lists_tensors_and_other_kinds_of_numbers():
    x, y = blobs()
    expected = compiled().evaluate(x, y)
    for xs, ys in ((x.tolist(), y.tolist()), (tz.tensor(x), tz.tensor(y)), (x, y.astype(np.uint8))):
        assert compiled().evaluate(xs, ys) == pytest.approx(expected)
    one_hot = compiled().evaluate(x, np.eye(3)[y])
    assert one_hot == pytest.approx(expected)
    assert compiled().evaluate(x, y.reshape(-1, 1)) == pytest.approx(expected)
    assert compiled().evaluate(x, np.eye(3, dtype=int)[y]) == pytest.approx(expected)


def test_float64_networks_compute_in_float64():
    x, y = blobs()
    model = compiled(mlp().to("float64"))
    fit(model, x.astype(np.float32), y)
    assert model.predict(x).dtype == np.float64
    assert compiled().predict(x).dtype == np.float32


def test_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(4, 3), nn.Embedding(5, 3)

        def forward(self, x, words):
            return self.a(x) + self.b(words)

    x, y = blobs()
    words = np.arange(60) % 5
    model = compiled(Two())
    fit(model, (x, words), y, validation_split=0.5)
    fit(model, data.DataLoader(x, words, y, batch_size=7, seed=0))
    assert model.predict((x, words), batch_size=13).shape == (60, 3)
    assert "(N, 3)" in model.summary()
    assert model.evaluate((x, words), y)["loss"] > 0


def test_binary_targets_take_the_shape_of_the_output():
    x, y = blobs(classes=2)
    p = compiled(mlp(1, nn.Sigmoid()), "binary_cross_entropy", ["accuracy", "auc"])
    logits = compiled(mlp(1), "binary_cross_entropy_with_logits", ["accuracy", "auc"])
    expected = p.evaluate(x, y)
    assert p.evaluate(x, y.reshape(-1, 1)) == expected
    assert logits.evaluate(x, y) == pytest.approx(expected)
    history = fit(logits, x, y, epochs=10).history
    assert history["accuracy"][-1] > 0.9 and history["auc"][-1] > 0.9


def test_modes_are_restored():
    x, y = blobs()
    model = compiled(nn.Sequential(mlp(8), nn.Dropout(0.5), nn.Linear(8, 3)))
    for training in (True, False):
        model.net.train(training)
        np.testing.assert_array_equal(model.predict(x), model.predict(x))  # no dropout
        model.evaluate(x, y)
        fit(model, x, y)
        assert model.net.training is training
    assert model.predict(x, batch_size=7).shape == (60, 3)


def test_a_layer_can_be_kept_in_evaluation_mode():
    class Freeze(train.Callback):
        def on_train_begin(self):
            self.model.net[0].eval()

    x, y = blobs()
    model = compiled(nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3)))
    before = model.net[0].running_mean.numpy().copy()
    fit(model, x, y, epochs=2, callbacks=Freeze(), validation_split=0.5)
    np.testing.assert_array_equal(model.net[0].running_mean.numpy(), before)
    assert model.net[0].training
    fit(model, x, y)
    assert not np.array_equal(model.net[0].running_mean.numpy(), before)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_by_name(name):
    x, y = blobs(classes=2)
    _, holds, _ = LOSSES[name]
    last = [nn.Sigmoid()] if name == "binary_cross_entropy" else []
    net = mlp(2) if holds == "classes" else mlp(1, *last)
    target = 2 * y - 1 if name == "hinge" else y
    model = compiled(net, name, ["accuracy"] if holds != "values" else ["mae"])
    history = fit(model, x, target, epochs=10, batch_size=10).history
    assert history["loss"][-1] < history["loss"][0] or name == "kl_div"
    if holds != "values":
        assert history["accuracy"][-1] > 0.8
    assert Loss(f"{name}_loss").function is Loss(name).function


def test_losses_as_functions_and_modules():
    x, y = blobs()
    by_name = compiled().evaluate(x, y)
    for loss in (F.cross_entropy, nn.CrossEntropyLoss()):
        assert compiled(loss=loss).evaluate(x, y) == by_name
    own = compiled(mlp(1), lambda output, target: ((output - target) ** 2).mean(), ["mse"])
    result = own.evaluate(x, y.astype(float))
    assert result["loss"] == pytest.approx(result["mse"])
    x, y = blobs(classes=2)
    bce = compiled(mlp(1), nn.BCEWithLogitsLoss(), ["accuracy"])
    assert bce.evaluate(x, y)["accuracy"] == ((bce.predict(x)[:, 0] > 0) == y).mean()


def test_class_weight():
    x, y = blobs()
    model = compiled()
    logp = F.log_softmax(model.net(tz.tensor(x, dtype="float32")), axis=1).numpy()
    each = -logp[np.arange(60), y] * np.array([1, 5, 1])[y]
    for target in (y, np.eye(3)[y]):
        frozen = compiled(optimizer="sgd", learning_rate=0.0)
        history = fit(frozen, x, target, class_weight={1: 5.0}, batch_size=25)
        assert history.history["loss"][0] == pytest.approx(each.mean(), rel=1e-5)
    x, y = blobs(classes=2)
    binary = compiled(mlp(1, nn.Sigmoid()), "binary_cross_entropy")
    fit(binary, x, y, class_weight={0: 0.0, 1: 1.0}, epochs=20)
    assert (binary.predict(x) > 0.5).all()  # nothing speaks for class 0
    with raises(ValueError, "fit: class_weight needs one of the losses cross_entropy, .*, by name"):
        fit(compiled(mlp(1), "mse", ["mae"]), x, y, class_weight={0: 1.0})


# what goes wrong


def test_fit_before_compile():
    x, y = blobs()
    for name in ("fit", "evaluate"):
        with raises(
            RuntimeError, rf'{name}: compile the model first: model.compile\("adam", loss=...\)'
        ):
            getattr(Model(mlp()), name)(x, y)


def test_compile_errors():
    model = Model(mlp())
    with raises(ValueError, r"compile: unknown loss 'crossentropy': choose from cross_entropy, .*"):
        model.compile(loss="crossentropy")
    with raises(ValueError, r"compile: unknown optimizer 'adm': choose from .*adam.*"):
        model.compile("adm", "mse")
    with raises(ValueError, r"compile: unknown metric 'acc': choose from accuracy, .*"):
        model.compile("adam", "mse", ["acc"])
    with raises(ValueError, r'compile: a loss is needed, for example loss="cross_entropy"'):
        model.compile("adam")
    with raises(TypeError, r"compile: loss must be a name or a function .*; got int"):
        model.compile("adam", 3)
    with raises(TypeError, r"compile: metrics are names or Metrics; got int"):
        model.compile("adam", "mse", [3])
    with raises(ValueError, r"compile: metrics must have different names; got mae, mae"):
        model.compile("adam", "mse", ["mae", train.MeanAbsoluteError()])
    with raises(TypeError, r"compile: optimizer must be a name, a class or an Optimizer; got int"):
        model.compile(3, "mse")
    with raises(
        ValueError, r"compile: this optimizer has its learning rate; leave learning_rate out"
    ):
        model.compile(optim.SGD(model.net.parameters(), lr=0.1), "mse", learning_rate=0.1)
    assert model.loss is None and model.optimizer is None  # nothing is half done
    with raises(TypeError, r"Model: a Module is needed; got list"):
        Model([])


def test_errors_in_samples():
    x, y = blobs()
    model = compiled()
    with raises(ValueError, r"fit: x and y must be equally long; got \(60, 4\), \(59,\)"):
        fit(model, x, y[:59])
    with raises(ValueError, r"evaluate: x and y must be equally long; got \(60, 4\), \(59,\)"):
        model.evaluate(x, y[:59])
    with raises(ValueError, r"fit: there are no samples; got \(0, 4\), \(0,\)"):
        fit(model, x[:0], y[:0])
    with raises(ValueError, r"predict: there are no samples; got \(0, 4\)"):
        model.predict(x[:0])
    with raises(
        ValueError, r"fit: y is missing; only an iterable of batches \(x, y\) goes without"
    ):
        fit(model, x)
    with raises(ValueError, r"DataLoader: arrays must be equally long; .*"):
        model.predict((x, x[:3]))
    with raises(ValueError, r"DataLoader: batch_size must be at least 1; got 0"):
        model.predict(x, batch_size=0)
    with raises(TypeError, r"fit: x must be numbers; got <U1"):
        fit(model, np.array([["a"]]), y[:1])
    with raises(TypeError, r"fit: y must be numbers; got <U1"):
        fit(model, x[:1], np.array(["a"]))
    with raises(ValueError, r"cross_entropy: labels must lie in 0..2; got 3"):
        fit(model, x, y + 1)
    with raises(ValueError, r"cross_entropy: labels must lie in 0..2; got -1"):
        fit(model, x, y - 1)
    with raises(ValueError, r"mse_loss: the target holds 1 NaN, the first at \(5, 0\)"):
        fit(
            compiled(mlp(1), "mse", []),
            x,
            np.where(np.arange(60) == 5, np.nan, 1.0),
            shuffle=False,
            batch_size=60,
        )
    with raises(ValueError, r"mse_loss: prediction and target must have one shape; .*"):
        fit(compiled(mlp(2), "mse", []), x, y.astype(float))


def test_errors_in_batches_and_options():
    x, y = blobs()
    model = compiled()
    with raises(
        ValueError,
        r"fit: an iterator lasts for one epoch, not 2; pass a DataLoader, a list, or steps_per_epoch",
    ):
        fit(model, iter([(x, y)]), epochs=2)
    with raises(ValueError, r"fit: there are no batches"):
        fit(model, [])
    with raises(ValueError, r"fit: batch 2 must be \(x, y\); got ndarray"):
        fit(model, [(x, y), x])
    with raises(ValueError, r"fit: batch 1 must be \(x, y\); got tuple of 1"):
        fit(model, [(x,)])
    with raises(ValueError, r"fit, batch 2: there are no samples; got \(0, 4\), \(0,\)"):
        fit(model, [(x, y), (x[:0], y[:0])])
    with raises(ValueError, r"fit: validation_split needs arrays; pass validation_data"):
        fit(model, [(x, y)], validation_split=0.1)
    with raises(ValueError, r"fit: give validation_split or validation_data, not both"):
        fit(model, x, y, validation_split=0.1, validation_data=(x, y))
    with raises(ValueError, r"fit: validation_split must lie between 0 and 1; got 1.5"):
        fit(model, x, y, validation_split=1.5)
    with raises(ValueError, r"fit: validation_split 0.999 of 60 samples leaves one part empty"):
        fit(model, x, y, validation_split=0.999)
    with raises(ValueError, r"fit: validation_data must be \(x, y\) or a DataLoader"):
        fit(model, x, y, validation_data=iter([(x, y)]))
    with raises(ValueError, r"fit, validation_data: x and y must be equally long; got .*"):
        fit(model, x, y, validation_data=(x, y[:3]))
    with raises(ValueError, r"fit: epochs must be at least 1; got 0"):
        fit(model, x, y, epochs=0)
    with raises(ValueError, r"fit: verbose must be 0, 1 or 2; got 3"):
        fit(model, x, y, verbose=3)
    with raises(ValueError, r"DataLoader: batch_size must be at least 1; got 0"):
        fit(model, x, y, batch_size=0)
    with raises(ValueError, r"fit: the loss must be a Tensor with one number; got shape \(32, 3\)"):
        fit(compiled(loss=lambda output, target: output), x, y)
    with raises(ValueError, r"fit: the loss must be a Tensor with one number; got float"):
        fit(compiled(loss=lambda output, target: 1.0), x, y)

    class Pair(nn.Linear):
        def forward(self, x):
            return super().forward(x), x

    with raises(TypeError, r"Model: the network must return one Tensor; got tuple"):
        fit(compiled(Pair(4, 3)), x, y)


def test_a_loss_that_is_not_finite_stops_the_training():
    x, y = blobs()
    spoiled = x.copy()
    spoiled[45] = np.nan
    model = compiled()
    fit(model, x, y)
    with raises(
        FloatingPointError,
        r"fit: epoch 1, batch 5: the loss is nan, for the inputs hold NaN or infinity",
    ):
        fit(model, spoiled, y, batch_size=10, shuffle=False)
    assert all(np.isfinite(value).all() for value in model.net.state_dict().values())
    assert model.history.epoch == []

    class Grows(train.Callback):
        def on_epoch_begin(self, epoch):
            if epoch == 2:
                for p in self.model.net.parameters():
                    p.data[...] = np.inf

    grows = (
        r"fit: epoch 3, batch 1: the loss is (nan|inf); a smaller learning rate or inputs scaled .*\n"
        r"linear: its argument w, a weight, came in with infinity[\s\S]*layer: 0 \(Linear\)[\s\S]*"
    )
    regression = compiled(mlp(1), lambda output, target: (output * 0 + output.sum()).mean(), [])
    with np.errstate(all="ignore"), raises(FloatingPointError, grows):
        fit(regression, x, y, epochs=5, callbacks=[Grows()])
    assert regression.history.epoch == [0, 1] and len(regression.history.history["loss"]) == 2


class Slope(nn.Module):
    """A distance of 0: the slope of its square root is infinite."""

    def __init__(self):
        self.norm = nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        h = self.out(self.norm(x))
        return tz.sqrt((h - h.detach()) ** 2)


def test_gradients_that_are_not_finite_never_reach_the_weights():
    x, y = blobs()
    tz.seed(0)
    model = compiled(Slope())
    before = model.net.state_dict()
    words = r"fit: epoch 1, batch 1: the loss is \d\S+, its gradients are not; [\s\S]*layer: Slope[\s\S]*"
    with np.errstate(all="ignore"), raises(FloatingPointError, words):
        fit(model, x, y)
    assert same_weights(before, model.net.state_dict())  # the running statistics as well
    assert all(p.grad is None for p in model.net.parameters())


def test_large_gradients_are_not_taken_for_infinite():
    weight = nn.Parameter(np.zeros(4, np.float32))
    weight.grad = tz.tensor(np.full(4, 3e38, np.float32))
    optimizer = optim.SGD([weight], lr=1.0)
    with np.errstate(over="ignore"):
        assert train.model._finite_gradients(optimizer)
    weight.grad.data[1] = np.nan
    assert not train.model._finite_gradients(optimizer)


def test_a_validation_loss_that_is_not_finite_stops_the_training():
    x, y = blobs()
    model = compiled()
    with raises(FloatingPointError, r"fit: epoch 1, validation: the loss is nan; look for NaN .*"):
        fit(model, x, y, validation_data=(x * np.nan, y))
    assert model.history.epoch == []


def test_ctrl_c_keeps_the_history():
    class Interrupt(train.Callback):
        ended = False

        def on_batch_end(self, batch, loss):
            if len(self.model.history.epoch) == 2:
                raise KeyboardInterrupt

        def on_train_end(self):
            self.ended = True

    x, y = blobs()
    model, interrupt = compiled(), Interrupt()
    model.net.eval()
    with pytest.raises(KeyboardInterrupt):
        fit(model, x, y, epochs=5, callbacks=[interrupt])
    assert model.history.epoch == [0, 1] and interrupt.ended and not model.net.training


# callbacks


def test_callbacks_are_called_in_order():
    class Note(train.Callback):
        def __init__(self):
            self.seen = []

        def on_train_begin(self):
            self.seen.append("train")

        def on_epoch_begin(self, epoch):
            self.seen.append(f"epoch {epoch}")

        def on_batch_end(self, batch, loss):
            self.seen.append(batch)
            assert isinstance(loss, float)

        def on_epoch_end(self, epoch, logs):
            self.seen.append(sorted(logs))
            logs["own"] = epoch

        def on_train_end(self):
            self.seen.append("end")

    x, y = blobs()
    note = Note()
    model = compiled()
    fit(model, x, y, epochs=2, batch_size=40, callbacks=[note, train.Callback()])
    logs = ["accuracy", "loss", "time"]
    assert note.seen == ["train", "epoch 0", 0, 1, logs, "epoch 1", 0, 1, logs, "end"]
    assert note.model is model and model.history.history["own"] == [0, 1]


class Scripted(train.Callback):
    """Puts given numbers into the logs, and the epoch into a weight."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, epoch, logs):
        logs["val_loss"] = self.values[epoch]
        next(iter(self.model.net.parameters())).data[...] = epoch


@pytest.mark.parametrize("patience, epochs", [(0, 3), (1, 3), (2, 4), (4, 7), (9, 8)])
def test_early_stopping(patience, epochs):
    x, y = blobs()
    values = (
        [3.0, 2.0, 2.5, 2.0, 1.9, 2.0, 2.0, 2.0]
        if patience == 4
        else [3.0, 2.0, 2.5, 2.6] + 4 * [2.7]
    )
    epochs = 8 if patience == 4 else epochs
    stop = train.EarlyStopping(patience=patience, restore_best_weights=True)
    model = compiled()
    fit(model, x, y, epochs=8, callbacks=[Scripted(values), stop])
    assert len(model.history.epoch) == epochs
    assert stop.stopped_epoch == (epochs - 1 if epochs < 8 else None)
    assert stop.best == min(values[:epochs]) and stop.best_epoch == np.argmin(values[:epochs])
    assert next(iter(model.net.parameters())).data.max() == stop.best_epoch


def test_early_stopping_modes_and_errors():
    assert train.EarlyStopping("val_accuracy").mode == "max"
    assert train.EarlyStopping("val_f1").mode == "max"
    assert train.EarlyStopping("val_loss").mode == train.EarlyStopping("mae").mode == "min"
    assert train.EarlyStopping("val_accuracy", mode="min").mode == "min"
    with raises(ValueError, "EarlyStopping: mode must be 'auto', 'min' or 'max'; got 'up'"):
        train.EarlyStopping(mode="up")
    x, y = blobs()
    with raises(
        ValueError,
        r"EarlyStopping: no 'val_loss' to monitor; choose from loss, accuracy, time \(val_... need "
        r"validation data\)",
    ):
        fit(compiled(), x, y, callbacks=[train.EarlyStopping()])


def test_min_delta():
    x, y = blobs()
    stop = train.EarlyStopping(min_delta=0.5)
    fit(compiled(), x, y, epochs=4, callbacks=[Scripted([3.0, 2.0, 1.8, 1.0]), stop])
    assert stop.stopped_epoch == 2 and stop.best == 2.0


def test_model_checkpoint_keeps_the_best(tmp_path):
    x, y = blobs()
    path = tmp_path / "best.safetensors"
    keep = train.ModelCheckpoint(path)
    fit(compiled(), x, y, epochs=4, callbacks=[Scripted([3.0, 2.0, 1.0, 2.0]), keep])
    weights = tz.train.load(path).net.state_dict()
    assert keep.best == 1.0 and next(iter(weights.values())).max() == 2


def test_learning_rate_follows_a_schedule():
    x, y = blobs()
    model = compiled(learning_rate=0.1)
    steps = train.LearningRate(optim.StepLR(model.optimizer, step_size=1, gamma=0.5))
    history = fit(model, x, y, epochs=3, callbacks=[steps]).history
    assert history["learning_rate"] == pytest.approx([0.1, 0.05, 0.025])
    model = compiled(learning_rate=0.1)
    steps = train.LearningRate(optim.StepLR(model.optimizer, step_size=1, gamma=0.5), every="batch")
    history = fit(model, x, y, epochs=2, batch_size=30, callbacks=[steps]).history
    assert history["learning_rate"] == pytest.approx([0.05, 0.0125])
    model = compiled(learning_rate=0.1)
    plateau = optim.ReduceLROnPlateau(model.optimizer, patience=0, factor=0.5)
    watch = train.LearningRate(plateau, monitor="val_loss")
    history = fit(model, x, y, epochs=3, callbacks=[Scripted([1.0, 2.0, 2.0]), watch]).history
    assert history["learning_rate"] == pytest.approx([0.1, 0.1, 0.05])
    with raises(
        ValueError, "LearningRate: no 'gain' to monitor; choose from loss, .*, learning_rate"
    ):
        fit(model, x, y, callbacks=[train.LearningRate(plateau, monitor="gain")])
    with raises(ValueError, "LearningRate: every must be 'epoch' or 'batch'; got 'step'"):
        train.LearningRate(plateau, every="step")
    with raises(ValueError, "LearningRate: the schedule is made for another optimizer than .*"):
        fit(compiled(), x, y, callbacks=[train.LearningRate(plateau), train.EarlyStopping()])


# history and progress


def test_history_is_saved(tmp_path):
    x, y = blobs()
    model = compiled(metrics=["accuracy", "confusion_matrix"])
    history = fit(model, x, y, epochs=2)
    history.save(tmp_path / "h.json")
    loaded = json.loads((tmp_path / "h.json").read_text())
    assert loaded["epoch"] == [0, 1] and loaded["history"]["loss"] == history.history["loss"]
    assert np.sum(loaded["history"]["confusion_matrix"]) == 120
    history.save(tmp_path / "h.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "h.csv").read_text())))
    assert list(rows[0]) == ["epoch", "loss", "accuracy", "time"] and rows[1]["epoch"] == "2"
    assert float(rows[1]["loss"]) == history.history["loss"][1]
    with raises(ValueError, r".*h.txt: a history is saved as .csv or .json; got '.txt'"):
        history.save(tmp_path / "h.txt")
    other = History()
    other.load_state_dict(history.state_dict())
    assert other.epoch == [0, 1] and other.history["loss"] == history.history["loss"]
    assert repr(history) == "<History of 2 epochs: loss, accuracy, confusion_matrix, time>"
    assert repr(History()) == "<History of 0 epochs: nothing>"


def test_plain_lines_where_there_is_no_terminal(capsys):
    x, y = blobs()
    fit(compiled(metrics=["confusion_matrix"]), x, y, epochs=2, verbose=1, validation_split=0.5)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2 and err == ""
    assert lines[0].startswith("epoch 1/2: loss ") and ", val_loss " in lines[0]
    assert out.isascii() and "\r" not in out and "\x1b" not in out
    fit(compiled(), x, y, verbose=0)
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_in_a_terminal(monkeypatch):
    x, y = blobs()
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(progress, "REDRAW", 0.0)
    fit(compiled(), x, y, epochs=2, verbose=1)
    text = screen.getvalue()
    assert "epoch 1/2:  50%|" in text and "1/2 [" in text and "accuracy" in text
    lines = [line.split("\r")[-1] for line in text.split("\n")]  # what stays on the screen
    assert len(lines) == 3 and lines[1].startswith("epoch 2/2: loss ") and lines[1].endswith(" s")
    fit(compiled(), iter([(x, y)]), verbose=1)  # of unknown length
    assert "epoch 1/1: 1it [" in screen.getvalue()
    with pytest.raises(FloatingPointError):
        fit(compiled(), x * np.nan, y, verbose=1)
    assert screen.getvalue().endswith("\r")  # the bar is gone
    screen.truncate(0)
    fit(compiled(), x, y, verbose=2)
    assert "\r" not in screen.getvalue()


def test_one_bar_in_a_notebook(monkeypatch):
    x, y = blobs()

    class ZMQInteractiveShell:
        pass

    class IPython:
        get_ipython = ZMQInteractiveShell

    screen = io.StringIO()
    monkeypatch.setitem(sys.modules, "IPython", IPython)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr(sys, "stdout", screen)
    assert progress.in_notebook()
    fit(compiled(), x, y, epochs=3, verbose=1)
    text = screen.getvalue()
    assert text.count("\n") == 1 and "epoch 3/3" in text and "6/6" in text and "accuracy" in text


# summary


def test_summary(capsys):
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Sequential(nn.Linear(144, 3))
    )
    model = Model(net)
    text = model.summary(input_shape=(1, 8, 8))
    assert capsys.readouterr().out == text + "\n"
    rows = [line.split() for line in text.splitlines()]
    assert rows[0] == ["layer", "output", "parameters"]
    assert " ".join(rows[2]) == "0 (Conv2d) (N, 4, 6, 6) 40"
    assert " ".join(rows[5]) == "3.0 (Linear) (N, 3) 435"
    assert text.splitlines()[-1] == "475 parameters, 1.9 kB"
    assert "(N, " not in model.summary()
    net[0].requires_grad_(False)
    assert "475 parameters, 40 of them frozen, 1.9 kB" in model.summary()
    words = Model(nn.Sequential(nn.Embedding(10, 4), nn.Flatten()))
    assert "(N, 12)" in words.summary((3,), dtype="int64")
    model = compiled()
    fit(model, *blobs())
    assert "(N, 8)" in model.summary()
    assert not model.net[0]._forward_hooks
    assert Model(nn.Linear(4, 3)).summary((4,)).splitlines()[2].startswith("(Linear)   (N, 3)")


# saving


def test_save_and_load(tmp_path):
    x, y = blobs()
    path = tmp_path / "m.safetensors"
    model = compiled(optimizer="sgd", learning_rate=0.05, metrics=["accuracy", train.F1("macro")])
    fit(model, x, y)
    model.save(path)
    back = tz.train.load(path)
    assert same_weights(model, back) and repr(back.net) == repr(model.net)
    np.testing.assert_array_equal(back.predict(x), model.predict(x))
    assert isinstance(back.optimizer, optim.SGD) and back.optimizer.param_groups[0]["lr"] == 0.05
    assert [metric.name for metric in back.metrics] == ["accuracy", "f1"]
    assert back.evaluate(x, y)["loss"] == model.evaluate(x, y)["loss"]
    back = tz.train.load(path, net=mlp())
    assert same_weights(model, back)
    fresh = Model(mlp())
    fresh.load_weights(path)
    assert same_weights(model, fresh)


@pytest.mark.parametrize("bias", [True, False])
def test_every_layer_that_makes_up_networks_is_rebuilt(tmp_path, bias):
    net = nn.Sequential(
        nn.Conv2d(1, 4, (3, 2), stride=2, padding=1, bias=bias),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.LeakyReLU(0.2), nn.Dropout(0.1)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3, bias=bias),
    )
    x = np.random.default_rng(0).normal(size=(5, 1, 8, 8))
    model = compiled(net)
    fit(model, x, np.arange(5) % 3)  # moves the running statistics
    model.save(tmp_path / "m")
    back = tz.train.load(tmp_path / "m")
    np.testing.assert_array_equal(back.predict(x), model.predict(x))
    assert repr(back.net) == repr(net)


def test_compile_settings_come_back(tmp_path):
    net = mlp()
    sgd = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    model = compiled(
        net,
        nn.CrossEntropyLoss(label_smoothing=0.2),
        [train.TopK(2)],
        optimizer=sgd,
        learning_rate=None,
    )
    optim.ExponentialLR(sgd, gamma=0.5).step()  # the rate that a schedule started from is kept
    model.save(tmp_path / "m")
    back = tz.train.load(tmp_path / "m")
    group = back.optimizer.param_groups[0]
    assert isinstance(back.optimizer, optim.SGD) and (group["lr"], group["momentum"]) == (0.1, 0.9)
    assert back.loss.given.label_smoothing == 0.2 and back.metrics[0].k == 2
    compiled(optimizer=optim.Adam).save(tmp_path / "m")
    assert tz.train.load(tmp_path / "m").optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_dtype_and_names_of_layers_come_back(tmp_path):
    net = nn.Sequential({"hidden": nn.Linear(4, 3), "act": nn.ReLU()}).to("float64")
    Model(net).save(tmp_path / "m")
    back = tz.train.load(tmp_path / "m").net
    assert same_weights(net.state_dict(), back.state_dict()) and back[0].weight.dtype == np.float64
    assert list(back.state_dict()) == ["hidden.weight", "hidden.bias"]


class Own(nn.Module):
    def __init__(self):
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x)


def test_networks_of_the_users_own_need_net(tmp_path):
    path = tmp_path / "m"
    model = compiled(Own())
    model.save(path)
    why = r"weights alone \(Own is not a layer of tinygrad_zen.nn\)"
    with raises(
        ValueError,
        rf"{path}: the file holds {why}; pass the network to fill: load\(path, net=MyNet\(\)\)",
    ):
        tz.train.load(path)
    back = tz.train.load(path, net=Own())
    assert same_weights(back, model) and back.loss is not None


def test_compile_settings_of_the_users_own_are_left_out(tmp_path):
    model = compiled(loss=lambda output, target: output.mean())
    model.save(tmp_path / "m")
    assert tz.train.load(tmp_path / "m").loss is None
    net = mlp()
    groups = optim.SGD([{"params": [p]} for p in net.parameters()])
    compiled(net, optimizer=groups, learning_rate=None).save(tmp_path / "m")
    assert tz.train.load(tmp_path / "m").loss is None

    class Mine(train.Metric):
        name = "mine"

    compiled(metrics=[Mine()]).save(tmp_path / "m")
    assert tz.train.load(tmp_path / "m").loss is None
    Model(mlp()).save(tmp_path / "m")
    assert tz.train.load(tmp_path / "m").loss is None


def test_files_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    theirs = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    save_file(theirs.state_dict(), tmp_path / "m")
    x, _ = blobs()
    expected = theirs(torch.tensor(x, dtype=torch.float32)).detach().numpy()
    model = tz.train.load(tmp_path / "m", net=mlp())
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)
    with raises(
        ValueError, r".*/m: the file holds weights alone \(another library wrote it\); pass .*"
    ):
        tz.train.load(tmp_path / "m")


def test_files_that_do_not_fit(tmp_path):
    path = tmp_path / "m"
    compiled().save(path)
    with raises(
        ValueError, rf"{path}: the weights do not fit the network: .*mismatched: 2.weight .*"
    ):
        tz.train.load(path, net=mlp(5))
    with raises(
        ValueError, rf"{path}: the weights do not fit the network: .*missing: .*; unexpected: .*"
    ):
        Model(Own()).load_weights(path)
    with raises(FileNotFoundError, rf"{tmp_path}/no: no such file"):
        tz.train.load(tmp_path / "no")
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    with raises(ValueError, rf"{path}: the safetensors file is cut short or damaged: .*"):
        tz.train.load(path)
    for network in (
        {"layer": "NoSuchLayer", "arguments": {}},
        {"layer": "Module", "arguments": {}},
        [3],
    ):
        about = {"network": network}
        tz.io.save_state(path, {}, {train.model.KEY: json.dumps(about)})
        with raises(
            ValueError, rf"{path}: the description of the network is damaged or newer than .*"
        ):
            tz.train.load(path)
    compiled().save(path)
    arrays, metadata = tz.io.load_state(path)
    about = json.loads(metadata[train.model.KEY])
    for optimizer in ({"name": "lion", "options": {}}, {"name": "adam", "options": {"a": 1}}, None):
        about["compile"]["optimizer"] = optimizer
        tz.io.save_state(path, arrays, {train.model.KEY: json.dumps(about)})
        with raises(ValueError, rf"{path}: the optimizer, loss or metrics are damaged or newer .*"):
            tz.train.load(path)
