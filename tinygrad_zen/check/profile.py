"""Where the time of a step goes: by op, by kernel, by layer."""

import contextlib
import functools
import json
import os
import time
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from ..autograd import Watcher, watching
from ..backend import Backend
from . import work
from .peaks import peaks
from .places import Places

clock = time.perf_counter


@contextlib.contextmanager
def profile():
    """Time every op, gradient, optimizer step and kernel that runs inside the block, in this thread.

        with tz.profile() as p:
            for _ in range(10):
                step()
        print(p)                  # by op and kernel; p.table("layer"): by layer
        p.save("trace.json")      # for chrome://tracing or ui.perfetto.dev

    Gives a Profile. Run the step once before: the first call compiles kernels. What measuring itself
    costs is taken off, but for about a microsecond a call that the clock cannot see and the caches that
    it empties: of steps below a millisecond, trust the shares more than the sums. Off, it costs
    nothing. On a GPU it waits for the device after each kernel.
    """
    profiler = Profile()
    profiler.begin()
    try:
        with watching(profiler):
            yield profiler
    finally:
        profiler.end()


class Span(NamedTuple):
    """One call. what: forward, backward, update (an optimizer's) or kernel; op: inside which op.

    start: seconds since the profile began. length: seconds by the clock. seconds: without what
    measuring cost and what other ops spent that it called; kernels: those of them spent in kernels.
    flops: None where no formula is known. bytes: read and written at least. made: bytes of new arrays
    that it returned.
    """

    what: str
    op: str
    kernel: str
    layer: str
    start: float
    length: float
    seconds: float
    kernels: float
    flops: int | None
    bytes: int
    made: int


class KernelRow(NamedTuple):
    """All calls of a kernel in an op. gflops, gbytes: a second; share: of what the machine can do."""

    kernel: str
    calls: int
    seconds: float
    gflops: float | None
    gbytes: float
    share: float


class Row(NamedTuple):
    """All calls of an op, or of a layer's ops; seconds. calls: forward, or updates.

    outside: the part of the time that was not spent in kernels: Python, and array expressions of
    NumPy or CuPy. gbytes: a second, for an op without kernels. made: bytes of new arrays, results of
    ops and kernels (what an expression makes on its way is not seen). kernels: a KernelRow for each.
    """

    name: str
    calls: int
    seconds: float
    forward: float
    backward: float
    outside: float
    gbytes: float
    made: int
    kernels: list


class Profile(Watcher):
    """What `profile()` measured: print it, save() it, or read its rows.

    spans: every call, as it ended. seconds: the whole block, without what measuring cost.
    """

    def __init__(self):
        self.spans = []
        self.seconds = 0.0
        self._watching = False
        self._begun = self._spent = 0.0  # when it began; what measuring itself cost
        self._open = []  # the calls that are running, outermost first
        self._backends = {}  # id(Backend) -> (it, the same with timed kernels)
        self._kernels = {}  # id(kernels) -> (them, the same timed)
        self._places = Places()
        self._layers = weakref.WeakKeyDictionary()  # Node -> the layer that made it
        self._layer = ""
        self._xp = np  # the array library of the last op

    def begin(self):
        """Start the clock."""
        self._begun, self._watching = clock(), True

    def end(self):
        """Stop the clock; kernels in graphs that were made inside run on untimed."""
        self.seconds = clock() - self._begun - self._spent
        self._watching = False

    # what the engine calls; each notes first when it was entered, so that its own cost is taken off

    def call(self, fn, backend, arrays, options):
        entered = clock()
        self._layer = self._places.here().layer
        timed = self._timed(backend)
        run = functools.partial(fn, timed, *arrays, **options)
        return self._measure(entered, "forward", _name(fn), self._layer, arrays, run)

    def made(self, result, fn, args):
        entered = clock()
        if result.node is not None:
            self._layers[result.node] = self._layer
        self._spent += clock() - entered

    def vjp(self, node, i, vjp, g):
        entered = clock()
        layer = self._layers.get(node, "")
        run = functools.partial(vjp, g)
        return self._measure(entered, "backward", node.name, layer, [g], run)

    def step(self, update, kernels, *args):
        entered = clock()
        rule = type(getattr(update, "__self__", None)).__name__
        run = functools.partial(update, self._timed_kernels(kernels), *args)
        self._measure(entered, "update", f"{rule}.step", "", args[:2], run)

    # measuring

    def _measure(self, entered, what, op, layer, inputs, run):
        """run(), as a Span."""
        call, spent, out = _Open(op, layer), self._spent, None
        self._open.append(call)
        start = clock()
        try:
            out = run()
            return out
        finally:
            self._wait()
            length = clock() - start
            seconds = length - (self._spent - spent)
            self._open.pop()
            if self._open:
                self._open[-1].others += seconds
            results = out[0] if what == "forward" and out is not None else out
            made = call.made + _new_bytes(results, inputs, call.roots)
            moved = work.moved(results, inputs, in_place=what == "update")
            own, begun = seconds - call.others, start - self._begun
            self.spans.append(
                Span(what, op, "", layer, begun, length, own, call.kernels, None, moved, made)
            )
            self._spent = spent + clock() - entered - seconds

    def _kernel(self, name, kernel, *args):
        """A kernel's call, as a Span."""
        if not self._watching or not self._open:
            return kernel(*args)
        start = clock()
        result = kernel(*args)
        self._wait()
        seconds = clock() - start
        call = self._open[-1]
        call.kernels += seconds
        made = _new_bytes(result, args, call.roots)
        call.made += made
        flops, moved = work.flops(name, result, args), work.moved(result, args, name.endswith("_"))
        begun = start - self._begun
        self.spans.append(
            Span(
                "kernel", call.op, name, call.layer, begun, seconds, seconds, seconds, flops, moved, made
            )
        )  # fmt: skip
        self._spent += clock() - start - seconds
        return result

    def _wait(self):
        """Until the device has done what was asked of it."""
        if self._xp is not np:
            self._xp.cuda.Device().synchronize()

    def _timed(self, backend):
        """A backend whose kernels are timed."""
        self._xp = backend.xp
        if id(backend) not in self._backends:
            kernels = self._timed_kernels(backend.kernels)
            self._backends[id(backend)] = backend, Backend(backend.name, backend.xp, kernels)
        return self._backends[id(backend)][1]

    def _timed_kernels(self, kernels):
        """Kernels under the same names, timed; made once."""
        if id(kernels) not in self._kernels:
            timed = {
                name: functools.partial(self._kernel, name, kernel)
                for name, kernel in vars(kernels).items()
                if not name.startswith("_") and callable(kernel)
            }
            self._kernels[id(kernels)] = kernels, SimpleNamespace(**timed)
        return self._kernels[id(kernels)][1]

    # the report

    def rows(self, by="op"):
        """A Row for each op, or with by="layer" for each layer of the networks; the longest first."""
        if by not in ("op", "layer"):
            raise ValueError(f'rows: by must be "op" or "layer"; got {by!r}')
        peak = peaks(self._xp)
        groups = {}
        for span in self.spans:
            groups.setdefault(getattr(span, by), []).append(span)
        rows = [_row(name, spans, peak) for name, spans in groups.items()]
        return sorted(rows, key=lambda row: -row.seconds)

    def table(self, by="op"):
        """The rows as text; see Row and KernelRow for the columns."""
        peak, rows = peaks(self._xp), self.rows(by)
        spans = [s for s in self.spans if s.what != "kernel"]
        parts = {
            what: sum(s.seconds for s in spans if s.what == what)
            for what in ("forward", "backward", "update")
        }
        between = self.seconds - sum(parts.values())
        outside = sum(row.outside for row in rows)
        made = sum(row.made for row in rows)
        lines = [
            f"{_ms(self.seconds)} ms: forward {_ms(parts['forward'])}, backward {_ms(parts['backward'])}, "
            f"optimizer {_ms(parts['update'])}, between the ops {_ms(between)}; of all of it outside of "
            f"kernels {_ms(outside + between)}; new arrays {_size(made)}",
            f"peaks of this machine, float32: {peak.flops / 1e9:.0f} GFLOP/s, {peak.bytes / 1e9:.1f} GB/s",
            "",
            f"{by:32} {'calls':>6} {'ms':>9} {'forward':>9} {'backward':>9} {'outside':>9} "
            f"{'GFLOP/s':>8} {'GB/s':>7} {'of peak':>7} {'made':>8}",
        ]
        for row in rows:
            rate = "" if row.kernels else f"{row.gbytes:.1f}"
            lines.append(
                f"{row.name or '(no layer)':32} {row.calls:6} {_ms(row.seconds):>9} "
                f"{_ms(row.forward):>9} {_ms(row.backward):>9} {_ms(row.outside):>9} {'':>8} {rate:>7} "
                f"{'':>7} {_size(row.made):>8}"
            )
            for k in row.kernels:
                gflops = "" if k.gflops is None else f"{k.gflops:.1f}"
                lines.append(
                    f"  {k.kernel:30} {k.calls:6} {_ms(k.seconds):>9} {'':>9} {'':>9} {'':>9} "
                    f"{gflops:>8} {k.gbytes:7.1f} {k.share:7.0%}"
                )
        return "\n".join(line.rstrip() for line in lines)

    def __str__(self):
        return self.table()

    def save(self, path):
        """Write every call as a Chrome trace (JSON), which chrome://tracing and ui.perfetto.dev show."""
        events = [
            {
                "name": span.kernel or span.op,
                "cat": span.what,
                "ph": "X",  # a complete event: a start and a length, in microseconds
                "ts": span.start * 1e6,
                "dur": span.length * 1e6,
                "pid": os.getpid(),
                "tid": 0,
                "args": {
                    k: v
                    for k, v in span._asdict().items()
                    if k in ("op", "layer", "flops", "bytes", "made") and v not in (None, "")
                },
            }
            for span in sorted(self.spans, key=lambda span: span.start)
        ]
        document = {"traceEvents": events, "displayTimeUnit": "ms"}
        Path(path).write_text(json.dumps(document) + "\n", encoding="utf-8")


class _Open:
    """A call that is running."""

    def __init__(self, op, layer):
        self.op, self.layer = op, layer
        self.kernels = self.others = 0.0  # seconds in kernels, and in ops that it called
        self.made = 0
        self.roots = set()  # of the arrays that its kernels made


def _row(name, spans, peak):
    """The Row of spans that belong together."""
    kernels = {}
    for span in spans:
        if span.what == "kernel":
            kernels.setdefault(span.kernel, []).append(span)
    calls = [s for s in spans if s.what != "kernel"]
    time_of = {w: sum(s.seconds for s in calls if s.what == w) for w in ("forward", "backward")}
    seconds = sum(s.seconds for s in calls)
    return Row(
        name,
        sum(s.what != "backward" for s in calls),
        seconds,
        time_of["forward"],
        time_of["backward"],
        seconds - sum(s.kernels for s in calls),
        sum(s.bytes for s in calls) / max(seconds, 1e-9) / 1e9,
        sum(s.made for s in calls),
        sorted((_kernel_row(k, s, peak) for k, s in kernels.items()), key=lambda k: -k.seconds),
    )


def _kernel_row(name, spans, peak):
    seconds = max(sum(s.seconds for s in spans), 1e-9)
    known = all(s.flops is not None for s in spans)
    gflops = sum(s.flops for s in spans) / seconds / 1e9 if known else None
    least = sum(peak.roof(s.flops, s.bytes) for s in spans)
    moved = sum(s.bytes for s in spans)
    return KernelRow(name, len(spans), seconds, gflops, moved / seconds / 1e9, least / seconds)


def _new_bytes(results, inputs, roots):
    """Bytes of the results that share memory with no input, and with none of roots; roots grow."""
    known = {id(_root(a)) for a in work.arrays(_plain(inputs))} | roots
    size = 0
    for array in work.arrays(_plain(results)):
        root = id(_root(array))
        if root not in known:
            known.add(root)
            roots.add(root)
            size += array.nbytes
    return size


def _plain(values):
    """Tensors among values (with create_graph) as their arrays."""
    if isinstance(values, tuple | list):
        return [_plain(v) for v in values]
    return getattr(values, "data", values) if hasattr(values, "requires_grad") else values


def _root(array):
    """The array that owns the memory."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return array


def _name(fn):
    return fn.__name__.lstrip("_")


def _ms(seconds):
    return f"{seconds * 1e3:.3f}"


def _size(count):
    """Bytes in a unit that reads well."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
