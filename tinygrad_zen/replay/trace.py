"""The record of a step: a flat list of calls on arrays that stay where they are.

The memory of every array that the step makes is kept; a replay writes it again, in the same order. So
views need no call at all, and a function that takes `out=` is called as it is. Memory of which the step
lets go while it is recorded is given to its next array of that size, as it is in every replay.
"""

import functools
import math
import weakref

import numpy as np

from .traced import Traced, current, paused, plain, root

# themselves: while a step is recorded, NumPy's functions of these names are others
asanyarray, empty = np.asanyarray, np.empty
LINE, PAGE = 64, 4096  # bytes


KERNELS = f"{__name__.partition('.')[0]}.kernels."


class Diverged(Exception):
    """A value that Python looked at is another than when the step was recorded."""


class Trace:
    """What a step did. calls: [(function, arguments)], to be called in turn; see `calls_to_replay`.

    saved: {id: (array, copy)} of memory that the step found: what it held before it was written.
    threads: None, or functions that tell and set how many threads BLAS takes.
    """

    def __init__(self, threads=None):
        self.calls = []
        self.guards = []  # the positions of guards in calls
        self.writes = []  # for each call the arrays that it writes
        self.constants = []  # the positions of calls that fill new arrays with constants
        self.made = {}  # id -> array: memory that the step made
        self._fixed = {}  # id -> (array, copy): of that, what holds the same in every step so far
        self.inputs = {}  # of that, the memory that arguments are copied into
        self.tables = {}  # id -> array: memory that belongs to the kernels themselves
        self.saved = {}
        self.updates = []  # the positions of optimizers' steps
        self.draws = []  # the positions of calls that draw random numbers
        self._contents = {}  # id -> array: what lies in blocks, memory that was taken in bytes
        self._free = {}  # size -> blocks, and where each is used from, that the step has let go of
        self._errors = np.geterr()
        self._threads = threads
        self._usual_threads = threads[0]() if threads else 1

    # arrays

    def wrap(self, array):
        """A plain array that the step made, under observation."""
        owner = root(array)
        self.made[id(owner)] = owner
        return observed(array)

    def enter(self, value):
        """Arrays that were there before under observation, through tuples, lists and dicts."""
        if isinstance(value, np.ndarray):
            return value if type(value) is Traced else observed(value)
        if type(value) in (tuple, list):
            return type(value)(map(self.enter, value))
        if type(value) is dict:
            return {k: self.enter(v) for k, v in value.items()}
        return value

    def note_tables(self, args, frame):
        """Plain arrays of integers in a kernel's code are tables of its own, such as of offsets.

        They stay as they are; all that comes from outside is under observation. frame: whose code it is.
        """
        if frame.f_globals.get("__name__", "").startswith(KERNELS):
            for array in args:
                if type(array) is np.ndarray and array.dtype.kind in "iu":
                    self.tables[id(root(array))] = root(array)

    def touch(self, arrays):
        """Before arrays are written: keep what memory that was there before holds."""
        for array in arrays:
            key = id(root(array))
            if key not in self.made and key not in self.saved:
                self.saved[key] = root(array), root(array).copy()

    # notes

    def note(self, function, args, writes, options=None):
        """One more call."""
        args, writes = self._in_blocks((args, writes))
        if options:
            options = dict(zip(options, self._in_blocks(tuple(options.values())), strict=True))
            function = functools.partial(function, **options)
        if np.geterr() != self._errors:
            function = functools.partial(_with_errors, np.geterr(), function)
        if self._threads and self._threads[0]() != self._usual_threads:
            limit = self._threads[0]()
            function = functools.partial(_with_threads, self._threads, limit, function)
        for array in writes:
            self._fixed.pop(id(root(array)), None)
        self.calls.append((function, args))
        self.writes.append(writes)

    def guard(self, function, args, value):
        """A value that Python looked at."""
        self.guards.append(len(self.calls))
        self.note(_check, (function, args, value), [])

    def draw(self, function, args, result):
        """A function without `out=` that draws random numbers."""
        self.draws.append(len(self.calls))
        self.note(_copy_result, (result, function, args), [result])
        return self.wrap(result)

    # what Traced arrays report

    def ufunc(self, ufunc, method, inputs, out, options):
        options.pop("subok", None)
        if method == "at":
            self.touch(inputs[:1])
            ufunc.at(*inputs)
            return self.note(ufunc.at, inputs, [inputs[0]])
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if out is not None:
            given = [o for o in out if o is not None]
            self.touch(given)
            result = function(*inputs, out=out if ufunc.nout > 1 else out[0], **options)
        else:
            result = function(*inputs, **options)
        results = tuple(map(asanyarray, result if isinstance(result, tuple) else (result,)))
        if out is None and len(results) == 1 and self.is_fixed((inputs, options)):
            return self._constant(results[0])
        if method == "__call__" and ufunc not in (np.maximum, np.minimum):  # those want a keyword
            self.note(function, (*inputs, *results), results, options)
        elif method == "reduce" and "initial" not in options and options.get("where", True) is True:
            axis, dtype = options.get("axis", 0), options.get("dtype")
            keepdims = options.get("keepdims", False)
            self.note(function, (*inputs, axis, dtype, *results, keepdims), results)
        else:
            self.note(function, inputs, results, {**options, "out": results})
        return self._results(results, out, isinstance(result, tuple))

    def _results(self, results, out, several):
        traced = tuple(
            self.wrap(r) if out is None or out[i] is None else observed(r)
            for i, r in enumerate(results)
        )
        return traced if several else traced[0]

    def function(self, function, args, options):
        """A function of NumPy that is no ufunc."""
        name = function.__name__
        if name in OF_SHAPES:
            return function(*plain(args), **plain(options))
        if name == "empty_like":
            return self.wrap(self.run(function, plain(args), plain(options)))
        if name in OF_DATA_SHAPE:
            raise RuntimeError(_shape_of_data(name))
        args, options = plain(args), plain(options)
        if name in IN_PLACE:
            return self.in_place(function, args, options)
        if name in ("zeros_like", "ones_like"):
            return self._constant(self.run(function, args, options))
        if options.get("out") is not None:
            self.touch([options["out"]])
            result = self.run(function, args, options)
            self.note(function, args, [options["out"]], options)
            return self.enter(result)
        if name in WITH_OUT:
            result = asanyarray(self.run(function, args, options))
            if any(root(result) is root(a) for a in arrays_in(args)):
                return observed(result)  # einsum("ij->ji", x)
            if self.is_fixed((args, options)):
                return self._constant(result)
            self.note(function, args, [result], {**options, "out": result})
            return self.wrap(result)
        return self.copying(function, args, options)

    def method(self, name, array, args, options):
        """A method of an array that copies or writes."""
        function = getattr(np.ndarray, name)
        original, array, args, options = array, plain(array), plain(args), plain(options)
        if name in OF_DATA_SHAPE or (name == "__getitem__" and _has_mask(args[0])):
            raise RuntimeError(_shape_of_data(name.strip("_")))
        if name in WRITING:
            return self.in_place(function, (array, *args), options)
        ordered = "order" in options or (name in ("ravel", "flatten") and args)
        if name in ("copy", "astype", "reshape", "ravel", "flatten") and not ordered:
            result = self.run(function, (array, *args), options)
            return self._moved(result, array, original)
        if name == "__getitem__":
            key = args[0] if isinstance(args[0], tuple) else (args[0],)
            if not isinstance(function(array, args[0]), np.ndarray) and ... not in key:
                args = ((*key, ...),)  # one number: as a view of it
        return self.copying(function, (array, *args), options)

    def create(self, function, args, options):
        """A function of NumPy that makes an array."""
        sources = list(arrays_in((args, options)))
        original = args[0] if args else None
        args, options = plain(args), plain(options)
        if function.__name__ == "empty":
            return self.wrap(self._empty(*args, **options))
        result = self.run(function, args, options)
        if sources and isinstance(args[0], np.ndarray):
            return self._moved(result, args[0], original)
        if sources:
            self.note(_copy_result, (result, function, args, options), [result])
            return self.wrap(result)
        return self._constant(result)

    def _empty(self, shape, dtype=float, **options):
        """Memory for an array from the beginning of a cache line, and not always at one place of a page.

        A processor takes a read for one of what it has just written if the last 12 bits of both
        addresses agree, and waits.
        """
        dtype = np.dtype(dtype)
        shape = shape if isinstance(shape, tuple | list) else (shape,)
        size = math.prod(shape) * dtype.itemsize
        if size < PAGE or options.get("order", "C") != "C" or dtype.hasobject:
            return self.run(empty, (shape, dtype), options)
        free = self._free.setdefault(size, [])
        if not free:
            block = empty(size + PAGE + LINE, np.uint8)
            start = -block.ctypes.data % LINE + len(self._contents) * 5 % (PAGE // LINE) * LINE
            free.append((block, start))
        block, start = free.pop()
        lent = block.view(_Lent)
        weakref.finalize(lent, free.append, (block, start)).atexit = False
        self._contents[id(block)] = block[start : start + size].view(dtype)
        return lent[start : start + size].view(np.ndarray).view(dtype).reshape(shape)

    def _in_blocks(self, value):
        """Arrays in a value as views of the blocks themselves, for whose sake nothing stays lent."""
        if isinstance(value, np.ndarray):
            block = root(value)
            if id(block) not in self._contents:
                return value
            offset = value.ctypes.data - block.ctypes.data
            view = np.ndarray(value.shape, value.dtype, block, offset, value.strides)
            view.flags.writeable = value.flags.writeable
            return view
        if type(value) in (tuple, list):
            return type(value)(map(self._in_blocks, value))
        return value

    def _constant(self, array):
        """A new array of numbers that are the same in every step."""
        self.constants.append(len(self.calls))
        traced, copy = self.wrap(array), array.copy()
        self.note(np.copyto, (array, copy), [array])
        self._fixed[id(root(array))] = array, copy
        return traced

    def is_fixed(self, value):
        """Whether all arrays in a value hold what they hold in every step."""
        roots = [id(root(array)) for array in arrays_in(value)]
        return all(key in self._fixed or key in self.tables for key in roots)

    def compiled(self, function, args, written, entry):
        """A compiled function. written: what it may write into; entry: how to call it directly."""
        args = plain(args)
        arrays = list(arrays_in(written))
        self.touch(arrays)
        result = self.run(function, args, {})
        direct = entry(args)
        if result is None:
            self.note(direct, args, arrays)
            return None
        results = result if isinstance(result, tuple) else (result,)
        if not all(isinstance(r, np.ndarray) for r in results):
            raise RuntimeError(
                f"capture: the compiled function {function.__name__} returned the number {result!r}, "
                "which would be the same in every replay; let it write into an array"
            )
        self.note(_copy_result, (result, direct, args), [*arrays, *results])
        traced = tuple(map(self.wrap, results))
        return traced if isinstance(result, tuple) else traced[0]

    # the forms of a call

    def run(self, function, args, options):
        """The call itself, on plain arrays."""
        with paused():
            return function(*args, **options)

    def in_place(self, function, args, options):
        fixed = self._fixed.get(id(root(args[0])))
        if fixed is not None and self.is_fixed((args, options)):
            self.run(function, args, options)
            np.copyto(fixed[1], fixed[0])
            return
        self.touch(args[:1])
        self.run(function, args, options)
        self.note(function, args, [args[0]], options)

    def copying(self, function, args, options):
        """A call whose results are views of its arguments, or new arrays to be copied from."""
        result = self.run(function, args, options)
        if isinstance(result, np.generic):
            result = asanyarray(result)
        parts = result if isinstance(result, tuple | list) else (result,)
        if not all(isinstance(p, np.ndarray) for p in parts):
            value = plain(result)
            self.guard(functools.partial(function, **options), args, value)
            return value
        old = {id(root(a)) for a in arrays_in((args, options))}
        new = [p for p in parts if id(root(p)) not in old]
        if new and len(parts) == 1 and parts[0] is result and self.is_fixed((args, options)):
            return self._constant(result)
        if new:
            self.note(_copy_result, (result, function, args, options), new)
        for part in new:
            self.wrap(part)
        traced = [observed(p) for p in parts]
        return type(result)(traced) if isinstance(result, tuple | list) else traced[0]

    def _moved(self, result, source, original):
        """A view of the source, or a copy of it in another order, shape or dtype."""
        if result is source and type(original) is Traced:
            return original
        if root(result) is root(source):
            return observed(result)
        if self.is_fixed(source):
            return self._constant(result)
        target = result if result.shape == source.shape else result.reshape(source.shape)
        self.note(np.copyto, (target, source, "unsafe"), [result])
        return self.wrap(result)

    # afterwards

    def found(self):
        """The arrays that the step uses and has not made."""
        constants = set(self.constants)
        calls = [args for i, (_, args) in enumerate(self.calls) if i not in constants]
        owners = {id(root(a)): root(a) for args in calls for a in arrays_in(args)}
        return [
            owner
            for key, owner in owners.items()
            if key not in self.made and key not in self.tables
        ]

    def calls_to_replay(self):
        """The calls, without those that fill an array with a constant that nothing overwrites."""
        constants = set(self.constants)
        written = {
            id(root(a)) for i, some in enumerate(self.writes) if i not in constants for a in some
        }
        return [
            call
            for i, call in enumerate(self.calls)
            if i not in constants or id(root(self.writes[i][0])) in written
        ]

    def poison(self):
        """Spoil all that the step made: NaN, or 0 where it is no float."""
        kept = {id(root(self.writes[i][0])) for i in self.constants} | set(self.inputs)
        for key, array in self.made.items():
            array = self._contents.get(key, array)
            if key not in kept and array.flags.writeable:
                array.fill(np.nan if array.dtype.kind == "f" else 0)


class _Lent(np.ndarray):
    """A block as the step has it: it goes when the step has no view of it any more.

    Of another class than its views, which NumPy would otherwise have refer to the block itself.
    """


def observed(array):
    """A plain array as a Traced one."""
    traced = array.view(Traced)
    traced.whole = array.base is None
    return traced


# functions whose answer does not depend on the numbers in an array
OF_SHAPES = {
    "broadcast_shapes", "can_cast", "iscomplexobj", "isrealobj", "may_share_memory", "min_scalar_type",
    "ndim", "result_type", "shape", "shares_memory", "size", "common_type",
}  # fmt: skip
OF_DATA_SHAPE = {
    "argwhere", "compress", "extract", "flatnonzero", "nonzero", "trim_zeros", "unique", "union1d",
    "intersect1d", "setdiff1d", "bincount", "histogram",
}  # fmt: skip
IN_PLACE = {"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"}
WRITING = {"fill", "partition", "put", "sort", "__setitem__"}
WITH_OUT = {"concatenate", "dot", "einsum", "stack"}


def arrays_in(value):
    """The arrays in a value, plain, through tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        yield plain(value)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from arrays_in(item)
    elif isinstance(value, dict):
        yield from arrays_in(list(value.values()))


def _has_mask(key):
    keys = key if isinstance(key, tuple) else (key,)
    return any(isinstance(k, np.ndarray) and k.dtype.kind == "b" for k in keys)


def _shape_of_data(name):
    return (
        f"capture: {name} gives an array whose shape depends on the numbers; a captured step needs "
        "the same shapes in every replay (tz.where keeps the shape)"
    )


# calls that a replay makes


def _check(function, args, value):
    if function(*args) != value:
        raise Diverged


def _copy_result(target, function, args, options=None):
    result = function(*args, **options) if options else function(*args)
    if isinstance(target, tuple | list):
        for some, new in zip(target, result, strict=True):
            np.copyto(some, new)
    else:
        np.copyto(target, result)


def _with_errors(errors, function, *args):
    with np.errstate(**errors):
        function(*args)


def _with_threads(threads, limit, function, *args):
    get, put = threads
    usual = get()
    put(limit)
    try:
        function(*args)
    finally:
        put(usual)


def tracing(trace):
    """Write a Trace inside `with tracing(trace):`, in this thread."""
    return _Tracing(trace)


class _Tracing:
    def __init__(self, trace):
        self.trace = trace

    def __enter__(self):
        current.trace = self.trace

    def __exit__(self, *exception):
        current.trace = None
