"""History: what an epoch brought, epoch by epoch."""

import csv
import io
import json
from pathlib import Path

import numpy as np


class History:
    """The record of one `fit`.

    history: name -> list with one value an epoch: "loss", the metrics, the same with "val_" for the
    validation samples, and "time", the seconds that the epoch took. epoch: the epochs, from 0.
    """

    def __init__(self):
        self.epoch = []
        self.history = {}

    def append(self, epoch, logs):
        """Add the values of an epoch: name -> number (or array, for a confusion matrix)."""
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)

    def state_dict(self):
        """What a checkpoint needs: epochs and values."""
        return {"epoch": list(self.epoch), "history": {k: list(v) for k, v in self.history.items()}}

    def load_state_dict(self, state):
        """Go on after the last epoch of a state_dict()."""
        self.epoch = list(state["epoch"])
        self.history = {name: list(values) for name, values in state["history"].items()}

    def plot(self):
        """A matplotlib figure of loss and metrics, training and validation; see view.curves."""
        from ..view import curves

        return curves(self)

    def save(self, path):
        """Write the record to a .csv or .json file, whole or not at all.

        csv: one row an epoch, numbered from 1, numbers only. json: {"epoch": [...], "history": {...}}.
        Raises ValueError for another ending.
        """
        from ..io import write_whole

        kind = Path(path).suffix
        if kind == ".json":
            text = json.dumps(
                {"epoch": self.epoch, "history": self.history}, default=np.ndarray.tolist
            )
        elif kind == ".csv":
            text = self._csv()
        else:
            raise ValueError(
                f"{path}: a history is saved as .csv or .json; got {kind or 'no ending'!r}"
            )
        write_whole(path, text.encode())

    def _csv(self):
        columns = {name: values for name, values in self.history.items() if np.ndim(values) == 1}
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(["epoch", *columns])
        for epoch, *values in zip(self.epoch, *columns.values(), strict=True):
            writer.writerow([epoch + 1, *values])
        return lines.getvalue()

    def __repr__(self):
        return f"<History of {len(self.epoch)} epochs: {', '.join(self.history) or 'nothing'}>"
