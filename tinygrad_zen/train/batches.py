"""From what users hand to fit, evaluate and predict to batches (inputs, ..., target)."""

import numpy as np

from ..data import DataLoader
from .metrics import as_array


def as_arrays(caller, x):
    """x as a tuple of NumPy arrays: one for each input of the network.

    x: an array, a Tensor or a nested list; or a tuple of those for a network with several inputs.
    """
    arrays = tuple(as_array(part) for part in (x if isinstance(x, tuple) else (x,)))
    for array in arrays:
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{caller}: x must be numbers; got {array.dtype}")
    return arrays


def as_samples(caller, x, y):
    """Inputs and target as one tuple of equally long arrays (N, ...)."""
    arrays = as_arrays(caller, x)
    y = as_array(y)
    if y.dtype.kind not in "fiub":
        raise TypeError(f"{caller}: y must be numbers; got {y.dtype}")
    shapes = [array.shape for array in (*arrays, y)]
    if () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"{caller}: x and y must be equally long; got {', '.join(map(str, shapes))}"
        )
    if shapes[0][0] == 0:
        raise ValueError(f"{caller}: there are no samples; got {', '.join(map(str, shapes))}")
    return (*arrays, y)


def as_weights(caller, weights, samples):
    """Weights of that many samples as an array (N,)."""
    weights = as_array(weights)
    if weights.shape != (samples,) or weights.dtype.kind not in "fiub":
        raise ValueError(
            f"{caller}: sample_weight must be {samples} numbers; got {weights.dtype} {weights.shape}"
        )
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise ValueError(f"{caller}: sample_weight must be finite and not negative")
    return weights


def are_batches(caller, x, y, epochs=1, steps=None):
    """Whether x is an iterable of batches, as a DataLoader is, rather than samples.

    steps: how many batches of an iterator make an epoch. Raises ValueError for samples without y, for
    steps of anything else, and for an iterator that is to last several epochs without them.
    """
    if steps is not None and (y is not None or not hasattr(x, "__next__") or steps < 1):
        raise ValueError(
            f"{caller}: steps_per_epoch must be at least 1 and goes with an iterator of batches; got "
            f"{steps} with {'samples' if y is not None else type(x).__name__}"
        )
    if y is not None:
        return False
    if hasattr(x, "dtype") or isinstance(x, tuple) or not hasattr(x, "__iter__"):
        raise ValueError(f"{caller}: y is missing; only an iterable of batches (x, y) goes without")
    if epochs > 1 and hasattr(x, "__next__") and steps is None:
        raise ValueError(
            f"{caller}: an iterator lasts for one epoch, not {epochs}; pass a DataLoader, a list, or "
            "steps_per_epoch"
        )
    return True


def in_order(arrays, batch_size):
    """Batches of samples in their order: for evaluation."""
    return DataLoader(*arrays, batch_size=batch_size, shuffle=False, seed=0)


def checked(caller, batches, first=0):
    """The batches, each as a tuple of arrays (inputs, ..., target); empty ones are an error.

    first: the number of the first, where an epoch goes on; then none may be left.
    """
    number = first - 1  # none yet
    for number, batch in enumerate(batches, first):
        if not isinstance(batch, tuple | list) or len(batch) < 2:
            raise ValueError(
                f"{caller}: batch {number + 1} must be (x, y); got {type(batch).__name__}"
                + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
            )
        x = batch[0] if len(batch) == 2 else tuple(batch[:-1])
        yield as_samples(f"{caller}, batch {number + 1}", x, batch[-1])
    if number < 0:
        raise ValueError(f"{caller}: there are no batches")


def split_off(arrays, fraction):
    """The samples before and after the cut; the last `fraction` of them is for validation."""
    if not 0 < fraction < 1:
        raise ValueError(f"fit: validation_split must lie between 0 and 1; got {fraction}")
    n = len(arrays[0])
    cut = int(n * (1 - fraction))
    if not 0 < cut < n:
        raise ValueError(f"fit: validation_split {fraction} of {n} samples leaves one part empty")
    return tuple(array[:cut] for array in arrays), tuple(array[cut:] for array in arrays)
