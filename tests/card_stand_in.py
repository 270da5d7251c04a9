"""A stand-in for CuPy and a card, for tests of what records CUDA graphs: arrays that lie on the host.

As on a card, nothing is computed while a graph is recorded: results hold NaN or -1 until it is launched.
Memory comes from the allocator of the day; a look at numbers, or a copy from the host, is refused then.
"""

import bisect
import contextlib
import ctypes
import itertools
import types
import weakref

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tinygrad_zen.replay.contents import Contents

_base = np.ndarray.base.__get__
NUMPY = dict(vars(np))  # itself: while a step is recorded, functions of these names are others


memories = weakref.WeakValueDictionary()  # by address


class Memory:
    def __init__(self, size):
        self.bytes = NUMPY["zeros"](max(size, 1), np.uint8)
        self.ptr, self.size = self.bytes.ctypes.data, size
        memories[self.ptr] = self


class MemoryPool:
    """It gives nothing back, and lives as long as anybody has it."""

    def __init__(self):
        self.all = []

    def malloc(self, size):
        self.all.append(Memory(size))
        return self.all[-1]


class CUDARuntimeError(RuntimeError):
    pass


class _State:
    graph = None  # the calls of the graph that is being recorded
    broken = False
    allocator = None
    launches = 0


state = _State()
default_pool = MemoryPool()
state.allocator = default_pool.malloc
numbers = itertools.count(1)
graphs = {}


def root(array):
    while _base(array) is not None:
        array = _base(array)
    return array


class Array(NDArrayOperatorsMixin):
    """What the engine and the recorder ask of a CuPy array."""

    __cuda_array_interface__ = {}
    __array_priority__ = 100

    def __init__(self, host, memory):
        self.host, self.memory = host, memory

    def __array_namespace__(self):
        return cupy

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    strides = property(lambda self: self.host.strides)
    flags = property(lambda self: self.host.flags)
    T = property(lambda self: Array(self.host.T, self.memory))
    base = property(lambda self: None if self.host.nbytes == self.memory.size else self.memory)

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.host.ctypes.data, mem=self.memory)

    def get(self):
        if state.graph is not None:
            raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
        return self.host.copy()

    def set(self, values):
        if state.graph is not None:
            raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
        assert isinstance(values, np.ndarray) and values.dtype == self.dtype
        assert values.shape == self.shape
        self.host[...] = values

    def __len__(self):
        return len(self.host)

    def __bool__(self):
        return bool(self.get())

    def __int__(self):
        return int(self.get())

    def __float__(self):
        return float(self.get())

    def __index__(self):
        return self.get().__index__()

    def item(self):
        return self.get().item()

    def fill(self, value):
        self[...] = value

    def __getitem__(self, key):
        return start(np.ndarray.__getitem__, self, key)

    def __setitem__(self, key, value):
        assert not isinstance(value, np.ndarray) or value.ndim == 0
        start(np.ndarray.__setitem__, self, key, value, writes=self)

    def __getattr__(self, name):
        method = getattr(np.ndarray, name)
        if not callable(method):
            raise AttributeError(name)
        return lambda *args, **options: start(method, self, *args, **options)

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        function = getattr(ufunc, method)
        if out is not None:
            start(function, *inputs, writes=out[0], out=out[0], **options)
            return out[0]
        return start(function, *inputs, **options)

    def __array_function__(self, function, kinds, args, options):
        return start(function, *args, **options)


def start(function, *args, writes=None, **options):
    """A call on arrays: run, or written into the graph that is being recorded."""
    state.launches += 1
    values, keys = plain(args), plain(options)
    if writes is not None:
        note(lambda: function(*values, **keys), (args, options))
        return None
    with np.errstate(all="ignore"):  # while recording, it tells only the shape
        result = function(*values, **keys)
    if isinstance(result, tuple | list):
        return type(result)(
            place(r, function, values, keys, i, (args, options)) for i, r in enumerate(result)
        )
    return place(result, function, values, keys, None, (args, options))


def place(result, function, values, keys, number, given):
    """One result in memory of its own, unless it is a view."""
    if not isinstance(result, np.ndarray | np.generic):
        return result
    result = NUMPY["asanyarray"](result)
    for array in found(given):
        if isinstance(result, np.ndarray) and root(result) is root(array.host):
            return Array(result, array.memory)
    target = empty(result.shape, result.dtype)

    def fill():
        new = function(*values, **keys)
        target.host[...] = new if number is None else new[number]

    if state.graph is None:
        target.host[...] = result
    else:
        note(fill, (given, target))
        target.memory.bytes.fill(0xFF)
    return target


def note(call, given):
    if state.graph is None:
        call()
    else:
        state.graph.append((call, [a.host.ctypes.data for a in found(given)]))


def found(value):
    if isinstance(value, Array):
        yield value
    elif isinstance(value, tuple | list):
        for v in value:
            yield from found(v)
    elif isinstance(value, dict):
        yield from found(list(value.values()))


def plain(value):
    if isinstance(value, Array):
        return value.host
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value))
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return value


def empty(shape, dtype=np.float64):
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=int))
    memory = state.allocator(count * dtype.itemsize)
    host = memory.bytes[: count * dtype.itemsize].view(dtype).reshape(shape)
    return Array(host, memory)


def array(value, dtype=None):
    if not isinstance(value, Array):
        if state.graph is not None:
            raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
        values = NUMPY["asarray"](value, dtype)
        new = empty(values.shape, values.dtype)
        new.host[...] = values
        return new
    return value.astype(dtype or value.dtype)


def asarray(value, dtype=None):
    same = isinstance(value, Array) and dtype in (None, value.dtype)
    return value if same else array(value, dtype)


class Stream:
    null = types.SimpleNamespace(ptr=0)

    def __init__(self, non_blocking=False):
        self.ptr = next(numbers)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def synchronize(self):
        pass


def begin(stream, mode):
    assert state.graph is None
    state.graph = []


def end(stream):
    graph, state.graph = state.graph, None
    number = next(numbers)
    graphs[number] = graph
    return number


def launch(graph, stream):
    for call, _ in graphs[graph]:
        call()


@contextlib.contextmanager
def using_allocator(allocator):
    before, state.allocator = state.allocator, allocator
    try:
        yield
    finally:
        state.allocator = before


class CardContents(Contents):
    def __init__(self, graph):
        calls = graphs[graph]
        self.count, self.host, self._own = len(calls), [], []
        self.addresses = {a: "a call" for _, addresses in calls for a in addresses}


def allocation(address):
    """(start, end) of the piece of memory that an address lies in."""
    starts = sorted(memories)
    memory = memories[starts[bisect.bisect_right(starts, address) - 1]]
    assert address <= memory.ptr + memory.size
    return memory.ptr, memory.ptr + memory.size


def copied(graph):
    number = next(numbers)
    graphs[number] = graphs[graph]
    return number


runtime = types.SimpleNamespace(
    CUDARuntimeError=CUDARuntimeError,
    streamCaptureModeThreadLocal=1,
    streamBeginCapture=begin,
    streamEndCapture=end,
    graphInstantiate=copied,
    graphDestroy=graphs.pop,
    graphExecDestroy=graphs.pop,
    graphLaunch=launch,
    memsetAsync=lambda address, value, size, stream: ctypes.memset(address, value, size),
)


def creator(function):
    def create(*args, **options):
        values = function(*args, **options)
        new = empty(values.shape, values.dtype)
        note(lambda: np.copyto(new.host, values), (new,))
        return new

    return create


class _CuPy(types.ModuleType):
    """The module: what is not here is NumPy's, on arrays of the card."""

    def __getattr__(self, name):
        if name not in NUMPY:
            raise AttributeError(name)
        function = NUMPY[name]
        if isinstance(function, type) or not callable(function):
            return function
        return lambda *args, **options: start(function, *args, **options)


def matmul(x, y):
    return start(np.matmul, x, y)


cupy = _CuPy("cupy")
cupy.ndarray, cupy.array, cupy.asarray, cupy.empty = Array, array, asarray, empty
cupy.zeros, cupy.ones, cupy.full, cupy.arange = map(
    creator, (np.zeros, np.ones, np.full, np.arange)
)
cupy.matmul = matmul
cupy.dot = lambda x, y: start(np.dot, x, y)
cupy.cuda = types.SimpleNamespace(
    runtime=runtime,
    Stream=Stream,
    MemoryPool=MemoryPool,
    get_allocator=lambda: state.allocator,
    using_allocator=using_allocator,
    Device=lambda: types.SimpleNamespace(id=0, synchronize=lambda: None),
    get_current_stream=lambda: Stream.null,
)
