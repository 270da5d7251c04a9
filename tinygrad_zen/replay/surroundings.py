"""What a function reaches without being given it: what must be as it was when a step is replayed."""

import contextlib
import functools
import types
from numbers import Number

import numpy as np

from ..backend import Backend
from ..nn import Module
from ..optim import Optimizer
from ..optim.schedules import LRScheduler
from ..tensor import Tensor

PACKAGE = __name__.partition(".")[0]
MISSING = object()


class Surroundings:
    """What a function closes over, names and holds: walked once, looked at again before each replay.

    Closures, defaults and globals of the function and of those that it calls, as far as they are not
    this package's; containers; the attributes of Modules, and of objects those that such functions
    name. tensors, arrays (on the host or a card), optimizers, schedules: {name: it}.
    """

    def __init__(self, function, arguments=()):
        self.tensors, self.optimizers, self.schedules, self.arrays = {}, {}, {}, {}
        self._cells = []  # (cell of a closure, its contents, name)
        self._values = []  # (get, key, value, name): get(key, MISSING) must give the value
        self._seen = set()
        self._named = set()  # the attributes that the functions name
        self._later = []  # objects whose attributes are looked at when all functions are known
        self._visit(function, "")
        self._visit(arguments, "argument ")
        while self._later:
            thing, name = self._later.pop()
            for key in list(vars(thing)):
                if key in self._named:
                    self._hold(vars(thing).get, key, f"{name}.{key}")
        self._kept = [(t, t.data, name) for name, t in self.tensors.items()]

    def changed(self):
        """In words what is no longer as it was, or None."""
        for cell, value, name in self._cells:
            if cell.cell_contents is not value and not _equal(cell.cell_contents, value):
                return f"{name} {_words(value)} at recording and {_words(cell.cell_contents)} now"
        for get, key, value, name in self._values:
            now = get(key, MISSING)
            if now is not value and not _equal(now, value):
                return f"{name} {_words(value)} at recording and {_words(now)} now"
        for tensor, array, name in self._kept:
            if tensor.data is not array:
                return f"the array of {name} was another at recording"
        return None

    def places(self):
        """Each Tensor with the array that it had."""
        return [(tensor, array) for tensor, array, _ in self._kept]

    def _hold(self, get, key, name):
        value = get(key, MISSING)
        self._values.append((get, key, value, name))
        self._visit(value, name)

    def _visit(self, value, name):
        if id(value) in self._seen or isinstance(value, Number | str | bytes | np.generic | type):
            return
        self._seen.add(id(value))
        match value:
            case Tensor():
                self.tensors[name] = value
            case np.ndarray():
                self.arrays[name] = value
            case _ if hasattr(type(value), "__cuda_array_interface__"):
                self.arrays[name] = value
            case Module():
                self._module(value, name)
            case Optimizer():
                self.optimizers[name] = value
                for i, group in enumerate(value.param_groups):
                    for j, p in enumerate(group["params"]):
                        self._visit(p, f"parameter {j} of group {i} of {name}")
            case LRScheduler():
                self.schedules[name] = value
            case types.FunctionType():
                if not value.__module__ or value.__module__.partition(".")[0] != PACKAGE:
                    self._function(value, name)
            case types.MethodType():
                self._visit(value.__self__, name or type(value.__self__).__name__)
                self._visit(value.__func__, "")
            case functools.partial():
                for part in (value.func, value.args, value.keywords):
                    self._visit(part, name)
            case tuple() | list():
                for i, item in enumerate(value[:10_000]):
                    self._visit(item, f"{name}[{i}]")
            case dict():
                for key in list(value)[:10_000]:
                    self._hold(value.get, key, f"{name}[{key!r}]")
            case types.ModuleType() | types.BuiltinFunctionType() | Backend():
                pass
            case _ if hasattr(value, "__dict__"):
                self._later.append((value, name))
                self._visit(vars(type(value)).get("__call__"), "")

    def _module(self, module, name):
        members = vars(module)
        for key in {*members, "training", "_forward_hooks"}:
            self._hold(members.get, key, f"{name}.{key}")
        for kind in type(module).__mro__:
            if kind.__module__.partition(".")[0] != PACKAGE:
                for method in vars(kind).values():
                    self._visit(method, "")

    def _function(self, function, name):
        code = function.__code__
        self._named |= set(code.co_names)
        for constant in code.co_consts:  # functions inside
            if isinstance(constant, types.CodeType):
                self._named |= set(constant.co_names)
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # it has no value yet
                self._cells.append((cell, cell.cell_contents, variable))
                self._visit(cell.cell_contents, variable)
        for key in code.co_names:
            if key in function.__globals__:
                self._hold(function.__globals__.get, key, key)
        self._visit(function.__defaults__, "a default")
        self._visit(function.__kwdefaults__, "a default")


def _equal(a, b):
    """Whether two Python values are the same; arrays and Tensors are only if they are one."""
    plain = isinstance(a, Number | str) and isinstance(b, Number | str)
    return plain and type(a) is type(b) and a == b


def _words(value):
    if value is MISSING:
        return "was not there"
    return f"was {value!r:.40}"
