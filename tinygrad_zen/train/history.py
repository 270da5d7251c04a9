"""History: what an epoch brought, epoch by epoch."""

import csv
import io
import json
from pathlib import Path

import numpy as np

MOST_BYTES = 1 << 26  # of a file that is read
ROOM = 48 << 20  # what its values may take in memory beyond the file's size


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

    @classmethod
    def load(cls, path):
        """The record of a file of `save`, to plot or compare; of a .csv the numbers.

        Raises FileNotFoundError for a missing file; io.FileError, a ValueError, for one that is damaged or
        of another ending; nothing in it stands for a value that is not there.
        """
        from ..io import FileError, decode, parse_json, read_file

        kind = Path(path).suffix
        if kind not in (".json", ".csv"):
            raise FileError(f"{path}: a history is a .csv or .json; got {kind or 'no ending'!r}")
        content = read_file(path, MOST_BYTES)
        if kind == ".json":
            epoch, columns = _from_json(path, parse_json(path, content, len(content) + ROOM))
        else:
            epoch, columns = _from_csv(path, decode(path, content))
        history = cls()
        history.epoch, history.history = epoch, columns
        return history

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


def _from_json(path, saved):
    """(epochs, {name: values}) of what `save` wrote; where it wrote arrays, arrays."""
    from ..io import FileError

    if not isinstance(saved, dict) or set(saved) != {"epoch", "history"}:
        raise FileError(f"{path}: a history has epoch and history")
    epoch, columns = saved["epoch"], saved["history"]
    if not isinstance(epoch, list) or not all(type(number) is int for number in epoch):
        raise FileError(f"{path}: epochs must be whole numbers")
    if not isinstance(columns, dict):
        raise FileError(f"{path}: a history has columns of values")
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != len(epoch):
            raise FileError(f"{path}: {name!r:.80} must have a value for each epoch, {len(epoch)}")
        columns[name] = [_value(path, name, value) for value in values]
    return epoch, columns


def _value(path, name, value):
    from ..io import FileError

    if type(value) in (int, float):
        return value
    try:
        array = np.array(value)
    except (ValueError, OverflowError):  # rows of unequal lengths; a whole number beyond NumPy's
        array = None
    if array is None or array.dtype.kind not in "if" or array.ndim == 0:
        raise FileError(f"{path}: {name!r:.80} must hold numbers or arrays; got {value!r:.80}")
    return array


def _from_csv(path, text):
    """(epochs, {name: values}): one row an epoch under a row of names."""
    from ..io import FileError

    # a buffer of 4 bytes a character while the text is cut up; and each number with its place in a list
    if 5 * len(text) + 40 * (text.count(",") + text.count("\n")) > len(text) + ROOM:
        raise FileError(f"{path}: a history of {len(text):,} characters is too large to read")
    epoch, columns = [], None
    rows = csv.reader(io.StringIO(text), strict=True)
    try:
        for row in rows:
            if columns is None:
                if row[:1] != ["epoch"] or len(set(row)) < len(row):
                    break
                columns = {name: [] for name in row[1:]}
                continue
            epoch.append(_number(row[0]) - 1)
            for values, cell in zip(columns.values(), row[1:], strict=True):
                values.append(_number(cell))
            if type(epoch[-1]) is not int:
                raise ValueError
    except csv.Error as e:
        raise FileError(f"{path}: damaged .csv file: {e}") from None
    except (ValueError, IndexError):
        raise FileError(
            f"{path}: line {rows.line_num} must hold {1 + len(columns)} numbers; got {','.join(row):.80}"
        ) from None
    if columns is None:
        raise FileError(f"{path}: the first row must name the columns, epoch first, once each")
    return epoch, columns


def _number(text):
    """An int where one was written, a float elsewhere; ValueError for another text."""
    if "_" in text or not text.isascii() or text != text.strip():
        raise ValueError  # what Python would read, and no other program
    try:
        return int(text)
    except ValueError:
        return float(text)
