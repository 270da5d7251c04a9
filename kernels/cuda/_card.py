"""Launching compiled kernels on a card: Numba compiles, CuPy's door to the driver starts them.

A launch through Numba takes 60 us, most of it to import each array anew through DLPack; here it is the
driver's own few, and what goes before: finding the compiled form, and writing down the arguments.
"""

import ctypes
import struct
import threading

import numpy as np

from ._kept import machine_code

_WORD = 8  # bytes kept for each parameter, so that all are aligned


class _Loaded(threading.local):
    """Compiled forms by kernel, device and types of arguments; each thread's own, for their buffers."""

    def __init__(self):
        self.functions = {}


_loaded = _Loaded()


def enqueue(kernel, grid, block, args):
    """Start a kernel on CuPy's current stream: then the order of launches, ours and the library's, is
    that of execution."""
    from cupy.cuda import device, get_current_stream

    key, values = [kernel, device.get_device_id()], []
    for arg in args:
        _write_down(arg, key, values)
    key = tuple(key)
    function = _loaded.functions.get(key)
    if function is None:
        args = [narrow(arg) for arg in args]
        function = _loaded.functions[key] = _Function(kernel, args)
    function(_three(grid), _three(block), get_current_stream().ptr, values)


def _write_down(arg, key, values):
    """An argument's type, added to a key, and its parameters (see _letters), added to values."""
    if _is_array(arg):
        flags = arg.flags
        key.append((arg.dtype, arg.ndim, flags.c_contiguous, flags.f_contiguous))
        values += (0, 0, arg.size, arg.itemsize, arg.data.ptr, *arg.shape, *arg.strides)
    elif isinstance(arg, tuple):
        key.append(len(arg))  # else ((1, 2), 3) would be taken for (1, (2, 3))
        for a in arg:
            _write_down(a, key, values)
    else:
        key.append(np.int32 if _fits(arg) else type(arg))
        values.append(arg)


def _is_array(arg):
    return hasattr(type(arg), "__cuda_array_interface__")


def _fits(arg):
    """Python's ints would be passed as 64 bits, though most are sizes that fit in 32."""
    return type(arg) is int and -(2**31) <= arg < 2**31


def narrow(arg):
    if isinstance(arg, tuple):
        return tuple(map(narrow, arg))
    return np.int32(arg) if _fits(arg) else arg


def _three(sizes):
    """A grid or a block as three numbers."""
    return (*sizes, 1, 1)[:3] if isinstance(sizes, tuple) else (sizes, 1, 1)


def _letters(arg):
    """The parameters that Numba makes of an argument, in struct's letters.

    An array is two words for its owner, its size, the size of an item, its address, shape and strides;
    a tuple is its elements one by one.
    """
    if _is_array(arg):
        return "q" * (5 + 2 * arg.ndim)
    if isinstance(arg, tuple):
        return "".join(map(_letters, arg))
    return np.dtype(type(arg)).char  # those of Python's int, float and bool are 64, 64 and 8 bits


def _compile(kernel, kinds):
    """(entry name, machine code) for the current card."""
    compiled = kernel.compile(kinds)
    code = compiled._codelibrary.get_cubin()
    return compiled.entry_name, bytes(getattr(code, "code", code))  # the bytes, in some versions


class _Function:
    """A kernel compiled for types of arguments and loaded onto the current device, and the room in which
    the driver finds the parameters of a launch."""

    def __init__(self, kernel, args):
        from cupy.cuda import device, driver

        kinds = tuple(kernel.typeof_pyval(arg) for arg in args)
        capability = device.Device().compute_capability
        entry, code = machine_code(kernel, kinds, capability, lambda: _compile(kernel, kinds))
        self.module = driver.moduleLoadData(code)
        self.function = driver.moduleGetFunction(self.module, entry)
        self.launch = driver.launchKernel
        letters = "".join(map(_letters, args))
        words = (f"{letter}{_WORD - struct.calcsize(letter)}x" for letter in letters)
        self.format = struct.Struct("".join(words))
        self.room = ctypes.create_string_buffer(self.format.size)
        start = ctypes.addressof(self.room)
        places = range(start, start + self.format.size, _WORD)
        self.places = (ctypes.c_void_p * len(letters))(*places)  # where each parameter lies
        self.address = ctypes.addressof(self.places)

    def __call__(self, grid, block, stream, values):
        self.format.pack_into(self.room, 0, *values)
        self.launch(self.function, *grid, *block, 0, stream, self.address, 0)
