"""Modules that hold modules."""

from . import fusion
from .module import Module


class _Container(Module):
    """A module whose contents are the entries of a dict, named by its keys."""

    def __init__(self):
        self._entries = {}

    def members(self):
        for name, value in vars(self).items():
            if name == "_entries":
                yield from value.items()
            else:
                yield name, value

    def _put(self, key, module):
        if not isinstance(module, Module):
            raise TypeError(
                f"{type(self).__name__}: entry {key} must be a Module; got {type(module).__name__}"
            )
        self._entries[key] = module

    def __len__(self):
        return len(self._entries)


class _List(_Container):
    """A container whose keys are "0", "1", ..."""

    def append(self, module):
        """One more module at the end."""
        self._put(str(len(self)), module)
        return self

    def extend(self, modules):
        """More modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def __iter__(self):
        return iter(self._entries.values())

    def __getitem__(self, index):
        if isinstance(index, slice):
            return type(self)._of(list(self)[index])
        return self._entries[self._key(index)]

    def __setitem__(self, index, module):
        self._put(self._key(index), module)

    def _key(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"{type(self).__name__}: index {index} is out of range for {len(self)} modules"
            )
        return list(self._entries)[index]


class Sequential(_List):
    """Modules one after the other, each applied to what the one before gave.

    Some rows of layers, such as Conv2d, ReLU, MaxPool2d, are computed as one op (see fusion.py).

    They are named "0", "1", ..., or by the keys of a dict. An index gives a module, a slice a
    Sequential of the same modules.

        net = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
        net[0].weight.shape                 # (64, 10)
    """

    def __init__(self, *modules):
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], dict):
            for key, module in modules[0].items():
                self._put(key, module)
        else:
            self.extend(modules)

    @classmethod
    def _of(cls, modules):
        return Sequential(*modules)

    def forward(self, x):
        return fusion.apply(list(self._entries.values()), x)


class ModuleList(_List):
    """A list of modules; it computes nothing. A plain list as an attribute does as well.

    self.blocks = nn.ModuleList(Block() for _ in range(6))
    """

    def __init__(self, modules=()):
        super().__init__()
        self.extend(modules)

    @classmethod
    def _of(cls, modules):
        return ModuleList(modules)

    def insert(self, index, module):
        """A module before the one at index."""
        modules = list(self)
        modules.insert(index, module)
        self._entries = {}
        self.extend(modules)


class ModuleDict(_Container):
    """Modules by name; it computes nothing. A plain dict as an attribute does as well.

    self.heads = nn.ModuleDict({"digit": nn.Linear(64, 10), "parity": nn.Linear(64, 2)})
    """

    def __init__(self, modules=None):
        super().__init__()
        self.update(modules or {})

    def update(self, modules):
        """More modules, from a dict."""
        for key, module in modules.items():
            self[key] = module

    def __getitem__(self, key):
        return self._entries[key]

    def __setitem__(self, key, module):
        if not isinstance(key, str):
            raise TypeError(f"ModuleDict: names must be strings; got {key!r}")
        self._put(key, module)

    def __delitem__(self, key):
        del self._entries[key]

    def __contains__(self, key):
        return key in self._entries

    def __iter__(self):
        return iter(self._entries)

    def keys(self):
        return self._entries.keys()

    def values(self):
        return self._entries.values()

    def items(self):
        return self._entries.items()
