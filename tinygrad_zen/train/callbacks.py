"""Callbacks: what `fit` calls between its steps."""

import math
import os


class Callback:
    """The moments at which `fit` calls; override what you need.

    model: the Model that is being fitted. Epochs and batches count from 0. logs: the values so far, by
    name; what on_epoch_end adds to them stands in the history. `self.model.stop_training = True` ends
    the training after the epoch. A callback that must be resumed with the training defines
    `state_dict()`, of arrays, numbers, strings, dicts and lists, and `load_state_dict(state)`, which is
    called after on_train_begin; an epoch that is resumed in its middle does not begin again.
    """

    model = None

    def on_train_begin(self):
        """Before the first epoch."""

    def on_epoch_begin(self, epoch):
        """Before the first batch of an epoch."""

    def on_batch_end(self, batch, loss):
        """After the optimizer's step on a batch; loss: its loss, a number."""

    def on_epoch_end(self, epoch, logs):
        """After an epoch and its validation."""

    def on_settled(self, epoch, batch):
        """When every callback is done with a batch or an epoch: the whole state may be saved now.

        epoch, batch: what comes next; batch is 0 once an epoch has ended.
        """

    def on_train_end(self):
        """After the last epoch, also when an error or Ctrl-C ended the training."""

    def state_dict(self):
        """What a checkpoint must hold of this callback."""
        return {}

    def load_state_dict(self, state):
        """Go on where a state_dict() was taken."""


class Watch(Callback):
    """A callback that follows one value and knows the best so far.

    monitor: its name in the logs. mode: "min", "max", or "auto": metrics of correctness (accuracy,
    AUC, F1, ...) are best at the maximum, everything else at the minimum. min_delta: how much better
    counts as better.
    """

    _LARGE_IS_GOOD = ("accuracy", "top_", "precision", "recall", "f1", "auc")

    def __init__(self, monitor, mode, min_delta=0.0):
        if mode not in ("auto", "min", "max"):
            raise ValueError(
                f"{type(self).__name__}: mode must be 'auto', 'min' or 'max'; got {mode!r}"
            )
        if mode == "auto":
            large_is_good = any(part in monitor for part in self._LARGE_IS_GOOD)
            mode = "max" if large_is_good else "min"
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)
        self.best = self.best_epoch = None

    def on_train_begin(self):
        self.best, self.best_epoch = math.inf if self.mode == "min" else -math.inf, None

    def improved(self, epoch, logs):
        """Whether this epoch is the best so far; takes note of it."""
        value = monitored(self, self.monitor, logs)
        gain = self.best - value if self.mode == "min" else value - self.best
        if not gain > self.min_delta:
            return False
        self.best, self.best_epoch = value, epoch
        return True

    def state_dict(self):
        return {"best": self.best, "best_epoch": self.best_epoch}

    def load_state_dict(self, state):
        vars(self).update(state)


def monitored(callback, name, logs):
    """The value of that name. Raises ValueError that lists the names there are."""
    if name not in logs:
        raise ValueError(
            f"{type(callback).__name__}: no {name!r} to monitor; choose from {', '.join(logs)}"
            + (" (val_... need validation data)" if name.startswith("val_") else "")
        )
    return logs[name]


class EarlyStopping(Watch):
    """Stop when a value has not improved for `patience` epochs in a row (at least one).

    restore_best_weights: give the network the state of its best epoch back, however training ends.
    stopped_epoch: the epoch (from 0) after which it stopped, or None. best_epoch: the best one.
    The rest is explained at Watch.
    """

    _weights = None  # also where another callback stopped the training before it began

    def __init__(
        self,
        monitor="val_loss",
        patience=0,
        *,
        min_delta=0.0,
        mode="auto",
        restore_best_weights=False,
    ):
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.restore_best_weights = restore_best_weights

    def on_train_begin(self):
        super().on_train_begin()
        self.waited, self.stopped_epoch, self._weights = 0, None, None

    def on_epoch_end(self, epoch, logs):
        if self.improved(epoch, logs):
            self.waited = 0
            if self.restore_best_weights:
                self._weights = self.model.net.state_dict()
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self):
        if self._weights is not None:
            self.model.net.load_state_dict(self._weights)
            self._weights = None

    def state_dict(self):
        names = ("waited", "stopped_epoch", "_weights")
        return super().state_dict() | {name: getattr(self, name) for name in names}


class ModelCheckpoint(Watch):
    """Save the model to a file after each epoch that improves a value; see Watch.

    Raises OSError, before any training, where the file cannot be written.
    """

    def __init__(self, path, monitor="val_loss", *, mode="auto", min_delta=0.0):
        super().__init__(monitor, mode, min_delta)
        self.path = path

    def on_train_begin(self):
        from ..io import check_writable

        super().on_train_begin()
        check_writable(self.path)

    def on_epoch_end(self, epoch, logs):
        if self.improved(epoch, logs):
            self.model.save(self.path)


class Checkpoint(Callback):
    """Keep all of a training in one file, from which `fit(..., resume=path)` goes on bit for bit.

        model.fit(x, y, epochs=50, callbacks=[Checkpoint("run.safetensors", every=100)])
        model.fit(x, y, epochs=50, callbacks=[...], resume="run.safetensors")     # later, or elsewhere

    The file holds weights, optimizer, random generator, place in the data, callbacks, metrics and
    history, after each epoch and, if given, after every so many batches of an epoch. A new one takes
    the place of the last in one step, so however a training ends, the file is whole.
    Raises ValueError for every < 1; OSError, before any training, where the file cannot be written.
    """

    def __init__(self, path, every=None):
        if every is not None and every < 1:
            raise ValueError(f"Checkpoint: every must be at least 1 batch; got {every}")
        self.path, self.every = path, every
        self.saved = None  # the place, (epoch, batch), that the file holds

    def on_train_begin(self):
        from ..io import check_writable

        check_writable(self.path)
        self.saved = None

    def resumed(self, path, place):
        """The training goes on from a file at a place (epoch, batch)."""
        if os.path.realpath(path) == os.path.realpath(self.path):
            self.saved = place

    def on_settled(self, epoch, batch):
        if batch % (self.every or batch + 1) == 0:  # batch is 0 after an epoch
            self.model.save_checkpoint(self.path)
            self.saved = epoch, batch


class LearningRate(Callback):
    """Follow a schedule of `tinygrad_zen.optim`, made for the model's optimizer.

        model.compile(...)
        model.fit(..., callbacks=[LearningRate(optim.CosineAnnealingLR(model.optimizer, T_max=10))])

    every: "epoch" or "batch", when the schedule takes a step. monitor: the value that a schedule like
    ReduceLROnPlateau looks at, each epoch. The history gets "learning_rate", the rate of each
    epoch's last batch.
    """

    def __init__(self, schedule, *, every="epoch", monitor=None):
        if every not in ("epoch", "batch"):
            raise ValueError(f"LearningRate: every must be 'epoch' or 'batch'; got {every!r}")
        self.schedule, self.every, self.monitor = schedule, every, monitor
        self._used = None  # the rate of the last batch

    def on_train_begin(self):
        if self.schedule.optimizer is not self.model.optimizer:
            raise ValueError(
                "LearningRate: the schedule is made for another optimizer than the model's; make it "
                "after compile, with model.optimizer"
            )

    def on_batch_end(self, batch, loss):
        if self.every == "batch":
            self._used = self.rate()
            self.schedule.step()

    def on_epoch_end(self, epoch, logs):
        if self.every == "batch":
            logs["learning_rate"] = self._used
            return
        logs["learning_rate"] = self.rate()
        if self.monitor is None:
            self.schedule.step()
        else:
            self.schedule.step(monitored(self, self.monitor, logs))

    def state_dict(self):
        return {"schedule": self.schedule.state_dict(), "_used": self._used}

    def load_state_dict(self, state):
        self.schedule.load_state_dict(state["schedule"])
        self._used = state["_used"]

    def rate(self):
        """The learning rate of the optimizer's first group."""
        return float(self.model.optimizer.param_groups[0]["lr"])
