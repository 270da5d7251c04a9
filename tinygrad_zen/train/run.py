"""A fit under way: where it stands, and all that a checkpoint of it must hold."""

import itertools

from .callbacks import Callback


class Run:
    """One call of `fit`: its place, its totals so far, and everything else that changes on the way.

    epoch, batch: what comes next is batch number `batch` of epoch number `epoch`, both from 0.
    totals: loss and metrics of this epoch's batches so far. seconds: how long the epoch took before
    the training was stopped and resumed. steps: how many batches of an iterator make an epoch.
    weights: class weights, and whether each batch ends in weights of its samples.
    """

    weights = None, False

    def __init__(self, model, batches, validation, callbacks, steps=None):
        self.model = model
        self.batches, self.validation = batches, validation
        self.callbacks = callbacks
        self.steps = steps
        self.epoch = self.batch = 0
        self.seconds = 0.0
        self.totals = Totals(model.metrics)

    def rest(self):
        """The batches of this epoch that are not done yet."""
        if self.steps is not None:
            return self._take(self.steps - self.batch)
        if not self.batch:
            return self.batches
        if _has_place(
            self.batches
        ):  # it knows where it stands, and after the last batch begins anew
            return self.batches if self.batch < len(self.batches) else ()
        return itertools.islice(self.batches, self.batch, None)

    def _take(self, count):
        """That many batches of an iterator, which must have them."""
        for _ in range(count):
            batch = next(self.batches, None)
            if batch is None:
                raise ValueError(
                    f"fit: epoch {self.epoch + 1}: the batches ended after {self.batch} of {self.steps}, "
                    "which steps_per_epoch asks for"
                )
            yield batch

    def batches_in_epoch(self):
        """How many batches make an epoch, or None where nobody knows."""
        if self.steps is not None:
            return self.steps
        return len(self.batches) if hasattr(self.batches, "__len__") else None

    def next_epoch(self):
        """Go to the beginning of the next epoch."""
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.totals = Totals(self.model.metrics)

    def parts(self):
        """name -> what io.save_checkpoint is to save under it."""
        model = self.model
        parts = {"net": model.net, "optimizer": model.optimizer, "fit": self}
        if model.update.accumulate > 1:
            parts["update"] = model.update
        if _has_place(self.batches):
            parts["loader"] = self.batches
        if _has_place(self.validation):
            parts["validation"] = self.validation
        for callback in self.callbacks:
            if type(callback).state_dict is not Callback.state_dict:
                kind = type(callback).__name__
                same = sum(name.partition(" ")[0] == kind for name in parts)
                parts[f"{kind} {same + 1}" if same else kind] = callback
        return parts

    def state_dict(self):
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "seconds": self.seconds,
            "stopped": self.model.stop_training,
            "totals": self.totals.state_dict(),
            "history": self.model.history.state_dict(),
        }

    def load_state_dict(self, state):
        self.totals.load_state_dict(state["totals"])
        self.model.history.load_state_dict(state["history"])
        self.model.stop_training = state["stopped"]
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.seconds = state["seconds"]
        if self.steps is not None:
            done = self.epoch * self.steps + self.batch
            for _ in itertools.islice(self.batches, done):
                pass


class Totals:
    """Loss and metrics of the batches so far."""

    def __init__(self, metrics):
        self.metrics = metrics
        self.loss = 0.0
        self.samples = 0
        for metric in metrics:
            metric.reset()

    def add(self, loss, output, target):
        """A batch: its mean loss (a number), the output (a Tensor), the target (an array)."""
        self.loss += loss * len(target)
        self.samples += len(target)
        if self.metrics:
            prediction = output.numpy()
            for metric in self.metrics:
                metric.update(prediction, target)

    def logs(self):
        """name -> value, "loss" first."""
        return {"loss": self.loss / self.samples} | {m.name: m.result() for m in self.metrics}

    def state_dict(self):
        metrics = {metric.name: metric.state_dict() for metric in self.metrics}
        return {"loss": self.loss, "samples": self.samples, "metrics": metrics}

    def load_state_dict(self, state):
        own = [metric.name for metric in self.metrics]
        if list(state["metrics"]) != own:
            raise ValueError(
                f"fit: the checkpoint has the metrics {', '.join(state['metrics']) or 'none'}; this "
                f"model {', '.join(own) or 'none'}"
            )
        self.loss, self.samples = state["loss"], state["samples"]
        for metric in self.metrics:
            metric.load_state_dict(state["metrics"][metric.name])


def as_place(epoch, batch):
    """What a training has done before its next (epoch, batch), in words that count from 1."""
    if batch:
        return f"batch {batch} of epoch {epoch + 1}"
    return f"epoch {epoch}" if epoch else "no batch"


def _has_place(batches):
    """Whether batches know where they stand, as a DataLoader does, and how many they are."""
    return hasattr(batches, "load_state_dict") and hasattr(batches, "__len__")
