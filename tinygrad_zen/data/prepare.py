"""Preparing arrays for training: split, one-hot labels, standard scale."""

import numpy as np

from ..backend import tell_memory
from .loader import as_seed


def split(x, y, fraction=0.2, *, seed=None, stratify=False):
    """Split samples at random into two parts: -> (x_train, y_train), (x_test, y_test), shuffled.

    x (N, ...), y (N, ...). fraction: the share of the second part, round(fraction * N) samples.
    stratify: keep the proportion of the classes y (integers (N,)) in both parts, within one sample.
    seed: an int, a NumPy generator, or None for the engine's generator (see `tz.seed`).
    Raises ValueError for unequal lengths, a part without samples, or a class with a single sample
    under stratify; TypeError for labels that are not integers there.
    """
    x, y = np.asarray(x), np.asarray(y)
    if not x.ndim or not y.ndim or len(x) != len(y):
        raise ValueError(f"split: x and y must be equally long; got {x.shape} and {y.shape}")
    n = len(x)
    count = round(fraction * n)
    if not 0 < count < n:
        raise ValueError(f"split: both parts need a sample; got fraction {fraction} of {n} samples")
    order = np.random.default_rng(as_seed("split", seed)).permutation(n)
    is_test = np.zeros(n, bool)
    if stratify:
        _check_classes(y)
        # Sorted by class, evenly spaced samples hit each class in proportion.
        by_class = order[np.argsort(y[order], kind="stable")]
        is_test[by_class[(np.arange(count) * n + n // 2) // count]] = True
    else:
        is_test[order[:count]] = True
    train, test = order[~is_test[order]], order[is_test[order]]
    return (x[train], y[train]), (x[test], y[test])


def _check_classes(y):
    if y.ndim != 1 or y.dtype.kind not in "iub":
        raise TypeError(f"split: stratify needs integer labels (N,); got {y.dtype} {y.shape}")
    classes, counts = np.unique(y, return_counts=True)
    if counts.min() < 2:
        single = classes[counts.argmin()]
        raise ValueError(f"split: stratify needs two samples of each class; class {single} has 1")


def one_hot(labels, num_classes=None, dtype="float32"):
    """Turn integer labels (...) into one-hot rows (..., num_classes): 1 at the label, 0 elsewhere.

    num_classes: by default the largest label + 1.
    Raises TypeError for labels that are not integers, ValueError for a label out of range.
    """
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"one_hot: labels must be integers; got {labels.dtype}")
    if num_classes is None:
        if not labels.size:
            raise ValueError("one_hot: empty labels need num_classes")
        num_classes = int(labels.max()) + 1
    if labels.size and not (0 <= labels.min() and labels.max() < num_classes):
        raise ValueError(
            f"one_hot: labels must be 0 to {num_classes - 1}; got {labels.min()} to {labels.max()}"
        )
    with tell_memory("one_hot"):
        rows = np.zeros((labels.size, num_classes), dtype)
    rows[np.arange(labels.size), labels.reshape(-1)] = 1
    return rows.reshape(*labels.shape, num_classes)


def standardize(x_train, *others, axis=0):
    """Subtract the mean and divide by the standard deviation of x_train, there and in the others.

    axis: what mean and deviation are taken over; 0 treats each feature of (N, F) by itself,
    (0, 2, 3) each channel of images (N, C, H, W). A feature that is constant in x_train becomes 0
    there and is only shifted in the others. float32 and float64 stay; other kinds become float32.
    Returns one array if one was given, otherwise a tuple.
    Raises ValueError if x_train is empty or the shapes of the samples differ.
    """
    arrays = [np.asarray(array) for array in (x_train, *others)]
    shapes = [array.shape for array in arrays]
    if not arrays[0].size:
        raise ValueError(f"standardize: x_train must not be empty; got shape {shapes[0]}")
    if len({shape[1:] for shape in shapes}) > 1:
        raise ValueError(f"standardize: samples must have equal shapes; got {shapes}")
    first = arrays[0]
    mean = first.mean(axis, dtype=np.float64, keepdims=True)
    std = first.std(axis, dtype=np.float64, keepdims=True)
    # A constant's mean and deviation carry rounding errors, and their quotient would be noise.
    low = first.min(axis, keepdims=True)
    constant = low == first.max(axis, keepdims=True)
    mean, std = np.where(constant, low, mean), np.where(constant, 1, std)
    scaled = []
    for array in arrays:
        dtype = array.dtype if array.dtype in (np.float32, np.float64) else np.dtype("float32")
        scaled.append(((array - mean) / std).astype(dtype))
    return tuple(scaled) if others else scaled[0]
