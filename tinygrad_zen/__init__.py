"""tinygrad_zen: a neural-net engine to read whole, with proved gradients and kernels in Python.

import tinygrad_zen as tz
"""

import importlib

from .autograd import enable_grad, grad, no_grad, op  # first: Tensors and ops are made with it
from .backend import (
    Backend,
    BackendUnavailable,
    OutOfMemory,
    backend,
    backends,
    default_generator,
    seed,
    set_backend,
    using,
)
from .derivatives import hessian, hvp, jacobian, jvp, vjp
from .ops import (
    concat,
    einsum,
    exp,
    log,
    logsumexp,
    matmul,
    maximum,
    minimum,
    sqrt,
    stack,
    where,
)
from .tensor import Tensor, tensor

__version__ = "0.1.0"

# imported when first named, so that `import tinygrad_zen` stays quick
_PACKAGES = ("check", "data", "io", "nn", "optim", "sklearn", "train", "view")
_NAMES = {
    "explain": "cards",
    "Model": "train",
    "load": "train",
    "debug": "check",
    "profile": "check",
    "capture": "replay",
}


def __getattr__(name):
    if name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *_PACKAGES, *_NAMES])
