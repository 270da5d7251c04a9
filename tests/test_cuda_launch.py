"""The launch of a kernel on a card, up to the driver: a stand-in takes its place and reads the parameters."""

import ctypes
import struct
import sys
import types

import numpy as np
import pytest

pytest.importorskip("numba")

from tinygrad_zen.kernels.cuda import _card


class OnCard:
    """What a launch asks of a CuPy array."""

    __cuda_array_interface__ = {}

    def __init__(self, array, address):
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype
        self.ndim, self.size, self.itemsize = array.ndim, array.size, array.itemsize
        self.flags = array.flags
        self.data = types.SimpleNamespace(ptr=address)


class Kernel:
    """A kernel that records for which types it is compiled."""

    def __init__(self):
        self.compiled, self.py_func, self.targetoptions = [], lambda x: None, {}

    def typeof_pyval(self, arg):
        return arg if isinstance(arg, OnCard) else type(arg)

    def compile(self, kinds):
        self.compiled.append(kinds)
        library = types.SimpleNamespace(
            get_cubin=lambda: types.SimpleNamespace(code=b"machine code")
        )
        return types.SimpleNamespace(_codelibrary=library, entry_name="entry")


@pytest.fixture
def launches(monkeypatch):
    """[(grid, block, stream, parameters as words of 8 bytes)] of what reached the driver."""
    seen = []

    def launch(function, gx, gy, gz, bx, by, bz, shared, stream, places, extra):
        assert (function, shared, extra) == (7, 0, 0)
        count = launch.parameters
        pointers = (ctypes.c_void_p * count).from_address(places)
        words = [ctypes.string_at(p, 8) for p in pointers]
        seen.append(((gx, gy, gz), (bx, by, bz), stream, words))

    driver = types.SimpleNamespace(
        moduleLoadData={b"machine code": 3}.get,
        moduleGetFunction=lambda module, name: {(3, "entry"): 7}[module, name],
        launchKernel=launch,
    )
    cuda = types.SimpleNamespace(
        driver=driver,
        device=types.SimpleNamespace(
            get_device_id=lambda: 0,
            Device=lambda: types.SimpleNamespace(compute_capability="90"),
        ),
        get_current_stream=lambda: types.SimpleNamespace(ptr=99),
    )
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "cupy.cuda", cuda)
    monkeypatch.setattr(_card, "_loaded", _card._Loaded())
    return seen, launch


def test_parameters_are_what_numba_expects(launches):
    seen, launch = launches
    x = OnCard(np.zeros((2, 3), "float32"), 4096)
    turned = OnCard(np.zeros((2, 3), "float32").T, 8192)
    launch.parameters = 9 + 9 + 6
    args = x, turned, 5, (1, (2,)), 2**40, np.float32(0.5), True
    _card.enqueue(Kernel(), (4, 2), 256, args)
    (grid, block, stream, words) = seen[0]
    assert (grid, block, stream) == ((4, 2, 1), (256, 1, 1), 99)
    longs = [struct.unpack("q", w)[0] for w in words[:18]]
    assert longs[:9] == [0, 0, 6, 4, 4096, 2, 3, 12, 4]
    assert longs[9:] == [0, 0, 6, 4, 8192, 3, 2, 4, 12]
    assert [struct.unpack_from("i", w)[0] for w in words[18:21]] == [5, 1, 2]
    assert struct.unpack("q", words[21])[0] == 2**40
    assert struct.unpack_from("f", words[22])[0] == 0.5
    assert struct.unpack_from("?", words[23])[0]


def test_a_form_is_compiled_once_for_each_kind_of_arguments(launches):
    _, launch = launches
    kernel = Kernel()

    def run(*args, parameters):
        launch.parameters = parameters
        _card.enqueue(kernel, 1, 1, args)
        return len(kernel.compiled)

    a, b = np.zeros((4, 4), "float32"), np.zeros((8, 4), "float32")
    assert run(OnCard(a, 64), 1, parameters=10) == 1
    assert run(OnCard(b, 128), 2, parameters=10) == 1  # other sizes, the same form
    assert run(OnCard(b[::2], 128), 2, parameters=10) == 2  # with gaps
    assert run(OnCard(b.T, 128), 2, parameters=10) == 3
    assert run(OnCard(a.astype("float64"), 64), 1, parameters=10) == 4
    assert run(OnCard(a, 64), 2**40, parameters=10) == 5
    assert run(OnCard(a, 64), (1, 2), parameters=11) == 6
    assert run(OnCard(a, 64), ((1, 2),), parameters=11) == 7
