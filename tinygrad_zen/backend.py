"""Backends: an array library and a namespace of kernels under one name.

name      arrays   kernels                      runs where
numpy     numpy    kernels/reference            anywhere; the specification
numba     numpy    kernels/cpu   (numba.njit)   any CPU; the default where Numba can be imported
cupy      cupy     kernels/reference            a CUDA GPU
cuda      cupy     kernels/cuda  (numba.cuda)   a CUDA GPU
cudasim   numpy    kernels/cuda  (simulator)    anywhere, with NUMBA_ENABLE_CUDASIM=1
"""

import contextlib
import functools
import importlib.util
import math
import os
import threading
import types
import warnings
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False, slots=True)
class Backend:
    """A place to compute: `xp` is the array module, `kernels` a namespace of functions on its arrays."""

    name: str
    xp: types.ModuleType
    kernels: types.ModuleType | types.SimpleNamespace

    def __repr__(self):
        return f"<backend {self.name}>"

    def array(self, data, dtype=None):
        """data as an array of this backend. Python floats become float32, arrays keep their dtype."""
        if dtype is None and not hasattr(data, "dtype"):
            data = np.asarray(data)
            if data.dtype == np.float64:
                dtype = np.float32
            elif data.dtype == object:
                raise TypeError(f"tensor: {data!r:.60} is not numbers in a regular shape")
        return self.xp.asarray(data, dtype=dtype)

    def numpy(self, array):
        """An array of this backend as a NumPy array: itself, or a copy from the device."""
        return array if isinstance(array, np.ndarray) else array.get()

    def replace(self, **kernels):
        """A new backend with some kernels changed: `backend("numpy").replace(conv2d=my_conv2d)`.

        Each must be the name of a kernel (TypeError otherwise) and take the arguments of the one it
        replaces. Kernels that do its work and more (WHOLES) are left out, unless they are replaced too: ops
        then call the parts. Move a model to it with `.to(...)`.
        """
        own = {k: v for k, v in vars(self.kernels).items() if not k.startswith("_")}
        for name, kernel in kernels.items():
            if not callable(own.get(name)):
                known = ", ".join(
                    sorted(k for k, v in own.items() if isinstance(v, types.FunctionType))
                )
                raise TypeError(f"replace: {self.name} has no kernel {name!r}; choose from {known}")
            if not callable(kernel):
                raise TypeError(f"replace: {name} must be a function; got {type(kernel).__name__}")
            adapt = getattr(own[name], "adapt", None)  # to calls with lists of arrays
            if adapt is not None and not hasattr(kernel, "adapt"):
                kernels[name] = adapt(kernel)
        changed = ",".join(f"{k}={getattr(v, '__name__', 'custom')}" for k, v in kernels.items())
        for whole, parts in WHOLES.items():
            if not parts.isdisjoint(kernels):
                own.pop(whole, None)
        return Backend(f"{self.name}[{changed}]", self.xp, types.SimpleNamespace(**own | kernels))


# Kernels that a style has or has not, and whose work they do: without them ops call these, the parts.
WHOLES = {
    "conv2d_relu_max_pool2d": {"conv2d", "relu_max_pool2d"},
    "conv2d_grad_w_of_winners": {"conv2d_grad_w", "relu_max_pool2d_grad"},
    "conv2d_grad_x_of_winners": {"conv2d_grad_x", "relu_max_pool2d_grad"},
}


class BackendUnavailable(RuntimeError):
    """A backend cannot run on this machine; the message says what is missing and how to get it."""


class OutOfMemory(MemoryError):
    """An array does not fit into the memory; the message says its shape and how many bytes it takes."""


@contextlib.contextmanager
def tell_memory(name, arrays=()):
    """Inside the block, a library's MemoryError becomes an OutOfMemory that names the op and numbers."""
    try:
        yield
    except OutOfMemory:
        raise
    except MemoryError as e:
        raise out_of_memory(e, name, arrays) from e


def out_of_memory(error, name, arrays=()):
    """The OutOfMemory for a MemoryError of NumPy, which knows the shape, or of CuPy, which knows bytes."""
    shape, dtype = (getattr(error, key, None) for key in ("shape", "dtype"))
    words = str(error) or "there is no more"
    if shape is not None and dtype is not None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        words = (
            f"an array of shape {shape}, {dtype}, takes {size:,} bytes ({size / 2**30:,.1f} GiB)"
        )
    shapes = [str(a.shape) for a in arrays if getattr(a, "ndim", 0)]
    if len(shapes) > 4:
        shapes[3:] = [f"{len(shapes) - 3} more"]
    made = f"; it is made of {' and '.join(shapes)}" if shapes else ""
    return OutOfMemory(f"{name}: out of memory: {words}{made}")


def _numpy():
    return np, importlib.import_module("tinygrad_zen.kernels.reference")


def _numba():
    _import("numba", "numba", "numba")
    return np, importlib.import_module("tinygrad_zen.kernels.cpu")


def _cupy():
    cupy = _import("cupy", "CuPy", "cuda13", "cuda12")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as e:
        raise BackendUnavailable(f"no usable CUDA device, or a driver too old ({e})") from e
    if count == 0:
        raise BackendUnavailable("this machine has no CUDA device")
    return cupy, importlib.import_module("tinygrad_zen.kernels.reference")


def _cuda():
    cupy, _ = _cupy()
    _import("numba_cuda", "numba-cuda", "cuda13", "cuda12")
    return cupy, importlib.import_module("tinygrad_zen.kernels.cuda")


def _cudasim():
    if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
        raise BackendUnavailable(
            "the simulator needs the environment variable NUMBA_ENABLE_CUDASIM=1 from the start of "
            "the process"
        )
    _import("numba", "numba", "numba")
    return np, importlib.import_module("tinygrad_zen.kernels.cuda")


def _import(module, library, *extras):
    """A module that an extra installs, or BackendUnavailable with the line that installs it."""
    try:
        return importlib.import_module(module)
    except (
        Exception
    ) as e:  # ImportError, or what a library raises for a setting that it cannot read
        lines = " or ".join(f'`pip install "tinygrad-zen[{extra}]"`' for extra in extras)
        raise BackendUnavailable(f"{library} cannot be imported ({e}); {lines}") from e


LOADERS = {
    "numpy": _numpy,
    "numba": _numba,
    "cupy": _cupy,
    "cuda": _cuda,
    "cudasim": _cudasim,
}


# numba with other tiles for 3 x 3 convolutions than this processor's default: 4 x 4 outputs, the fastest;
# 2 x 2; or none. Speed is bought with precision: kernels.cpu.conv.winograd tells the errors.
WINOGRAD = {f"numba[winograd={m}]": m for m in (4, 2, 0)}


@functools.cache
def _load(name):
    if name in WINOGRAD:
        numba = _load("numba")
        changed = numba.replace(**numba.kernels.conv.winograd(WINOGRAD[name]))
        return Backend(name, numba.xp, changed.kernels)
    return Backend(name, *LOADERS[name]())


def backend(name):
    """The backend of that name; its libraries are imported on first use.

    "numba[winograd=4]" is numba with larger tiles for 3 x 3 convolutions: faster, and less precise.
    Raises ValueError for an unknown name and BackendUnavailable where it cannot run. A Backend is
    returned as it is.
    """
    if isinstance(name, Backend):
        return name
    if name not in LOADERS and name not in WINOGRAD:
        raise ValueError(
            f"unknown backend {name!r}: choose from {', '.join(LOADERS)}; or {', '.join(WINOGRAD)}"
        )
    try:
        return _load(name)
    except BackendUnavailable as e:
        usable = [n for n, why in backends().items() if why == "usable"]
        raise BackendUnavailable(f"{name}: {e}; usable here: {', '.join(usable)}") from e


def backends():
    """Every backend's name, with "usable" or the reason why it is not."""
    state = {}
    for name in LOADERS:
        try:
            _load(name)
            state[name] = "usable"
        except BackendUnavailable as e:
            state[name] = str(e)
    return state


class _Chosen(threading.local):
    """The backend that this thread chose with `using`, innermost last."""

    def __init__(self):
        self.stack = []


_chosen = _Chosen()
_process_default = None


def set_backend(name):
    """Make new Tensors on this backend, in every thread: a name or a Backend."""
    global _process_default
    _process_default = backend(name)


@contextlib.contextmanager
def using(name):
    """Make new Tensors on this backend inside `with using("cupy"):`, in this thread."""
    chosen = backend(name)
    _chosen.stack.append(chosen)
    try:
        yield chosen
    finally:
        _chosen.stack.pop()


def default_backend():
    """Where new Tensors go: `using`, else `set_backend`, else TINYGRAD_ZEN_BACKEND, else numba.

    Without Numba: numpy. Chosen, and Numba imported, when the first Tensor is made.
    """
    if _chosen.stack:
        return _chosen.stack[-1]
    if _process_default is None:
        set_backend(os.environ.get("TINYGRAD_ZEN_BACKEND") or _numba_or_numpy())
    return _process_default


def _numba_or_numpy():
    try:
        return _load("numba")
    except BackendUnavailable as e:
        if importlib.util.find_spec("numba"):  # somebody wants it: say that they do not have it
            warnings.warn(f"new Tensors go to numpy: {e}", stacklevel=3)
        return "numpy"


_generator = np.random.default_rng(0)


def seed(value):
    """Restart the engine's generator of random numbers: initial weights, dropout, shuffles."""
    global _generator
    _generator = np.random.default_rng(value)


def default_generator():
    """The NumPy generator behind everything random; on a GPU it makes the numbers on the host."""
    return _generator


@contextlib.contextmanager
def drawing_from(generator):
    """Have default_generator() be another, inside `with drawing_from(g):`, for all threads."""
    global _generator
    before, _generator = _generator, generator
    try:
        yield
    finally:
        _generator = before
