"""Which library owns an array."""

import numpy as np


def namespace(x):
    """The module of array functions that goes with x: numpy for an ndarray, else what x names.

    CuPy arrays name cupy, Tensors name the differentiable ops, both through the array API's
    `__array_namespace__`. A kernel written with it in plain expressions therefore runs on all three,
    and on Tensors it is differentiated again.
    """
    if isinstance(x, np.ndarray):
        return np
    return x.__array_namespace__()
