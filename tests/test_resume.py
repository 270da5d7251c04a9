"""Training that is stopped and resumed ends with the same bits as training straight through."""

import numpy as np
import pytest

import tinygrad_zen as tz
import tinygrad_zen.nn.functional as F
from tinygrad_zen import data, io, nn, optim
from tinygrad_zen.train import (
    AUC,
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    LearningRate,
    Model,
    ModelCheckpoint,
)

EPOCHS = 3


def raises(kind, message):
    return pytest.raises(kind, match=rf"\A{message}\Z")


class StopAfter(Callback):
    """Ctrl-C after so many batches, those that were resumed not counted."""

    def __init__(self, batches):
        self.left = batches

    def on_settled(self, epoch, batch):
        self.left -= batch > 0
        if self.left <= 0:
            raise KeyboardInterrupt


def samples(n=44):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(n, 6)).astype(np.float32)
    return x, (x[:, :1] > 0).astype(np.float32)


def noisy(x, rng):
    return x + rng.normal(size=x.shape).astype(x.dtype)


def fit(folder, batches="arrays", stop=None, resume=None, restore=True):
    """A training with everything that has a state; -> the model, after Ctrl-C too."""
    tz.seed(3)
    x, y = samples()
    net = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
    model = Model(net)
    optimizer = optim.Adam(net.parameters(), lr=0.05, amsgrad=True)
    model.compile(optimizer, nn.BCEWithLogitsLoss(), metrics=["accuracy", AUC()])
    schedule = optim.OneCycleLR(optimizer, max_lr=0.05, total_steps=EPOCHS * 5)
    callbacks = [
        Checkpoint(folder / "run", every=1),
        LearningRate(schedule, every="batch"),
        EarlyStopping("val_loss", patience=2, restore_best_weights=restore),
        ModelCheckpoint(folder / "best"),
    ]
    if stop:
        callbacks.append(StopAfter(stop))
    options = {"validation_split": 0.2, "batch_size": 8}
    if batches == "loader":
        x, y = data.DataLoader(x[:35], y[:35], batch_size=8, transform=noisy), None
        options = {"validation_data": data.DataLoader(*samples(10), transform=noisy)}
    elif batches == "list":
        x, y = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 35, 8)], None
        options = {"validation_data": samples(10)}
    try:
        model.fit(x, y, epochs=EPOCHS, callbacks=callbacks, resume=resume, verbose=0, **options)
    except KeyboardInterrupt as e:
        model.words = str(e)
    return model


def state(model):
    """Everything that training has changed, as bytes and numbers."""
    optimizer = model.optimizer.state_dict()
    history = {k: v for k, v in model.history.history.items() if k != "time"}
    return (
        {name: a.tobytes() for name, a in model.net.state_dict().items()},
        {
            i: {name: np.asarray(v).tobytes() for name, v in kept.items()}
            for i, kept in optimizer["state"].items()
        },
        optimizer["param_groups"],
        history,
        model.history.epoch,
        tz.default_generator().bit_generator.state,
    )


@pytest.mark.parametrize("batches", ["arrays", "loader", "list"])
def test_fit_stopped_anywhere_and_resumed(tmp_path, backend, batches):
    straight = state(fit(tmp_path, batches))
    for stop in range(1, EPOCHS * 5, 1 if batches == "arrays" and backend.name == "numpy" else 4):
        fit(tmp_path, batches, stop=stop)
        resumed = fit(tmp_path, batches, resume=tmp_path / "run")
        assert state(resumed) == straight, stop


def test_fit_stopped_again_and_again(tmp_path):
    straight = state(fit(tmp_path))
    fit(tmp_path, stop=1)
    for _ in range(EPOCHS * 5):
        model = fit(tmp_path, stop=1, resume=tmp_path / "run")
    assert state(model) == straight


def test_resuming_what_is_finished_or_was_stopped_early(tmp_path):
    model = fit(tmp_path)
    again = fit(tmp_path, resume=tmp_path / "run")
    assert state(again) == state(model)
    x, y = samples()
    callbacks = [EarlyStopping("loss", patience=1, mode="max"), Checkpoint(tmp_path / "early")]
    for resume in (None, tmp_path / "early"):
        tz.seed(0)
        model = Model(nn.Linear(6, 1))
        model.compile("sgd", "mse")
        history = model.fit(x, y, epochs=9, callbacks=callbacks, resume=resume, verbose=0)
        assert history.epoch == [0, 1]


def test_more_epochs_later_are_as_good_as_all_at_once(tmp_path):
    def train(epochs, resume=None):
        tz.seed(0)
        model = Model(nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 1)))
        model.compile("rmsprop", "mse")
        callbacks = Checkpoint(tmp_path / "run", every=3)
        model.fit(*samples(), epochs=epochs, callbacks=callbacks, resume=resume, verbose=0)
        return state(model)

    train(2)
    assert train(5, tmp_path / "run") == train(5)


def test_the_loop_written_out(tmp_path, backend):
    path = tmp_path / "run"

    def train(stop=None, resume=False):
        tz.seed(0)
        rng = np.random.default_rng(7)  # a generator of the loop's own
        net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        schedule = optim.StepLR(optimizer, step_size=4, gamma=0.5)
        loader = data.DataLoader(*samples(), batch_size=8)
        parts = dict(net=net, optimizer=optimizer, schedule=schedule, loader=loader, rng=rng)
        if resume:
            io.load_checkpoint(path, **parts)
        steps = 0
        while loader.epoch < 2:
            for x, y in loader:
                optimizer.zero_grad()
                noise = rng.normal(size=x.shape).astype(np.float32)
                F.mse_loss(net(tz.tensor(x + noise)), tz.tensor(y)).backward()
                optimizer.step()
                schedule.step()
                steps += 1
                if steps == stop:
                    io.save_checkpoint(path, **parts)
                    return
        return {name: a.tobytes() for name, a in net.state_dict().items()}, optimizer.param_groups[
            0
        ]["lr"]

    straight = train()
    for stop in range(1, 12):
        train(stop)
        assert train(resume=True) == straight, stop


def test_ctrl_c_says_how_to_go_on(tmp_path):
    words = fit(tmp_path, stop=7).words
    holds = f"{tmp_path}/run holds the training up to batch 2 of epoch 2"
    assert words == f"fit: interrupted after batch 2 of epoch 2; {holds}: resume from it to go on"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "run"]
    model = Model(nn.Linear(6, 1))
    model.compile("sgd", "mse")
    with raises(KeyboardInterrupt, r"fit: interrupted after no batch; no checkpoint was written"):
        model.fit(*samples(), callbacks=StopAtOnce(), verbose=0)


class StopAtOnce(Callback):
    def on_train_begin(self):
        raise KeyboardInterrupt


class StopInBatch(Callback):
    def on_batch_end(self, batch, loss):
        raise KeyboardInterrupt


def test_ctrl_c_before_the_first_checkpoint_of_a_resumed_training(tmp_path):
    """What it was resumed from still stands, if that is the file which this training writes."""
    model = Model(nn.Linear(6, 1))
    model.compile("sgd", "mse")
    run = tmp_path / "run"
    model.fit(*samples(), callbacks=Checkpoint(run), verbose=0)
    began = "fit: interrupted after epoch 1; "
    for path, words in [
        (run, f"{run} holds the training up to epoch 1: resume from it to go on"),
        (tmp_path / "other", "no checkpoint was written"),
    ]:
        callbacks = [Checkpoint(path), StopInBatch()]
        with raises(KeyboardInterrupt, began + words):
            model.fit(*samples(), epochs=2, callbacks=callbacks, resume=run, verbose=0)


def test_what_cannot_be_resumed(tmp_path):
    fit(tmp_path, stop=7)
    run = tmp_path / "run"
    model = Model(nn.Linear(6, 1))
    model.compile("sgd", "mse", metrics=["mae"])
    callbacks = r"'EarlyStopping', 'LearningRate', 'ModelCheckpoint'"
    saved = rf"\[{callbacks}, 'fit', 'loader', 'net', 'optimizer', 'validation'\]"
    own = r"\['fit', 'loader', 'net', 'optimizer'\]"
    with raises(ValueError, rf"{run}: the checkpoint is of {saved}; got {own}"):
        model.fit(*samples(), resume=run, verbose=0)
    with raises(FileNotFoundError, rf"{tmp_path}/no: no such file"):
        model.fit(*samples(), resume=tmp_path / "no", verbose=0)
    with raises(RuntimeError, r"save_checkpoint: no fit is going on; save\(\) keeps the weights"):
        model.save_checkpoint(run)
    with raises(ValueError, r"Checkpoint: every must be at least 1 batch; got 0"):
        Checkpoint(run, every=0)
    model.fit(*samples(), callbacks=Checkpoint(run), verbose=0)
    model.compile("sgd", "mse", metrics=["mae", "mse"])
    words = "fit: the checkpoint has the metrics mae; this model mae, mse"
    words = rf"{run}: the state of fit does not fit: {words}"
    with raises(ValueError, words):
        model.fit(*samples(), callbacks=Checkpoint(run), resume=run, verbose=0)


@pytest.mark.parametrize("callback", [Checkpoint, ModelCheckpoint, CSVLogger])
def test_a_file_that_cannot_be_written_is_told_before_the_training(tmp_path, callback):
    model = Model(nn.Linear(6, 1))
    model.compile("sgd", "mse")
    path = tmp_path / "no" / "run"
    with raises(FileNotFoundError, rf"{path}: the folder {path.parent} does not exist"):
        model.fit(*samples(), callbacks=callback(path), verbose=0)
    with raises(IsADirectoryError, rf"{tmp_path}: a file cannot be written here; this is a folder"):
        model.fit(*samples(), callbacks=callback(tmp_path), verbose=0)
    assert model.history.epoch == [] and not any(tmp_path.iterdir())
