"""Figures of numbers: learning curves, confusion matrices, attention."""

import numpy as np

from .figure import figure as new_figure


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
    figure = new_figure(4.8 * len(panels), 3.6)
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
    figure = new_figure(side + 0.6, side)
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


def attention(weights, queries=None, keys=None):
    """Draw how much each query (row) attends to each key (column), a panel a head: -> a Figure.

    weights (L, S) or (heads, L, S), from 0 to 1, as nn.MultiheadAttention returns them for one sequence.
    queries, keys: the L and S words; keys are the queries if None and L = S; numbers if both are.
    Raises ValueError for other shapes or another number of words.
    """
    weights = weights.numpy() if hasattr(weights, "requires_grad") else np.asarray(weights)
    if weights.ndim == 2:
        weights = weights[None]
    if weights.ndim != 3 or not weights.size:
        raise ValueError(
            f"attention: weights (L, S) or (heads, L, S) are needed; got {weights.shape}"
        )
    heads, rows, columns = weights.shape
    if keys is None and rows == columns:
        keys = queries
    for name, words, size in (("queries", queries, rows), ("keys", keys, columns)):
        if words is not None and len(words) != size:
            raise ValueError(f"attention: {size} {name} need {size} words; got {len(words)}")
    width, height = max(2.4, 0.9 + 0.24 * columns), max(2.4, 0.9 + 0.24 * rows)
    figure = new_figure(width * heads, height)
    panels = figure.subplots(1, heads, squeeze=False, sharey=True)[0]
    for head, (ax, panel) in enumerate(zip(panels, weights, strict=True)):
        picture = ax.imshow(panel, cmap="Blues", vmin=0, vmax=1)
        ax.set(title=f"head {head}" if heads > 1 else "", xlabel="key")
        if keys is not None:
            ax.set_xticks(range(columns), keys, rotation=90, fontsize=8)
    if queries is not None:
        panels[0].set_yticks(range(rows), queries, fontsize=8)
    panels[0].set_ylabel("query")
    figure.colorbar(picture, ax=panels, label="weight", shrink=0.8)
    return figure
