"""Races in CUDA kernels: two threads that touch one cell of memory with no barrier between them.

A card runs the threads of a block in an order that nobody promises, and a kernel with a forgotten barrier
is right most of the time. Here its Python body runs thread by thread, from barrier to barrier, and every
access to memory is written down. What two threads do to one cell between the same two barriers is a
race whatever the values were, and so it is found every time. The body runs three times, its threads in
forward, reverse and random order, since what a thread touches may depend on what others wrote.
"""

import linecache
import random
import sys
import threading
import types
from dataclasses import dataclass

import numpy as np

WARP = 32


@dataclass(frozen=True)
class Access:
    """What one thread did, and in which line of the source."""

    block: tuple
    thread: tuple
    deed: str  # "reads", "writes", "changes atomically", "waits", "has ended"
    file: str
    line: int

    def __str__(self):
        who = f"thread {self.thread} of block {self.block} {self.deed}"
        if not self.line:
            return who
        return f"{who}, line {self.line}: {linecache.getline(self.file, self.line).strip()}"


@dataclass(frozen=True)
class Finding:
    """A race for a cell of an array, or a barrier that not all threads of a block reach together."""

    kind: str  # "race" or "barrier"
    where: str
    first: Access
    second: Access

    def __str__(self):
        return f"{self.kind} {self.where}\n  {self.first}\n  {self.second}"


def races(kernel, grid, block, *args, seed=0):
    """Look for races in one launch, kernel[grid, block](*args) -> list of Findings, empty if none.

    kernel: a Python function that names `cuda` as kernels do, or what `cuda.jit` made of it. args: NumPy
    arrays, which are left as they were, and numbers. Neither a card nor Numba's simulator is needed. One
    Finding stands for all cells that the same two lines meet in. The answer holds for these arguments: try
    shapes with ragged edges too.
    """
    grid, block = _three(grid), _three(block)
    findings = {}
    saved = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    for order in (lambda items: None, list.reverse, random.Random(seed).shuffle):
        try:
            _Launch(grid, block, order, findings).run(kernel, args)
        finally:
            for a, before in zip(args, saved, strict=True):
                if isinstance(a, np.ndarray) and a.flags.writeable:
                    a[...] = before
    return list(findings.values())


def _three(n):
    n = tuple(n) if isinstance(n, tuple | list) else (n,)
    return n + (1,) * (3 - len(n))


def _positions(sizes):
    """All (x, y, z), x fastest, as a card numbers them."""
    nx, ny, nz = sizes
    return [(x, y, z) for z in range(nz) for y in range(ny) for x in range(nx)]


# --- memory ------------------------------------------------------------------------------------------


class Traced:
    """An array whose every access is written down, element by element. Slices are views, as in NumPy."""

    def __init__(self, launch, name, data, root=None, addresses=None):
        self._launch, self._name, self._data = launch, name, data
        self._root = self if root is None else root
        self._addresses = _addresses(data) if addresses is None else addresses

    def __getitem__(self, key):
        value, addresses = self._data[key], self._addresses[key]
        if isinstance(value, np.ndarray) and value.ndim and np.may_share_memory(value, self._data):
            return Traced(self._launch, self._name, value, self._root, addresses)
        self._launch.note(self._root, addresses, "reads")
        return value

    def __setitem__(self, key, value):
        if isinstance(value, Traced):
            value = np.asarray(value)
        self._launch.note(self._root, self._addresses[key], "writes")
        self._data[key] = value

    def __array__(self, dtype=None, copy=None):
        self._launch.note(self._root, self._addresses, "reads")
        return np.array(self._data, dtype=dtype)

    def __len__(self):
        return len(self._data)

    def __getattr__(self, name):
        if name in ("shape", "size", "ndim", "dtype", "strides", "itemsize"):
            return getattr(self._data, name)
        if name in ("reshape", "ravel", "transpose", "T", "view"):
            return self._like(name)
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(np.asarray(self), name)  # a.sum() and its like read all of a

    def _like(self, name):
        if name == "T":
            return Traced(self._launch, self._name, self._data.T, self._root, self._addresses.T)

        def method(*args):
            data = getattr(self._data, name)(*args)
            if not np.may_share_memory(data, self._data):
                return getattr(np.asarray(self), name)(*args)  # a copy: it reads all of the array
            return Traced(self._launch, self._name, data, self._root, _addresses(data))

        return method


def _addresses(a):
    """Where in memory every element lies."""
    at = np.asarray(a.ctypes.data)
    for n, stride in zip(a.shape, a.strides, strict=True):
        at = at[..., None] + np.arange(n) * stride
    return at


def _race(a, b):
    """Whether two accesses race: not both read, not both are atomic, and no barrier orders them."""
    block_a, thread_a, deed_a, _, _, phase_a, warp_a, turn_a = a
    block_b, thread_b, deed_b, _, _, phase_b, warp_b, turn_b = b
    if deed_a == deed_b != "writes":
        return False
    if block_a != block_b:
        return True  # no barrier holds two blocks
    same_turn = warp_a != warp_b or turn_a == turn_b
    return thread_a != thread_b and phase_a == phase_b and same_turn


# --- threads -----------------------------------------------------------------------------------------


class _Stop(BaseException):
    """Ends a thread whose launch has failed elsewhere."""


class _Thread(threading.Thread):
    """One thread of a block: it runs only while the launch waits for it, so nothing is left to chance."""

    def __init__(self, launch, position, function, args):
        super().__init__(daemon=True)
        self.launch, self.position, self.function, self.args = launch, position, function, args
        (nx, ny, _), (x, y, z) = launch.block_size, position
        self.number = x + nx * (y + ny * z)
        self.warp, self.turn = self.number // WARP, 0  # turn: how many syncwarps it has passed
        self.waits = None  # for "block" or "warp", or it has come to its "end"
        self.line = self.error = None
        self.offer, self.offers = None, {}  # what it and its warp offer each other in a shuffle
        self.stop = False
        self.resumed, self.paused = threading.Semaphore(0), threading.Semaphore(0)

    def run(self):
        self.resumed.acquire()
        try:
            if not self.stop:
                self.function(*self.args)
        except _Stop:
            pass
        except Exception as e:
            self.error = e
        self.waits, self.line = "end", None
        self.paused.release()

    def go_on(self):
        """Run until the thread waits or ends; called by the launch."""
        self.waits = None
        self.resumed.release()
        self.paused.acquire()

    def wait(self, for_whom, offer=None):
        """Give way until the launch says to go on; called in the thread."""
        self.waits, self.offer, self.line = for_whom, offer, self.launch.source()
        self.paused.release()
        self.resumed.acquire()
        if self.stop:
            raise _Stop


class _Launch:
    """One run of a kernel with its threads in one order, and the `cuda` that the kernel sees."""

    def __init__(self, grid_size, block_size, order, findings):
        self.grid_size, self.block_size, self.order = grid_size, block_size, order
        self.findings = findings
        self.cuda = _Cuda(self)
        self.rebound, self.sources = {}, set()
        self.global_cells = {}

    def run(self, kernel, args):
        function = self.rebind(kernel)
        self.sources.add(function.__code__)
        names = function.__code__.co_varnames
        args = [
            Traced(self, name, a) if isinstance(a, np.ndarray) else a
            for name, a in zip(names, args, strict=False)
        ]
        positions = _positions(self.grid_size)
        self.order(positions)
        for self.position in positions:
            self.shared, self.shared_cells, self.phase = {}, {}, 0
            threads = [_Thread(self, p, function, args) for p in _positions(self.block_size)]
            for t in threads:
                t.start()
            try:
                self.run_block(threads)
            finally:
                for t in threads:
                    if t.is_alive():
                        t.stop = True
                        t.resumed.release()
                    t.join()

    def run_block(self, threads):
        """From barrier to barrier, each thread in turn as far as it comes."""
        ready = list(threads)
        while ready:
            self.order(ready)
            for self.current in ready:
                self.current.go_on()
                if self.current.error is not None:
                    where = f"thread {self.current.position} of block {self.position}"
                    raise RuntimeError(f"races: {where} failed") from self.current.error
            ready = self.release(threads)

    def release(self, threads):
        """Which of the waiting threads may go on: a warp that is together, else the block."""
        live = [t for t in threads if t.waits != "end"]
        together = []
        for warp in {t.warp for t in live}:
            members = [t for t in live if t.warp == warp]
            if all(t.waits == "warp" for t in members):
                offers = {t.number % WARP: t.offer for t in members}
                for t in members:
                    t.offers = offers
                together += members
        if together or not live:
            return together
        waiting = [t for t in live if t.waits == "block"]
        if len(waiting) < len(threads):
            late = next(t for t in threads if t.waits != "block")
            self.report_barrier(waiting[0] if waiting else live[0], late)
        for t in waiting:
            if t.line != waiting[0].line:
                self.report_barrier(waiting[0], t)
        self.phase += 1
        return waiting or live

    # what threads do

    def note(self, array, addresses, deed):
        """Write down an access, and report whom it meets."""
        t = self.current
        entry = self.position, t.position, deed, *self.source(), self.phase, t.warp, t.turn
        cells = self.shared_cells if array._name.startswith("shared") else self.global_cells
        for address in np.ravel(addresses).tolist():
            cell = cells.get(address)
            if cell is None:
                cell = cells[address] = set(), set()
            reads, changes = cell
            if deed == "reads":
                if entry not in reads:
                    reads.add(entry)
                    self.compare(entry, changes, array, address)
            elif entry not in changes:
                self.compare(entry, changes, array, address)
                self.compare(entry, reads, array, address)
                changes.add(entry)

    def compare(self, entry, others, array, address):
        """Report the races of an access with others to the same address, one for each pair of lines."""
        for other in others:
            if _race(entry, other):
                (_, _, deed, _, line, *_), (_, _, other_deed, _, other_line, *_) = entry, other
                key = array._name, frozenset(((deed, line), (other_deed, other_line)))
                if key not in self.findings:
                    cell = tuple(int(i) for i in np.argwhere(array._addresses == address)[0])
                    where = f"for {array._name}[{', '.join(map(str, cell))}]"
                    both = Access(*other[:5]), Access(*entry[:5])
                    self.findings[key] = Finding("race", where, *both)

    def report_barrier(self, first, second):
        key = "barrier", first.line, second.line
        if key not in self.findings:
            deeds = {"block": "waits", "warp": "waits for its warp", "end": "has ended"}
            both = (
                Access(self.position, t.position, deeds[t.waits], *t.line or first.line[:1] + (0,))
                for t in (first, second)
            )
            where = "that not all threads of the block reach together"
            self.findings[key] = Finding("barrier", where, *both)

    def source(self):
        """(file, line) where the kernel is, or a function of its that names `cuda`; not its small helpers."""
        frame = sys._getframe(1)
        while frame is not None and frame.f_code not in self.sources:
            frame = frame.f_back
        return frame.f_code.co_filename, frame.f_lineno

    # the kernel's functions, made to use this launch's `cuda`

    def rebind(self, function):
        """A copy of a function, and of what it calls, in which `cuda` is the one of this launch."""
        function = _python(function)
        if function in self.rebound:
            return self.rebound[function]
        code, names = function.__code__, dict(function.__globals__)
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        copy = types.FunctionType(code, names, function.__name__, function.__defaults__, cells)
        self.rebound[function] = copy
        for name in _names(code) & names.keys():
            names[name] = self.replaced(names[name])
            if names[name] is self.cuda:
                self.sources.add(code)
        for cell, old in zip(cells, function.__closure__ or (), strict=True):
            cell.cell_contents = self.replaced(old.cell_contents)
        return copy

    def replaced(self, value):
        if isinstance(value, types.ModuleType):
            return self.cuda if value.__name__ == "numba.cuda" else value
        return self.rebind(value) if isinstance(_python(value), types.FunctionType) else value


def _python(function):
    """The Python function behind what a Numba decorator made of it."""
    return getattr(function, "py_func", function)


def _names(code):
    """The global names that a function uses, those of functions within it included."""
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


class _Three:
    def __init__(self, x, y, z):
        self.x, self.y, self.z = x, y, z


class _Cuda:
    """`cuda` as a kernel sees it."""

    warpsize = WARP

    def __init__(self, launch):
        self._launch = launch
        self.gridDim, self.blockDim = _Three(*launch.grid_size), _Three(*launch.block_size)
        self.shared = types.SimpleNamespace(array=self._shared_array)
        self.local = types.SimpleNamespace(
            array=lambda shape, dtype: np.zeros(shape, _dtype(dtype))
        )
        self.const = types.SimpleNamespace(array_like=lambda a: a)
        self.atomic = _Atomic(launch)

    threadIdx = property(lambda self: _Three(*self._launch.current.position))
    blockIdx = property(lambda self: _Three(*self._launch.position))
    laneid = property(lambda self: self._launch.current.number % WARP)

    def grid(self, axes):
        at = [b * n + t for b, n, t in zip(*self._positions(), strict=True)]
        return at[0] if axes == 1 else tuple(at[:axes])

    def gridsize(self, axes):
        sizes = zip(self._launch.grid_size, self._launch.block_size, strict=True)
        whole = [g * b for g, b in sizes]
        return whole[0] if axes == 1 else tuple(whole[:axes])

    def _positions(self):
        launch = self._launch
        return launch.position, launch.block_size, launch.current.position

    def _shared_array(self, shape, dtype):
        """One array for the block from each place in the source that asks for one."""
        frame = sys._getframe(1)
        place = frame.f_code, frame.f_lasti
        if place not in self._launch.shared:
            name = f"shared array of line {frame.f_lineno}"
            data = np.zeros(shape, _dtype(dtype))
            self._launch.shared[place] = Traced(self._launch, name, data)
        return self._launch.shared[place]

    def syncthreads(self):
        self._launch.current.wait("block")

    def syncwarp(self, mask=0xFFFFFFFF):
        thread = self._launch.current
        thread.wait("warp")
        thread.turn += 1

    def threadfence(self):
        """It orders what others see of a thread's writes, but makes nobody wait."""

    threadfence_block = threadfence_system = threadfence

    def shfl_xor_sync(self, mask, value, lanes):
        return self._swap(value, lambda lane: lane ^ lanes)

    def shfl_down_sync(self, mask, value, lanes):
        return self._swap(value, lambda lane: lane + lanes)

    def shfl_up_sync(self, mask, value, lanes):
        return self._swap(value, lambda lane: lane - lanes)

    def shfl_sync(self, mask, value, source):
        return self._swap(value, lambda lane: source)

    def _swap(self, value, partner):
        """Another lane's value, once all threads of the warp have offered theirs; else one's own."""
        thread = self._launch.current
        thread.wait("warp", value)
        return thread.offers.get(partner(thread.number % WARP), value)


class _Atomic:
    """cuda.atomic: read, change and write in one."""

    def __init__(self, launch):
        self._launch = launch

    def _change(self, array, index, new):
        self._launch.note(array._root, array._addresses[index], "changes atomically")
        old = array._data[index]
        array._data[index] = new(old)
        return old

    def add(self, array, index, value):
        return self._change(array, index, lambda old: old + value)

    def sub(self, array, index, value):
        return self._change(array, index, lambda old: old - value)

    def max(self, array, index, value):
        return self._change(array, index, lambda old: max(old, value))

    def min(self, array, index, value):
        return self._change(array, index, lambda old: min(old, value))

    def exch(self, array, index, value):
        return self._change(array, index, lambda old: value)

    def cas(self, array, index, expected, value):
        return self._change(array, index, lambda old: value if old == expected else old)

    def compare_and_swap(self, array, expected, value):
        return self.cas(array, 0, expected, value)


def _dtype(dtype):
    """A Numba type as NumPy's."""
    try:
        return np.dtype(dtype)
    except TypeError:
        return np.dtype(str(dtype))
