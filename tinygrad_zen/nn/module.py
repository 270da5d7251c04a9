"""Module: parameters, buffers and other modules under one roof."""

import contextlib
import math
import threading
from collections import namedtuple
from fnmatch import fnmatchcase

import numpy as np

from ..backend import default_backend, tell_memory
from ..tensor import Tensor, check_differentiable, tensor

LoadResult = namedtuple("LoadResult", ["missing_keys", "unexpected_keys"])


class Parameter(Tensor):
    """A Tensor that a Module learns: a leaf that requires a gradient.

    data: a Tensor (its array is shared), an array or nested lists.
    """

    __slots__ = ()

    def __init__(self, data, requires_grad=True):
        t = data if isinstance(data, Tensor) else tensor(data)
        if requires_grad:
            check_differentiable(t.data)
        super().__init__(t.data, t.backend, requires_grad)


class Module:
    """The base of all layers and networks: set attributes in `__init__`, compute in `forward`.

    Nothing is registered. What a module holds is found when it is asked for, by walking its
    attributes, and lists, tuples and dicts in them, in the order in which they were set: Parameters
    are learned, Modules are walked in turn, other Tensors are buffers, which are saved and moved but
    not learned. Not buffers are Tensors under a name that begins with an underscore, and results
    that still hang on their graph.

        class Net(nn.Module):
            def __init__(self):
                self.hidden = nn.Linear(10, 64)
                self.out = nn.Linear(64, 1)

            def forward(self, x):
                return self.out(F.relu(self.hidden(x)))
    """

    training = True
    _forward_hooks = None

    def forward(self, *args, **kwargs):
        raise NotImplementedError(f"{type(self).__name__}: define forward")

    def __call__(self, *args, **kwargs):
        out = self.forward(*args, **kwargs)
        if self._forward_hooks:
            for hook in list(self._forward_hooks.values()):
                changed = hook(self, args, out)
                out = out if changed is None else changed
        return out

    def register_forward_hook(self, hook):
        """Call `hook(module, args, output)` after each forward; returns a remover.

        What the hook returns (unless None) takes the place of the output. Copies of the module do
        not have it.
        """
        if self._forward_hooks is None:
            self._forward_hooks = {}
        key = object()
        self._forward_hooks[key] = hook
        return lambda: self._forward_hooks.pop(key, None)

    # what it holds

    def members(self):
        """(name, value) of what is walked: the attributes. Containers add their contents."""
        return vars(self).items()

    def named_parameters(self, prefix=""):
        """(name, Parameter), in the order of definition; a shared one once, under its first name."""
        return _once((n, v) for n, v in _walk(self, prefix) if isinstance(v, Parameter))

    def parameters(self):
        """The Parameters, in the order of definition; a shared one once."""
        return (p for _, p in self.named_parameters())

    def named_buffers(self, prefix=""):
        """(name, Tensor) of what is saved and moved but not learned."""
        return _once((n, v) for n, v in _walk(self, prefix) if _is_buffer(v))

    def buffers(self):
        """The Tensors that are saved and moved but not learned."""
        return (b for _, b in self.named_buffers())

    def named_modules(self, prefix=""):
        """(name, Module): this module, its children, theirs, and so on; a shared one once."""
        yield prefix, self
        for name, value in _once(_walk(self, prefix)):
            if isinstance(value, Module):
                yield name, value

    def modules(self):
        """This module, its children, theirs, and so on."""
        return (m for _, m in self.named_modules())

    def named_children(self):
        """(name, Module) of the modules directly in this one, also those in its lists and dicts."""
        return _once((n, v) for n, v in _walk(self, deep=False) if isinstance(v, Module))

    def children(self):
        """The modules directly in this one."""
        return (m for _, m in self.named_children())

    # saved and loaded

    def state_dict(self):
        """{name: NumPy array} of all parameters and buffers, copied; a shared one under each name."""
        return {name: np.array(t.numpy()) for name, t in self._state()}

    def load_state_dict(self, state_dict, strict=True, names="*"):
        """Write the arrays of a state dict into parameters and buffers of the same names.

        Values: NumPy arrays, Tensors, or what NumPy takes as an array (PyTorch's tensors); floats are
        converted to the width of what they replace. Names, shapes and dtypes are all checked before
        anything is written, and one ValueError lists all that is wrong. strict=False leaves missing
        and unexpected names alone. Returns (missing_keys, unexpected_keys). Of the names of a shared
        parameter one is enough. names: which ones to look at, see `name_filter`; the others stay.
        """
        wanted = name_filter(names)
        own = {name: t for name, t in self._state() if wanted(name)}
        state_dict = {name: value for name, value in state_dict.items() if wanted(name)}
        loaded = {name: np.asarray(v) for name, v in state_dict.items() if name in own}
        unexpected = [name for name in state_dict if name not in own]
        given = {id(own[name]) for name in loaded}
        missing = [name for name, t in own.items() if id(t) not in given]
        wrong = [
            f"{name} must be {own[name].dtype} {own[name].shape}; got {value.dtype} {value.shape}"
            for name, value in loaded.items()
            if value.shape != own[name].shape or value.dtype.kind != own[name].dtype.kind
        ]
        faults = [f"mismatched: {fault}" for fault in wrong]
        if strict and unexpected:
            faults.insert(0, f"unexpected: {', '.join(unexpected)}")
        if strict and missing:
            faults.insert(0, f"missing: {', '.join(missing)}")
        if faults:
            raise ValueError("\n  ".join([f"load_state_dict: {type(self).__name__}", *faults]))
        for name, value in loaded.items():
            t = own[name]
            t.data[...] = t.backend.array(value, t.dtype)
        return LoadResult(missing, unexpected)

    def _state(self):
        """(name, Tensor) of all that is saved."""
        return ((n, v) for n, v in _walk(self) if isinstance(v, Parameter) or _is_buffer(v))

    # changed as a whole

    def train(self, mode=True):
        """Switch this module and all in it to training (dropout, batch statistics), or back."""
        for m in self.modules():
            m.training = mode
        return self

    def eval(self):
        """Switch this module and all in it to evaluation."""
        return self.train(False)

    def to(self, target):
        """Move parameters and buffers to a backend ("cuda", or a Backend) or to a float dtype.

        They stay the same objects, so an optimizer that was given them goes on. Integer buffers keep
        their dtype.
        """
        for t in {id(v): v for _, v in self._state()}.values():
            moved = t.detach().to(target)
            if moved.dtype.kind != "f" and t.dtype.kind == "f":
                raise TypeError(f"to: parameters need a floating-point dtype; got {moved.dtype}")
            if moved.dtype != t.dtype and t.dtype.kind != "f":
                continue
            t.data, t.backend = moved.data, moved.backend
            if t.grad is not None:
                t.grad = t.grad.detach().to(target)
        return self

    def zero_grad(self):
        """Forget the gradients of all parameters: set them to None."""
        for p in self.parameters():
            p.grad = None

    def requires_grad_(self, requires_grad=True, names="*"):
        """Freeze (False) or free (True) all parameters, or those of some names, see `name_filter`.

        Raises ValueError if no parameter has such a name.
        """
        wanted = name_filter(names)
        chosen = [p for name, p in self.named_parameters() if wanted(name)]
        if not chosen and names != "*":
            raise ValueError(f"requires_grad_: no parameter has a name like {names!r}")
        for p in chosen:
            p.requires_grad_(requires_grad)
        return self

    def apply(self, fn):
        """Call fn on every module, children before their parents and this one last."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # shown and copied

    def extra_repr(self):
        """What stands in the brackets of the repr: the options."""
        return ""

    def __repr__(self):
        children = [
            f"({name}): " + repr(child).replace("\n", "\n  ")
            for name, child in self.named_children()
        ]
        extra = self.extra_repr()
        if not children:
            return f"{type(self).__name__}({extra})"
        lines = [extra, *children] if extra else children
        return "\n  ".join([f"{type(self).__name__}(", *lines]) + "\n)"

    def __getstate__(self):
        # hooks look at one module from outside, and are often functions that do not pickle
        return {k: v for k, v in vars(self).items() if k != "_forward_hooks"}


def name_filter(names):
    """A function name -> bool from a pattern like "encoder.*", several of them, or a function.

    In a pattern * stands for anything and ? for one character; one that fits is enough.
    """
    if callable(names):
        return names
    patterns = [names] if isinstance(names, str) else list(names)
    return lambda name: any(fnmatchcase(name, pattern) for pattern in patterns)


def _walk(holder, prefix="", deep=True, private=False, above=frozenset()):
    """(name, Module or Tensor) under a holder, depth first in the order of definition.

    What is shared comes under each of its names. above: the holders around this one, which are not
    entered again. deep=False stops at modules. private: the holder's own name begins with "_".
    """
    above = above | {id(holder)}
    dot = prefix + "." if prefix else ""
    for name, value in _members(holder):
        hidden = private or name.startswith("_")
        if isinstance(value, Tensor):
            if isinstance(value, Parameter) or not hidden:
                yield dot + name, value
        elif id(value) in above:
            continue
        elif isinstance(value, Module):
            yield dot + name, value
            if deep:
                yield from _walk(value, dot + name, above=above)
        elif isinstance(value, list | tuple | dict):
            yield from _walk(value, dot + name, deep, hidden, above)


def _members(holder):
    if isinstance(holder, Module):
        return holder.members()
    pairs = holder.items() if isinstance(holder, dict) else enumerate(holder)
    return ((str(key), value) for key, value in pairs)


def _once(pairs):
    """The pairs whose value has not come before (the same object, not an equal one)."""
    seen = set()
    for name, value in pairs:
        if id(value) not in seen:
            seen.add(id(value))
            yield name, value


def _is_buffer(value):
    return isinstance(value, Tensor) and not isinstance(value, Parameter) and value.node is None


def new_parameter(*shape):
    """A float32 Parameter of zeros on the default backend, to be filled by an initialiser."""
    return Parameter(new_buffer(*shape))


def new_buffer(*shape):
    """A float32 Tensor of zeros on the default backend: what a layer keeps and does not learn."""
    reserve(*shape)
    backend = default_backend()
    with tell_memory("a layer's weights"):
        return Tensor(backend.xp.zeros(shape, np.float32), backend)


_limit = threading.local()  # arrays and elements that layers may still make in this thread


@contextlib.contextmanager
def at_most(arrays, elements):
    """Layers made inside the block may have so many arrays, and elements in them; then: ValueError.

    For networks that a file describes: a number in it must not be able to fill the memory.
    """
    before = vars(_limit).copy()
    _limit.arrays, _limit.elements = arrays, elements
    try:
        yield
    finally:
        vars(_limit).clear()
        vars(_limit).update(before)


def reserve(*shape):
    """Count an array that a layer is about to make; ValueError where `at_most` forbids it."""
    if not hasattr(_limit, "arrays"):
        return
    _limit.arrays -= 1
    _limit.elements -= math.prod(shape)
    if _limit.arrays < 0 or _limit.elements < 0:
        raise ValueError(f"an array of shape {shape} is more than there are weights for")
