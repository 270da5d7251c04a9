"""Figures made with matplotlib, but without pyplot: no windows, no global state, nothing to close.

A Figure shows itself in a notebook, and `figure.savefig("curves.png")` writes it to a file.
"""

import functools
import io
import math

import numpy as np

CELL = 1.1  # inches a picture in a grid


@functools.cache
def _figure_class():
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise ImportError(
            'view: matplotlib is not installed; `pip install "tinygrad-zen[plots]"`'
        ) from e

    class Picture(Figure):
        """A Figure that a notebook shows without pyplot."""

        def _repr_png_(self):
            png = io.BytesIO()
            self.savefig(png, format="png")
            return png.getvalue()

    return Picture


def _figure(width, height):
    return _figure_class()(figsize=(width, height), layout="constrained")


def curves(history):
    """Draw loss and metrics over the epochs, training and validation: a History -> a Figure.

    history: a History or its dict name -> values. One panel for each value; "val_" joins its partner.
    Confusion matrices and the time are left out. Raises ValueError for an empty history.
    """
    values = getattr(history, "history", history)
    numbers = {
        name: v for name, v in values.items() if np.ndim(v) == 1 and len(v) and name != "time"
    }
    panels = list(dict.fromkeys(name.removeprefix("val_") for name in numbers))
    if not panels:
        raise ValueError("curves: the history is empty; train for an epoch first")
    figure = _figure(4.8 * len(panels), 3.6)
    for ax, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in numbers:
                epochs = range(1, len(numbers[key]) + 1)
                ax.plot(epochs, numbers[key], label=label, marker="." if len(epochs) < 40 else None)
        ax.set(title=name.replace("_", " "), xlabel="epoch")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        if f"val_{name}" in numbers:
            ax.legend()
    return figure


def confusion_matrix(matrix, predicted=None, classes=None):
    """Draw how often each true class (row) was taken for each class (column): -> a Figure.

    matrix: integers (C, C), as the metric ConfusionMatrix gives; or the true labels (N,), with the
    predicted ones (N,). classes: C names; numbers if None. A cell's colour is its share of the row,
    its number the count.
    Raises ValueError for other shapes or another number of names.
    """
    counts = np.asarray(matrix)
    if predicted is not None:
        from ..train.metrics import ConfusionMatrix

        metric = ConfusionMatrix(None if classes is None else len(classes))
        metric.update(np.asarray(predicted), counts)
        counts = metric.result()
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise ValueError(
            "confusion_matrix: a matrix (C, C), or true and predicted labels (N,), are needed; got "
            f"shape {counts.shape}"
        )
    size = len(counts)
    names = [str(i) for i in range(size)] if classes is None else [str(c) for c in classes]
    if len(names) != size:
        raise ValueError(f"confusion_matrix: {size} classes need {size} names; got {len(names)}")

    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.2, 1.4 + 0.42 * size)
    figure = _figure(side + 0.6, side)
    ax = figure.subplots()
    picture = ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=ax, label="share of the true class", shrink=0.8)
    upright = max(map(len, names)) <= 3
    ax.set_xticks(range(size), names, rotation=0 if upright else 90)
    ax.set_yticks(range(size), names)
    ax.set(xlabel="predicted", ylabel="true")
    if size <= 30:  # beyond that the numbers would not be legible
        for (i, j), count in np.ndenumerate(counts):
            if count:
                ink = "white" if share[i, j] > 0.5 else "black"
                ax.text(j, i, f"{count}", ha="center", va="center", color=ink, fontsize=8)
    return figure


def images(x, predicted=None, true=None, *, classes=None, limit=64):
    """Draw a grid of images with their classes, wrong predictions in red: -> a Figure.

    x: (N, 1, H, W) grey or (N, 3, H, W) colour; floats 0..1 or bytes, others are stretched to their
    range. predicted, true: labels (N,), either may be missing. classes: names. At most `limit` images.
    Raises ValueError for other shapes or no images.
    """
    x = np.asarray(x)
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not len(x):
        raise ValueError(f"images: images (N, 1, H, W) or (N, 3, H, W) are needed; got {x.shape}")
    labels = {"predicted": predicted, "true": true}
    for name, given in labels.items():
        if given is not None and np.shape(given) != x.shape[:1]:
            raise ValueError(f"images: {name} must hold {len(x)} labels; got {np.shape(given)}")
    x = x[:limit]

    def word(label):
        return str(label) if classes is None else str(classes[int(label)])

    figure, cells = _grid(len(x), title=predicted is not None or true is not None)
    for i, (ax, image) in enumerate(zip(cells, x, strict=True)):
        _show(ax, image)
        if predicted is None and true is None:
            continue
        if predicted is None or true is None:
            ax.set_title(word((true if predicted is None else predicted)[i]), fontsize=8)
        elif predicted[i] == true[i]:
            ax.set_title(word(true[i]), fontsize=8)
        else:
            ax.set_title(f"{word(predicted[i])}, not {word(true[i])}", fontsize=8, color="red")
    return figure


def filters(layer, limit=64):
    """Draw the filters of a convolution, each stretched to its own range: -> a Figure.

    layer: a Conv2d, or its weight (K, C, H, W). Filters over 3 channels are shown in colour, others
    by their first channel. At most `limit`. Raises ValueError for another shape.
    """
    weight = getattr(layer, "weight", layer)
    weight = weight.numpy() if hasattr(weight, "requires_grad") else np.asarray(weight)
    if weight.ndim != 4 or not len(weight):
        raise ValueError(f"filters: a weight (K, C, H, W) is needed; got {weight.shape}")
    weight = weight[:limit]
    figure, cells = _grid(len(weight), title=False)
    for ax, image in zip(cells, weight, strict=True):
        low, high = image.min(), image.max()
        image = (image - low) / (high - low if high > low else 1)
        _show(ax, image if len(image) == 3 else image[:1])
    return figure


def _grid(count, title):
    """A Figure and `count` empty cells, in rows about as wide as the grid is high."""
    columns = min(count, max(1, math.ceil(math.sqrt(count) * 1.2)))
    rows = -(-count // columns)
    figure = _figure(max(2.0, CELL * columns), max(1.6, (CELL + 0.25 * title) * rows))
    cells = figure.subplots(rows, columns, squeeze=False).reshape(-1)
    for ax in cells:
        ax.axis("off")
    return figure, cells[:count]


def _show(ax, image):
    """An image (C, H, W) with 1 or 3 channels in a cell."""
    image = np.moveaxis(image, 0, -1)
    if image.dtype != np.uint8:
        low, high = min(float(image.min()), 0.0), max(float(image.max()), 1.0)
        image = (image - low) / (high - low)
    if image.shape[-1] == 1:
        ax.imshow(image[..., 0], cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
    else:
        ax.imshow(image)
