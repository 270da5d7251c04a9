"""Model: a network with compile, fit, evaluate and predict, as Keras speaks."""

import contextlib
import inspect
import json
import math
import time

import numpy as np

from ..autograd import no_grad
from ..backend import default_backend
from ..data import DataLoader
from ..tensor import Tensor
from .batches import (
    are_batches,
    as_arrays,
    as_samples,
    as_weights,
    checked,
    in_order,
    split_off,
)
from .callbacks import Callback, Checkpoint
from .history import History
from .losses import Loss
from .metrics import METRICS, Accuracy, BinaryAccuracy, Metric
from .penalties import Penalty
from .progress import progress
from .run import Run, Totals, as_place
from .settings import optimizers, restore, tell
from .summary import summary
from .update import Update

KEY = "tinygrad_zen.model"


class Model:
    """A network that can be trained, judged, used and kept.

        model = Model(nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 3)))
        model.compile(optimizer="adam", loss="cross_entropy", metrics=["accuracy"])
        history = model.fit(x, y, epochs=10, validation_split=0.2)
        model.evaluate(x_test, y_test)["accuracy"]

    net: a Module, which maps one or more Tensors (N, ...) to one. history: the record of the last
    fit. Samples are arrays, Tensors or lists; they move to the network's backend batch by batch.
    Inputs of floats take the dtype of its parameters, integers stay.
    """

    def __init__(self, net):
        from .. import nn

        if not isinstance(net, nn.Module):
            raise TypeError(f"Model: a Module is needed; got {type(net).__name__}")
        self.net = net
        self.optimizer = self.loss = self.update = None
        self.penalties = []
        self.metrics = []
        self.history = History()
        self.stop_training = False
        self.given_metrics = []  # as compile got them, for save()
        self._run = None  # the fit that is going on
        self._samples = (
            None  # shape and dtype of each input's samples in the last fit, for summary()
        )

    def __call__(self, *inputs):
        """Apply the network itself: Tensors in, a Tensor out."""
        return self.net(*inputs)

    def compile(
        self,
        optimizer="adam",
        loss=None,
        metrics=(),
        learning_rate=None,
        *,
        penalties=(),
        accumulate=1,
        clip_norm=None,
        clip_value=None,
    ):
        """Choose how to train.

        optimizer: a name like "adam", a class of tinygrad_zen.optim, or an optimizer that was made for
        the network's parameters. learning_rate: for a name or a class; its own default if None.
        loss: see train.losses.Loss. metrics: names or Metrics. "accuracy" goes by the loss: with one
        for yes/no answers it looks at each answer, otherwise at the most likely class; logits or
        probabilities, where a metric does not say, follow from the loss too.
        penalties: one or more of train.L1 and train.L2; they move the weights, and the losses that are
        reported go without them. accumulate: how many batches make one step of the optimizer; clip_norm,
        clip_value: bounds for its gradients. See train.update.
        Raises ValueError for unknown names and lists the known.
        """
        if loss is None:
            raise ValueError('compile: a loss is needed, for example loss="cross_entropy"')
        if isinstance(metrics, str | Metric):
            metrics = [metrics]
        loss = Loss(loss)
        resolved = [_as_metric(metric, loss) for metric in metrics]
        names = ["loss", *(metric.name for metric in resolved)]
        if len(set(names)) < len(names):
            raise ValueError(
                f"compile: metrics must have different names; got {', '.join(names[1:])}"
            )
        self.optimizer = _as_optimizer(optimizer, self.net, learning_rate)
        self.penalties = [penalties] if isinstance(penalties, Penalty) else list(penalties)
        self.update = Update(self.optimizer, accumulate, clip_norm, clip_value)
        self.loss, self.metrics, self.given_metrics = loss, resolved, list(metrics)

    def fit(
        self,
        x,
        y=None,
        *,
        epochs=1,
        batch_size=32,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        callbacks=(),
        verbose=1,
        seed=None,
        class_weight=None,
        sample_weight=None,
        steps_per_epoch=None,
        resume=None,
    ):
        """Train for some epochs; -> History.

        x, y: samples (N, ...) and targets (N, ...); x may be a tuple of arrays for a network with
        several inputs. Or x is an iterable of batches (x, y), such as a DataLoader, and y None.
        validation_split: the share of samples at the end (before shuffling) that are kept for
        validation. validation_data: (x, y), or an iterable of batches.
        shuffle: a new order in each epoch; seed: for that order (None draws one from the engine's
        generator, so that tz.seed alone makes everything reproducible).
        callbacks: see train.callbacks; the network is in training mode when they are first called, so
        one that should keep a layer in evaluation mode can say so in on_train_begin.
        verbose: 0 nothing; 1 a bar in a terminal or notebook, a plain line an epoch elsewhere; 2 lines.
        class_weight: {class: weight}, how much the loss of a sample counts, for losses over classes.
        sample_weight: (N,), the same sample by sample, for every loss by name; the mean stays that over
        samples. Validation goes without weights.
        steps_per_epoch: how many batches make an epoch, so that x may be a generator without an end.
        resume: a file that the callback Checkpoint wrote in a fit with the same arguments: the training
        goes on from there, up to `epochs` in all, and ends with the same bits as one that was never
        stopped. Batches that are not a DataLoader are run through to the place where it stood.

        Losses and metrics are over samples, not means over batches; those of training are gathered
        while the weights still move. Raises FloatingPointError where the loss or a gradient is not
        finite, naming epoch and batch, and the op that made it (see check.debug), with weights and
        buffers as they were before that batch; and where the loss over the validation samples is not.
        After an error or Ctrl-C, self.history holds the epochs that were finished; Ctrl-C says how far
        the last checkpoint goes.
        """
        from ..io import load_checkpoint

        self._must_be_compiled("fit")
        if epochs < 1:
            raise ValueError(f"fit: epochs must be at least 1; got {epochs}")
        self.loss.check_weights(class_weight, sample_weight)
        validation = self._validation("fit", validation_data, batch_size)
        if are_batches("fit", x, y, epochs, steps_per_epoch):
            if validation_split:
                raise ValueError("fit: validation_split needs arrays; pass validation_data")
            if sample_weight is not None:
                raise ValueError("fit: sample_weight needs arrays x and y, not batches")
            batches = x
        else:
            arrays = as_samples("fit", x, y)
            if sample_weight is not None:
                arrays = (*arrays, as_weights("fit", sample_weight, len(arrays[0])))
            if validation_split:
                if validation is not None:
                    raise ValueError("fit: give validation_split or validation_data, not both")
                arrays, held_out = split_off(arrays, validation_split)
                if sample_weight is not None:
                    held_out = held_out[:-1]
                validation = in_order(held_out, batch_size)
            batches = DataLoader(*arrays, batch_size=batch_size, shuffle=shuffle, seed=seed)

        self.history = History()
        self.stop_training = False
        screen = progress(epochs, verbose)
        callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks)
        for callback in callbacks:
            callback.model = self
        self.update.reset()
        self._run = run = Run(self, batches, validation, callbacks, steps_per_epoch)
        run.weights = class_weight, sample_weight is not None
        with mode(self.net, training=True):
            try:
                for callback in callbacks:
                    callback.on_train_begin()
                if resume is not None:
                    load_checkpoint(resume, **run.parts())
                    for callback in callbacks:
                        if isinstance(callback, Checkpoint):
                            callback.resumed(resume, (run.epoch, run.batch))
                while run.epoch < epochs and not self.stop_training:
                    self._fit_epoch(run, screen)
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_how_to_go_on(run)) from None
            finally:
                screen.close()
                for callback in callbacks:
                    callback.on_train_end()
                self._run = None
        return self.history

    def _fit_epoch(self, run, screen):
        """One pass over the training samples, or its rest, and one over those for validation."""
        started = time.perf_counter() - run.seconds
        epoch, callbacks, totals = run.epoch, run.callbacks, run.totals
        class_weight, weighted = run.weights
        if not run.batch:
            for callback in callbacks:
                callback.on_epoch_begin(epoch)
        screen.start_epoch(epoch, run.batches_in_epoch(), done=run.batch)
        buffers = list(self.net.buffers())
        inputs = None  # of the last batch, if any is left
        rest = checked("fit", run.rest(), first=run.batch)
        for number, (*inputs, target) in enumerate(rest, run.batch):
            sample_weight = None
            if weighted:  # they are the last array of a batch
                sample_weight, (*inputs, target) = target, inputs
            before = [b.data.copy() for b in buffers]
            try:
                output, loss = self._step(inputs, target, (class_weight, sample_weight))
            except FloatingPointError as e:
                for buffer, data in zip(buffers, before, strict=True):
                    buffer.data[...] = data
                raise FloatingPointError(
                    f"fit: epoch {epoch + 1}, batch {number + 1}: {e}"
                ) from None
            totals.add(loss, output, target)
            screen.batch(totals.logs)
            for callback in callbacks:
                callback.on_batch_end(number, loss)
            run.batch, run.seconds = number + 1, time.perf_counter() - started
            for callback in callbacks:
                callback.on_settled(epoch, run.batch)
        if inputs is not None:
            self._samples = [(array.shape[1:], array.dtype) for array in inputs]
        self.update.step()  # of batches that were too few for one
        logs = totals.logs()
        if run.validation is not None:
            judged = self._judge("fit", run.validation)
            if not math.isfinite(judged["loss"]):
                raise FloatingPointError(
                    f"fit: epoch {epoch + 1}, validation: the loss is {judged['loss']}; look for NaN in "
                    "the validation samples, or scale them as those of the training"
                )
            logs |= {f"val_{name}": value for name, value in judged.items()}
        logs["time"] = time.perf_counter() - started
        screen.end_epoch(epoch, logs)
        for callback in callbacks:
            callback.on_epoch_end(epoch, logs)
        self.history.append(epoch, logs)
        run.next_epoch()
        for callback in callbacks:
            callback.on_settled(run.epoch, 0)

    def _step(self, inputs, target, weights):
        """What a batch gives to the optimizer; -> (output, loss as a number)."""
        self.update.begin()
        output = self._forward(inputs)
        loss = self.loss(output, target, *weights)
        value = loss.item()
        if math.isfinite(value):
            total = sum((penalty(self.net) for penalty in self.penalties), loss)
            self.update.backward(total, len(target))
        if not (math.isfinite(value) and _finite_gradients(self.optimizer)):
            raise FloatingPointError(self._why_not_finite(value, inputs, target, weights))
        self.update.end(len(target))
        return output, value

    def _why_not_finite(self, value, inputs, target, weights):
        """What to say about a loss, or gradients, that are NaN or infinite."""
        from ..check import debug

        what = f"the loss is {value}" + (", its gradients are not" if math.isfinite(value) else "")
        if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in inputs):
            return f"{what}, for the inputs hold NaN or infinity"
        what += "; a smaller learning rate or inputs scaled to about -1..1 may help"
        self.optimizer.zero_grad()
        try:
            with debug():  # the batch once more, to see which op it was
                self.loss(self._forward(inputs), target, *weights).backward()
        except (FloatingPointError, RuntimeError) as e:
            what += f"\n{e}"
        self.optimizer.zero_grad()
        return what

    def _forward(self, inputs):
        """The network's output for a batch of arrays."""
        like = next(iter(self.net.parameters()), None)
        tensors = [_as_tensor(array, like) for array in inputs]
        output = self.net(*tensors)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"Model: the network must return one Tensor; got {type(output).__name__}"
            )
        return output

    def _judge(self, caller, batches):
        """Loss and metrics over batches, in evaluation mode: name -> value."""
        totals = Totals(self.metrics)
        with _evaluating(self.net):
            for *inputs, target in checked(caller, batches):
                output = self._forward(inputs)
                totals.add(self.loss(output, target).item(), output, target)
        return totals.logs()

    def evaluate(self, x, y=None, *, batch_size=32):
        """Loss and metrics over samples, in evaluation mode and without gradients: {name: value}.

        x, y: as for fit. The loss is the mean over samples.
        """
        self._must_be_compiled("evaluate")
        if are_batches("evaluate", x, y):
            return self._judge("evaluate", x)
        return self._judge("evaluate", in_order(as_samples("evaluate", x, y), batch_size))

    def predict(self, x, *, batch_size=32):
        """The network's outputs for samples, in evaluation mode: a NumPy array (N, ...).

        x: an array (N, ...), or a tuple of arrays for a network with several inputs.
        """
        arrays = as_arrays("predict", x)
        if any(array.ndim == 0 or len(array) == 0 for array in arrays):
            raise ValueError(
                f"predict: there are no samples; got {', '.join(str(a.shape) for a in arrays)}"
            )
        outputs = []
        with _evaluating(self.net):
            for batch in in_order(arrays, batch_size):
                batch = batch if len(arrays) > 1 else [batch]
                outputs.append(self._forward(batch).numpy())
        return np.concatenate(outputs)

    def summary(self, input_shape=None, dtype="float32"):
        """Print a table of layers, output shapes and parameters; -> the text.

        input_shape: of one sample, without the batch: (1, 28, 28); a list of shapes for a network with
        several inputs. If None, that of the last fit; before any fit the shapes stay open.
        dtype: of the input; "int64" for an embedding.
        """
        samples = self._samples
        if input_shape is not None:
            several = isinstance(input_shape, list)
            samples = [
                (tuple(shape), dtype) for shape in (input_shape if several else [input_shape])
            ]
        with _evaluating(self.net):
            text = summary(self.net, samples, self._forward)
        print(text)
        return text

    def save(self, path):
        """Write weights, network and compile settings to one safetensors file.

        A network of the library's own layers is described by their names and arguments, and
        `tz.load(path)` builds it again. Of another network the file holds the weights, and
        `tz.load(path, net=...)` fills them in. Optimizer, loss and metrics are named too, unless one of
        them is the user's own. Nothing is pickled; the optimizer's state is left out (see
        io.save_checkpoint).
        The file appears whole or not at all.
        """
        from ..io import describe, save_state

        about = {"network": None, "compile": None}
        try:
            about["network"] = describe(self.net)
        except TypeError as e:
            about["why"] = str(e)
        if self.loss is not None:
            with contextlib.suppress(TypeError):
                about["compile"] = tell(self)
        save_state(path, self.net.state_dict(), {KEY: json.dumps(about)})

    def save_checkpoint(self, path):
        """Write all of the training that is going on to one file; for a callback's on_settled.

        See callbacks.Checkpoint, which calls it. Raises RuntimeError outside of fit.
        """
        from ..io import save_checkpoint

        if self._run is None:
            raise RuntimeError("save_checkpoint: no fit is going on; save() keeps the weights")
        save_checkpoint(path, **self._run.parts())

    def load_weights(self, path, strict=True, names="*"):
        """Fill the network with the weights in a safetensors file: one of `save`, or of PyTorch.

        strict, names: as for Module.load_state_dict, to load a part. Returns (missing_keys,
        unexpected_keys). Raises io.FileError where names or shapes do not fit the network.
        """
        from ..io import load_state

        return self._fill(path, load_state(path)[0], strict=strict, names=names)

    def _fill(self, path, arrays, **options):
        from ..io import FileError

        try:
            return self.net.load_state_dict(arrays, **options)
        except ValueError as e:
            faults = str(e).replace("\n  ", "; ")
            raise FileError(f"{path}: the weights do not fit the network: {faults}") from None

    def _must_be_compiled(self, caller):
        if self.loss is None:
            raise RuntimeError(
                f'{caller}: compile the model first: model.compile("adam", loss=...)'
            )

    def _validation(self, caller, data, batch_size):
        """Batches of validation data that may be given as arrays or as batches; or None."""
        if data is None:
            return None
        if isinstance(data, tuple) and len(data) == 2:
            return in_order(as_samples(f"{caller}, validation_data", *data), batch_size)
        if isinstance(data, tuple) or not hasattr(data, "__iter__") or hasattr(data, "__next__"):
            raise ValueError(f"{caller}: validation_data must be (x, y) or a DataLoader")
        return data


def load(path, net=None):
    """Rebuild a Model from a file that `Model.save` wrote, compiled as it was.

    net: a network to fill with the weights; needed for one that is not made of the library's layers,
    and for files of other libraries. Raises FileNotFoundError for a missing file, io.FileError (a
    ValueError) for one that is damaged or foreign, of a newer format, or does not fit the network.
    """
    from ..io import FileError, build, load_state, parse_json

    arrays, metadata = load_state(path)
    about = parse_json(f"{path}: the model's metadata", metadata.get(KEY, "{}"))
    if not isinstance(about, dict):
        raise FileError(f"{path}: the model's metadata are damaged: {about!r:.80}")
    if net is None:
        if about.get("network") is None:
            raise FileError(
                f"{path}: the file holds weights alone ({about.get('why', 'another library wrote it')}); "
                "pass the network to fill: load(path, net=MyNet())"
            )
        try:
            net = build(about["network"], arrays.values())
        except ValueError as e:
            raise FileError(f"{path}: {e}") from None
        floats = {array.dtype.name for array in arrays.values() if array.dtype.kind == "f"}
        if len(floats) == 1:
            net.to(floats.pop())
    model = Model(net)
    model._fill(path, arrays)
    if about.get("compile"):
        try:
            restore(model, about["compile"])
        except Exception as e:  # settings of another version may be wrong in any way
            raise FileError(
                f"{path}: the optimizer, loss or metrics are damaged or newer than this version: {e}"
            ) from e
    return model


@contextlib.contextmanager
def mode(net, training):
    """Training or evaluation mode inside the block, then each module's own as it was."""
    before = [(module, module.training) for module in net.modules()]
    net.train(training)
    try:
        yield
    finally:
        for module, own in before:
            module.training = own


@contextlib.contextmanager
def _evaluating(net):
    """Evaluation mode and no gradients inside the block."""
    with mode(net, training=False), no_grad():
        yield


def _as_tensor(array, like):
    """An array on the backend of a parameter (or the default one), floats in its dtype."""
    backend = default_backend() if like is None else like.backend
    dtype = np.float32 if like is None else like.dtype
    return Tensor(backend.array(array, dtype if array.dtype.kind == "f" else None), backend)


def _finite_gradients(optimizer):
    """Whether all gradients are finite: by their sum, one number to wait for on a GPU."""
    grads = [p.grad.data for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
    # a sum of large finite numbers may overflow: then each array is looked at
    return math.isfinite(sum(g.sum() for g in grads)) or all(
        math.isfinite(abs(g).max()) for g in grads
    )


def _how_to_go_on(run):
    """What to say about a fit that Ctrl-C ended."""
    words = f"fit: interrupted after {as_place(run.epoch, run.batch)}"
    for callback in run.callbacks:
        if isinstance(callback, Checkpoint) and callback.saved:
            return (
                f"{words}; {callback.path} holds the training up to {as_place(*callback.saved)}: "
                "resume from it to go on"
            )
    return f"{words}; no checkpoint was written"


def _as_metric(given, loss):
    """A Metric, with what it leaves open settled by the loss."""
    if isinstance(given, Metric):
        metric = given
    elif isinstance(given, str):
        if given not in METRICS:
            raise ValueError(f"compile: unknown metric {given!r}: choose from {', '.join(METRICS)}")
        kind = METRICS[given]
        if kind is Accuracy and loss.holds == "yes or no":
            kind = BinaryAccuracy
        metric = kind()
        metric.name = given
    else:
        raise TypeError(f"compile: metrics are names or Metrics; got {type(given).__name__}")
    if getattr(metric, "from_logits", True) is None:
        metric.from_logits = loss.from_logits
    return metric


def _as_optimizer(given, net, learning_rate):
    from .. import optim

    if isinstance(given, optim.Optimizer):
        if learning_rate is not None:
            raise ValueError(
                "compile: this optimizer has its learning rate; leave learning_rate out"
            )
        return given
    if isinstance(given, str):
        known = optimizers()
        if given.lower() not in known:
            raise ValueError(
                f"compile: unknown optimizer {given!r}: choose from {', '.join(known)}"
            )
        given = known[given.lower()]
    if not (inspect.isclass(given) and issubclass(given, optim.Optimizer)):
        raise TypeError(
            f"compile: optimizer must be a name, a class or an Optimizer; got {type(given).__name__}"
        )
    options = {} if learning_rate is None else {"lr": learning_rate}
    return given(net.parameters(), **options)
