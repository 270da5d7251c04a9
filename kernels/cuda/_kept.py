"""Machine code of kernels, kept on disk: a process that finds it there need not compile.

To compile a kernel for a card takes from tenths of a second to seconds, and a network has dozens. The
files lie in __pycache__ beside this one, or where NUMBA_CACHE_DIR says, as those of CPU kernels do; they
may be deleted at any time. A name is a digest of all that the code depends on: the sources of this folder,
what the kernel was built from (the sizes of its tile, the functions in it), types of arguments, the card's
kind, and versions. So nothing old is ever found.
"""

import contextlib
import functools
import hashlib
import os
import tempfile
import types
from importlib import metadata
from pathlib import Path

import numba
import numpy as np

_FOLDER = Path(__file__).parent


class _Unknown(Exception):
    """A kernel that may depend on more than its name would say; such a one is not kept."""


def machine_code(kernel, kinds, capability, compile):
    """(entry name, machine code) of a kernel for types of arguments, from the disk or by compile().

    capability: of the card, as text; a cubin runs on no other.
    """
    try:
        path = _place() / f"{name(kernel, kinds, capability)}.cubin"
    except _Unknown:
        return compile()
    with contextlib.suppress(OSError, ValueError):
        return _read(path)
    entry, code = compile()
    with contextlib.suppress(OSError):  # a folder that cannot be written costs time, nothing else
        _write(path, entry.encode() + b"\0" + code)
    return entry, code


def name(kernel, kinds, capability):
    """A digest of all that a kernel's machine code depends on; _Unknown where that cannot be told."""
    built = _describe(kernel), str(kernel.targetoptions.get("launch_bounds"))
    return hashlib.sha256(
        repr((_surroundings(), built, str(kinds), capability)).encode()
    ).hexdigest()


def _describe(value):
    """What a kernel, or a value that it encloses, was built from, as nested tuples of text."""
    function = getattr(value, "py_func", value)  # a compiled one has its Python in it
    if isinstance(function, types.FunctionType):
        code = function.__code__
        if Path(code.co_filename).parent != _FOLDER:
            raise _Unknown(f"{function.__qualname__} comes from {code.co_filename}")
        enclosed = [_describe(cell.cell_contents) for cell in function.__closure__ or ()]
        return function.__module__, function.__qualname__, code.co_firstlineno, enclosed
    if isinstance(value, tuple):
        return [_describe(v) for v in value]
    if (
        isinstance(value, np.ndarray) and value.dtype != object
    ):  # a table, compiled in as a constant
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, type):
        return value.__module__, value.__qualname__
    known = int, float, str, type(None), np.generic, np.dtype, numba.types.Type
    if isinstance(value, known):
        return type(value).__name__, repr(value)
    raise _Unknown(f"encloses a {type(value).__name__}")


@functools.cache
def _surroundings():
    """The sources of this folder as a digest, versions, and Numba's settings."""
    digest = hashlib.sha256()
    for path in sorted(_FOLDER.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    versions = numba.__version__, metadata.version("numba-cuda")
    prefixes = "NUMBA_CUDA", "NUMBA_OPT", "NUMBA_DEBUG"
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith(prefixes))
    return digest.hexdigest(), versions, settings


def _place():
    return Path(numba.config.CACHE_DIR or _FOLDER / "__pycache__")


def _read(path):
    """The content of a file; OSError or ValueError if it is not there, or not whole."""
    content = path.read_bytes()
    digest, content = content[:32], content[32:]
    if hashlib.sha256(content).digest() != digest:
        raise ValueError(f"{path} is damaged")
    entry, _, code = content.partition(b"\0")
    return entry.decode(), code


def _write(path, content):
    """A file that is there whole or not at all, though several processes may write it at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with open(handle, "wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise
