"""Tensor: an array, where it lives, and how it was made."""

import copy
import itertools

import numpy as np

from . import autograd
from .backend import backend as find_backend
from .backend import default_backend, tell_memory

next_hook = itertools.count().__next__


class Tensor:
    """An n-dimensional array that remembers how it was computed.

    data: the array (NumPy's or CuPy's). grad: a Tensor after `backward()`, on leaves that require a
    gradient, else None. Make one with `tensor(...)`; the constructor takes an array as it is.
    """

    __slots__ = ("__weakref__", "backend", "data", "grad", "hooks", "node", "requires_grad")
    __array_ufunc__ = None  # ndarray * Tensor is answered by Tensor.__rmul__
    __hash__ = object.__hash__  # by identity, though == compares elements

    def __init__(self, data, backend, requires_grad=False, node=None):
        self.data = data
        self.backend = backend
        self.requires_grad = requires_grad
        self.node = node
        self.grad = None
        self.hooks = None

    # what it is

    @property
    def shape(self):
        return self.data.shape

    @property
    def ndim(self):
        return self.data.ndim

    @property
    def size(self):
        return self.data.size

    @property
    def dtype(self):
        return self.data.dtype

    @property
    def T(self):
        return ops.transpose(self)

    def __len__(self):
        if self.ndim == 0:
            raise TypeError("len: a Tensor of shape () has no length")
        return self.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        body = np.array2string(self.numpy(), separator=", ", prefix="tensor(", precision=4)
        note = f", dtype={self.dtype}" if self.dtype not in (np.float32, np.int64, np.bool_) else ""
        if self.backend is not default_backend():
            note += f", backend={self.backend.name!r}"
        if self.node is not None:
            note += f", op={self.node.name}"
        elif self.requires_grad:
            note += ", requires_grad=True"
        return f"tensor({body}{note})"

    # out to Python, NumPy and other libraries

    def numpy(self):
        """The values as a NumPy array: shared where the backend computes on NumPy, else a copy."""
        return self.backend.numpy(self.data)

    def item(self):
        """The only element as a Python number."""
        if self.size != 1:
            raise ValueError(f"item: one element is needed; got shape {self.shape}")
        return self.data.item()

    def tolist(self):
        return self.data.tolist()

    def __format__(self, spec):
        return format(self.item(), spec) if spec else str(self)  # f"{loss:.3f}"

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __index__(self):
        if self.dtype.kind not in "iu":
            raise TypeError(f"index: an integer Tensor is needed; got {self.dtype}")
        return self.item()

    def __bool__(self):
        if self.size != 1:
            raise ValueError(
                f"bool: the truth of shape {self.shape} is ambiguous; use .any() or .all()"
            )
        return bool(self.data)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __array_namespace__(self, api_version=None):
        return autograd._tensors_backend().xp

    def __dlpack__(self, **options):
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()

    # the graph

    def backward(self, gradient=None, retain_graph=False, create_graph=False):
        """Add the gradient of this Tensor to `.grad` of every leaf that it was made from.

        gradient: what to start with, of this shape; 1 by default for a single number. The graph lets
        go of its saved arrays unless retain_graph=True. create_graph=True makes gradients that can
        be differentiated again.
        """
        autograd.backward(self, gradient, retain_graph, create_graph)

    def detach(self):
        """The same array, cut off from the graph."""
        return Tensor(self.data, self.backend)

    def requires_grad_(self, requires_grad=True):
        """Switch recording for this leaf on or off; returns the Tensor."""
        if requires_grad:
            check_differentiable(self.data)
        elif self.node is not None:
            raise ValueError(
                f"requires_grad_: this Tensor was made by {self.node.name}; detach() it"
            )
        self.requires_grad = requires_grad
        return self

    def register_hook(self, hook):
        """Call `hook(gradient)` whenever this Tensor's gradient is whole; returns a remover.

        gradient is a Tensor; what the hook returns (unless None) takes its place.
        """
        if not self.requires_grad:
            raise ValueError("register_hook: this Tensor requires no gradient")
        owner = self.node or self
        if owner.hooks is None:
            owner.hooks = {}
        number = next_hook()
        owner.hooks[number] = (hook, self.backend)
        return lambda: owner.hooks.pop(number, None)

    def to(self, target):
        """This Tensor on another backend (`"cuda"`, or a Backend) or with another dtype ("float64")."""
        if target is None:  # which NumPy would take for float64
            raise TypeError("to: a backend or a dtype is needed; got None")
        if not isinstance(target, str) or target in _DTYPES:
            try:
                dtype = np.dtype(target)
            except TypeError:
                pass
            else:
                return ops.astype(self, dtype=dtype)
        return move(self, find_backend(target))

    # copied and pickled: leaves, by their values

    def __deepcopy__(self, memo):
        self._check_leaf("deepcopy")
        new = _leaf(type(self), self.data.copy(), self.backend, self.requires_grad)
        new.grad = copy.deepcopy(self.grad, memo)
        return new

    def __reduce__(self):
        self._check_leaf("pickle")
        return _unpickle, (type(self), self.numpy(), self.backend.name, self.requires_grad)

    def _check_leaf(self, what):
        if self.node is not None:
            raise TypeError(
                f"{what}: this Tensor hangs on the graph that made it (op {self.node.name}); "
                "detach() it first"
            )

    # operators

    def __add__(self, other):
        return ops.add(self, other)

    def __radd__(self, other):
        return ops.add(other, self)

    def __sub__(self, other):
        return ops.sub(self, other)

    def __rsub__(self, other):
        return ops.sub(other, self)

    def __mul__(self, other):
        return ops.mul(self, other)

    def __rmul__(self, other):
        return ops.mul(other, self)

    def __truediv__(self, other):
        return ops.div(self, other)

    def __rtruediv__(self, other):
        return ops.div(other, self)

    def __pow__(self, other):
        return ops.pow(self, other)

    def __rpow__(self, other):
        return ops.pow(other, self)

    def __matmul__(self, other):
        return ops.matmul(self, other)

    def __rmatmul__(self, other):
        return ops.matmul(other, self)

    def __neg__(self):
        return ops.neg(self)

    def __abs__(self):
        return ops.abs(self)

    def __eq__(self, other):
        return ops.equal(self, other)

    def __ne__(self, other):
        return ops.not_equal(self, other)

    def __lt__(self, other):
        return ops.less(self, other)

    def __le__(self, other):
        return ops.less_equal(self, other)

    def __gt__(self, other):
        return ops.greater(self, other)

    def __ge__(self, other):
        return ops.greater_equal(self, other)

    def __and__(self, other):
        return ops.logical_and(self, other)

    def __or__(self, other):
        return ops.logical_or(self, other)

    def __invert__(self):
        return ops.logical_not(self)

    def __getitem__(self, key):
        return ops.getitem(self, key)

    def __setitem__(self, key, value):
        if self.requires_grad:
            raise RuntimeError(
                "setitem: writing into a Tensor that requires a gradient would falsify it; use "
                "tz.where or index .data under your own responsibility"
            )
        self.data[ops.plain_key(key)] = value.data if isinstance(value, Tensor) else value
        if autograd.recording.watcher is not None:
            autograd.recording.watcher.wrote(self)

    # methods under ndarray's names

    def sum(self, axis=None, keepdims=False):
        return ops.sum(self, axis=axis, keepdims=keepdims)

    def mean(self, axis=None, keepdims=False):
        return ops.mean(self, axis=axis, keepdims=keepdims)

    def var(self, axis=None, keepdims=False, ddof=0):
        return ops.var(self, axis=axis, keepdims=keepdims, ddof=ddof)

    def std(self, axis=None, keepdims=False, ddof=0):
        return ops.std(self, axis=axis, keepdims=keepdims, ddof=ddof)

    def max(self, axis=None, keepdims=False):
        return ops.max(self, axis=axis, keepdims=keepdims)

    def min(self, axis=None, keepdims=False):
        return ops.min(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis=None):
        return ops.argmax(self, axis=axis)

    def argmin(self, axis=None):
        return ops.argmin(self, axis=axis)

    def prod(self, axis=None, keepdims=False):
        return ops.prod(self, axis=axis, keepdims=keepdims)

    def cumsum(self, axis=None):
        return ops.cumsum(self, axis=axis)

    def any(self, axis=None, keepdims=False):
        return ops.any(self, axis=axis, keepdims=keepdims)

    def all(self, axis=None, keepdims=False):
        return ops.all(self, axis=axis, keepdims=keepdims)

    def exp(self):
        return ops.exp(self)

    def log(self):
        return ops.log(self)

    def sqrt(self):
        return ops.sqrt(self)

    def tanh(self):
        return ops.tanh(self)

    def sigmoid(self):
        return ops.sigmoid(self)

    def relu(self):
        return ops.relu(self)

    def clip(self, min=None, max=None):
        return ops.clip(self, min=min, max=max)

    def reshape(self, *shape):
        return ops.reshape(self, shape=_spread(shape))

    def flatten(self, start_axis=0):
        """One axis from start_axis on, in logical (C) order."""
        return ops.flatten(self, start_axis=start_axis)

    def transpose(self, *axes):
        return ops.transpose(self, axes=_spread(axes) or None)

    def permute(self, *axes):
        return ops.transpose(self, axes=_spread(axes))

    def swapaxes(self, axis1, axis2):
        return ops.swapaxes(self, axis1, axis2)

    def expand(self, *shape):
        return ops.expand(self, shape=_spread(shape))

    def squeeze(self, axis=None):
        return ops.squeeze(self, axis=axis)

    def unsqueeze(self, axis):
        return ops.expand_dims(self, axis=axis)

    def repeat(self, repeats, axis=None):
        return ops.repeat(self, repeats=repeats, axis=axis)

    def flip(self, axis=None):
        return ops.flip(self, axis=axis)

    def split(self, sections, axis=0):
        return ops.split(self, sections, axis=axis)

    def astype(self, dtype):
        return ops.astype(self, dtype=dtype)


def _leaf(cls, array, backend, requires_grad):
    """A leaf of a class that may have a constructor of its own."""
    new = cls.__new__(cls)
    Tensor.__init__(new, array, backend, requires_grad)
    return new


def _unpickle(cls, array, backend_name, requires_grad):
    where = find_backend(backend_name)
    return _leaf(cls, where.array(array), where, requires_grad)


_DTYPES = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")


def _spread(args):
    """(2, 3) from f(2, 3), from f((2, 3)) and from f([2, 3])."""
    if len(args) == 1 and isinstance(args[0], tuple | list):
        return tuple(args[0])
    return args


def check_differentiable(array):
    if array.dtype.kind != "f":
        raise TypeError(
            f"requires_grad: only floating-point Tensors carry a gradient; got {array.dtype}, "
            'convert it with dtype="float32"'
        )


def tensor(data, requires_grad=False, dtype=None, backend=None):
    """A new leaf Tensor from numbers, nested lists, an array or a Tensor (copied).

    dtype: Python floats become float32 and integers int64; arrays keep theirs unless a dtype is given.
    backend: a name or a Backend; the default one if None. Raises TypeError where requires_grad is
    asked of integers or bools, and for data that is not numbers in a regular shape.
    """
    where = default_backend() if backend is None else find_backend(backend)
    if isinstance(data, Tensor):
        data = data.numpy() if data.backend.xp is not where.xp else data.data
    elif isinstance(data, list | tuple) and any(isinstance(d, Tensor) for d in data):
        data = [d.numpy() if isinstance(d, Tensor) else d for d in data]
    try:
        with tell_memory("tensor"):
            array = where.array(data, dtype)
    except ValueError as e:
        raise ValueError(f"tensor: the data are not numbers in a regular shape ({e})") from e
    if array.dtype.kind not in "fiub":
        raise TypeError(f"tensor: numbers are needed; got dtype {array.dtype}")
    if array is data or array.base is not None:
        with tell_memory("tensor"):
            array = array.copy()
    if requires_grad:
        check_differentiable(array)
    return Tensor(array, where, requires_grad)


def _to_backend(tensors_backend, x, *, target):
    """The body of Tensor.to(backend), in the form of an op; its gradient travels back."""
    source = x.backend
    return move(x, target), (lambda g: move(g, source),)


def move(x, target):
    """Tensor x on the backend target; recorded, so that gradients travel back."""
    if x.backend is target:
        return x
    same_arrays = x.backend.xp is target.xp
    out = Tensor(x.data if same_arrays else target.array(x.numpy()), target)
    if x.requires_grad and autograd.recording.on:
        source = x.backend
        out.requires_grad = True
        out.node = autograd.Node(
            _to_backend,
            (x,),
            {"target": target},
            (lambda g: g if same_arrays else source.array(target.numpy(g)),),
        )
    return out


from . import ops  # noqa: E402  (late: ops are made of Tensors)
