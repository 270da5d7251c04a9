"""Callbacks that write down what an epoch brought, for other programs to read."""

from pathlib import Path

from .callbacks import Callback


class CSVLogger(Callback):
    """Keep the history in a .csv (or .json) file that is up to date, and whole, after each epoch.

    See History.save. A training that is resumed goes on with the rows that it had.
    Raises OSError, before any training, where the file cannot be written.
    """

    def __init__(self, path):
        self.path = path

    def on_train_begin(self):
        from ..io import check_writable

        check_writable(self.path)

    def on_settled(self, epoch, batch):
        if batch == 0:
            self.model.history.save(self.path)


class TensorBoard(Callback):
    """Write event files for TensorBoard: `tensorboard --logdir FOLDER` draws them.

    The values of each epoch go to FOLDER/train and, those of the validation under the same names, to
    FOLDER/validation, so that both lie in one diagram. every: also "batch_loss", of every so many
    batches. Values that are no single numbers, such as a confusion matrix, are left out.
    Raises ImportError without the package tensorboard, ValueError for every < 1.
    """

    def __init__(self, folder, every=None):
        if every is not None and every < 1:
            raise ValueError(f"TensorBoard: every must be at least 1 batch; got {every}")
        try:
            from tensorboard.summary import Writer
        except ImportError as error:
            raise ImportError(
                'TensorBoard: the package is missing: pip install "tinygrad-zen[tensorboard]"'
            ) from error
        self.folder, self.every = Path(folder), every
        self._open = lambda name: Writer(str(self.folder / name))
        self._batches, self._writers = 0, {}

    def on_train_begin(self):
        self._batches, self._writers = 0, {}

    def on_batch_end(self, batch, loss):
        self._batches += 1
        if self.every is not None and self._batches % self.every == 0:
            self._write("train", "batch_loss", loss, self._batches)

    def on_epoch_end(self, epoch, logs):
        for name, value in logs.items():
            if isinstance(value, int | float):
                part = "validation" if name.startswith("val_") else "train"
                self._write(part, name.removeprefix("val_"), value, epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self):
        for writer in self._writers.values():
            writer.close()

    def _write(self, part, name, value, step):
        if part not in self._writers:
            self._writers[part] = self._open(part)
        self._writers[part].add_scalar(name, value, step)

    def state_dict(self):
        return {"batches": self._batches}

    def load_state_dict(self, state):
        self._batches = state["batches"]
