"""Recording a step on a card: the kernels that it starts become CUDA graphs, which start at once.

While a graph is recorded nothing is computed, so Python can look at no number. A graph keeps addresses
and the numbers that kernels were given, nothing else; what the host does is written into a Trace.
"""

import contextlib
import functools
import gc
import operator
import threading
import weakref
from numbers import Number

import numpy as np

from ..autograd import Watcher, watching
from ..backend import backend, default_generator, drawing_from
from ..tensor import Tensor
from .contents import Contents, allocation, unsafe_calls
from .recorded import gradients_spied
from .recorder import TracedGenerator, one_at_a_time
from .trace import Trace, asanyarray, tracing
from .traced import Traced, creators_traced, plain

FLOATS = np.dtype("float32"), np.dtype("float64")  # of which kernels.cuda.matmul makes products
CARDS = ("cupy", "cuda")

# what an error during a recording says, and what it means
REASONS = {
    "D2H transfers": "the step looks at numbers that it computes on the card (item(), float(), the truth of "
    "a value, an index whose shape depends on numbers); return the Tensor from the step, and look outside",
    "H2D transfers": "the step copies numbers from the host that this engine does not see; pass them as an "
    "argument",
    "cuBLAS": "the step uses cuBLAS, which CuPy does not record: products of other dtypes than float32 "
    "and float64, einsum",
}
OTHERWISE = (
    "the step copies numbers from the host that this engine does not see, waits for the card, takes memory "
    "from it, or loads a kernel that the step before did not need"
)


class GraphRecorder(Watcher):
    """What recording a step on a card keeps.

    parts: [part], to be called with a stream in turn: graphs and steps of optimizers; count: the nodes
    of the graphs and those steps. trace: what the host does before. looked_at: as in gradients_spied.
    owners: (bucket, its optimizer). watched: {number: (array, [Look])} of integers that ops look at.
    """

    def __init__(self, cupy, surroundings, arguments):
        self._cupy, self._runtime = cupy, cupy.cuda.runtime
        self._surroundings = surroundings
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._pool = cupy.cuda.MemoryPool()
        self._lasting = cupy.cuda.get_allocator()
        self.trace = Trace()
        self.parts, self.owners, self.looked_at, self.watched, self.count = [], [], [], {}, 0
        self._contents = []  # of the graphs
        self._taken = []  # (address, size) of memory
        self._usual_end = 0  # how many of those the usual step took
        self._uploads, self._sent = [], None  # (contents, array on the card); how many so far
        self._capturing = False
        placed = [*arguments, *(t.data for t in surroundings.tensors.values())]
        placed += [a for a in surroundings.arrays.values() if not isinstance(a, np.ndarray)]
        self._held = placed  # whose memory graphs may name
        self._ends = {
            i: (int(a.min()), int(a.max()))
            for i, a in enumerate(placed)
            if a.dtype.kind in "iu" and a.size and a.flags.c_contiguous
        }
        self._buckets = {
            id(bucket)
            for optimizer in surroundings.optimizers.values()
            for _, buckets in optimizer._plans
            for bucket in buckets
        }

    @contextlib.contextmanager
    def beside(self):
        """Inside, in this thread: the graphs' stream and memory; what comes from the host is noted."""
        self._cupy.cuda.Device().synchronize()
        originals = self._cupy.array, self._cupy.asarray
        with contextlib.ExitStack() as stack:
            stack.enter_context(recordable(self._cupy))
            stack.enter_context(self._stream)
            stack.enter_context(self._cupy.cuda.using_allocator(self._take))
            uploads = {f.__name__: functools.partial(self._upload, f) for f in originals}
            stack.enter_context(_changed(self._cupy, **uploads))
            yield
            self._stream.synchronize()

    def _take(self, size):
        with unsafe_calls():
            memory = self._pool.malloc(size)
        self._taken.append((memory.ptr, size))
        return memory

    def record(self, function, args, options):
        """function(*args, **options), recorded; returns what it returns, without its numbers."""
        tensors = self._surroundings.tensors
        places = [(t, t.data, name) for name, t in tensors.items()]
        leaves = [t for t in tensors.values() if t.requires_grad]
        found = {id(t.grad): t.grad.data.copy() for t in leaves if t.grad is not None}
        self._held += found.values()

        def hold(gradient):
            memory = found[id(gradient)]
            return memory, Tensor(memory, gradient.backend)

        self._usual_end, self._sent = len(self._taken), 0
        with self.beside(), contextlib.ExitStack() as stack:
            stack.enter_context(_no_collection())
            stack.enter_context(drawing_from(TracedGenerator(default_generator())))
            stack.enter_context(creators_traced())
            stack.enter_context(gradients_spied(leaves, hold, self.looked_at))
            stack.enter_context(watching(self))
            stack.enter_context(tracing(self.trace))
            try:
                self._begin()
                result = function(*args, **options)
                self._moved_home(places)
                self._end()
            except BaseException as e:
                words = self._in_words(e)
                if words is None:
                    raise
                raise RuntimeError(words) from e
            finally:
                for tensor, array, _ in places:
                    tensor.data = array
        if self._sent != len(self._uploads):
            raise RuntimeError(_other_numbers())
        return result

    def _begin(self):
        # of this thread: others may go on, and here nothing happens that the graph would not repeat
        mode = self._runtime.streamCaptureModeThreadLocal
        self._runtime.streamBeginCapture(self._stream.ptr, mode)
        self._capturing = True

    def _end(self):
        self._capturing = False
        graph = self._runtime.streamEndCapture(self._stream.ptr)
        try:
            contents = Contents(graph)
            if contents.host:
                raise RuntimeError(f"capture: the step cannot be recorded: {contents.host[0]}")
            if contents.count:
                self.parts.append(_Graph(self._runtime, graph))
                self.count += contents.count
                self._contents.append(contents)
        finally:
            self._runtime.graphDestroy(graph)

    def _in_words(self, error):
        """What an error that ends the recording says of the step; None if it says so itself."""
        broken = False
        if self._capturing:
            self._capturing = False
            try:
                self._runtime.graphDestroy(self._runtime.streamEndCapture(self._stream.ptr))
            except self._runtime.CUDARuntimeError:
                broken = True
        text = str(error)
        ours = text.startswith("capture: ") or not isinstance(error, Exception)
        if ours or not (broken or "captur" in text.lower()):
            return None
        reason = next((why for what, why in REASONS.items() if what in text), OTHERWISE)
        return f"capture: on a card this cannot be recorded: {reason} ({text})"

    def _moved_home(self, places):
        """What the step put in the place of an array (`p.data = p.data - g`) is copied into it."""
        for tensor, array, name in places:
            new = tensor.data
            if new is array:
                continue
            if new.shape != array.shape or new.dtype != array.dtype:
                raise RuntimeError(
                    f"capture: the step changed {name} from {array.dtype} {array.shape} to {new.dtype} "
                    f"{new.shape}"
                )
            array[...] = new

    # what the engine calls

    def call(self, fn, backend, arrays, options):
        check_backend(backend)
        return fn(backend, *arrays, **options)

    def optimize(self, bucket, update, group):
        if id(bucket) not in self._buckets:
            raise RuntimeError(
                "capture: the step uses an optimizer that the function does not name, or one whose state "
                "is made anew in each step"
            )
        weights = [p.data for p in bucket.params]
        gradients = [p.grad.data for p in bucket.params]
        packed = len(weights) > 1
        if packed:
            w, g = _joined(self._cupy, weights), _joined(self._cupy, gradients)
        else:
            (w,), (g,) = weights, gradients
        self._end()  # what the update is given, such as a learning rate, is for Python to say
        self.owners.append((bucket, update.__self__))
        self.parts.append(lambda stream: _update(bucket, update, group, w, g))
        self.count += 1
        self._begin()
        for array, piece in zip(weights, _pieces(w, weights), strict=True) if packed else ():
            array[...] = piece

    def bounds(self, index):
        address = 0 if isinstance(index, np.ndarray) else index.data.ptr
        for i, ends in self._ends.items():
            array = self._held[i]
            if array.data.ptr <= address < array.data.ptr + array.nbytes:
                looks = self.watched.setdefault(i, (array, []))[1]
                return tuple(Look(number, end, looks) for end, number in enumerate(ends))
        raise RuntimeError(
            "capture: the step computes labels or indices, whose range an op must look at; pass them as "
            "an argument"
        )

    # what comes from the host

    def _upload(self, original, value, *args, **options):
        if not _from_host(value):
            return original(value, *args, **options)
        host = asanyarray(plain(value))
        contents = host.dtype, host.shape, host.tobytes()
        if self._sent is None:  # the usual step
            with self._cupy.cuda.using_allocator(self._lasting):
                array = original(plain(value), *args, **options)
            self._uploads.append((contents, array))
            return array.copy()
        if self._sent == len(self._uploads):
            raise RuntimeError(_other_numbers())
        before, array = self._uploads[self._sent]
        self._sent += 1
        constant = not isinstance(value, np.ndarray) or (
            type(value) is Traced and self.trace.is_fixed(plain(value))
        )
        if contents[:2] != before[:2] or (constant and contents != before):
            raise RuntimeError(_other_numbers())
        if not constant:
            self.trace.note(_send, (array, plain(value)), [])
        return array.copy()

    # afterwards

    def refuse_strangers(self):
        """Raise RuntimeError if a graph names memory on the card that may go before the graph does."""
        self._held += [array for _, array in self._uploads]
        known = [allocation(address) for address, _ in self._taken]
        if None in known:
            raise RuntimeError("capture: memory on the card does not suffice to record the step")
        known += [(a.data.mem.ptr, a.data.mem.ptr + a.data.mem.size) for a in self._held]
        for contents in self._contents:
            for user in contents.strangers(known).values():
                raise RuntimeError(
                    f"capture: the step uses an array on the card ({user}) that is neither an argument nor "
                    "held by what the function names; pass it as an argument"
                )
        self._contents.clear()

    def poison(self):
        """Spoil all memory that was taken for the graphs: NaN, or -1."""
        stream = self._cupy.cuda.get_current_stream().ptr
        for address, size in self._taken[self._usual_end :]:
            self._runtime.memsetAsync(address, 0xFF, size, stream)


class Look(int):
    """An end of the range of some integers, which keeps what it was compared with."""

    def __new__(cls, number, end, looks):
        look = super().__new__(cls, number)
        look.end, look.looks = end, looks
        return look

    def _compared(name):
        compare = getattr(operator, name)

        def method(self, other):
            answer = compare(int(self), other)
            self.looks.append((self.end, compare, other, answer))
            return answer

        return method

    __lt__, __le__, __gt__, __ge__, __eq__, __ne__ = map(
        _compared, ("lt", "le", "gt", "ge", "eq", "ne")
    )
    __hash__ = int.__hash__


class _Graph:
    """An executable graph: called with a stream, it starts there."""

    def __init__(self, runtime, graph):
        self._launch, self._graph = runtime.graphLaunch, runtime.graphInstantiate(graph)
        weakref.finalize(self, runtime.graphExecDestroy, self._graph).atexit = False

    def __call__(self, stream):
        self._launch(self._graph, stream)


def check_backend(backend, name=None):
    """Raise ValueError for a backend whose steps cannot be recorded as graphs. name: of what is on it."""
    if backend.name.partition("[")[0] not in CARDS:
        what = f"{name} is on {backend.name}" if name else f"steps on {backend.name} are not"
        raise ValueError(f"capture: {what}; a graph needs all on {' or '.join(CARDS)}")


@contextlib.contextmanager
def recordable(cupy):
    """Inside, in this thread, some of CuPy's functions are others, which can be recorded.

    Products of matrices are made by this engine's kernels, for CuPy does not let cuBLAS be recorded;
    arrays are joined piece by piece, for CuPy copies a table of addresses from the host.
    """
    matmul = backend("cuda").kernels.matmul
    inside = []

    def product(original, x, y, *args, **options):
        pair = isinstance(x, cupy.ndarray) and isinstance(y, cupy.ndarray)
        ours = pair and x.dtype == y.dtype and x.dtype in FLOATS and not (args or options or inside)
        if not ours or 0 in (x.ndim, y.ndim):
            return original(x, y, *args, **options)
        inside.append(True)  # what is too large for the kernels they leave to the library
        try:
            if x.ndim == y.ndim == 1:
                return (x * y).sum()
            return matmul(x, y)
        finally:
            inside.pop()

    def dot(original, x, y, *args, **options):
        flat = (
            isinstance(x, cupy.ndarray) and isinstance(y, cupy.ndarray) and max(x.ndim, y.ndim) < 3
        )
        return (functools.partial(product, original) if flat else original)(x, y, *args, **options)

    def concatenate(original, arrays, axis=0, **options):
        if options or axis is None or not all(isinstance(a, cupy.ndarray) for a in arrays):
            return original(arrays, axis, **options)
        return _concatenated(cupy, arrays, axis)

    def stack(original, arrays, axis=0, **options):
        if options or not all(isinstance(a, cupy.ndarray) for a in arrays):
            return original(arrays, axis, **options)
        return _concatenated(cupy, [cupy.expand_dims(a, axis) for a in arrays], axis)

    plainly, by_operator = cupy.matmul, cupy.ndarray.__matmul__
    functions = {
        "matmul": functools.partial(product, plainly),
        "dot": functools.partial(dot, cupy.dot),
    }
    functions |= {
        f.__name__: functools.partial(f, getattr(cupy, f.__name__)) for f in (concatenate, stack)
    }
    operators = {"__matmul__": functools.partial(product, by_operator)}
    with _changed(cupy, **functions), _changed(cupy.ndarray, **operators):
        yield


@contextlib.contextmanager
def _changed(owner, **functions):
    """Inside, in this thread, some functions of a module or class are others."""
    here = threading.get_ident()
    before = {name: vars(owner).get(name) for name in functions}

    def only_here(name, function):
        original = getattr(owner, name)

        @functools.wraps(original)
        def call(*args, **options):
            return (function if threading.get_ident() == here else original)(*args, **options)

        return call

    with one_at_a_time:
        for name, function in functions.items():
            setattr(owner, name, only_here(name, function))
        try:
            yield
        finally:
            for name, function in before.items():
                if function is None:
                    delattr(owner, name)  # a class has it from its base
                else:
                    setattr(owner, name, function)


@contextlib.contextmanager
def _no_collection():
    """No garbage is collected inside: a finalizer might call the driver, which would end the recording."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _update(bucket, update, group, w, g):
    """A step of a bucket whose weights and gradients lie in one array each."""
    update(bucket.backend.kernels, w, g, bucket.arrays, bucket.count(), group)


def _concatenated(cupy, arrays, axis):
    axis %= arrays[0].ndim
    shape = list(arrays[0].shape)
    shape[axis] = sum(a.shape[axis] for a in arrays)
    out = cupy.empty(tuple(shape), cupy.result_type(*arrays))
    first = 0
    for array in arrays:
        out[(slice(None),) * axis + (slice(first, first + array.shape[axis]),)] = array
        first += array.shape[axis]
    return out


def _joined(cupy, arrays):
    """Arrays as one flat array. CuPy's own would copy a table of addresses from the host."""
    flat = cupy.empty(sum(a.size for a in arrays), arrays[0].dtype)
    for array, piece in zip(arrays, _pieces(flat, arrays), strict=True):
        piece[...] = array
    return flat


def _pieces(flat, arrays):
    """Views of a flat array, in the shapes of arrays that follow each other in it."""
    first = 0
    for array in arrays:
        yield flat[first : first + array.size].reshape(array.shape)
        first += array.size


def _from_host(value):
    if isinstance(value, tuple | list):
        return all(map(_from_host, value))
    return isinstance(value, np.ndarray | np.generic | Number)


def _send(array, values):
    array.set(np.asarray(values, array.dtype, order="C"))


def _other_numbers():
    return (
        "capture: the step makes numbers on the host that are others each time, and not of the engine's "
        "random generator; pass them as an argument"
    )
