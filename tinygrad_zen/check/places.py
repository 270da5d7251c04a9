"""Where something happens: the line of the user's program, and the layer of the network."""

import contextlib
import functools
import linecache
import os
import sys
from pathlib import Path
from typing import NamedTuple

from ..nn import Module

PACKAGE = str(Path(__file__).parent.parent) + os.sep
PROGRAMS = PACKAGE + "recipes" + os.sep  # whole programs: they count as somebody's own
WRAPPERS = {contextlib.__file__, functools.__file__}  # their frames stand between caller and called
ENTER = Module.__call__.__code__


class Place(NamedTuple):
    """A line of a program, and the layer that was running: "" outside of all layers."""

    file: str
    line: int
    function: str
    layer: str

    def __str__(self):
        """file:line in function: `the line itself`."""
        text = linecache.getline(self.file, self.line).strip()
        inside = "" if self.function == "<module>" else f" in {self.function}"
        return f"{_short(self.file)}:{self.line}{inside}" + (f": `{text}`" if text else "")


class Places:
    """Finds the place that is running, for a Watcher; it remembers the names of layers."""

    def __init__(self):
        self._layers = {}  # the Modules entered, innermost first -> name

    def here(self):
        """The innermost frame outside of this package, and the innermost layer above it."""
        frame, modules, own = sys._getframe(1), [], None
        while frame is not None:
            code = frame.f_code
            if code is ENTER:
                modules.append(frame.f_locals["self"])
            elif own is None and is_own(code.co_filename):
                own = code.co_filename, frame.f_lineno, code.co_name
            frame = frame.f_back
        return Place(*(own or ("<unknown>", 0, "<module>")), self._layer(tuple(modules)))

    def _layer(self, modules):
        """The path of names from the outermost Module to the innermost, with the latter's class."""
        if modules not in self._layers:
            name = ".".join(
                next((name for name, m in outer.named_children() if m is inner), "?")
                for inner, outer in reversed(list(zip(modules, modules[1:], strict=False)))
            )
            kind = type(modules[0]).__name__ if modules else ""
            self._layers[modules] = f"{name} ({kind})" if name else kind
        return self._layers[modules]


@functools.cache
def is_own(file):
    """Whether a file is the user's: neither the engine's nor a wrapper of the standard library."""
    return file.startswith(PROGRAMS) or not (file.startswith(PACKAGE) or file in WRAPPERS)


def _short(file):
    """The path as seen from the current folder, where it lies below."""
    folder = os.getcwd() + os.sep
    return file[len(folder) :] if file.startswith(folder) else file
