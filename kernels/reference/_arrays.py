"""Which library owns an array."""

import sys

import numpy as np


def namespace(x):
    """The module of array functions that goes with x: numpy for an ndarray, else what x names.

    Tensors name the differentiable ops through the array API's `__array_namespace__`. CuPy arrays, which
    lack it, name cupy as the package of their class. A kernel written with it in plain expressions
    therefore runs on all three, and on Tensors it is differentiated again.
    """
    if isinstance(x, np.ndarray):
        return np
    kind = type(x)
    if hasattr(kind, "__array_namespace__"):
        return x.__array_namespace__()
    return sys.modules[kind.__module__.partition(".")[0]]
